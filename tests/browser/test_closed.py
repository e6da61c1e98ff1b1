"""What a browser defends, tried by attacks; and signing in, out and sharing as people do it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tornado_logs.tokens import Role, TokenFile

from .helpers import (
    DEADLINE_SECONDS,
    Server,
    finished_log,
    launch,
    launch_to_end,
    lines,
    open_log,
    overflow_px,
    search,
    serious,
    wait_for_line,
    wait_until,
)

SECRET = "what only those who are let in may read"


def tokens_of(server: Server) -> TokenFile:
    """The tokens of the server, which the first one closes."""
    return TokenFile(str(server.data_dir / ".access" / "tokens.json"))


def close(server: Server) -> dict[str, str]:
    """Close the server; a token for each role."""
    texts = {role.value: tokens_of(server).create(f"the {role}", role)[1] for role in Role}
    server.http.headers["Authorization"] = f"Bearer {texts['admin']}"
    return texts


def sign_in(page: Page, server: Server, token: str, path: str = "/") -> None:
    """Sign in as one who types it."""
    page.goto(f"{server.url}{path}")
    expect(page).to_have_url(re.compile("/login"))
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def count_of(server: Server) -> int:
    """How many deployments were ever started."""
    return len(list(server.data_dir.glob("*.log")))


# --- signing in and out


def test_one_signs_in_with_a_token_and_out_again(page: Page, server: Server) -> None:
    token = close(server)["operator"]
    page.goto(f"{server.url}/?q=a")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type("tl_nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This is no token of this server, or no longer.")
    expect(page.get_by_label("Token")).to_have_value("")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{server.url}/?q=a")
    expect(page.get_by_text("the operator")).to_be_visible()
    assert page.evaluate("document.cookie").count("=") == 1  # the session is no script's business
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{server.url}/login")
    page.goto(server.url)
    expect(page).to_have_url(re.compile("/login"))


def test_a_link_signs_in_and_leaves_its_token_nowhere(page: Page, server: Server) -> None:
    token = close(server)["viewer"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/login#{token}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page).to_have_url(f"{server.url}/")
    page.go_back()
    expect(page).not_to_have_url(re.compile(token))
    page.go_forward()
    assert not [url for url in asked if token in url.partition("#")[0]]
    page.goto(f"{server.url}/login#{token[:-1]}")
    expect(page.get_by_role("alert")).to_be_visible()
    assert token[:-1] not in page.url


def test_the_sign_in_leads_back_to_the_line_that_a_link_was_to(page: Page, server: Server) -> None:
    name = finished_log(server, "long", lines(2000))
    sign_in(page, server, close(server)["viewer"], f"/deployments/{name}#L1500-L1502")
    expect(page).to_have_url(f"{server.url}/deployments/{name}#L1500-L1502")
    wait_for_line(page, "1500")


@pytest.mark.parametrize("path", ["/", "/deployments/ID"])
def test_a_revoked_session_leads_to_the_sign_in_and_back(
    page: Page, server: Server, path: str
) -> None:
    deployment_id = launch(server, "echo first; sleep 60")
    close(server)
    text = tokens_of(server).create("short", Role.OPERATOR)[1]
    path = path.replace("ID", deployment_id)
    sign_in(page, server, text, path)
    expect(page.locator("#light")).to_have_text("Live")
    tokens_of(server).revoke("short")
    expect(page).to_have_url(re.compile("/login"), timeout=DEADLINE_SECONDS * 1000)
    page.get_by_label("Token").fill(tokens_of(server).create("next", Role.VIEWER)[1])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(server.url + path)
    expect(page.locator("#light")).to_have_text("Live")


# --- roles and links


def test_a_viewer_is_offered_nothing_that_he_may_not_do(page: Page, server: Server) -> None:
    running = launch(server, "echo begun; sleep 60")
    sign_in(page, server, close(server)["viewer"])
    expect(page.locator("#deployments .row")).to_have_count(1)
    expect(page.get_by_role("button", name="Run")).to_have_count(0)
    expect(page.get_by_role("button", name="New Deployment")).to_have_count(0)
    open_log(page, server, running)
    wait_for_line(page, "begun")
    for name in ("Stop", "Run again", "Share"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    refused = page.evaluate(
        """async path => (await fetch(path, { method: 'POST' })).status""",
        f"/deployments/{running}/stop",
    )
    assert refused == 403
    assert server.http.get(f"/deployments/{running}").json()["state"] == "running"


def test_a_shared_log_is_seen_live_by_whoever_has_the_link_and_nothing_else_is(
    browser: Browser, page: Page, server: Server
) -> None:
    other = launch_to_end(server, "echo other")
    running = launch(server, "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo more")
    sign_in(page, server, close(server)["operator"], f"/deployments/{running}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{server.url}/share#tls_")
    context = browser.new_context()
    guest = context.new_page()
    guest.goto(link)
    expect(guest).to_have_url(f"{server.url}/deployments/{running}")
    wait_for_line(guest, "begun")
    expect(guest.locator("#light")).to_have_text("Live")
    for name in ("Stop", "Run again", "Share", "Sign out"):
        expect(guest.get_by_role("button", name=name)).to_have_count(0)
    (server.data_dir.parent / "go").touch()
    wait_for_line(guest, "more")
    search(guest, "mor")
    expect(guest.locator(".search-status")).to_have_text("1 of 1")
    guest.go_back()
    assert "tls_" not in guest.url
    for path in ("/", f"/deployments/{other}"):
        guest.goto(server.url + path)
        expect(guest).to_have_url(re.compile("/login"))
    guest.goto(link[:-4])
    expect(guest.get_by_text("This link has expired, or isn't whole")).to_be_visible()
    guest.goto(f"{server.url}/share#")
    expect(guest.get_by_text("This link isn't whole")).to_be_visible()
    context.close()


# --- pages of others


class _Page(BaseHTTPRequestHandler):
    """An empty page, wherever one asks."""

    def do_GET(self) -> None:
        """Nothing in it."""
        body = b"<!doctype html><title>evil</title><body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def evil_port() -> Iterator[int]:
    """The port of a server of somebody else's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


