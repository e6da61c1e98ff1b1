"""The page of one deployment: its log, live and exact, and what can be done with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from .helpers import (
    Server,
    copied_text,
    launch,
    launch_to_end,
    open_log,
    overflow_px,
    shown_text,
    stop,
    wait_for_line,
    wait_for_text,
    wait_until,
)

TICKER = 'i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo "line $i"; sleep {pause}; done'


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """One for all tests of this module: they leave it as it was, each beside its own logs."""
    return lasting_server


def ticker(lines: int, pause: float) -> str:
    """A command that writes numbered lines, one each `pause` seconds."""
    return TICKER.format(lines=lines, pause=pause)


def show_as_hidden(page: Page, hidden: bool) -> None:
    """Make the page believe that its tab is, or is not, in the background."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


def resting_place(page: Page) -> float:
    """Where the log is scrolled to, once it rests."""
    page.wait_for_function(
        """() => {
          const { scrollTop } = document.querySelector('[role=log]');
          const rests = window.lastScrollTop === scrollTop;
          window.lastScrollTop = scrollTop;
          return rests;
        }""",
        polling=100,
    )
    return float(page.evaluate("window.lastScrollTop"))


def distance_from_bottom(page: Page) -> float:
    """How many pixels of the log are below what is in sight."""
    return float(
        page.get_by_role("log").evaluate(
            "log => log.scrollHeight - log.scrollTop - log.clientHeight"
        )
    )


def test_a_finished_log_is_shown_exactly(page: Page, server: Server) -> None:
    """Blank lines, spaces and the last line without its newline are all there."""
    deployment_id = launch_to_end(server, r"printf 'one\n\n  two  \n\tthree\n\n\nlast'")
    open_log(page, server, deployment_id)
    wait_for_text(page, server.log(deployment_id).decode() + "\n")
    expect(page.locator("#light")).to_have_attribute("data-state", "ended")
    expect(page.locator("#state")).to_have_text("Succeeded")


def test_the_view_follows_until_the_reader_scrolls_up(page: Page, server: Server) -> None:
    """A pill counts what came since; one click and it follows again."""
    deployment_id = launch(server, f"seq 1 200; {ticker(100000, 0.05)}")
    open_log(page, server, deployment_id)
    wait_for_line(page, "line 3")
    pill = page.locator(".log-pill")
    expect(pill).to_be_hidden()
    wait_until(lambda: distance_from_bottom(page) <= 1)

    page.get_by_role("log").hover()
    page.mouse.wheel(0, -600)
    expect(pill).to_have_text(re.compile(r"^[1-9]\d* new lines?$"))
    place = resting_place(page)
    count = int((pill.text_content() or "0").split()[0])
    page.wait_for_function(
        "count => parseInt(document.querySelector('.log-pill').textContent) >= count",
        arg=count + 5,
    )
    assert resting_place(page) == place

    pill.click()
    expect(pill).to_be_hidden()
    wait_until(lambda: distance_from_bottom(page) <= 1)

    page.mouse.wheel(0, -600)
    expect(pill).to_be_visible()
    page.mouse.wheel(0, 100_000)
    expect(pill).to_be_hidden()
    stop(server, deployment_id)


def test_a_killed_server_costs_the_view_no_line_and_repeats_none(
    page: Page, server: Server
) -> None:
    """The command runs on, and the text in the view ends up as the file, byte for byte."""
    deployment_id = launch(server, ticker(250, 0.02))
    open_log(page, server, deployment_id)
    wait_for_line(page, "line 20")
    page.evaluate("window.neverReloaded = true")
    light = page.locator("#light")
    server.kill()
    expect(light).to_have_attribute("data-state", "reconnecting")
    server.start()
    expect(light).to_have_attribute("data-state", re.compile("live|ended"))
    expect(page.locator("#state")).to_have_text("Succeeded")
    expected = "".join(f"line {number}\n" for number in range(1, 251))
    assert server.log(deployment_id).decode() == expected
    wait_for_line(page, "line 250")
    assert copied_text(page) == expected
    assert page.evaluate("window.neverReloaded") is True


