"""nginx and Caddy before the server, with the settings that docs/reverse-proxy.md gives."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import WAIT_SECONDS, Server, free_port, wait_for
from returning_viewer import Viewer
from sse_client import Stream, lines_of, open_stream, read_events

PAGE = (Path(__file__).parent.parent / "docs" / "reverse-proxy.md").read_text()
NAME = "logs.example.com"
CLIENT = "127.0.0.3"  # where the proxy's clients are
STRANGER = "127.0.0.2"  # an address that the server doesn't trust
USERS = {"alice": "admin", "bob": "operator", "carol": "viewer"}


def block(language: str) -> str:
    """The one fenced block of this language on the page."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def fill(text: str, places: dict[str, str]) -> str:
    """The page's text with what this machine has in place of the example; all of it is there."""
    for example, real in places.items():
        assert example in text
        text = text.replace(example, real)
    return text


def program(name: str) -> str:
    """Where it is; Debian keeps servers where not everybody looks."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
    assert path is not None, f"{name} is missing: sh .ci/need {name}"
    return path


def output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True)
    return done.stdout.strip()


def password(user: str) -> str:
    return f"the password of {user}"


class Proxy:
    """A proxy in a process of its own, before a server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.port = free_port()
        self.plain_port = free_port()
        self.host = f"{NAME}:{self.port}"
        self.origin = f"https://{self.host}"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What runs it in the foreground, with its own configuration alone."""
        raise NotImplementedError

    def configure(self) -> None:
        """Write that configuration, from the page."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with open(self.folder / "stderr", "ab") as stderr:
            homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(self.folder))
            self._process = subprocess.Popen(
                self.command(), stdout=stderr, stderr=stderr, env={**os.environ, **homes}
            )
        wait_for(self._listens, f"the proxy: {(self.folder / 'stderr').read_text()}")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "stderr").read_text()
        with contextlib.suppress(httpx.TransportError), httpx.Client(timeout=WAIT_SECONDS) as http:
            http.get(f"http://127.0.0.1:{self.plain_port}/")
            return True
        return False

    def stop(self) -> None:
        """End it, and whatever goes by it."""
        if self._process is not None:
            process, self._process = self._process, None
            process.terminate()
            try:
                process.wait(WAIT_SECONDS)
            finally:
                process.kill()
                process.wait()

    def client(self, user: str | None = None, **headers: str) -> httpx.Client:
        """Somebody who comes by the proxy, with the certificate checked."""
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            auth=(user, password(user)) if user else None,
            headers={"Host": self.host, **headers},
            transport=httpx.HTTPTransport(
                verify=ssl.create_default_context(cafile=self.folder / "cert.pem"),
                local_address=CLIENT,
            ),
            event_hooks={"request": [_name_the_server]},
            timeout=WAIT_SECONDS,
        )

    @contextlib.contextmanager
    def page_of(self, user: str, path: str = "/") -> Iterator[httpx.Client]:
        """A page of the server in a browser: it says so, and has the cookie against forgery."""
        headers = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"}
        with self.client(user, **headers) as http:
            assert http.get(path, headers={"Accept": "text/html"}).status_code == 200
            yield http