ATTACK = """async ([victim, id, command]) => {
  const leaked = [];
  const soon = () => new Promise((resolve) => setTimeout(() => resolve("nothing"), 1500));
  const attempt = async (name, act) => {
    try {
      const found = await Promise.race([act(), soon()]);
      if (found !== undefined && found !== "nothing" && found !== "") {
        leaked.push(`${name}: ${String(found).slice(0, 200)}`);
      }
    } catch {}
  };
  const all = [];
  const paths = ["/", "/deployments", "/events", `/deployments/${id}`, `/logs/${id}`,
    `/logs/${id}/raw`, `/logs/${id}/lines`, "/login", "/audit"];
  for (const path of paths) {
    for (const mode of ["cors", "no-cors"]) {
      all.push(attempt(`fetch ${mode} ${path}`, async () =>
        (await fetch(victim + path, { mode, credentials: "include" })).text()));
    }
    all.push(attempt(`EventSource ${path}`, () => new Promise((resolve) => {
      const source = new EventSource(victim + path, { withCredentials: true });
      source.onopen = () => resolve("opened");
      source.onmessage = (event) => resolve(event.data);
    })));
    for (const tag of ["img", "script", "link", "object", "video"]) {
      all.push(attempt(`${tag} ${path}`, () => new Promise((resolve) => {
        const element = document.createElement(tag);
        element.onload = () => resolve(tag === "object" ? "" : "loaded");
        element.rel = "stylesheet";
        element[{ link: "href", object: "data" }[tag] ?? "src"] = victim + path;
        document.body.append(element);
      })));
    }
    all.push(attempt(`iframe ${path}`, () => new Promise((resolve) => {
      const frame = document.createElement("iframe");
      frame.onload = () => {
        try {
          resolve(frame.contentDocument?.body.textContent);
        } catch {
          resolve("");
        }
      };
      frame.src = victim + path;
      document.body.append(frame);
    })));
  }
  const json = JSON.stringify({ command });
  const form = new URLSearchParams({ command });
  const multipart = new FormData();
  multipart.set("command", command);
  const stop = `/deployments/${id}/stop`;
  for (const body of [json, form, multipart, new Blob([json], { type: "text/plain" })]) {
    for (const mode of ["cors", "no-cors"]) {
      for (const path of ["/deployments", stop, "/logout", `/deployments/${id}/share`]) {
        all.push(attempt(`post ${mode} ${path}`, async () => (await fetch(victim + path,
          { mode, method: "POST", body, credentials: "include" })).text()));
      }
    }
    navigator.sendBeacon(`${victim}/deployments`, body);
  }
  const headers = { "Content-Type": "application/json" };
  all.push(attempt("json", async () => (await fetch(`${victim}/deployments`,
    { method: "POST", body: json, credentials: "include", headers })).text()));
  await Promise.all(all);
  return leaked;
}"""

