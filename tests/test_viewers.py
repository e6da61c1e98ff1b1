"""How many viewers there may be: who is refused, in which words, and that seats are given back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Server, drop_log, wait_for
from sse_client import open_stream

from tornado_logs.config import Config
from tornado_logs.viewers import TooManyViewersError, Viewers

SEATS = 4
FOREVER = "echo begun; sleep 1000"


# --- the object


def test_counts_go_back_to_nothing_and_a_seat_is_released_once() -> None:
    viewers = Viewers(Config(), lambda: True)
    seats = [viewers.admit(f"10.0.0.{number % 3}", f"id{number % 2}") for number in range(12)]
    started = viewers.admit("10.0.0.9")
    started.watch("new")
    assert (viewers.count, viewers.by_address["10.0.0.0"], viewers.by_deployment["new"]) == (
        13,
        4,
        1,
    )
    for seat in (*seats, *seats, started, started):
        seat.release()
    assert (viewers.count, viewers.by_address, viewers.by_deployment) == (0, {}, {})


def test_one_network_of_ipv6_is_one_address() -> None:
    """A client has 2**64 of them: it could take as many seats as there are."""
    viewers = Viewers(Config(max_viewers_per_address=2), lambda: True)
    viewers.admit("2001:db8:1:2::1")
    viewers.admit("2001:db8:1:2:ffff::")
    with pytest.raises(TooManyViewersError):
        viewers.admit("2001:db8:1:2:3:4:5:6")
    viewers.admit("2001:db8:1:3::1")
    viewers.admit("10.0.0.1")


def test_without_descriptors_nobody_is_admitted() -> None:
    viewers = Viewers(Config(), lambda: False)
    with pytest.raises(TooManyViewersError, match="as many files"):
        viewers.admit("10.0.0.1")
    assert (viewers.count, viewers.by_address) == (0, {})


# --- refusals


def refusal(answer: Any, status: int, setting: str) -> str:
    """The sentence of a refusal that says which limit it is and when to come back."""
    assert answer.status_code == status, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    sentence = str(answer.json()["error"])
    assert setting in sentence
    assert "try again" in sentence
    return sentence


@contextlib.contextmanager
def streams(server: Server, *paths: str, **request: Any) -> Iterator[None]:
    """Streams that stay open within."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(open_stream(server.http, path, **request))
        yield