def test_a_hidden_tab_holds_no_connection_and_misses_nothing(
    page: Page, server: Server, tmp_path: Path
) -> None:
    """It goes on after the last line it has."""
    gate = tmp_path / "gate"
    deployment_id = launch(
        server, f"seq 1 50; while [ ! -e '{gate}' ]; do sleep 0.05; done; seq 51 100"
    )
    open_log(page, server, deployment_id)
    wait_for_line(page, "50")
    light = page.locator("#light")
    expect(light).to_have_attribute("data-state", "live")
    show_as_hidden(page, hidden=True)
    expect(light).to_have_attribute("data-state", "paused")
    gate.touch()
    server.wait_for_end(deployment_id)
    assert shown_text(page).endswith("50\n")
    show_as_hidden(page, hidden=False)
    wait_for_line(page, "100")
    assert copied_text(page) == server.log(deployment_id).decode()
    expect(page.locator("#state")).to_have_text("Succeeded")


def test_the_tab_tells_the_state(page: Page, server: Server) -> None:
    """Its title and icon change when the command ends."""
    deployment_id = launch(server, "sleep 600", name="tab state")
    open_log(page, server, deployment_id)
    icon = page.locator("link[rel=icon]")
    expect(page).to_have_title("Running · tab state")
    expect(icon).to_have_attribute("href", re.compile("running"))
    stop(server, deployment_id)
    expect(page).to_have_title("Stopped · tab state")
    expect(icon).to_have_attribute("href", re.compile("stopped"))


def test_stop_ends_the_command_and_says_who_did_it(page: Page, server: Server) -> None:
    """The button goes when there is nothing left to stop."""
    deployment_id = launch(server, "echo begun; sleep 600")
    open_log(page, server, deployment_id)
    wait_for_line(page, "begun")
    stop = page.get_by_role("button", name="Stop")
    stop.click()
    expect(page.locator("#state")).to_have_text("Stopped")
    expect(stop).to_be_hidden()
    expect(page.locator('[data-fact="Stopped by"]')).to_contain_text("127.0.0.1")


def test_stopping_is_said_at_once(page: Page, server: Server) -> None:
    """Also while the command takes its time over its end."""
    deployment_id = launch(server, "trap 'sleep 1; exit 0' TERM; echo begun; sleep 600 & wait")
    open_log(page, server, deployment_id)
    wait_for_line(page, "begun")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Stopping…")).to_be_disabled()
    expect(page.locator("#state")).to_have_text("Stopped")


def test_run_again_starts_the_same_command_on_a_new_page(page: Page, server: Server) -> None:
    """With all that was asked of it the first time."""
    first = launch(server, 'echo "$PWD $WORD"', name="again", cwd="/", env={"WORD": "hello"})
    server.wait_for_end(first)
    open_log(page, server, first)
    wait_for_line(page, "/ hello")
    page.get_by_role("button", name="Run again").click()
    page.wait_for_url(lambda url: "/deployments/" in url and not url.endswith(first))
    wait_for_line(page, "/ hello")
    expect(page.get_by_role("heading", name="again")).to_be_visible()
    expect(page.locator('[data-fact="cwd"]')).to_have_text("/")