SUBMIT = """([action, fields]) => {
  const form = document.createElement("form");
  form.method = "post";
  form.action = action;
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    input.name = name;
    input.value = value;
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}"""


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("attacker", ["127.0.0.1", "localhost"], ids=["cross-site", "same-site"])
def test_a_page_of_another_site_reads_nothing_and_starts_nothing(
    browser: Browser, server: Server, evil_port: int, attacker: str, is_closed: bool
) -> None:
    running = launch(server, f"echo {SECRET}; sleep 100")
    victim = server.url.replace("127.0.0.1", "localhost")
    evil = f"http://{attacker}:{evil_port}"
    context = browser.new_context()
    context.set_default_timeout(DEADLINE_SECONDS * 1000)
    mine = context.new_page()
    if is_closed:
        mine.goto(f"{victim}/login#{close(server)['admin']}")
        expect(mine.get_by_role("button", name="Sign out")).to_be_visible()
    else:
        mine.goto(victim)  # so that there is an XSRF cookie to ride on
        expect(mine.get_by_role("button", name="Run", exact=True)).to_be_visible()
    page = context.new_page()
    page.goto(evil)
    assert page.evaluate(ATTACK, [victim, running, "touch was-run"]) == []

    with page.expect_popup() as popup:
        page.evaluate("url => { window.theirs = open(url); }", f"{victim}/deployments/{running}")
    popup.value.wait_for_load_state()
    seen = page.evaluate(
        """() => {
          try {
            return String(theirs.document.body.textContent);
          } catch (error) {
            return theirs.closed ? "" : error.name === "SecurityError" ? "" : error.name;
          }
        }"""
    )
    assert seen == ""
    assert popup.value.evaluate("window.opener") is None
    popup.value.close()

    cookie = next((c for c in context.cookies() if c["name"] == "_xsrf"), None)
    fields = {"command": "touch was-run", "_xsrf": cookie["value"] if cookie else ""}
    for path in ("/deployments", f"/deployments/{running}/stop", "/logout", "/login", "/share"):
        form = context.new_page()
        form.goto(evil)
        form.evaluate(SUBMIT, [victim + path, fields])
        expect(form).to_have_url(victim + path)
        expect(form.locator("h1")).to_have_text(re.compile("Forbidden|Unauthorized"))
        form.close()
    assert server.http.get(f"/deployments/{running}").json()["state"] == "running"
    assert count_of(server) == 1
    assert not (server.data_dir.parent / "was-run").exists()
    mine.reload()
    expect(mine.get_by_role("button", name="Run", exact=True)).to_be_visible()  # still signed in
    context.close()


def test_a_name_that_comes_to_lead_here_shows_nothing(browser: Browser, server: Server) -> None:
    """DNS rebinding: to the browser the attacker's name is one origin, whatever it leads to."""
    deployment_id = launch_to_end(server, f"echo {SECRET}")
    rebound = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--host-resolver-rules=MAP evil.test 127.0.0.1"],
    )
    page = rebound.new_page()
    url = server.url.replace("127.0.0.1", "evil.test")
    for path in ("/", "/deployments", f"/deployments/{deployment_id}", "/login"):
        answer = page.goto(url + path)
        assert answer is not None
        assert answer.status == 403
        assert SECRET not in page.content()
        started = page.evaluate(
            """async body => {
              const headers = { 'Content-Type': 'application/json' };
              return (await fetch('/deployments', { method: 'POST', headers, body })).status;
            }""",
            '{"command": "touch was-run"}',
        )
        assert started == 403
    rebound.close()
    assert count_of(server) == 1


