"""Attacks on a closed server: each fails, says why in a sentence, and tells nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import WAIT_SECONDS, Server, run_cli, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sse_client import open_stream
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import create_signed_value

from tornado_logs.access import Access, Client
from tornado_logs.config import Config
from tornado_logs.handlers.access import local_path
from tornado_logs.tokens import Role, TokenError, TokenFile

SECRET_LINE = "what only those who are let in may read"
DASHBOARD = "https://dash.example.com"
CONFIG = f"""
max_refused_sign_ins = 1000
trusted_proxies = ["10.9.9.9"]
user_header = "X-Remote-User"
allowed_origins = ["{DASHBOARD}"]
[users]
root = "admin"
"""
PROXY_CONFIG = """
trusted_proxies = ["127.0.0.1"]
user_header = "X-Remote-User"
[users]
alice = "operator"
root = "admin"
"""


class Closed:
    """A closed server with a token for each role, and a deployment that has run."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.file = TokenFile(str(server.data_dir / ".access" / "tokens.json"))
        self.tokens = {role.value: self.file.create(f"the {role}", role)[1] for role in Role}
        server.http.headers["Authorization"] = f"Bearer {self.tokens['admin']}"
        self.id = str(server.deploy(f"echo {SECRET_LINE}")["id"])
        server.wait_for_end(self.id)
        self.other_id = str(server.deploy(f"echo {SECRET_LINE}")["id"])
        server.wait_for_end(self.other_id)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer to a request that carries what it is given and nothing else."""
        return httpx.request(method, self.server.url + path, timeout=20, **request)

    def ask_as(self, role: str, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer to who has a token of that role."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}", **request.pop("headers", {})}
        return self.ask(method, path, headers=headers, **request)

    def session(self, role: str = "operator") -> str:
        """The cookie of who has signed in, as a browser sends it."""
        answer = self.ask("POST", "/login", data={"token": self.tokens[role]})
        assert answer.status_code == 303, answer.text
        return answer.headers["Set-Cookie"].partition(";")[0]

    def share(self, deployment_id: str = "", role: str = "operator", **fields: Any) -> str:
        """What a share link carries."""
        path = f"/deployments/{deployment_id or self.id}/share"
        answer = self.ask_as(role, "POST", path, json=fields)
        assert answer.status_code == 201, answer.text
        assert answer.json()["url"] == f"{self.server.url}/share#{answer.json()['token']}"
        return str(answer.json()["token"])

    def raw(self, method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
        """The answer to these very headers."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}"]
        lines += ["Connection: close", f"Content-Length: {len(body)}", *headers]
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        return answer

    def audit(self) -> list[dict[str, Any]]:
        """What stands in the audit file."""
        path = self.server.data_dir / ".access" / "audit.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def count(self) -> int:
        """How many logs there are."""
        return len(list(self.server.data_dir.glob("*.log")))


@contextlib.contextmanager
def closed_server(folder: Path, config: str) -> Iterator[Closed]:
    """A closed server that ends with the block."""
    with contextlib.closing(Server(folder, config)) as server:
        server.start()
        yield Closed(server)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    """One closed server for all tests that leave it as it was."""
    with closed_server(tmp_path_factory.mktemp("closed"), CONFIG) as closed:
        yield closed


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    """One behind a proxy, which is whoever asks from 127.0.0.1."""
    with closed_server(tmp_path_factory.mktemp("proxied"), PROXY_CONFIG) as proxied:
        yield proxied


@pytest.fixture
def own(make_server: Callable[..., Server]) -> Closed:
    """A closed server of the test's own."""
    return Closed(make_server())


def the_sentence(answer: httpx.Response, *statuses: int) -> str:
    """The sentence of a refusal, which is all that its JSON holds; it tells of no deployment."""
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert list(answer.json()) == ["error"]
    sentence = str(answer.json()["error"])
    assert re.match(r"\S+ \S+ \S+", sentence), sentence
    assert SECRET_LINE not in answer.text
    assert "Traceback" not in sentence
    return sentence


def is_refused(closed: Closed, **request: Any) -> None:
    """Nobody is let in by this: neither to read nor to start."""
    count = closed.count()
    for path in ("/deployments", f"/deployments/{closed.id}", f"/logs/{closed.id}/raw"):
        the_sentence(closed.ask("GET", path, **request), 401)
    the_sentence(closed.ask("POST", "/deployments", json={"command": "true"}, **request), 401, 403)
    assert closed.count() == count


# --- strangers