def test_the_raw_download_equals_the_file(page: Page, server: Server, tmp_path: Path) -> None:
    """Byte for byte, whatever the bytes."""
    deployment_id = launch_to_end(server, r"printf 'a\r\nb\000c\377\033[31md\n'; seq 1 2000")
    open_log(page, server, deployment_id)
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Raw log").click()
    download = waiting.value
    assert download.suggested_filename == f"{deployment_id}.log"
    download.save_as(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == server.log(deployment_id)


def test_markup_in_a_log_stays_text(page: Page, server: Server) -> None:
    """No element comes of it, and no script runs."""
    nasty = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&lt;b&gt;'
    deployment_id = launch_to_end(
        server, f"echo '{nasty}'; printf '\\033[1m%s\\033[0m\\n' '{nasty}'"
    )
    open_log(page, server, deployment_id)
    wait_for_text(page, f"{nasty}\n{nasty}\n")
    assert page.evaluate("window.hacked") is None
    expect(page.locator(".log-lines").locator("img, script, b")).to_have_count(0)
    expect(page.locator("#title").locator("img, script, b")).to_have_count(0)


def test_colours_are_shown_and_outlast_their_line(page: Page, server: Server) -> None:
    """The sixteen by class, all others as they were asked for."""
    script = r"""printf '\033[31mred\nstill red\033[0m plain\n\033[38;2;1;2;3mexact\033[0m\n'"""
    deployment_id = launch_to_end(server, script)
    open_log(page, server, deployment_id)
    wait_for_text(page, "red\nstill red plain\nexact\n")
    expect(page.locator(".ansi-red-fg")).to_have_text(["red", "still red"])
    expect(page.get_by_text("exact", exact=True)).to_have_css("color", "rgb(1, 2, 3)")


def test_links_lead_to_the_web_alone(page: Page, server: Server) -> None:
    """An OSC 8 link of any other scheme is its text."""
    link = r"\033]8;;%s\033\\%s\033]8;;\033\\\n"
    script = f"printf '{link}' https://example.org/ docs 'javascript:alert(1)' trap"
    deployment_id = launch_to_end(server, script)
    open_log(page, server, deployment_id)
    wait_for_text(page, "docs\ntrap\n")
    links = page.locator(".log-text a")
    expect(links).to_have_count(1)
    expect(links).to_have_attribute("href", "https://example.org/")
    expect(links).to_have_attribute("rel", re.compile("noopener"))


def test_a_progress_bar_is_one_live_line(page: Page, server: Server, tmp_path: Path) -> None:
    """It moves in place, and only what it came to stays."""
    gate = tmp_path / "gate"
    script = (
        "echo start; i=0; while [ ! -e '%s' ]; do i=$((i+1)); printf '\\rstep %%d' $i; "
        "sleep 0.05; done; printf '\\rdone    \\n'"
    )
    deployment_id = launch(server, script % gate)
    open_log(page, server, deployment_id)
    partial = page.locator(".log-partial")
    expect(partial).to_have_text(re.compile(r"^step \d+$"))
    seen = partial.text_content() or ""
    expect(partial).not_to_have_text(seen)
    assert shown_text(page) == "start\n"
    expect(partial).to_have_attribute("data-number", "2")
    gate.touch()
    expect(page.locator("#state")).to_have_text("Succeeded")
    expect(partial).to_be_hidden()
    expect(page.locator(".log-lines .log-line")).to_have_count(2)
    expect(page.locator(".log-lines .log-line").last).to_have_text("done")


def test_a_flood_keeps_the_page_small_and_its_numbers_true(page: Page, server: Server) -> None:
    """The view drops the oldest rows, and every row stands by its own number."""
    deployment_id = launch(server, "seq 1 300000")
    open_log(page, server, deployment_id)
    wait_for_line(page, "300000")
    rows = page.locator(".log-lines").evaluate(
        """lines => [...lines.querySelectorAll('.log-line')].map(
          row => [row.dataset.number, row.textContent.trim()])"""
    )
    assert len(rows) <= 300
    assert [number for number, _ in rows] == [text for _, text in rows]
    assert int(rows[-1][0]) - int(rows[0][0]) == len(rows) - 1
    assert distance_from_bottom(page) <= 1


def test_lines_beyond_the_view_are_loaded_when_the_reader_wants_them(
    page: Page, server: Server, tmp_path: Path
) -> None:
    """While a reader looks at old lines a flood is only counted."""
    gate = tmp_path / "gate"
    deployment_id = launch(
        server, f"seq 1 500; while [ ! -e '{gate}' ]; do sleep 0.05; done; seq 501 60000; sleep 600"
    )
    open_log(page, server, deployment_id)
    wait_for_line(page, "500")
    page.get_by_role("log").hover()
    page.mouse.wheel(0, -600)
    pill = page.locator(".log-pill")
    expect(pill).to_be_visible()
    gate.touch()
    expect(pill).to_have_text("59,500 new lines")
    assert page.locator(".log-lines .log-line").count() <= 300
    pill.click()
    wait_for_line(page, "60000")
    expect(pill).to_be_hidden()
    stop(server, deployment_id)
    expect(page.locator("#state")).to_have_text("Stopped")


def test_what_is_copied_is_the_log_without_numbers(page: Page, server: Server) -> None:
    """Blank lines and leading spaces included."""
    text = "one\n\n  two\n\n\nthree\n"
    deployment_id = launch_to_end(
        server, "printf 'one\\n\\n  two\\n\\n\\n\\033[31mthree\\033[0m\\n'"
    )
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_log(page, server, deployment_id)
    wait_for_text(page, text)
    page.get_by_role("log").click()
    page.keyboard.press("Control+A")
    page.keyboard.press("Control+C")
    assert page.evaluate("navigator.clipboard.readText()") == text


def test_a_deployment_deleted_while_it_is_read_is_told(page: Page, server: Server) -> None:
    """What was loaded stays; nothing is tried for ever."""
    deployment_id = launch(server, "echo kept; sleep 15")
    open_log(page, server, deployment_id)
    wait_for_line(page, "kept")
    for path in server.data_dir.glob(f"{deployment_id}.*"):
        path.unlink()
    expect(page.locator("#light")).to_have_attribute("data-state", "gone")
    expect(page.locator("#notices")).to_contain_text("deleted")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    wait_for_line(page, "kept")


def test_what_was_loaded_stays_though_a_reset_comes_first(page: Page, server: Server) -> None:
    """Its files go one after the other: between the first and the last it looks like another."""
    deployment_id = launch(server, "echo kept; sleep 15")

    def delete_and_reset(route: Route) -> None:
        for path in server.data_dir.glob(f"{deployment_id}.*"):
            path.unlink()
        body = "event: reset\nid: 00000000-0\ndata: {}\n\n"
        route.fulfill(content_type="text/event-stream", body=body)

    wait_until(lambda: server.log(deployment_id) == b"kept\n")
    page.route(re.compile(rf"/logs/{deployment_id}\?"), delete_and_reset, times=1)
    open_log(page, server, deployment_id)
    expect(page.locator("#light")).to_have_attribute("data-state", "gone")
    wait_for_line(page, "kept")


def test_what_was_loaded_stays_though_the_log_is_emptied_first(page: Page, server: Server) -> None:
    """As `shred -u` does: the log begins anew, with nothing, and is deleted then."""
    path = server.data_dir / "shredded.log"
    path.write_text("kept\n")
    open_log(page, server, "shredded")
    wait_for_line(page, "kept")
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    path.write_text("")
    path.unlink()
    expect(page.locator("#light")).to_have_attribute("data-state", "gone")
    wait_for_line(page, "kept")


def test_an_unknown_deployment_has_a_page_that_leads_back(page: Page, server: Server) -> None:
    """With a sentence, not a stack trace."""
    answer = page.goto(f"{server.url}/deployments/20200101-000000-aaaaaa")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_text("20200101-000000-aaaaaa")).to_be_visible()
    page.get_by_role("link", name="All deployments").click()
    expect(page.get_by_role("heading", name="Deployments")).to_be_visible()