def test_beyond_max_viewers_every_kind_of_stream_is_refused(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_viewers = 3")
    running = server.deploy(FOREVER)["id"]
    wait_for(lambda: server.log(running) == b"begun\n", "its first line")
    ended = drop_log(server, "ended", b"one\ntwo\n")
    with streams(server, f"/logs/{running}", f"/logs/{running}/search?q=x", "/events"):
        for path in (
            f"/logs/{running}",
            f"/logs/{ended}",
            f"/logs/{running}/raw",
            f"/logs/{ended}/raw",
            f"/logs/{ended}/search?q=one",
            "/events",
        ):
            answer = server.http.get(path, headers={"Accept": "text/event-stream"})
            assert "3 viewers" in refusal(answer, 503, "max_viewers"), path
        # What isn't a stream goes on.
        assert server.http.get(f"/logs/{running}/lines").json()["lines"] == ["begun"]
        assert server.http.head(f"/logs/{ended}/raw").headers["Content-Length"] == "8"
        assert server.http.get("/", headers={"Accept": "text/html"}).status_code == 200
    wait_for(lambda: server.http.get(f"/logs/{ended}/raw").status_code == 200, "a seat")


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
def test_a_post_that_would_stream_is_refused_before_anything_is_started(
    make_server: Callable[..., Server], accept: str
) -> None:
    server = make_server("max_viewers = 1")
    mark = server.folder / "was-run"
    with streams(server, "/events"):
        before = set(server.data_dir.iterdir())
        request = {"command": f"touch {mark}"}
        answer = server.http.post("/deployments", json=request, headers={"Accept": accept})
        refusal(answer, 503, "max_viewers")
        assert set(server.data_dir.iterdir()) == before
        # One that doesn't stream takes no seat.
        server.wait_for_end(server.deploy("true")["id"])
    assert not mark.exists()


def test_one_deployment_does_not_take_the_seats_of_others(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_viewers_per_deployment = 2")
    one, other = server.deploy(FOREVER)["id"], server.deploy(FOREVER)["id"]
    command = {"command": FOREVER}
    with (
        streams(server, f"/logs/{one}", f"/logs/{one}/search?q=x"),
        open_stream(server.http, "/deployments", method="POST", json=command) as posted,
    ):
        sentence = refusal(server.http.get(f"/logs/{one}/raw"), 503, "max_viewers_per_deployment")
        assert one in sentence
        assert "2 viewers" in sentence
        # Who has started one is its viewer too.
        third = posted.response.headers["Location"].rpartition("/")[2]
        with streams(server, f"/logs/{other}", f"/logs/{third}"):
            refusal(server.http.get(f"/logs/{third}"), 503, "max_viewers_per_deployment")


def test_one_address_does_not_take_the_seats_of_others(
    make_server: Callable[..., Server],
) -> None:
    """The address is that of the client, by the word of a trusted proxy."""
    server = make_server('max_viewers_per_address = 2\ntrusted_proxies = ["127.0.0.1"]')
    running = server.deploy(FOREVER)["id"]
    one, other = {"X-Forwarded-For": "127.0.0.7"}, {"X-Forwarded-For": "127.0.0.8"}
    with streams(server, f"/logs/{running}", "/events", headers=one):
        answer = server.http.get(f"/logs/{running}", headers=one)
        sentence = refusal(answer, 429, "max_viewers_per_address")
        assert "127.0.0.7" in sentence
        assert "2 streams" in sentence
        with streams(server, f"/logs/{running}", "/events", headers=other):
            refusal(server.http.get("/events", headers=other), 429, "max_viewers_per_address")


# --- goings


def send(
    server: Server,
    path: str,
    *headers: str,
    method: str = "GET",
    body: bytes = b"",
    version: int = 1,
) -> socket.socket:
    """A connection on which this was asked."""
    lines = [f"{method} {path} HTTP/1.{version}", f"Host: 127.0.0.1:{server.port}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return sock


def read_to_end(sock: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 20):
            data += piece
    return bytes(data)


EVENTS = "Accept: text/event-stream"
CLOSE = "Connection: close"
POST_HEADERS = (EVENTS, CLOSE, "Content-Type: application/json")


class Goings:
    """All the ways in which a viewer may come and go; each takes a seat and gives it back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.running = server.deploy("yes | head -n 300000; sleep 1000")["id"]
        self.ended = drop_log(server, "ended", b"a line\n" * 500_000)
        wait_for(lambda: len(server.log(self.running)) >= 600_000, "a long log")

    def leave(self, *request: str, first_bytes: int = 0, **options: Any) -> None:
        """Close the connection when so many bytes have come."""
        with send(self.server, *request, **options) as sock:
            got = 0
            while got < first_bytes:
                piece = sock.recv(65536)
                assert b" 503 " not in piece[:20], piece
                got += len(piece)

    def read(self, *request: str, status: int = 200, **options: Any) -> bytes:
        """Read to the end of the connection; the last event's data."""
        with send(self.server, *request, **options) as sock:
            answer = read_to_end(sock)
            assert answer.split(b" ", 2)[1] == str(status).encode(), answer[:500]
            return answer

    def after_the_end(self) -> None:
        """A viewer that comes back although it has had everything."""
        answer = self.read(f"/logs/{self.ended}?tail=1", EVENTS)
        (cursor,) = re.findall(rb"event: end\nid: (\S+)", answer) or re.findall(
            rb"id: (\S+)\nevent: end", answer
        )
        self.read(
            f"/logs/{self.ended}", EVENTS, CLOSE, f"Last-Event-ID: {cursor.decode()}", status=204
        )

    def send_more(self) -> None:
        """A viewer of a quiet log that sends what isn't read, behind which its end is hidden."""
        with send(self.server, f"/logs/{self.running}?tail=1", "Accept: text/plain") as sock:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"more")

    def deleted(self) -> None:
        """A log that is deleted under its viewer."""
        name = drop_log(self.server, "deleted", b"a line\n" * 200_000)
        with send(self.server, f"/logs/{name}", EVENTS) as sock:
            sock.recv(10)
            (self.server.data_dir / f"{name}.log").unlink()
            wait_for(lambda: self.server.http.get(f"/logs/{name}").status_code == 404, "it to go")
            assert b"event: end" in read_to_end(sock)

    def body(self, command: object) -> bytes:
        """What starts this command."""
        return json.dumps({"command": command}).encode()

    def all(self) -> dict[str, Callable[[], Any]]:
        """By name."""
        live, ended, raw = f"/logs/{self.running}", f"/logs/{self.ended}", f"/logs/{self.ended}/raw"
        post: dict[str, Any] = {"method": "POST"}
        return {
            "asks and leaves": lambda: self.leave(live, EVENTS),
            "leaves behind at once": lambda: self.leave(live, EVENTS, first_bytes=100),
            "leaves at the live edge": lambda: self.leave(
                f"{live}?tail=1", EVENTS, first_bytes=100
            ),
            "leaves after more bytes": lambda: self.leave(live, EVENTS, first_bytes=400_000),
            "sends more and leaves": self.send_more,
            "reads to the end": lambda: self.read(f"{ended}?tail=10", EVENTS),
            "comes after the end": self.after_the_end,
            "asks wrongly": lambda: self.read(f"{ended}?tail=x", EVENTS, CLOSE, status=400),
            "HTTP/1.0, leaves": lambda: self.leave(live, EVENTS, first_bytes=100, version=0),
            "HTTP/1.0, to the end": lambda: self.read(f"{ended}?tail=10", EVENTS, version=0),
            "text, leaves": lambda: self.leave(f"{live}/raw", first_bytes=100),
            "download, to the end": lambda: self.read(raw, CLOSE),
            "download, a part": lambda: self.read(raw, CLOSE, "Range: bytes=5-9", status=206),
            "download, beyond": lambda: self.read(raw, CLOSE, "Range: bytes=9999999-", status=416),
            "download, leaves": lambda: self.leave(raw, first_bytes=100),
            "download, asks and leaves": lambda: self.leave(raw),
            "head": lambda: self.read(raw, CLOSE, method="HEAD"),
            "the list, leaves": lambda: self.leave("/events", first_bytes=100),
            "the list, asks and leaves": lambda: self.leave("/events"),
            "the list, asks wrongly": lambda: self.read("/events?state=x", CLOSE, status=400),
            "search, to the end": lambda: self.read(f"{ended}/search?q=line", EVENTS, CLOSE),
            "search, leaves": lambda: self.leave(f"{live}/search?q=y", EVENTS, first_bytes=100),
            "search, asks and leaves": lambda: self.leave(f"{live}/search?q=y", EVENTS),
            "search, after the end": lambda: self.read(
                f"{live}/search?q=y", CLOSE, "Last-Event-ID: end", status=204
            ),
            "post, to the end": lambda: self.read(
                "/deployments", *POST_HEADERS, body=self.body("true"), **post
            ),
            "post, leaves": lambda: self.leave(
                "/deployments", *POST_HEADERS, body=self.body("sleep 1000"), first_bytes=100, **post
            ),
            "post, refused": lambda: self.read(
                "/deployments", *POST_HEADERS, body=self.body([]), status=400, **post
            ),
            "deleted": self.deleted,
        }


def test_each_viewer_gives_its_seat_back_however_it_goes(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    """More of each kind than there are seats: one that wasn't given back would be missed."""
    server = make_server(f"max_viewers = {SEATS}\nstall_seconds = 2")
    goings = Goings(server)

    def free_seats() -> int:
        with contextlib.ExitStack() as stack:
            for count in range(SEATS + 1):
                answer = stack.enter_context(server.http.stream("GET", "/events"))
                if answer.status_code != 200:
                    return count
        return SEATS + 1

    def has_a_seat() -> bool:
        # What is wrong with it is found out once it is admitted, and told when its seat is free.
        return server.http.get(f"/logs/{goings.ended}?tail=x").status_code == 400

    for kind, go in goings.all().items():
        for _ in range(SEATS + 1):
            wait_for(has_a_seat, f"a seat after those of the kind {kind!r}")
            go()
        what = f"the seats of those of the kind {kind!r}"
        free = wait_for(lambda: (count := free_seats()) >= SEATS and count, what)
        assert free == SEATS, f"more than {what}"
    assert "Traceback" not in capfd.readouterr().err