PATHS = [
    "/",
    "/events",
    "/deployments",
    "/deployments?limit=5&last_line=1",
    "/deployments?limit=nonsense",
    "/deployments/ID",
    "/deployments/ID/stop",
    "/deployments/ID/share",
    "/logs/ID",
    "/logs/ID?tail=1",
    "/logs/ID/raw",
    "/logs/ID/lines",
    "/logs/ID/search?q=a",
    "/audit",
    "/nothing",
    "/deployments/ID/nothing",
    "//",
    "/deployments/",
    "/DEPLOYMENTS",
    "/static",
    "/login/",
    "/deployments/..%2f..%2fetc",
    "/deployments/ID%00",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_is_told_the_same_wherever_he_knocks(closed: Closed, path: str) -> None:
    count = closed.count()
    there, not_there = path.replace("ID", closed.id), path.replace("ID", "20260101-000000-zzzzzz")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        bodies = []
        for asked in (there, not_there):
            url = httpx.URL(closed.server.url, raw_path=asked.encode())
            answer = httpx.request(method, url, timeout=20)
            assert "/login" in the_sentence(answer, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "Set-Cookie" not in answer.headers
            bodies.append(answer.content)
        assert bodies[0] == bodies[1]
        assert closed.id.encode() not in bodies[0]
    head = httpx.head(httpx.URL(closed.server.url, raw_path=there.encode()))
    assert (head.status_code, head.content) == (401, b"")
    assert closed.count() == count


@pytest.mark.parametrize("path", PATHS)
def test_a_strangers_browser_is_led_to_the_sign_in(closed: Closed, path: str) -> None:
    path = path.replace("ID", closed.id)
    url = httpx.URL(closed.server.url, raw_path=path.encode())
    answer = httpx.get(url, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login?next=%2F")
    assert answer.content == b""
    page = closed.ask("GET", answer.headers["Location"], headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert SECRET_LINE not in page.text
    posted = httpx.post(url, headers={"Accept": "text/html"})
    assert posted.status_code == 401
    assert SECRET_LINE not in posted.text


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", "BREW"])
def test_no_other_method_is_a_way_in(closed: Closed, method: str) -> None:
    for path in ("/deployments", f"/logs/{closed.id}/raw", "/nothing"):
        answer = closed.raw(method, path)
        assert answer.split(b" ")[1] in (b"400", b"401", b"405"), answer[:200]
        assert SECRET_LINE.encode() not in answer
        assert closed.id.encode() not in answer


def test_a_stranger_learns_nothing_by_the_size_of_what_is_sent(closed: Closed) -> None:
    for body in (b"", b"{", b"[]", b"x" * 2_000_000, b'{"command": 5}'):
        for content_type in ("application/json", "application/x-www-form-urlencoded", "x"):
            answer = closed.ask(
                "POST", "/deployments", content=body, headers={"Content-Type": content_type}
            )
            assert "/login" in the_sentence(answer, 401)


def test_what_everybody_may_see_tells_of_nothing_that_ran(closed: Closed) -> None:
    for path in ("/login", "/share", "/static/style.css", "/static/deployment.js", "/static/x"):
        answer = closed.ask("GET", path, headers={"Accept": "text/html"})
        assert answer.status_code == (404 if path == "/static/x" else 200)
        assert SECRET_LINE not in answer.text
        assert closed.id not in answer.text
        if path != "/static/x":
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


# --- tokens

NO_TOKENS: dict[str, Callable[[str], str]] = {
    "in capitals": str.upper,
    "in another case": str.swapcase,
    "cut": lambda token: token[:-1],
    "cut at the front": lambda token: token[1:],
    "with more": lambda token: token + "A",
    "its id alone": lambda token: token[:12],
    "without its secret": lambda token: token[:12] + "_",
    "with a space": lambda token: token[:20] + " " + token[20:],
    "with a tab": lambda token: token[:20] + "\t" + token[20:],
    "with quotes": lambda token: f'"{token}"',
    "twice": lambda token: f"{token},{token}",
    "with another after it": lambda token: f"{token}, Bearer {token}",
    "encoded": lambda token: token.replace("_", "%5F"),
    "with another id": lambda token: token[:3] + "zzzzzzzz" + token[11:],
    "of another server": lambda _: "tl_k3f9qdab_" + "A" * 43,
    "its hash": lambda token: hashlib.sha256(token.encode()).hexdigest(),
    "nothing": lambda _: "",
    "a very long one": lambda token: token + "A" * 30_000,
    "in other letters": lambda token: token.replace("t", "\xfe"),
}


@pytest.mark.parametrize("name", NO_TOKENS)
def test_what_is_not_quite_a_token_opens_nothing(closed: Closed, name: str) -> None:
    text = NO_TOKENS[name](closed.tokens["admin"])
    is_refused(closed, headers={"Authorization": f"Bearer {text}".strip().encode("latin-1")})
    answer = closed.ask("POST", "/login", data={"token": text})
    assert "no token" in the_sentence(answer, 401)
    assert "Set-Cookie" not in answer.headers


def test_no_character_of_a_token_can_be_another(closed: Closed) -> None:
    token = closed.tokens["admin"]
    file = closed.file
    for place, char in enumerate(token):
        for other in "Aa0_-":
            if other != char:
                assert file.find(token[:place] + other + token[place + 1 :]) is None
    found = file.find(token)
    assert found is not None
    assert found.role is Role.ADMIN


@pytest.mark.parametrize(
    "scheme", ["Basic", "Digest", "Token", "BearerX", "Bearer:", "Bearer,", "", "X-Bearer"]
)
def test_a_token_is_sent_as_a_bearers_alone(closed: Closed, scheme: str) -> None:
    is_refused(closed, headers={"Authorization": f"{scheme} {closed.tokens['admin']}".strip()})


def test_basic_auth_opens_nothing(closed: Closed) -> None:
    token = closed.tokens["admin"]
    for user, password in ((token, ""), ("", token), ("admin", token), ("the admin", token)):
        is_refused(closed, auth=httpx.BasicAuth(user, password))


def test_a_token_anywhere_else_than_in_its_header_opens_nothing(closed: Closed) -> None:
    token = closed.tokens["admin"]
    for name in ("token", "access_token", "authorization", "_xsrf"):
        is_refused(closed, params={name: token})
        is_refused(closed, cookies={name: token})
        is_refused(closed, headers={f"X-{name}": token})


def test_a_token_of_another_server_opens_nothing(closed: Closed, proxied: Closed) -> None:
    is_refused(closed, headers={"Authorization": f"Bearer {proxied.tokens['admin']}"})
    is_refused(closed, headers={"Cookie": proxied.session()})
    name = closed.session().partition("=")[0]
    is_refused(closed, cookies={name: proxied.session().partition("=")[2]})
    shared = {"Authorization": f"Bearer {proxied.share()}"}
    the_sentence(closed.ask("GET", f"/logs/{closed.id}/raw", headers=shared), 401)


def test_the_first_token_closes_a_running_server(server: Server) -> None:
    assert httpx.get(f"{server.url}/deployments").status_code == 200
    closed = Closed(server)
    is_refused(closed)
    for token in closed.file.all():
        closed.file.revoke(token.name)
    is_refused(closed)  # it doesn't open again
    os.unlink(closed.file.path)
    is_refused(closed)


def test_an_expired_token_opens_nothing_and_neither_does_its_session(own: Closed) -> None:
    _, text = own.file.create("short", Role.ADMIN, expires_seconds=1.5)
    own.tokens["short"] = text
    cookie = own.session("short")
    headers = {"Authorization": f"Bearer {text}"}
    assert own.ask("GET", "/deployments", headers=headers).status_code == 200
    assert own.ask("GET", "/deployments", headers={"Cookie": cookie}).status_code == 200
    wait_for(
        lambda: own.ask("GET", "/deployments", headers=headers).status_code == 401, "its expiry"
    )
    is_refused(own, headers=headers)
    is_refused(own, headers={"Cookie": cookie})


def test_a_revoked_token_ends_its_streams_and_others_go_on_losing_nothing(own: Closed) -> None:
    for name in ("gone", "stays"):
        own.tokens[name] = own.file.create(name, Role.VIEWER)[1]
    cookie, share = own.session("gone"), own.share()
    gate = own.server.folder / "gate"
    command = f"i=0; until [ -e {gate} ]; do i=$((i+1)); echo $i; sleep 0.02; done"
    running = str(own.server.deploy(command)["id"])
    gone = {"Authorization": f"Bearer {own.tokens['gone']}"}
    stays = {"Authorization": f"Bearer {own.tokens['stays']}"}
    with httpx.Client(base_url=own.server.url, timeout=20) as http:
        path = f"/logs/{running}"
        with (
            open_stream(http, path, headers=gone) as by_token,
            open_stream(http, path, headers={"Cookie": cookie}) as by_session,
            open_stream(http, "/events", headers=gone) as of_list,
            open_stream(http, f"{path}/search?q=no+line", headers=gone) as of_search,
            open_stream(http, path, headers=stays) as staying,
        ):
            for stream in (by_token, by_session, staying):
                stream.wait_for_lines(2)
            own.file.revoke("gone")
            began = time.monotonic()
            for stream in (by_token, by_session, of_list, of_search, staying):
                read_until_closed(stream)
            assert time.monotonic() - began < 10
        lines = staying.lines
        cursor = staying.parser.last_event_id
        assert len(lines) >= 2
        with open_stream(http, path, headers=stays, last_event_id=cursor) as again:
            again.wait_for_lines(2)
            gate.touch()
            again.read_to_end()
    numbers = own.server.log(running).decode().split()
    assert lines + again.lines == numbers == [str(n) for n in range(1, len(numbers) + 1)]
    is_refused(own, headers=gone)
    is_refused(own, headers={"Cookie": cookie})
    assert own.ask("GET", f"/deployments/{own.id}", headers={"Authorization": f"Bearer {share}"})


def read_until_closed(stream: Any) -> None:
    """Read on until the server closes, with or without an end."""
    deadline = time.monotonic() + 15
    try:
        while not stream.closed:
            assert time.monotonic() < deadline, "the stream goes on"
            stream.read_piece()
    except httpx.RemoteProtocolError:
        stream.closed = True


# --- sessions


def test_a_session_does_what_its_token_may(closed: Closed) -> None:
    cookie = closed.session("viewer")
    assert closed.ask("GET", "/deployments", headers={"Cookie": cookie}).status_code == 200
    page = closed.ask("GET", "/", headers={"Cookie": cookie, "Accept": "text/html"})
    assert "the viewer" in page.text
    the_sentence(closed.ask("GET", "/audit", headers={"Cookie": cookie}), 403)


def test_an_altered_session_is_none(closed: Closed) -> None:
    name, _, value = closed.session("admin").partition("=")
    value = value.strip('"')
    places = range(0, len(value), 3)
    for altered in (
        *(value[:place] + ("0" if value[place] != "0" else "1") + value[place + 1 :]
          for place in places),
        *(value[:length] for length in (0, 1, 10, len(value) // 2, len(value) - 1)),
        value.upper(),
        value + "0",
        value.replace("2|", "1|", 1),
        f"{value}|{value}",
    ):  # fmt: skip
        answer = closed.ask("GET", "/deployments", headers={"Cookie": f'{name}="{altered}"'})
        the_sentence(answer, 401)
    is_refused(closed, headers={"Cookie": f'tornado_logs="{value}"'})
    is_refused(closed, headers={"Cookie": f'{name.upper()}="{value}"'})


def test_a_forged_session_is_none(closed: Closed) -> None:
    name = closed.session().partition("=")[0]
    token_id = closed.tokens["admin"].split("_")[1]
    for secret in ("", "secret", "0" * 64, "None"):
        for value in (token_id, "admin", ""):
            forged = create_signed_value(secret, name, value, 2).decode()
            is_refused(closed, headers={"Cookie": f'{name}="{forged}"'})
    is_refused(closed, headers={"Cookie": f"{name}={token_id}"})
    is_refused(closed, headers={"Cookie": f"{name}={closed.tokens['admin']}"})


def test_a_session_ends_with_its_days_and_is_good_for_nothing_else(closed: Closed) -> None:
    key = (closed.server.data_dir / ".access" / "signing_key").read_text()
    name = closed.session().partition("=")[0]
    token_id = closed.tokens["admin"].split("_")[1]

    def cookie(purpose: str, age_days: float, version: int = 2, value: str = token_id) -> str:
        at = time.time() - age_days * 86400
        signed = create_signed_value(key, purpose, value, version, clock=lambda: at).decode()
        return f'{name}="{signed}"'

    fresh = closed.ask("GET", "/deployments", headers={"Cookie": cookie(name, 29)})
    assert fresh.status_code == 200  # so that the others fail for what they are meant to
    for wrong in (
        cookie(name, 30.1),
        cookie("share", 0),
        cookie("another", 0),
        cookie(name, 0, version=1),
        cookie(name, 0, value="zzzzzzzz"),
    ):
        is_refused(closed, headers={"Cookie": wrong})


def test_a_session_and_a_share_link_are_not_each_other(closed: Closed) -> None:
    name, _, value = closed.session("admin").partition("=")
    share = closed.share()
    is_refused(closed, headers={"Cookie": f"{name}={share}"})
    as_share = "tls_" + base64.urlsafe_b64encode(value.strip('"').encode()).decode().rstrip("=")
    is_refused(closed, headers={"Authorization": f"Bearer {as_share}"})
    is_refused(closed, headers={"Authorization": f"Bearer {value}"})
    the_sentence(closed.ask("POST", "/login", data={"token": share}), 401)


def test_a_signing_key_that_is_not_whole_signs_nothing(own: Closed) -> None:
    path = own.server.data_dir / ".access" / "signing_key"
    own.session()
    own.server.terminate()
    for key in (b"", b"\n", b"abc", b"\xff" * 64):
        path.write_bytes(key)
        own.server.start()
        assert own.ask("POST", "/login", data={"token": own.tokens["admin"]}).status_code >= 500
        for forged in (create_signed_value("", "share", "{}", 2).decode(), "x"):
            answer = own.ask("GET", "/deployments", cookies={"tornado_logs_e3b0c442": forged})
            assert "nobody may" in the_sentence(answer, 503)
        own.server.terminate()


def test_the_cookie_is_the_browsers_alone(closed: Closed, proxied: Closed) -> None:
    cookie = closed.ask("POST", "/login", data={"token": closed.tokens["viewer"]})
    flags = cookie.headers["Set-Cookie"].lower().split("; ")[1:]
    assert {"httponly", "samesite=strict", "path=/", f"max-age={30 * 86400}"} <= set(flags)
    assert not [flag for flag in flags if flag.startswith("domain") or flag == "secure"]
    for protocol, is_secure in (("https", True), ("http", False), ("https, http", False)):
        cookie = proxied.ask(
            "POST",
            "/login",
            data={"token": proxied.tokens["viewer"]},
            headers={"X-Forwarded-Proto": protocol},
        )
        flags = cookie.headers["Set-Cookie"].lower().split("; ")[1:]
        assert ("secure" in flags) is is_secure
    # Who isn't trusted has no say in it.
    cookie = closed.ask(
        "POST",
        "/login",
        data={"token": closed.tokens["viewer"]},
        headers={"X-Forwarded-Proto": "https"},
    )
    assert "secure" not in cookie.headers["Set-Cookie"].lower()


def test_the_cookie_of_a_share_link_goes_to_its_deployment_alone(closed: Closed) -> None:
    answer = closed.ask("POST", "/share", data={"token": closed.share(expires_seconds=100)})
    cookies = [text.lower().split("; ") for text in answer.headers.get_list("set-cookie")]
    paths = [flag for flags in cookies for flag in flags if flag.startswith("path=")]
    assert sorted(paths) == [f"path=/deployments/{closed.id}", f"path=/logs/{closed.id}"]
    for flags in cookies:
        assert {"httponly", "samesite=strict"} <= set(flags)
        (seconds,) = [int(flag[8:]) for flag in flags if flag.startswith("max-age=")]
        assert 0 < seconds <= 100


def test_who_has_signed_out_has_no_session(closed: Closed) -> None:
    cookie, xsrf = closed.session(), "_xsrf=2|0|0|1"
    page = closed.ask("GET", "/login", headers={"Accept": "text/html"})
    xsrf = page.headers["Set-Cookie"].partition(";")[0]
    answer = closed.ask(
        "POST",
        "/logout",
        headers={"Cookie": f"{cookie}; {xsrf}", "X-XSRFToken": xsrf.partition("=")[2]},
    )
    assert answer.status_code == 303
    name = cookie.partition("=")[0]
    assert answer.headers["Set-Cookie"].startswith(f'{name}="";')
    without = closed.ask("POST", "/logout", headers={"Cookie": cookie})
    the_sentence(without, 403)


# --- proxies


def test_who_is_not_the_proxy_names_nobody(closed: Closed) -> None:
    for name in ("root", "alice", "the admin"):
        for headers in (
            {"X-Remote-User": name},
            {"X-Remote-User": name, "X-Forwarded-For": "10.9.9.9"},
            {"X-Remote-User": name, "X-Forwarded-For": "127.0.0.1", "X-Real-IP": "10.9.9.9"},
            {"X-Remote-User": name, "Forwarded": "for=10.9.9.9", "Via": "10.9.9.9"},
            {"x_remote_user": name, "Remote-User": name, "X-Forwarded-User": name},
        ):
            is_refused(closed, headers=headers)


def test_an_address_is_only_forwarded_by_the_proxy(own: Closed, proxied: Closed) -> None:
    def address(closed: Closed, chain: str) -> str:
        closed.ask("POST", "/login", data={"token": "x"}, headers={"X-Forwarded-For": chain})
        return str(closed.audit()[-1]["address"])

    assert address(own, "10.1.1.1") == "127.0.0.1"
    assert address(proxied, "10.1.1.1") == "10.1.1.1"
    assert address(proxied, "6.6.6.6, 10.1.1.1") == "10.1.1.1"
    assert address(proxied, "6.6.6.6, 10.1.1.1, 127.0.0.1") == "10.1.1.1"
    assert address(proxied, "6.6.6.6, nonsense") == "127.0.0.1"
    assert address(proxied, "6.6.6.6, 10.1.1.1:80") == "127.0.0.1"
    for chain in ("", ",", "127.0.0.1", "<b>", "unknown", "1.2.3"):
        assert address(proxied, chain) == "127.0.0.1"
    assert address(proxied, "2001:db8::1") == "2001:db8::1"


def test_the_proxy_names_its_users(proxied: Closed) -> None:
    for name, reads, starts, audits in (
        ("root", 200, 201, 200),
        ("alice", 200, 201, 403),
        ("bob", 200, 403, 403),
        ("Alice", 200, 403, 403),
    ):
        headers = {"X-Remote-User": name}
        assert proxied.ask("GET", "/deployments", headers=headers).status_code == reads
        started = proxied.ask("POST", "/deployments", json={"command": "true"}, headers=headers)
        assert started.status_code == starts, name
        assert proxied.ask("GET", "/audit", headers=headers).status_code == audits


@pytest.mark.parametrize("name", ["", "a,b", "root,", ",root", "x" * 65, "a\x80b", "a\x9bb"])
def test_a_name_that_the_proxy_cannot_mean_is_nobodys(proxied: Closed, name: str) -> None:
    is_refused(proxied, headers={"X-Remote-User": name.encode("latin-1")})


def test_a_header_that_the_proxy_let_pass_beside_its_own_names_nobody(proxied: Closed) -> None:
    for pair in (("root", "bob"), ("bob", "root"), ("root", "root"), ("", "root"), ("root", "")):
        headers = [f"X-Remote-User: {name}" for name in pair]
        assert proxied.raw("GET", "/deployments", *headers).startswith(b"HTTP/1.1 401 ")
    folded = proxied.raw("GET", "/deployments", "X-Remote-User: bob", " root")
    assert folded.split(b" ")[1] in (b"400", b"401", b"200")
    assert b'"admin"' not in folded
    assert proxied.raw("GET", "/audit", "X-Remote-User : root").split(b" ")[1] in (b"400", b"401")


def test_the_role_of_whom_the_proxy_names_is_as_configured(
    make_server: Callable[..., Server],
) -> None:
    config = 'trusted_proxies = ["127.0.0.0/8"]\nuser_header = "X-User"\nuser_role = "operator"\n'
    server = make_server(config + '[users]\nguest = "viewer"\n')
    for name, status in (("anybody", 201), ("guest", 403)):
        answer = httpx.post(
            f"{server.url}/deployments", json={"command": "true"}, headers={"X-User": name}
        )
        assert answer.status_code == status
    answer = httpx.get(f"{server.url}/deployments")
    the_sentence(answer, 401)


def test_an_open_server_is_not_opened_to_the_clients_of_a_proxy(
    make_server: Callable[..., Server],
) -> None:
    server = make_server('trusted_proxies = ["127.0.0.1"]\nhosts = ["logs.example.com"]\n')
    headers = {"Host": "logs.example.com", "X-Forwarded-For": "10.1.1.1"}
    the_sentence(httpx.get(f"{server.url}/deployments", headers=headers), 401)
    answer = httpx.post(f"{server.url}/deployments", json={"command": "true"}, headers=headers)
    the_sentence(answer, 401)
    assert httpx.get(f"{server.url}/deployments").status_code == 200


@pytest.mark.parametrize(
    ("config", "hints"),
    [
        ('user_header = "X-User"', ["user_header", "trusted_proxies"]),
        ('[users]\na = "viewer"', ["users", "user_header"]),
        ('user_role = "king"', ["user_role", "viewer, operator, admin", "king"]),
        ('trusted_proxies = ["nginx"]', ["trusted_proxies", "nginx"]),
        ('trusted_proxies = ["10.0.0.1/8"]', ["trusted_proxies", "10.0.0.1/8"]),
        (
            'trusted_proxies = ["10.0.0.1"]\nuser_header = "X"\n[users]\na = "root"',
            ["users.a", "root"],
        ),
    ],
)
def test_a_wrong_setting_of_who_is_trusted_is_refused(
    tmp_path: Path, config: str, hints: list[str]
) -> None:
    (tmp_path / "tornado_logs.toml").write_text(config)
    done = run_cli(tmp_path, "serve", "--port", "0")
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr.count("\n") == 1
    for hint in hints:
        assert hint in done.stderr


# --- roles


def test_a_viewer_reads_and_changes_nothing(own: Closed) -> None:
    running = str(own.server.deploy("sleep 60")["id"])
    own.server.wait_for_state(running, "running")
    count = own.count()
    for path in ("/", "/deployments", f"/deployments/{own.id}", f"/logs/{own.id}/raw"):
        assert own.ask_as("viewer", "GET", path).status_code == 200
    for path, body in (
        ("/deployments", {"command": "true"}),
        (f"/deployments/{running}/stop", {}),
        (f"/deployments/{own.id}/share", {}),
    ):
        for request in ({"json": body}, {"data": body}, {"json": body, "params": {"x": "1"}}):
            answer = own.ask_as("viewer", "POST", path, **request)
            assert "operator" in the_sentence(answer, 403)
    the_sentence(own.ask_as("viewer", "GET", "/audit"), 403)
    the_sentence(own.ask_as("viewer", "POST", "/deployments/no-such/stop"), 403)
    assert own.count() == count
    assert own.server.record(running)["state"] == "running"
    assert own.ask_as("operator", "POST", f"/deployments/{running}/stop").status_code == 202
    own.server.wait_for_end(running)
    page = own.ask_as("viewer", "GET", f"/deployments/{own.id}", headers={"Accept": "text/html"})
    for button in ('id="stop"', 'id="again"', 'id="share"'):
        assert button not in page.text


def test_only_an_admin_reads_who_did_what(closed: Closed) -> None:
    for role in ("viewer", "operator"):
        assert "admin" in the_sentence(closed.ask_as(role, "GET", "/audit"), 403)
    assert closed.ask_as("admin", "GET", "/audit?limit=1").json()["entries"]
    the_sentence(closed.ask_as("admin", "POST", "/audit"), 405)


# --- share links


def test_a_share_link_shows_one_deployment_to_curl(closed: Closed) -> None:
    share = closed.share()
    for path in ("/deployments/ID", "/logs/ID", "/logs/ID/raw", "/logs/ID/lines"):
        url = closed.server.url + path.replace("ID", closed.id)
        command = ["curl", "-sf", "-m", "20", "-H", f"Authorization: Bearer {share}", url]
        done = subprocess.run(command, capture_output=True, timeout=30)
        assert done.returncode == 0, path
        assert done.stdout


def test_a_share_link_shows_nothing_else_and_changes_nothing(closed: Closed) -> None:
    share, count = closed.share(), closed.count()
    name = closed.session().partition("=")[0]
    cookie = closed.ask("POST", "/share", data={"token": share}).headers["Set-Cookie"]
    assert cookie.startswith(f"{name}_")
    for headers in (
        {"Authorization": f"Bearer {share}"},
        {"Cookie": cookie.partition(";")[0]},  # sent where no browser would
    ):
        for method, path in (
            ("GET", "/"),
            ("GET", "/deployments"),
            ("GET", f"/deployments?id={closed.id}"),
            ("GET", "/events"),
            ("GET", "/audit"),
            ("GET", f"/deployments/{closed.other_id}"),
            ("GET", f"/logs/{closed.other_id}"),
            ("GET", f"/logs/{closed.other_id}/raw"),
            ("GET", f"/logs/{closed.other_id}/lines"),
            ("GET", f"/logs/{closed.other_id}/search?q=a"),
            ("GET", "/deployments/no-such"),
            ("GET", f"/logs/{closed.id}/../{closed.other_id}"),
            ("POST", "/deployments"),
            ("POST", f"/deployments/{closed.id}/stop"),
            ("POST", f"/deployments/{closed.id}/share"),
            ("POST", f"/deployments/{closed.id}"),
            ("POST", f"/logs/{closed.id}"),
            ("DELETE", f"/deployments/{closed.id}"),
        ):
            body = {"json": {"command": "true"}} if method == "POST" else {}
            answer = closed.ask(method, path, headers=headers, **body)
            the_sentence(answer, 403)
    assert closed.count() == count


def test_an_altered_share_link_shows_nothing(closed: Closed) -> None:
    share = closed.share()
    access = Access(Config(), str(closed.server.data_dir / ".access"))
    assert access.user_of_share(share)
    for place in range(len(share)):
        for other in "Aa0_":
            if other != share[place]:
                assert access.user_of_share(share[:place] + other + share[place + 1 :]) is None
    for altered in (share[:-1], share + "A", share + "=", share.lower(), share[4:], "tls_", ""):
        headers = {"Authorization": f"Bearer {altered}".strip()}
        the_sentence(closed.ask("GET", f"/logs/{closed.id}/raw", headers=headers), 401)
        posted = closed.ask("POST", "/share", data={"token": altered})
        assert "another" in the_sentence(posted, 403)
        assert "Set-Cookie" not in posted.headers


def test_a_share_link_cannot_be_made_to_last_or_to_show_more(closed: Closed) -> None:
    share = closed.share()
    signed = base64.urlsafe_b64decode(share[4:] + "==").decode()
    *before, value, _ = signed.split("|")
    said = json.loads(base64.b64decode(value.partition(":")[2]))
    assert said["id"] == closed.id
    said["id"] = closed.other_id
    for secret in ("", "x"):
        forged = create_signed_value(secret, "share", json.dumps(said), 2).decode()
        text = "tls_" + base64.urlsafe_b64encode(forged.encode()).decode().rstrip("=")
        answer = closed.ask(
            "GET", f"/logs/{closed.other_id}/raw", headers={"Authorization": f"Bearer {text}"}
        )
        the_sentence(answer, 401)
    other = base64.b64encode(json.dumps(said).encode()).decode()
    resigned = "|".join([*before, f"{len(other)}:{other}", signed.rpartition("|")[2]])
    text = "tls_" + base64.urlsafe_b64encode(resigned.encode()).decode().rstrip("=")
    headers = {"Authorization": f"Bearer {text}"}
    the_sentence(closed.ask("GET", f"/logs/{closed.other_id}/raw", headers=headers), 401)


def test_an_expired_share_link_shows_nothing_and_its_stream_has_ended(own: Closed) -> None:
    running = str(own.server.deploy("while sleep 0.05; do date; done")["id"])
    own.server.wait_for_state(running, "running")
    share = own.share(running, expires_seconds=3)
    cookie = own.ask("POST", "/share", data={"token": share}).headers["Set-Cookie"].partition(";")
    ways = ({"Authorization": f"Bearer {share}"}, {"Cookie": cookie[0]})
    with httpx.Client(base_url=own.server.url, timeout=20) as http:
        for headers in ways:
            assert http.get(f"/deployments/{running}", headers=headers).status_code == 200
        with (
            open_stream(http, f"/logs/{running}", headers=ways[0]) as by_bearer,
            open_stream(http, f"/logs/{running}", headers=ways[1]) as by_cookie,
            open_stream(http, f"/logs/{running}/search?q=none", headers=ways[1]) as of_search,
            http.stream("GET", f"/logs/{running}/raw", headers=ways[0]) as raw,
        ):
            for stream in (by_bearer, by_cookie):
                stream.wait_for_lines(2)
            for stream in (by_bearer, by_cookie, of_search):
                read_until_closed(stream)
            with pytest.raises(httpx.RemoteProtocolError):
                raw.read()
    for headers in ways:
        the_sentence(own.ask("GET", f"/deployments/{running}", headers=headers), 401)
    the_sentence(own.ask("POST", "/share", data={"token": share}), 403)


def test_a_share_link_ends_with_the_token_of_its_maker(own: Closed) -> None:
    own.tokens["maker"] = own.file.create("maker", Role.OPERATOR)[1]
    running = str(own.server.deploy("while sleep 0.05; do date; done")["id"])
    share = own.share(running, role="maker")
    headers = {"Authorization": f"Bearer {share}"}
    with (
        httpx.Client(base_url=own.server.url, timeout=20) as http,
        open_stream(http, f"/logs/{running}", headers=headers) as stream,
    ):
        stream.wait_for_lines(1)
        own.file.revoke("maker")
        read_until_closed(stream)
    the_sentence(own.ask("GET", f"/logs/{running}", headers=headers), 401)


@pytest.mark.parametrize(
    "seconds", [0, -1, 0.5, 1e9, 90 * 86400 + 1, "nan", "inf", "x", "1e400", None, [], {}, True]
)
def test_a_share_link_lasts_for_a_time_that_makes_sense(closed: Closed, seconds: Any) -> None:
    body = json.dumps({"expires_seconds": seconds})
    path = f"/deployments/{closed.id}/share"
    answer = closed.ask_as("operator", "POST", path, content=body)
    assert "expires_seconds" in the_sentence(answer, 400)


@pytest.mark.parametrize("body", [b"{", b"{]", b"{" * 10_000, b'{"a":' * 10_000, b"{\xff}"])
def test_a_share_link_is_not_made_from_nonsense(closed: Closed, body: bytes) -> None:
    path = f"/deployments/{closed.id}/share"
    the_sentence(closed.ask_as("operator", "POST", path, content=body), 400)


def test_an_open_server_shares_its_address_alone(server: Server) -> None:
    deployment_id = server.deploy("true")["id"]
    answer = server.http.post(f"/deployments/{deployment_id}/share")
    assert "address" in the_sentence(answer, 409)


# --- forms of other pages (XSRF, login CSRF) and where they lead


def form_token(closed: Closed) -> tuple[str, str]:
    """The cookie and the field of a form of the server's own."""
    page = closed.ask("GET", "/login", headers={"Accept": "text/html"})
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    assert "samesite=strict" in page.headers["Set-Cookie"].lower()
    found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert found
    return cookie, found[1]


def test_a_form_rides_on_no_session_unless_it_is_the_servers_own(closed: Closed) -> None:
    session, count = closed.session("admin"), closed.count()
    (xsrf, field), (other_xsrf, other_field) = form_token(closed), form_token(closed)
    ours = closed.server.url
    body = {"command": "true"}
    stop, share = f"/deployments/{closed.id}/stop", f"/deployments/{closed.id}/share"
    refused: list[tuple[str, dict[str, str], dict[str, Any]]] = []
    for path in ("/deployments", stop, share, "/logout"):
        for origin in (ours, None):
            headers: dict[str, str] = {"Origin": origin} if origin else {}
            cookies = f"{session}; {xsrf}"
            refused += [
                (path, headers | {"Cookie": session}, {"data": body}),
                (path, headers | {"Cookie": cookies}, {"data": body}),
                (path, headers | {"Cookie": cookies}, {"data": body | {"_xsrf": other_field}}),
                (path, headers | {"Cookie": cookies}, {"data": body | {"_xsrf": ""}}),
                (path, headers | {"Cookie": session}, {"data": body | {"_xsrf": field}}),
                (path, headers | {"Cookie": cookies, "X-XSRFToken": "x"}, {"data": body}),
                (path, headers | {"Cookie": cookies}, {"json": body}),
                (path, headers | {"Cookie": session}, {"json": body}),
                (path, headers | {"Cookie": cookies}, {"content": json.dumps(body)}),
            ]
        for origin in ("http://evil.com", "null", "http://localhost:1", "http://127.0.0.1:1"):
            headers = {"Origin": origin, "Cookie": f"{session}; {xsrf}", "X-XSRFToken": field}
            refused += [(path, headers, {"data": body | {"_xsrf": field}})]
            refused += [(path, headers, {"json": body})]
    for path, headers, request in refused:
        answer = closed.ask("POST", path, headers=headers, **request)
        the_sentence(answer, 403)
        assert "Set-Cookie" not in answer.headers or path != "/logout"
    assert closed.count() == count
    good = {"Origin": ours, "Cookie": f"{session}; {xsrf}"}
    answer = closed.ask("POST", share, headers=good, data={"_xsrf": field})
    assert answer.status_code == 201
    answer = closed.ask("POST", share, headers=good | {"X-XSRFToken": field}, json={})
    assert answer.status_code == 201
    assert other_xsrf != xsrf


def test_no_page_of_another_site_signs_anybody_in(closed: Closed) -> None:
    xsrf, field = form_token(closed)
    data = {"token": closed.tokens["viewer"]}
    for path in ("/login", "/share"):
        for headers, fields in (
            ({"Origin": "http://evil.com"}, data),
            ({"Origin": "null"}, data),
            ({"Origin": "http://evil.com", "Cookie": xsrf}, data | {"_xsrf": field}),
            ({"Sec-Fetch-Site": "cross-site"}, data),
            ({"Sec-Fetch-Site": "same-site", "Cookie": xsrf}, data | {"_xsrf": field}),
            ({"Origin": closed.server.url}, data),
            ({"Origin": closed.server.url, "Cookie": xsrf}, data),
            ({"Origin": closed.server.url}, data | {"_xsrf": field}),
        ):
            answer = closed.ask("POST", path, headers=headers, data=fields)
            the_sentence(answer, 403)
            assert "Set-Cookie" not in answer.headers
    headers = {"Origin": closed.server.url, "Cookie": xsrf}
    answer = closed.ask("POST", "/login", headers=headers, data=data | {"_xsrf": field})
    assert answer.status_code == 303


ELSEWHERE = [
    "//evil.com",
    "///evil.com",
    "/\\evil.com",
    "\\\\evil.com",
    "/%5c/evil.com/\\",
    "https://evil.com",
    "https:evil.com",
    "HTTP://evil.com/",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.com",
    "@evil.com",
    "",
    " //evil.com",
    "\t//evil.com",
    "/\t/evil.com",
    "/\n/evil.com",
    "/\r\nLocation: //evil.com",
    "/\r\nSet-Cookie: a=b",
    "/\x00/evil.com",
    "/\x0b/evil.com",
    "/\x7f/evil.com",
    "/\u2028/evil.com",
    "/\u202e/evil.com",
    "\u2003//evil.com",
    "\\/evil.com",
]


@pytest.mark.parametrize("path", ELSEWHERE, ids=repr)
def test_the_sign_in_leads_to_no_other_site(closed: Closed, path: str) -> None:
    answer = closed.ask("POST", "/login", data={"token": closed.tokens["viewer"], "next": path})
    assert answer.status_code == 303
    location = answer.headers["Location"]
    to = httpx.URL(closed.server.url).join(location)
    assert str(to).startswith(closed.server.url + "/"), location
    assert location.startswith("/")
    assert not location.startswith("//")
    assert "a=b" not in answer.headers["Set-Cookie"]
    page = closed.ask("GET", "/login", params={"next": path}, headers={"Accept": "text/html"})
    (shown,) = re.findall(r'name="next" value="([^"]*)"', page.text)
    assert shown.startswith("/")
    assert not re.match(r"/[/\\\t\r\n]*[/\\]", shown)


@pytest.mark.parametrize("path", ["/", "/deployments/a?b=1&c=2#L5", "/?q=a%20b", "/a/é"])
def test_the_sign_in_leads_back_to_where_one_was(closed: Closed, path: str) -> None:
    answer = closed.ask("POST", "/login", data={"token": closed.tokens["viewer"], "next": path})
    assert answer.headers["Location"] == path


def test_the_sign_in_shows_no_markup_of_others(closed: Closed) -> None:
    path = '/"><script>alert(1)</script>'
    page = closed.ask("GET", "/login", params={"next": path}, headers={"Accept": "text/html"})
    assert "<script>alert" not in page.text


# --- pages of other sites that are allowed (CORS)


def test_only_configured_sites_may_read_answers(closed: Closed) -> None:
    bearer = {"Authorization": f"Bearer {closed.tokens['operator']}"}
    answer = closed.ask("GET", "/deployments", headers=bearer | {"Origin": DASHBOARD})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == DASHBOARD
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]
    for origin in (
        "http://evil.com",
        "null",
        "*",
        "",
        "http://dash.example.com",
        f"{DASHBOARD}:443",
        f"{DASHBOARD}.evil.com",
        f"{DASHBOARD}/",
        DASHBOARD.upper(),
        "https://evil.dash.example.com",
        f"{DASHBOARD}, http://evil.com",
    ):
        for path in ("/deployments", "/nothing", "/login", "/static/style.css"):
            answer = closed.ask("GET", path, headers=bearer | {"Origin": origin})
            found = [name for name in answer.headers if name.lower().startswith("access-control")]
            assert found == [], origin


def test_a_page_that_may_read_answers_may_read_refusals_too(closed: Closed) -> None:
    for role, path, status in (("viewer", "/audit", 403), ("viewer", "/nothing", 404)):
        answer = closed.ask_as(role, "GET", path, headers={"Origin": DASHBOARD})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == DASHBOARD
    answer = closed.ask("GET", "/deployments", headers={"Origin": DASHBOARD})
    the_sentence(answer, 401)
    assert answer.headers["Access-Control-Allow-Origin"] == DASHBOARD


def test_a_page_of_an_allowed_site_rides_on_no_session(closed: Closed) -> None:
    xsrf, field = form_token(closed)
    count = closed.count()
    headers = {"Origin": DASHBOARD, "X-XSRFToken": field}
    share = closed.ask("POST", "/share", data={"token": closed.share()}).headers["Set-Cookie"]
    for cookie in (closed.session("admin"), share.partition(";")[0]):
        cookies = {"Cookie": f"{cookie}; {xsrf}"}
        is_refused(closed, headers=headers | cookies)
        the_sentence(closed.ask("GET", f"/logs/{closed.id}", headers=headers | cookies), 401)
    assert closed.count() == count
    answer = closed.ask_as(
        "operator", "POST", f"/deployments/{closed.id}/share", headers={"Origin": DASHBOARD}
    )
    assert answer.status_code == 201


def test_a_browser_that_asks_first_is_told_no_more_than_it_must(closed: Closed) -> None:
    asks = {"Access-Control-Request-Method": "POST"}
    for path in ("/deployments", f"/deployments/{closed.id}/stop", "/deployments/no-such/stop"):
        answer = closed.ask("OPTIONS", path, headers=asks | {"Origin": DASHBOARD})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        refused = closed.ask("OPTIONS", path, headers=asks | {"Origin": "http://evil.com"})
        the_sentence(refused, 401)
        assert "Access-Control-Allow-Methods" not in refused.headers


def test_other_methods_are_closed_to_those_who_are_known_as_well(closed: Closed) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        the_sentence(closed.ask_as("admin", method, f"/deployments/{closed.id}"), 405)
    the_sentence(closed.ask_as("admin", "OPTIONS", "/deployments"), 405)
    assert closed.ask_as("viewer", "HEAD", f"/logs/{closed.id}/raw").status_code == 200
    assert closed.server.record(closed.id)["id"] == closed.id


# --- names of the server


def test_a_server_on_all_addresses_answers_on_addresses_and_its_own_names(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path, 'host = "0.0.0.0"\nhosts = ["logs.example.com", "Other.example.com"]')
    text = TokenFile(str(tmp_path / "data/.access/tokens.json")).create("a", Role.ADMIN)[1]
    bearer = {"Authorization": f"Bearer {text}"}
    server.start()
    try:
        for host, status in (
            ("127.0.0.1", 200),
            (f"127.0.0.1:{server.port}", 200),
            ("10.1.2.3", 200),
            ("[2001:db8::1]:80", 200),
            ("localhost", 200),
            ("logs.example.com", 200),
            ("LOGS.example.com:8080", 200),
            ("other.example.com", 200),
            (socket.gethostname(), 200),
            ("evil.test", 403),
            ("rebind.127.0.0.1.nip.io", 403),
            ("logs.example.com.evil.com", 403),
            ("x.logs.example.com", 403),
            ("example.com", 403),
            ("logs.example.com.", 403),
            ("0x7f.1", 403),
            ("2130706433", 403),
            ("127.1", 403),
        ):
            answer = httpx.get(f"{server.url}/deployments", headers={**bearer, "Host": host})
            assert answer.status_code == status, host
            if status != 200:
                the_sentence(answer, status)
        the_sentence(httpx.get(f"{server.url}/deployments"), 401)
        os.unlink(tmp_path / "data/.access/tokens.json")
        the_sentence(httpx.get(f"{server.url}/deployments"), 401)
        the_sentence(httpx.get(f"{server.url}/deployments", headers=bearer), 401)
        server.terminate()
        with pytest.raises(AssertionError):
            server.start()  # it doesn't: there is no token any more
    finally:
        if server.process is not None:
            assert server.process.stdout is not None
            server.process.wait(20)
            server.process.stdout.close()
            server.process = None
        server.close()


# --- the tokens' file and its commands


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = run_cli(tmp_path, "token", "create", "alice", "--role", "operator", "--days", "2")
    assert made.returncode == 0
    (text,) = made.stdout.splitlines()
    assert "once" in made.stderr
    assert text not in made.stderr
    link = run_cli(tmp_path, "token", "create", "--role", "viewer", "--url", "http://a.test:1/")
    assert f"http://a.test:1/login#{link.stdout.strip()}" in link.stderr
    listed = run_cli(tmp_path, "token", "list").stdout
    assert [line.split()[1] for line in listed.splitlines()] == ["operator", "viewer"]
    folder = tmp_path / "data" / ".access"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("tokens.json", "audit.jsonl"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    for path in (tmp_path / "data").rglob("*"):
        secret = text.split("_", 2)[2]
        assert path.is_dir() or secret.encode() not in path.read_bytes()
    assert secret not in listed
    revoked = run_cli(tmp_path, "token", "revoke", "alice")
    assert (revoked.returncode, revoked.stderr) == (0, "")
    assert TokenFile(str(folder / "tokens.json")).find(text) is None
    entries = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert [entry["action"] for entry in entries] == ["token create"] * 2 + ["token revoke"]


@pytest.mark.parametrize(
    ("args", "hints"),
    [
        (["create"], ["--role"]),
        (["create", "--role", "root"], ["root", "viewer"]),
        (["create", "a", "--role", "viewer", "--days", "0"], ["--days", "0"]),
        (["create", "a", "--role", "viewer", "--days", "-1"], ["--days"]),
        (["create", "a", "--role", "viewer", "--days", "nan"], ["--days", "nan"]),
        (["create", "a", "--role", "viewer", "--days", "inf"], ["--days", "inf"]),
        (["create", "a", "--role", "viewer", "--days", "x"], ["--days", "x"]),
        (["create", "x" * 65, "--role", "viewer"], ["name", "64"]),
        (["create", "a\nb", "--role", "viewer"], ["name", "control"]),
        (["create", "a\x9bb", "--role", "viewer"], ["name", "control"]),
        (["create", "a\u202eb", "--role", "viewer"], ["name", "control"]),
        (["create", " a", "--role", "viewer"], ["name"]),
        (["create", "there", "--role", "viewer"], ["there", "already"]),
        (["revoke"], ["NAME"]),
        (["revoke", "nobody"], ["nobody", "there are: there"]),
        (["list", "extra"], ["extra"]),
        ([], ["ACTION"]),
        (["nothing"], ["nothing"]),
    ],
)
def test_a_wrong_token_command_says_what_is_wrong(
    tmp_path: Path, args: list[str], hints: list[str]
) -> None:
    TokenFile(str(tmp_path / "data/.access/tokens.json")).create("there", Role.VIEWER)
    before = (tmp_path / "data/.access/tokens.json").read_bytes()
    done = run_cli(tmp_path, "token", *args)
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr.startswith("tornado-logs: ")
    assert done.stderr.count("\n") == 1
    for hint in hints:
        assert hint in done.stderr
    assert (tmp_path / "data/.access/tokens.json").read_bytes() == before


def test_a_token_that_cannot_be_written_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    done = run_cli(tmp_path, "token", "create", "--role", "viewer")
    assert done.returncode in (100, 111)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert "cannot write" in done.stderr


def test_of_tokens_made_at_once_none_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "data/.access/tokens.json")
    names = [f"n{number}" for number in range(12)]
    command = [sys.executable, "-m", "tornado_logs.cli", "token", "create", "--role=viewer"]
    making = [
        subprocess.Popen(
            [*command, name],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    made = [process.communicate(timeout=WAIT_SECONDS)[0].strip() for process in making]
    file = TokenFile(path)
    assert {token.name for token in file.all()} == set(names)
    for name, text in zip(names, made, strict=True):
        found = file.find(text)
        assert found is not None
        assert found.name == name
    assert os.listdir(os.path.dirname(path)).count("tokens.json") == 1
    assert not [name for name in os.listdir(os.path.dirname(path)) if name.endswith(".tmp")]


GARBLED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "no JSON": lambda _: b"hello",
    "no UTF-8": lambda _: b"\xff\xfe",
    "a list": lambda _: b"[]",
    "a text": lambda _: b'"tokens"',
    "without tokens": lambda _: b"{}",
    "null": lambda _: b'{"tokens": null}',
    "strange tokens": lambda _: b'{"tokens": [1, 2]}',
    "another role": lambda data: data.replace(b'"admin"', b'"king"'),
    "no role": lambda data: data.replace(b'"admin"', b"null"),
    "no hash": lambda data: re.sub(rb'"hash": "[^"]*"', b'"hash": ""', data),
    "another hash": lambda data: re.sub(rb'"hash": "[^"]*"', '"hash": "é"'.encode(), data),
    "an end in words": lambda data: data.replace(b'"expires_at": null', b'"expires_at": "never"'),
    "a key more": lambda data: data.replace(b'"id"', b'"is_root": true, "id"'),
    "nested": lambda _: b'{"tokens": ' * 100_000,
}


def test_a_token_file_that_cannot_be_read_opens_nothing(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    own = Closed(make_server())
    path = Path(own.file.path)
    good = path.read_bytes()
    cookie = own.session("admin")
    for name, garble in GARBLED.items():
        path.write_bytes(garble(good))
        for headers in ({}, {"Cookie": cookie}, {"Authorization": f"Bearer {own.tokens['admin']}"}):
            answer = own.ask("GET", "/deployments", headers=headers)
            the_sentence(answer, *((401,) if not headers else (503,)))
        assert own.ask("POST", "/login", data={"token": own.tokens["admin"]}).status_code == 503, (
            name
        )
        listed = run_cli(own.server.folder, "token", "list")
        assert (listed.returncode, listed.stderr.count("\n")) == (100, 1), name
        made = run_cli(own.server.folder, "token", "create", "new", "--role", "admin")
        assert (made.returncode, made.stdout) == (100, ""), name
        assert path.read_bytes() == garble(good)
    assert "tokens.json" in capfd.readouterr().err
    path.unlink()
    path.mkdir()
    bearer = {"Authorization": f"Bearer {own.tokens['admin']}"}
    the_sentence(own.ask("GET", "/deployments", headers=bearer), 401, 503)
    path.rmdir()
    path.symlink_to("nowhere")
    the_sentence(own.ask("GET", "/deployments", headers=bearer), 401, 503)
    path.unlink()
    path.write_bytes(good)
    assert own.ask("GET", "/deployments", headers=bearer).status_code == 200


def test_a_file_that_leads_nowhere_closes_a_server_that_was_open(server: Server) -> None:
    (server.data_dir / ".access").mkdir(exist_ok=True)
    (server.data_dir / ".access" / "tokens.json").symlink_to("nowhere")
    the_sentence(httpx.get(f"{server.url}/deployments"), 401)


def test_listening_for_others_takes_tokens_and_says_how_to_make_them(tmp_path: Path) -> None:
    refused = run_cli(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, refused.stdout) == (100, "")
    for hint in ("0.0.0.0", "tornado-logs token create", "--role", "trusted_proxies"):
        assert hint in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_expired_tokens_alone_a_server_lets_nobody_in_until_there_is_another(
    tmp_path: Path,
) -> None:
    file = TokenFile(str(tmp_path / "data/.access/tokens.json"))
    _, text = file.create("a", Role.ADMIN, expires_seconds=0.01)
    server = Server(tmp_path, 'host = "0.0.0.0"')
    server.start()
    try:
        for headers in ({}, {"Authorization": f"Bearer {text}"}):
            the_sentence(httpx.get(f"{server.url}/deployments", headers=headers), 401)
        text = file.create("b", Role.ADMIN)[1]
        headers = {"Authorization": f"Bearer {text}"}
        assert httpx.get(f"{server.url}/deployments", headers=headers).status_code == 200
    finally:
        server.close()


# --- who did what


def test_what_is_done_is_put_down_with_who_did_it_and_from_where(proxied: Closed) -> None:
    before = len(proxied.audit())
    headers = {"X-Remote-User": "alice", "X-Forwarded-For": "10.1.2.3"}
    started = proxied.ask("POST", "/deployments", json={"command": "sleep 60"}, headers=headers)
    deployment_id = started.json()["id"]
    proxied.server.wait_for_state(deployment_id, "running")
    for action in ("share", "stop"):
        path = f"/deployments/{deployment_id}/{action}"
        assert proxied.ask("POST", path, headers=headers).is_success
    proxied.ask("POST", "/login", data={"token": proxied.tokens["viewer"]})
    proxied.ask("POST", "/login", data={"token": "tl_wrong"})
    started_by, share, stop, sign_in, refused = proxied.audit()[before:]
    who = {"address": "10.1.2.3", "user": "alice", "role": "operator", "via": "proxy"}
    for entry, action in ((started_by, "start"), (share, "share"), (stop, "stop")):
        assert entry["action"] == action
        assert entry["deployment"] == deployment_id
        assert entry.items() >= who.items()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", entry["time"])
    assert started_by["source"] == "shell"
    assert started_by["request"]["command"] == "sleep 60"
    assert (sign_in["action"], sign_in["user"], sign_in["via"]) == (
        "sign-in",
        "the viewer",
        "session",
    )
    assert (refused["action"], "user" in refused) == ("sign-in refused", False)
    record = proxied.server.wait_for_end(deployment_id)
    assert record["requested_by"].items() >= who.items()
    assert record["stopped_by"].items() >= who.items()
    newest = proxied.ask_as("admin", "GET", "/audit?limit=5").json()["entries"]
    assert newest == proxied.audit()[:-6:-1]


def test_what_is_refused_is_not_put_down_as_done(closed: Closed) -> None:
    before = closed.audit()
    closed.ask("POST", "/deployments", json={"command": "true"})
    closed.ask_as("viewer", "POST", "/deployments", json={"command": "true"})
    closed.ask_as("operator", "POST", "/deployments", json={"command": 5})
    closed.ask_as("operator", "POST", f"/deployments/{closed.id}/stop", headers={"Origin": "x"})
    assert closed.audit() == before


def test_nobody_can_write_a_line_of_his_own_into_the_audit_or_the_servers_log(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    proxied = Closed(make_server(PROXY_CONFIG))
    forged = "\n[I 990101 00:00:00 web:1] forged"
    evil = ["\n", "\r", "\x1b[2J", "\x9b2J", "\x85", "\x00", "\x08"]
    # Paths: as they stand, and encoded.
    for path in ("/%0aforged%0d%1b[2J", "/deployments/%0aforged%1b[2J/stop", "/a?b=%0aforged"):
        for method in ("GET", "POST"):
            proxied.raw(method, path)
            proxied.raw(method, path, "X-Remote-User: bob")
    for char in evil:
        for name in ("Origin", "Sec-Fetch-Site", "X-Remote-User", "X-Forwarded-For", "Accept"):
            proxied.raw("POST", "/deployments", f"{name}: x{char}forged: y")
        proxied.raw("GET", "/deployments", f"Authorization: Bearer x{char}forged")
        proxied.raw("GET", f"/deployments/x{char}forged")
    proxied.ask("POST", "/login", data={"token": f"x{forged}", "next": f"/{forged}"})
    command = {"command": f"true #{forged}\x1b[2J\x9b", "name": f"n{forged}"}
    assert proxied.ask_as("operator", "POST", "/deployments", json=command).status_code == 201
    err = capfd.readouterr().err
    assert "refused POST '/deployments'" in err
    for line in err.splitlines():
        assert not line.startswith(("forged", "[I 99")), line
        assert "\x1b[2J" not in line
        assert "\x9b" not in line
        assert "\x00" not in line
        assert "\x85" not in line
    data = (proxied.server.data_dir / ".access" / "audit.jsonl").read_bytes()
    assert re.fullmatch(rb"[\x20-\x7e\n]*", data)
    for audit_line in data.splitlines():
        assert json.loads(audit_line)["action"] in ("start", "sign-in refused")


def test_no_secret_of_a_request_is_kept_anywhere(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    closed = Closed(make_server())
    cookie, share = closed.session(), closed.share()
    closed.ask("POST", "/share", data={"token": share})
    xsrf, field = form_token(closed)
    for secret in (share, *closed.tokens.values()):
        headers = {"Authorization": f"Bearer {secret}x", "Cookie": f"{cookie}x; {xsrf}"}
        closed.ask("POST", "/login", data={"token": secret + "x"})
        closed.ask("POST", "/deployments", headers=headers, json={"command": "true"})
        closed.ask("GET", "/nothing", headers=headers)
        closed.ask("GET", f"/logs/{closed.id}", headers={"Authorization": f"Bearer {secret}"})
    err = capfd.readouterr().err
    kept = [data for _, data in closed.server.kept()]
    secrets = [*(text.split("_", 2)[2] for text in closed.tokens.values()), share[4:40], field]
    for secret in [*secrets, cookie.rpartition("|")[2].strip('"')]:
        assert secret not in err
        assert not any(secret.encode() in data for data in kept)


def test_several_workers_keep_one_audit_and_one_key(make_server: Callable[..., Server]) -> None:
    closed = Closed(make_server("workers = 3"))
    before = len(closed.audit())
    session = closed.session()

    def share(number: int) -> int:
        path = f"/deployments/{closed.id}/share"
        return closed.ask_as("operator", "POST", path, json={"expires_seconds": number}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(share, range(1, 121))) == {201}
        read = pool.map(
            lambda _: closed.ask("GET", "/deployments", headers={"Cookie": session}).status_code,
            range(40),
        )
        assert set(read) == {200}
    entries = closed.audit()[before:]
    assert sorted(entry["action"] for entry in entries) == ["share"] * 120 + ["sign-in"]
    closed.file.revoke("the operator")
    for _ in range(20):
        answer = closed.ask("GET", "/deployments", headers={"Cookie": session})
        the_sentence(answer, 401)


def test_each_refusal_stands_in_the_servers_log(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    closed = Closed(make_server())
    cases: list[tuple[Callable[[], httpx.Response], str]] = [
        (lambda: closed.ask("GET", "/deployments"), "GET '/deployments' from 127.0.0.1"),
        (lambda: closed.ask("GET", "/audit", headers={"Host": "evil.com"}), "evil.com"),
        (lambda: closed.ask_as("viewer", "POST", "/deployments", json={}), "viewer"),
        (
            lambda: closed.ask("POST", "/deployments", headers={"Origin": "http://evil.com"}),
            "http://evil.com",
        ),
        (lambda: closed.ask("POST", "/login", data={"token": "x"}), "/login"),
        (lambda: closed.ask("POST", "/share", data={"token": "x"}), "/share"),
    ]
    for request, words in cases:
        capfd.readouterr()
        assert request().status_code in (401, 403)
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "refused" in lines[0]
        assert words in lines[0]


# --- short fuzzing: no stranger is ever somebody, and nothing falls over

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LATIN = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=60)
PIECES = st.lists(
    st.sampled_from(
        ["Bearer ", "bearer", "Basic ", "tl_", "tls_", "2|1:0|", "|", ":", "=", ";", ",", " ", '"',
         "\\", "%", "\x00", "\xff", "10:", "tornado_logs_", "eyJ", "-1", "{}", "10.9.9.9", "[::1]",
         "127.0.0.1", "localhost", "//", "@", "a", "0", "_"]
    ),
    max_size=12,
).map("".join)  # fmt: skip
TEXTS = LATIN | PIECES


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Access:
    """What a closed server knows, without the server."""
    folder = tmp_path_factory.mktemp("access") / ".access"
    access = Access(
        Config(trusted_proxies=["10.9.9.9"], user_header="X-User", hosts=["logs.example.com"]),
        str(folder),
    )
    access.tokens.create("a", Role.ADMIN)
    return access


def request_with(**headers: str) -> HTTPServerRequest:
    """A request with these headers (underscores are hyphens), from nowhere near."""
    given: Any = HTTPHeaders({"Host": "localhost"})
    for name, value in headers.items():
        # Past what HTTPHeaders refuses, for whoever may hand a request on one day.
        given._as_list[name.replace("_", "-").title()] = [value]
    request = HTTPServerRequest(headers=given, start_line=RequestStartLine("GET", "/", "HTTP/1.1"))
    request.remote_ip = "192.0.2.1"
    return request


@FUZZ
@given(authorization=TEXTS, cookie=TEXTS, user=TEXTS, key=TEXTS)
def test_no_nonsense_is_a_user(
    access: Access, authorization: str, cookie: str, user: str, key: str
) -> None:
    cookies = f"{access.session_cookie}={cookie}; {access.session_cookie}_{key}={cookie}"
    request = request_with(authorization=authorization, cookie=cookies, x_user=user)
    assert access.user_of(request, Client("192.0.2.1", "http")) is None
    assert access.sign_in(authorization) is None
    assert access.user_of_share("tls_" + cookie) is None
    assert access.user_of_share(authorization) is None


@FUZZ
@given(name=TEXTS)
def test_the_proxys_word_is_a_name_or_nothing(access: Access, name: str) -> None:
    user = access.user_of(request_with(x_user=name), Client("192.0.2.1", "http", "10.9.9.9"))
    if user is not None:
        assert user.name == name.strip()
        assert user.name.isprintable()
        assert "," not in user.name
        assert user.role is Role.VIEWER


@FUZZ
@given(
    chain=TEXTS, protocol=TEXTS, peer=st.sampled_from(["10.9.9.9", "::ffff:10.9.9.9", "10.9.9.8"])
)
def test_whatever_is_forwarded_a_client_has_an_address_and_a_protocol(
    access: Access, chain: str, protocol: str, peer: str
) -> None:
    request = request_with(x_forwarded_for=chain, x_forwarded_proto=protocol)
    request.remote_ip = peer
    client = access.client_of(request)
    assert client.protocol in ("http", "https")
    assert re.fullmatch(r"[0-9a-fA-F.:]+(%[^\s%]+)?", client.address)
    if peer == "10.9.9.8":
        assert client == Client(peer, "http")


@FUZZ
@given(host=TEXTS)
def test_whatever_the_host_is_it_is_ours_or_not(access: Access, host: str) -> None:
    if access.is_our_host(host):
        assert re.search(r"localhost|127\.|::1|logs\.example\.com", host, re.IGNORECASE)


@FUZZ
@given(path=TEXTS | st.text(max_size=30))
def test_whatever_comes_next_is_a_page_of_ours(path: str) -> None:
    found = local_path(path)
    assert found.startswith("/")
    assert found.isprintable()
    assert httpx.URL("http://ours.test/").join("/x").host == "ours.test"
    assert not re.match(r"/[/\\]", found)


@FUZZ
@given(authorization=TEXTS, cookie=TEXTS, host=TEXTS, forwarded=TEXTS)
def test_no_nonsense_makes_a_server_stumble(
    closed: Closed, authorization: str, cookie: str, host: str, forwarded: str
) -> None:
    headers = [
        f"Authorization: {authorization}",
        f"Cookie: {cookie}",
        f"X-Forwarded-For: {forwarded}",
    ]
    answer = closed.raw("GET", f"/logs/{closed.id}/raw", *headers)
    assert answer.split(b" ")[1] in (b"400", b"401", b"403") or not answer, answer[:200]
    assert SECRET_LINE.encode() not in answer
    other = closed.raw("POST", "/login", f"X-Forwarded-Host: {host}", f"Origin: {host}")
    assert other[:12] != b"HTTP/1.1 500"


@settings(parent=FUZZ, max_examples=20)
@given(data=st.binary(max_size=200))
def test_a_file_of_nonsense_holds_no_tokens(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f" / "tokens.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    file = TokenFile(str(path))
    assert file.exists
    with contextlib.suppress(TokenError):
        assert file.find("tl_aaaaaaaa_" + "A" * 43) is None


def test_a_stranger_s_large_body_is_not_taken(closed: Closed) -> None:
    for path in ("/login", "/logout", "/share", "/deployments/x/stop", "/nothing"):
        with socket.create_connection(("127.0.0.1", closed.server.port), timeout=10) as sock:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n"
            sock.sendall(head.encode())
            answer = sock.recv(65536)  # before any of the body was sent
            assert b" 400 " in answer.splitlines()[0] or not answer, path


def test_a_large_request_to_start_something_is_still_answered_in_a_sentence(
    closed: Closed,
) -> None:
    answer = closed.server.http.post("/deployments", content=b"x" * 3_000_000)
    assert answer.status_code == 413
    assert "1,048,576" in answer.json()["error"]


# --- strangers who try again and again


def test_a_stranger_does_not_fill_the_audit_with_wrong_tokens(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    closed = Closed(make_server("max_refused_sign_ins = 3"))
    before = len(closed.audit())
    for number in range(20):
        answer = closed.ask("POST", "/login", data={"token": f"wrong{number}"})
        if number < 3:
            the_sentence(answer, 401)
            continue
        assert "max_refused_sign_ins" in the_sentence(answer, 429)
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    entries = closed.audit()[before:]
    assert [entry["action"] for entry in entries] == ["sign-in refused"] * 4
    assert ["note" in entry for entry in entries] == [False, False, False, True]
    # It has locked out nobody, not even at its own address.
    assert closed.session("viewer")
    assert len(capfd.readouterr().err.splitlines()) < 10


def test_one_stranger_does_not_shut_out_another(make_server: Callable[..., Server]) -> None:
    server = make_server(f"max_refused_sign_ins = 1\n{PROXY_CONFIG}")
    closed = Closed(server)

    def ask(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        return closed.ask("POST", "/login", data={"token": "x"}, headers=headers).status_code

    assert [ask("10.1.1.1"), ask("10.1.1.1"), ask("10.1.1.2")] == [401, 429, 401]


def test_many_addresses_do_not_fill_the_audit_either(make_server: Callable[..., Server]) -> None:
    closed = Closed(make_server(PROXY_CONFIG))
    before = len(closed.audit())
    with httpx.Client(base_url=closed.server.url) as http:
        for number in range(150):
            headers = {"X-Forwarded-For": f"10.1.1.{number}"}
            answer = http.post("/login", data={"token": "x"}, headers=headers)
            assert answer.status_code == 401  # none of them has had its share
    entries = closed.audit()[before:]
    assert len(entries) == 101
    assert "note" in entries[-1]


def test_refusals_do_not_fill_the_servers_log(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    closed = Closed(make_server())
    capfd.readouterr()
    with httpx.Client(base_url=closed.server.url) as http:
        for _ in range(150):
            assert http.get("/deployments").status_code == 401
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 101
    assert "too many" in lines[-1]