def test_a_log_that_was_replaced_is_shown_anew(page: Page, server: Server) -> None:
    """Nothing of the old one is left among the new lines."""
    path = server.data_dir / "replaced.log"
    with path.open("w") as writer:
        writer.write("old one\nold two\n")
        writer.flush()
        open_log(page, server, "replaced")
        wait_for_text(page, "old one\nold two\n")
        writer.seek(0)
        writer.truncate()
        writer.write("new\n")
        writer.flush()
        wait_for_text(page, "new\n")


def test_a_log_that_is_emptied_is_shown_empty(page: Page, server: Server) -> None:
    path = server.data_dir / "emptied.log"
    path.write_text("old one\n")
    open_log(page, server, "emptied")
    wait_for_text(page, "old one\n")
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    path.write_text("")
    wait_for_text(page, "")


def test_of_a_log_that_was_replaced_by_a_far_longer_one_nothing_old_is_left(
    page: Page, server: Server
) -> None:
    """Though the page goes to its end at once, before any line of it has come."""
    path = server.data_dir / "far.log"
    path.write_text("".join(f"old {n}\n" for n in range(1, 1001)))

    def replace_and_reset(route: Route) -> None:
        path.write_text("".join(f"new {n}\n" for n in range(1, 200_001)))
        body = "event: reset\nid: 00000000-0\ndata: {}\n\n"
        route.fulfill(content_type="text/event-stream", body=body)

    def tell_only_before(route: Route) -> None:
        if path.read_bytes().startswith(b"new"):
            route.abort()
        else:
            route.continue_()

    page.route("**/deployments/far", tell_only_before)
    page.route(re.compile(r"/logs/far\?"), replace_and_reset, times=1)
    open_log(page, server, "far")
    wait_for_line(page, "new 200000")
    page.evaluate("location.hash = '#L600'")  # which was loaded of the old one
    wait_for_line(page, "new 600")
    assert "old" not in shown_text(page)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_command_stands_once_however_long_it_is(page: Page, server: Server, width: int) -> None:
    """As the title where it has no other name, which a button unfolds; else below the name."""
    page.set_viewport_size({"width": width, "height": 844})
    command = f"true unmistakable\ntrue {'long ' * 80}\ntrue end"
    open_log(page, server, launch_to_end(server, command))
    title, whole = page.locator("#title"), page.get_by_role("button", name="The whole command")
    expect(title).to_contain_text("true unmistakable true long")
    height = title.evaluate("title => title.offsetHeight")
    assert page.locator("main").inner_text().count("unmistakable") == 1
    whole.click()
    expect(whole).to_have_attribute("aria-expanded", "true")
    assert title.evaluate("title => title.textContent") == command
    assert title.evaluate("title => title.offsetHeight") > height
    assert page.locator("main").inner_text().count("unmistakable") == 1
    whole.click()
    assert title.evaluate("title => title.offsetHeight") == height

    open_log(page, server, launch_to_end(server, command, name="Its name"))
    expect(title).to_have_text("Its name")
    expect(whole).to_be_hidden()
    assert page.locator("#command").inner_text() == command
    assert page.locator("main").inner_text().count("unmistakable") == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_deployment_fits_its_window(
    browser: Browser, server: Server, width: int
) -> None:
    """However long a command or a line is."""
    deployment_id = launch_to_end(server, f"echo {'x' * 3000}; : {'y' * 300}; exit 7")
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    open_log(page, server, deployment_id)
    wait_for_line(page, "x" * 3000)
    assert overflow_px(page) == 0
    log = page.get_by_role("log")
    assert log.evaluate("log => log.scrollWidth - log.clientWidth") == 0
    context.close()


def test_the_page_says_nothing_to_the_console(page: Page, server: Server) -> None:
    """No error and no warning from the first line to the end."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    deployment_id = launch(server, ticker(20, 0.05))
    open_log(page, server, deployment_id)
    expect(page.locator("#state")).to_have_text("Succeeded")
    wait_for_line(page, "line 20")
    assert said == []


def test_the_pages_need_nothing_that_a_strict_policy_forbids(page: Page, server: Server) -> None:
    """They work under `default-src 'self'`: no inline script, no inline style."""
    page.route(
        "**/deployments/*",
        lambda route: route.fulfill(
            response=(answer := route.fetch()),
            headers={**answer.headers, "content-security-policy": "default-src 'self'"},
        ),
    )
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    deployment_id = launch_to_end(server, r"printf '\033[38;2;1;2;3mexact\033[0m\n'")
    open_log(page, server, deployment_id)
    wait_for_line(page, "exact")
    expect(page.get_by_text("exact", exact=True)).to_have_css("color", "rgb(1, 2, 3)")
    assert said == []
