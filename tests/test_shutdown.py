"""TERM and INT: what was asked is answered, streams end so that clients come back."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from conftest import WAIT_SECONDS, Server, drop_log, wait_for
from sse_client import open_stream, parse
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tornado_logs.connections import Connections
from tornado_logs.http_server import DrainingServer

BODY = json.dumps({"command": "echo ran"}).encode()


@pytest.fixture(params=["workers = 1", "workers = 2"], ids=["alone", "workers"])
def any_server(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> Server:
    """Both kinds, with all the time that a busy machine may take."""
    return make_server(f"{request.param}\nshutdown_seconds = 60\nping_seconds = 3600")


def connect(server: Server, sent: bytes = b"") -> socket.socket:
    """A connection that has sent this much."""
    sock = socket.socket()
    sock.settimeout(WAIT_SECONDS)
    try:
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(sent)
    except OSError:
        sock.close()
        raise
    return sock


def post_of(body: bytes) -> bytes:
    head = "POST /deployments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get_of(path: str, version: str = "1.1", accept: str = "*/*") -> bytes:
    head = f"GET {path} HTTP/{version}\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
    return head.encode()


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body of the answer; a body that is cut off is an error."""
    with closing(http.client.HTTPResponse(sock)) as response:
        response.begin()
        return response.status, response.read()


def is_served(server: Server) -> bool:
    """Whether anybody accepts connections at its address."""
    try:
        connect(server).close()
    except OSError:
        return False
    return True


def tell(server: Server, number: signal.Signals = signal.SIGTERM) -> None:
    assert server.process is not None
    server.process.send_signal(number)


def end_of(server: Server) -> int:
    """The exit status of a server that was told to end."""
    assert server.process is not None
    assert server.process.stdout is not None
    status = server.process.wait(WAIT_SECONDS)
    server.process.stdout.close()
    server.process = None
    return status


def processes_of(server: Server) -> list[int]:
    """The server and its workers."""
    assert server.process is not None
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_whose_body_is_on_its_way_is_answered(
    any_server: Server, number: signal.Signals
) -> None:
    request = post_of(BODY + b" " * 300_000)
    with connect(any_server, request[:200_000]) as sock:
        any_server.http.get("/")  # a worker has begun with both by now, or the one that there is
        tell(any_server, number)
        wait_for(lambda: not is_served(any_server), "new connections to be refused")
        sock.sendall(request[200_000:])
        status, body = answer(sock)
    assert status == 201
    assert end_of(any_server) == 0
    any_server.start()
    deployment = json.loads(body)["id"]
    assert any_server.wait_for_end(deployment)["state"] == "succeeded"
    assert any_server.log(deployment) == b"ran\n"