# --- the pages themselves


def watch(page: Page) -> list[str]:
    """What the browser has to say against the page: of its policy, and as errors."""
    said: list[str] = []
    page.on("console", lambda entry: said.append(entry.text) if entry.type == "error" else None)
    page.expose_function("violated", lambda text: said.append(text))
    page.add_init_script(
        """addEventListener('securitypolicyviolation',
             (event) => violated(`${event.violatedDirective} ${event.blockedURI}`));"""
    )
    return said


def test_no_page_of_ours_breaks_its_own_policy(page: Page, server: Server) -> None:
    said = watch(page)
    text = '{"level": "warn", "message": "careful"}\nWARN slow\nERROR bad\n' * 50
    name = finished_log(server, "mixed", text.encode())
    sign_in(page, server, close(server)["operator"])
    page.get_by_label("Command").fill("echo hello")
    page.get_by_role("button", name="Run", exact=True).click()
    wait_for_line(page, "hello")
    open_log(page, server, name)
    expect(search(page, "slow")).to_have_text(re.compile("of 50"))
    page.get_by_role("button", name="Only matching lines").click()
    page.get_by_label("Times", exact=True).select_option("utc")
    page.get_by_role("button", name="Close the search").click()
    page.get_by_role("log").focus()
    page.keyboard.press("Control+A")
    page.keyboard.press("Control+C")
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Theme").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    page.goto(page.evaluate("navigator.clipboard.readText()"))
    expect(page).to_have_url(f"{server.url}/deployments/{name}")
    assert said == []
    page.goto(f"{server.url}/nothing")
    expect(page.get_by_role("heading", name="Not Found")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert [text for text in said if "404" not in text] == []


def test_a_script_that_got_into_a_page_does_not_run(page: Page, server: Server) -> None:
    said = watch(page)
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Nothing has run yet")).to_be_visible()
    page.evaluate(
        """() => {
          const add = (tag, fields) =>
            document.body.append(Object.assign(document.createElement(tag), fields));
          add('script', { textContent: 'window.ran = 1' });
          add('script', { src: 'data:text/javascript,window.ran = 2' });
          add('div', { innerHTML: '<img src="x" onerror="window.ran = 4">' });
          add('iframe', { srcdoc: '<script>parent.ran = 5</script>' });
          add('iframe', { src: 'javascript:parent.ran = 6' });
          add('a', { href: 'javascript:window.ran = 7', id: 'bad' });
          document.getElementById('bad').click();
          const base = add('base', { href: 'http://evil.test/' });
        }"""
    )
    wait_until(lambda: bool(page.evaluate("1")) and len(said) >= 5)
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.baseURI").startswith(server.url)
    for code in ("eval('window.ran = 8')", "new Function('window.ran = 9')()"):
        # As a module of ours would call it; the debugger's own evaluate may.
        page.evaluate("code => { setTimeout(code); }", code)
    assert page.evaluate("window.ran") is None


HOSTILE = [
    "<script>window.ran = 1</script>",
    '<img src=x onerror="window.ran = 2">',
    '"><svg onload=window.ran=3>',
    "</textarea></pre></script><script>window.ran = 4</script>",
    "\x1b]8;;javascript:window.ran=5\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]8;;JaVaScRiPt:window.ran=6\x07a link\x1b]8;;\x07",
    "\x1b]8;; javascript:window.ran=7\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]8;;java\tscript:window.ran=8\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]8;;data:text/html,<script>window.ran=9</script>\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]8;;vbscript:x\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]8;;file:///etc/passwd\x1b\\a link\x1b]8;;\x1b\\",
    '\x1b]8;;http://a.test/" onclick="window.ran=10\x1b\\a link\x1b]8;;\x1b\\',
    "\x1b]8;;blob:http://a.test/x\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]0;a title of mine\x07titled",
    "\x1b]2;a title of mine\x1b\\titled",
    "\x1b]52;c;ZXZpbA==\x07clipped",
    "\x1b]1337;File=inline=1:PHN2Zz4=\x07an image",
    "\x1bP+q544e\x1b\\asked",
    "\x1b[38;2;1;2;3;url(http://evil.test)mstyled",
    "javascript:window.ran=11 data:text/html,x",
    "{\"level\": \"error\", \"message\": \"<script>window.ran = 12</script>\"}",
    "::group::<img src=x onerror=window.ran=13>",
    "inside",
    "::endgroup::",
    "\u202etxt.exe\u202c",
    "the last line",
]  # fmt: skip


def test_nothing_in_a_log_is_anything_but_text(page: Page, server: Server) -> None:
    said = watch(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    name = finished_log(server, "hostile", "".join(f"{line}\n" for line in HOSTILE).encode())
    open_log(page, server, name)
    wait_for_line(page, "the last line")
    page.evaluate("navigator.clipboard.writeText('mine')")
    title = page.title()
    links = page.locator(".log-lines a").evaluate_all(
        "links => links.map(link => [link.getAttribute('href'), link.rel])"
    )
    for href, rel in links:
        assert re.match(r"https?://|#L\d+$", href), href
        if not href.startswith("#"):
            assert re.fullmatch(r"(noopener|noreferrer| )+", rel)
    for tag in ("script", "img", "iframe", "form", "object", "[onclick]", "[onload]", "[onerror]"):
        expect(page.locator(f".log-lines {tag}")).to_have_count(0)
    search(page, "ran")
    page.get_by_role("button", name="Close the search").click()
    for text in ("<script>window.ran = 1</script>", '<img src=x onerror="window.ran = 2">'):
        wait_for_line(page, text)
    assert page.evaluate("window.ran") is None
    assert page.title() == title
    assert "a title of mine" not in title
    assert page.evaluate("navigator.clipboard.readText()") == "mine"
    assert said == []


def test_no_name_and_no_request_is_anything_but_text(page: Page, server: Server) -> None:
    said = watch(page)
    evil = "</script><script>window.ran=1</script><img src=x onerror=window.ran=2>"
    launched = launch_to_end(server, f"true '{evil}'", name=evil, env={"A": evil})
    page.goto(f"{server.url}/?q={evil}")
    expect(page.locator("#deployments .row")).to_have_count(1)
    open_log(page, server, launched)
    expect(page.get_by_role("heading", name="window.ran")).to_be_visible()
    page.goto(f"{server.url}/deployments/{evil.replace('/', '%2f')}")
    page.goto(f"{server.url}/login?next=/{evil}")
    assert page.evaluate("window.ran") is None
    assert [text for text in said if "404" not in text] == []


# --- how they look


def small_context(browser: Browser) -> BrowserContext:
    """A phone."""
    return browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_where_one_signs_in(
    browser: Browser, server: Server, scheme: Any
) -> None:
    token = close(server)["operator"]
    deployment_id = launch_to_end(server, "echo a")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{server.url}/login")
    assert serious(page) == []
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    assert serious(page) == []
    page.goto(f"{server.url}/share#tls_x")
    expect(page.get_by_text("This link has expired")).to_be_visible()
    assert serious(page) == []
    page.goto(f"{server.url}/login#{token}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert serious(page) == []
    open_log(page, server, deployment_id)
    wait_for_line(page, "a")
    assert serious(page) == []
    context.close()


def test_a_phone_has_room_for_whoever_signs_in(browser: Browser, server: Server) -> None:
    close(server)
    name = "somebody with quite a long name indeed, as long as names may be"
    token = tokens_of(server).create(name, Role.OPERATOR)[1]
    deployment_id = launch(server, "echo a; sleep 60")
    context = small_context(browser)
    page = context.new_page()
    page.goto(f"{server.url}/login")
    expect(page.get_by_label("Token")).to_be_visible()
    assert overflow_px(page) == 0
    page.goto(f"{server.url}/login#{token}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    for path in ("/", f"/deployments/{deployment_id}", "/nothing"):
        page.goto(server.url + path)
        expect(page.get_by_role("button", name="Sign out")).to_be_in_viewport(ratio=1)
        assert overflow_px(page) == 0
    open_log(page, server, deployment_id)
    expect(page.get_by_role("button", name="Share")).to_be_in_viewport(ratio=1)
    context.close()