def _name_the_server(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = NAME


class Nginx(Proxy):
    """nginx with the page's settings, its files in a folder of its own."""

    def command(self) -> list[str]:
        """See `Proxy.command`."""
        return [program("nginx"), "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]

    def configure(self) -> None:
        """See `Proxy.configure`."""
        lines = [f"{user}:{output_of('openssl', 'passwd', '-6', password(user))}" for user in USERS]
        (self.folder / "htpasswd").write_text("\n".join(lines) + "\n")
        self.write_main(
            fill(
                block("nginx"),
                {
                    "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
                    "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
                    "/etc/ssl/logs.example.com.pem": f"{self.folder}/cert.pem",
                    "/etc/ssl/logs.example.com.key": f"{self.folder}/cert.key",
                    "/etc/nginx/tornado-logs.htpasswd": f"{self.folder}/htpasswd",
                    "http://127.0.0.1:5000": self.server.url,
                },
            )
        )

    def write_main(self, servers: str) -> None:
        """What stands around the page's settings; else nginx has its defaults."""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        user = "user root;\n" if os.geteuid() == 0 else ""  # the folders of tests are private
        (self.folder / "nginx.conf").write_text(
            f"{user}daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{folders}{servers}}}\n"
        )


class Caddy(Proxy):
    """Caddy with the page's settings, its files in a folder of its own, and our certificate."""

    def command(self) -> list[str]:
        """See `Proxy.command`."""
        return [program("caddy"), "run", "--config", str(self.folder / "Caddyfile")]

    def configure(self) -> None:
        """See `Proxy.configure`."""
        (example,) = re.findall(r"^ +(alice \S+)$", block("caddyfile"), re.MULTILINE)
        hashes = [
            f"{user} {output_of(program('caddy'), 'hash-password', '--plaintext', password(user))}"
            for user in USERS
        ]
        site = fill(
            block("caddyfile"),
            {
                "grace_period 5s": "grace_period 1s\n    admin off\n"
                "    auto_https disable_redirects",
                "logs.example.com {": f"{self.origin} {{\n    bind 127.0.0.1\n"
                f"    tls {self.folder}/cert.pem {self.folder}/cert.key",
                example: "\n".join(hashes),
                "127.0.0.1:5000": f"127.0.0.1:{self.server.port}",
            },
        )
        (self.folder / "Caddyfile").write_text(
            f"{site}http://127.0.0.1:{self.plain_port} {{\n    respond 204\n}}\n"
        )


PROXIES: dict[str, type[Proxy]] = {"nginx": Nginx, "caddy": Caddy}


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A server with the page's settings, and a proxy before it with the page's too."""
    folder = tmp_path_factory.mktemp(request.param)
    server = Server(folder, block("toml"))
    server.start()
    server.http.headers["X-Remote-User"] = "alice"  # for what tests ask it beside the proxy
    found = PROXIES[request.param](folder, server)
    make_certificate(folder)
    try:
        found.configure()
        found.start()
        yield found
    finally:
        found.stop()
        server.close()


def make_certificate(folder: Path) -> None:
    """One for the name, signed by itself."""
    output_of(
        *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-addext", f"subjectAltName=DNS:{NAME}"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        *("-keyout", f"{folder}/cert.key", "-out", f"{folder}/cert.pem"),
    )


# --- live and whole


STEPS = "for i in 1 2 3; do until [ -e {folder}/{mark}$i ]; do sleep 0.02; done; echo line $i; done"


def steps(proxy: Proxy, mark: str) -> tuple[str, Callable[[int], None]]:
    """A deployment that says a line each time it may; its id, and what lets it."""
    deployment_id = proxy.server.deploy(STEPS.format(folder=proxy.folder, mark=mark))["id"]
    return deployment_id, lambda number: (proxy.folder / f"{mark}{number}").touch()


def assert_lines_come_one_by_one(stream: Stream, allow: Callable[[int], None]) -> None:
    for number in (1, 2, 3):
        assert len(stream.lines) == number - 1
        allow(number)
        stream.wait_for_lines(number)
    stream.read_to_end()
    assert stream.lines == ["line 1", "line 2", "line 3"]


def test_each_event_comes_when_its_line_is_written(proxy: Proxy) -> None:
    deployment_id, allow = steps(proxy, "event")
    with proxy.client("carol") as http, open_stream(http, f"/logs/{deployment_id}") as stream:
        assert_lines_come_one_by_one(stream, allow)


def test_text_comes_when_it_is_written(proxy: Proxy) -> None:
    deployment_id, allow = steps(proxy, "text")
    with (
        proxy.client("carol", Accept="text/plain") as http,
        http.stream("GET", f"/logs/{deployment_id}") as answer,
    ):
        pieces = answer.iter_raw()
        for number in (1, 2, 3):
            allow(number)
            assert next(pieces) == f"line {number}\n".encode()
        assert list(pieces) == []


def test_a_post_that_streams_is_live_too(proxy: Proxy) -> None:
    def allow(number: int) -> None:
        (proxy.folder / f"post{number}").touch()

    command = STEPS.format(folder=proxy.folder, mark="post")
    with (
        proxy.client("bob") as http,
        open_stream(http, "/deployments", method="POST", json={"command": command}) as stream,
    ):
        assert_lines_come_one_by_one(stream, allow)


def test_the_changes_of_the_list_come_when_they_happen(proxy: Proxy) -> None:
    with proxy.client("carol") as http, open_stream(http, "/events") as stream:
        stream.wait(lambda: stream.raw, "the first bytes")
        deployment_id = proxy.server.deploy("true")["id"]
        assert stream.wait_for_event("deployment").json()["id"] == deployment_id


def test_a_long_log_is_the_same_by_every_way(proxy: Proxy) -> None:
    deployment_id = proxy.server.deploy("seq 1 200000")["id"]
    proxy.server.wait_for_end(deployment_id)
    expected = [str(number) for number in range(1, 200_001)]
    with proxy.client("carol") as http:
        raw = http.get(f"/logs/{deployment_id}/raw")
        assert raw.content == proxy.server.log(deployment_id)
        rest = http.get(f"/logs/{deployment_id}/raw", headers={"Range": "bytes=1000000-"})
        assert rest.status_code == 206
        assert rest.content == raw.content[1_000_000:]
        whole = read_events(http, f"/logs/{deployment_id}?batch=1")
        assert lines_of(whole) == expected
        middle = next(event for event in whole if "100000" in event.data.split("\n"))
        after = read_events(
            http, f"/logs/{deployment_id}?batch=1", last_event_id=middle.last_event_id
        )
        assert lines_of(after) == expected[-len(lines_of(after)) :]
        assert lines_of(after)[0] == str(int(middle.data.split("\n")[-1]) + 1)


def test_a_proxy_that_is_restarted_costs_its_viewers_nothing(proxy: Proxy) -> None:
    command = (
        f"for i in $(seq 1 500); do echo $i; done; until [ -e {proxy.folder}/over ]; "
        "do sleep 0.02; done; for i in $(seq 501 1000); do echo $i; done"
    )
    deployment_id = proxy.server.deploy(command)["id"]
    with proxy.client("carol") as http:
        with open_stream(http, f"/logs/{deployment_id}") as stream:
            lines = list(stream.wait_for_lines(500))
            proxy.stop()
            with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                stream.wait(lambda: stream.closed, "the end of the connection")
            assert not stream.of_type("end")
        with pytest.raises(httpx.ConnectError):
            http.get("/deployments")
        (proxy.folder / "over").touch()
        proxy.server.wait_for_end(deployment_id)
        proxy.start()
        lines += lines_of(
            read_events(http, f"/logs/{deployment_id}", last_event_id=stream.parser.last_event_id)
        )
    assert lines == [str(number) for number in range(1, 1001)]


def test_many_logs_go_by_one_connection_of_http_2(proxy: Proxy) -> None:
    deployment_id, allow = steps(proxy, "two")
    for number in (1, 2, 3):
        allow(number)
    url = f"{proxy.origin}/logs/{deployment_id}"
    done = subprocess.run(
        [
            *("curl", "--http2", "--silent", "--no-buffer", "--user", f"carol:{password('carol')}"),
            *("--resolve", f"{proxy.host}:127.0.0.1", "--cacert", str(proxy.folder / "cert.pem")),
            *("--parallel", "--parallel-max", "10", "-H", "Accept: text/plain"),
            *("-w", "version %{http_version} connects %{num_connects}\n", *[url] * 10),
        ],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.stdout.count("line 3\n") == 10, done
    assert done.stdout.count("version 2 ") == 10
    assert sum(map(int, re.findall(r"connects (\d)", done.stdout))) == 1


# --- users


def test_a_page_may_start_and_stop(proxy: Proxy) -> None:
    with proxy.page_of("bob") as page:
        by_json = page.post("/deployments", json={"command": "sleep 1000"})
        assert by_json.status_code == 201
        form = {"command": "true", "_xsrf": page.cookies["_xsrf"]}
        assert page.post("/deployments", data=form).status_code == 201
        deployment_id = by_json.json()["id"]
        stopped = page.post(
            f"/deployments/{deployment_id}/stop", data={"_xsrf": page.cookies["_xsrf"]}
        )
        assert stopped.status_code == 202
    record = proxy.server.wait_for_end(deployment_id)
    assert record["state"] == "stopped"
    assert record["requested_by"] == {
        "address": CLIENT,
        "user": "bob",
        "role": "operator",
        "via": "proxy",
    }


@pytest.mark.parametrize(
    "origin",
    ["https://evil.com", f"https://{NAME}", "http://HOST", "https://HOST.evil.com", "null"],
)
def test_another_page_can_start_nothing(proxy: Proxy, origin: str) -> None:
    before = count(proxy)
    headers = {"Origin": origin.replace("HOST", proxy.host)}
    with proxy.client("bob") as http:
        answer = http.post("/deployments", json={"command": "true"}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]
    assert count(proxy) == before


def count(proxy: Proxy) -> int:
    return len(list(proxy.server.data_dir.glob("*.log")))


@pytest.mark.parametrize("user", USERS)
def test_a_user_has_the_role_that_the_config_says(proxy: Proxy, user: str) -> None:
    role = USERS[user]
    with proxy.client(user) as http:
        assert http.get("/deployments").status_code == 200
        started = http.post("/deployments", json={"command": "true"})
        assert started.status_code == (403 if role == "viewer" else 201)
        assert http.get("/audit").status_code == (200 if role == "admin" else 403)


def test_nobody_comes_in_without_a_password(proxy: Proxy) -> None:
    with proxy.client() as http:
        assert http.get("/deployments").status_code == 401
        assert http.get("/deployments", auth=("alice", "wrong")).status_code == 401
        assert http.get("/deployments", auth=("nobody", password("alice"))).status_code == 401
        claimed = {"X-Remote-User": "alice"}
        assert http.get("/deployments", headers=claimed).status_code == 401


@pytest.mark.parametrize(
    "name", ["X-Remote-User", "x-remote-user", "X-REMOTE-USER", "X_Remote_User"]
)
def test_a_user_who_says_to_be_another_stays_who_they_are(proxy: Proxy, name: str) -> None:
    lies = {name: "alice", "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http"}
    with proxy.client("bob", **lies) as http:
        assert http.get("/audit").status_code == 403
        by = http.post("/deployments", json={"command": "true"}).json()["requested_by"]
    assert by == {"address": CLIENT, "user": "bob", "role": "operator", "via": "proxy"}


def test_what_a_proxy_says_is_not_believed_from_elsewhere(proxy: Proxy) -> None:
    before = count(proxy)
    lies = {
        "X-Remote-User": "alice",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Real-IP": "127.0.0.1",
        "Forwarded": "for=127.0.0.1",
    }
    with httpx.Client(
        base_url=proxy.server.url,
        headers=lies,
        transport=httpx.HTTPTransport(local_address=STRANGER),
    ) as http:
        for path in ("/deployments", "/audit", "/events"):
            assert http.get(path).status_code == 401
        assert http.post("/deployments", json={"command": "true"}).status_code == 401
    assert count(proxy) == before


def test_a_session_by_the_proxy_is_for_https_alone(proxy: Proxy) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tornado_logs.cli", "token", "create", "--role", "viewer"],
        cwd=proxy.server.folder,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=True,
    )
    with proxy.page_of("carol", "/login") as page:
        form = {"token": made.stdout.strip(), "_xsrf": page.cookies["_xsrf"]}
        answer = page.post("/login", data=form)
    assert answer.status_code == 303
    (cookie,) = answer.headers.get_list("Set-Cookie")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"secure", "httponly", "samesite=strict"} <= attributes


# --- nginx alone


def test_nginx_sends_plain_http_to_https(tmp_path: Path, server: Server) -> None:
    make_certificate(tmp_path)
    nginx = Nginx(tmp_path, server)
    nginx.configure()
    with running(nginx), httpx.Client() as http:
        url = f"http://127.0.0.1:{nginx.plain_port}/deployments?q=a"
        answer = http.get(url, headers={"Host": NAME})
    assert (answer.status_code, answer.headers["Location"]) == (
        301,
        f"https://{NAME}/deployments?q=a",
    )


@contextlib.contextmanager
def running(proxy: Proxy) -> Iterator[None]:
    proxy.start()
    try:
        yield
    finally:
        proxy.stop()


def test_nginx_with_its_defaults_is_live_and_whole(tmp_path: Path, server: Server) -> None:
    nginx = Nginx(tmp_path, server)
    nginx.write_main(
        f"server {{ listen 127.0.0.1:{nginx.plain_port};"
        f" location / {{ proxy_pass {server.url}; }} }}\n"
    )
    with (
        running(nginx),
        httpx.Client(base_url=f"http://127.0.0.1:{nginx.plain_port}", timeout=WAIT_SECONDS) as http,
    ):
        deployment_id, allow = steps(nginx, "bare")
        with open_stream(http, f"/logs/{deployment_id}") as stream:
            assert_lines_come_one_by_one(stream, allow)
        long_id = server.deploy("seq 1 100000")["id"]
        events = read_events(http, f"/logs/{long_id}")
        assert lines_of(events) == [str(number) for number in range(1, 100_001)]
        after = read_events(http, f"/logs/{long_id}", last_event_id=events[50_000].last_event_id)
        assert lines_of(after) == lines_of(events)[50_001:]
        assert http.get(f"/logs/{long_id}/raw").content == server.log(long_id)
        command = STEPS.format(folder=tmp_path, mark="post")
        with open_stream(http, "/deployments", method="POST", json={"command": command}) as stream:
            assert_lines_come_one_by_one(
                stream, lambda number: (tmp_path / f"post{number}").touch()
            )


def has_lines(server: Server, deployment_id: str, count: float) -> bool:
    return server.log(deployment_id).count(b"\n") > count


class _By:
    """What a returning viewer takes of a server: here, where the proxy is."""

    def __init__(self, url: str) -> None:
        self.url = url


def test_viewers_by_nginx_with_its_defaults_have_each_line_once_though_it_is_restarted(
    tmp_path: Path, server: Server
) -> None:
    """With its buffers, and an end that it makes of a connection anywhere, also within an event."""
    nginx = Nginx(tmp_path, server)
    nginx.write_main(
        f"server {{ listen 127.0.0.1:{nginx.plain_port};"
        f" location / {{ proxy_pass {server.url}; }} }}\n"
    )
    count = 6000
    # Each restart comes when so much was written: the viewers are in the midst of it.
    command = f"for i in $(seq 1 {count}); do echo $i; [ $((i % 20)) != 0 ] || sleep 0.01; done"
    with running(nginx):
        deployment_id = server.deploy(command, tty=False)["id"]
        by: Any = _By(f"http://127.0.0.1:{nginx.plain_port}")
        viewers = [
            Viewer(by, deployment_id, query)
            for query in ("", "batch=1", "partial=1", "tail=100000")
        ]
        for viewer in viewers:
            viewer.start()
        for share in (0.2, 0.5, 0.8):
            wait_for(partial(has_lines, server, deployment_id, share * count), "so much of it")
            nginx.stop()
            nginx.start()
        for viewer in viewers:
            viewer.join(60)
    expected = [str(number) for number in range(1, count + 1)]
    for viewer in viewers:
        assert viewer.lines == expected
        assert viewer.resets == 0
        assert viewer.connections > 2