def test_what_was_sent_before_the_signal_is_answered_although_nobody_had_accepted_it(
    any_server: Server,
) -> None:
    pids = processes_of(any_server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    sockets = [connect(any_server, post_of(BODY)) for _ in range(20)]
    sockets += [connect(any_server, get_of("/deployments")) for _ in range(20)]
    tell(any_server)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    answers = []
    for sock in sockets:
        with sock:
            answers.append(answer(sock)[0])
    assert answers == [201] * 20 + [200] * 20
    assert end_of(any_server) == 0


def test_what_nobody_has_accepted_yet_is_answered_before_a_server_ends() -> None:
    async def serve() -> bytes:
        server = DrainingServer(Application([(r"/(.*)", Hello)]))
        (listening,) = bind_sockets(0, "127.0.0.1")
        connections = Connections(server, [listening], stall_seconds=60)
        connections.start()
        with socket.create_connection(listening.getsockname()) as sock:
            sock.sendall(get_of("/"))
            # The loop has had no turn in which to accept it.
            await server.stop_accepting(connections.close)
            assert await server.drain(WAIT_SECONDS)
            return read_all(sock)

    assert asyncio.run(serve()).endswith(b"hello")


class Hello(RequestHandler):
    """Takes a moment to answer."""

    async def get(self, _path: str) -> None:
        """So that it has begun, and not ended, when the server is to end."""
        await asyncio.sleep(0.05)
        self.write(b"hello")


def test_a_download_that_is_under_way_comes_to_its_end(any_server: Server) -> None:
    data = b"a line of a log that is long enough\n" * 500_000
    drop_log(any_server, "long", data)
    with connect(any_server, get_of("/logs/long/raw")) as sock:
        rest = sock.recv(1)  # the kernel's buffers hold less than what is to come
        tell(any_server)
        wait_for(lambda: not is_served(any_server), "new connections to be refused")
        while piece := sock.recv(1 << 20):
            rest += piece
    assert rest.partition(b"\r\n\r\n")[2] == data
    assert end_of(any_server) == 0


def test_a_window_that_is_being_searched_for_is_answered(server: Server) -> None:
    drop_log(server, "long", b"short\n" * 5_000_000)
    with connect(server, get_of("/logs/long/lines?from=-3")) as sock:
        server.http.get("/")
        tell(server)
        status, body = answer(sock)
    assert status == 200
    assert json.loads(body)["lines"] == ["short"] * 3
    assert end_of(server) == 0


def test_a_client_that_does_not_go_on_holds_nobody_up_for_longer_than_is_said(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("shutdown_seconds = 0.3")
    with connect(server, post_of(BODY)[:-5]) as sock:
        server.http.get("/")
        tell(server)
        assert end_of(server) == 0
        assert sock.recv(1000) == b""


@pytest.mark.parametrize("leaves", [False, True])
def test_a_window_that_takes_for_ever_holds_nobody_up_for_longer_than_is_said(
    make_server: Callable[..., Server], leaves: bool
) -> None:
    server = make_server("shutdown_seconds = 0.3")
    with open(server.data_dir / "huge.log", "wb") as log:
        log.truncate(1 << 39)  # no block of it is on the disk, and no line end in it
    server.wait_for_state("huge", "running", "finished")
    with connect(server, get_of("/logs/huge/lines?from=-3")) as sock:
        server.http.get("/presets")
        if leaves:
            sock.close()
            server.http.get("/presets")
        tell(server)
        assert end_of(server) == 0


@pytest.mark.parametrize(
    ("workers", "number", "status"),
    [
        (1, signal.SIGTERM, -signal.SIGTERM),
        (1, signal.SIGINT, -signal.SIGINT),
        (2, signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_a_second_signal_ends_it_at_once(
    make_server: Callable[..., Server], workers: int, number: signal.Signals, status: int
) -> None:
    server = make_server(f"workers = {workers}\nshutdown_seconds = 3600")
    with connect(server, post_of(BODY)[:-5]):
        server.http.get("/")
        tell(server, number)
        wait_for(lambda: not is_served(server), "new connections to be refused")
        tell(server, number)
        assert end_of(server) == status


def test_an_idle_connection_is_closed(any_server: Server) -> None:
    with connect(any_server, get_of("/deployments")) as sock:
        while not sock.recv(100_000).endswith(b"\n"):
            pass
        tell(any_server)
        assert sock.recv(100) == b""
        assert end_of(any_server) == 0


STREAMS = {
    "events": "/logs/{id}",
    "batches": "/logs/{id}?batch=1",
    "partial": "/logs/{id}?partial=1",
    "search": "/logs/{id}/search?q=line",
    "list": "/events",
}


def test_event_streams_end_cleanly_and_without_an_end_of_the_log(any_server: Server) -> None:
    deployment = any_server.deploy("echo line one; sleep 1000")["id"]
    any_server.wait_for_state(deployment, "running")
    sockets = {}
    for name, path in STREAMS.items():
        sockets[name] = connect(any_server, get_of(path.format(id=deployment)))
    begun = {name: wait_for_event(sock) for name, sock in sockets.items()}
    tell(any_server)
    for name, sock in sockets.items():
        with sock:
            body = b"".join(chunks(begun[name] + read_all(sock)))
        events = parse(body.partition(b"\r\n\r\n")[2])
        assert "end" not in [event.type for event in events], name
    assert end_of(any_server) == 0


def wait_for_event(sock: socket.socket) -> bytes:
    """What a stream says up to a whole event or the wait for one: its headers and more."""
    data = b""
    while data.count(b"\n\n") < 1:
        data += sock.recv(100_000)
    return data


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(100_000):
        data += piece
    return data


def chunks(data: bytes) -> Iterator[bytes]:
    """The head of an answer, then its chunks; fails where the last one is missing."""
    head, end, rest = data.partition(b"\r\n\r\n")
    yield head + end
    while True:
        length, _, rest = rest.partition(b"\r\n")
        assert length, f"the body was cut off: {data[-200:]!r}"
        if int(length, 16) == 0:
            assert rest == b"\r\n"
            return
        chunk, rest = rest[: int(length, 16)], rest[int(length, 16) + 2 :]
        yield chunk


def test_a_log_read_as_text_is_cut_off_so_that_nobody_takes_a_part_for_the_whole(
    any_server: Server,
) -> None:
    deployment = any_server.deploy("echo line one; sleep 1000")["id"]
    any_server.wait_for_state(deployment, "running")
    with any_server.http.stream("GET", f"/logs/{deployment}/raw") as stream:
        pieces = stream.iter_raw()
        assert next(pieces) == b"line one\n"
        tell(any_server)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    assert end_of(any_server) == 0


def test_viewers_through_servers_that_end_in_peace_get_each_line_once_and_no_error(
    any_server: Server,
) -> None:
    command = "for i in $(seq 1 2000); do echo line $i; test $((i % 20)) = 0 && sleep 0.01; done"
    deployment = any_server.deploy(command)["id"]
    viewers = [Reader(any_server, deployment, query) for query in ("", "partial=1", "batch=1")]
    for viewer in viewers:
        viewer.start()
    for _ in range(2):
        time.sleep(0.3)  # the moment of the signal is what is tried here
        assert any_server.terminate() == 0
        any_server.start()
    for viewer in viewers:
        viewer.join()
        assert viewer.errors == []
        assert viewer.lines == [f"line {number}" for number in range(1, 2001)]


class Reader(threading.Thread):
    """Comes back by its cursor, and takes note of whatever isn't a clean end of a body."""

    def __init__(self, server: Server, deployment: str, query: str) -> None:
        super().__init__()
        self._server = server
        self._path = f"/logs/{deployment}?{query}"
        self.lines: list[str] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Read to the end of the log."""
        last_id, has_ended = "", False
        deadline = time.monotonic() + WAIT_SECONDS
        while not has_ended and time.monotonic() < deadline:
            with ExitStack() as stack:
                http = stack.enter_context(httpx.Client(base_url=self._server.url, timeout=20))
                try:
                    stream = stack.enter_context(
                        open_stream(http, self._path, last_event_id=last_id)
                    )
                except httpx.TransportError:  # nobody is there, or nobody yet
                    time.sleep(0.02)
                    continue
                try:
                    while not stream.closed:
                        stream.read_piece()
                except httpx.TransportError as error:
                    self.errors.append(repr(error))
                self.lines += stream.lines
                last_id = stream.parser.last_event_id
                has_ended = bool(stream.of_type("end"))
