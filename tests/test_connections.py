"""Connections: as many as the system lets there be, and an end for those that stand still."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS, Server, drop_log, tcp_row, wait_for
from sse_client import lines_of, open_stream, parse, read_events, unchunked
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from tornado_logs.connections import Connections

LIMIT = 128
RESERVE = 32
EVENTS = "Accept: text/event-stream"
CHURN_CONNECTIONS = int(os.environ.get("CHURN_CONNECTIONS", "2000"))
WAVE_CONNECTIONS = 250  # both ends are on this machine


def connect(server: Server, *, receive_bytes: int | None = None) -> socket.socket:
    """A connection, with a small buffer at its end where one is asked for."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(WAIT_SECONDS)
    sock.connect(("127.0.0.1", server.port))
    return sock


def ask(sock: socket.socket, path: str, *headers: str, version: int = 1) -> None:
    lines = [f"GET {path} HTTP/1.{version}", "Host: localhost", *headers]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of an answer of known length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in fields)}
    while len(body) < int(headers["content-length"]):
        body += sock.recv(65536)
    return int(status.split(" ")[1]), headers, body


def read_to_end(sock: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 20):
            data += piece
    return bytes(data)


def descriptors_of(server: Server) -> int:
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def limit_descriptors(server: Server, soft: int) -> None:
    """As `ulimit -n` would have, before the server was started."""
    assert server.process is not None
    hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def filled(server: Server) -> Iterator[list[socket.socket]]:
    """As many connections as the server takes; each is known to be one that it keeps."""
    with contextlib.ExitStack() as stack:
        kept: list[socket.socket] = []
        for _ in range(LIMIT):
            sock = stack.enter_context(connect(server))
            ask(sock, "/presets")
            status, headers, body = read_answer(sock)
            if status == 503:
                assert int(headers["retry-after"]) > 0
                assert "try again" in json.loads(body)["error"]
                assert sock.recv(1) == b"", "a refused connection is closed"
                yield kept
                return
            assert status == 200
            kept.append(sock)
    pytest.fail("no connection was refused")


# --- descriptors


def test_a_full_server_says_so_and_serves_those_it_has(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    server = make_server()
    running = server.deploy("for i in $(seq 1 100); do echo $i; sleep 0.01; done")["id"]
    server.http.close()
    server.http = type(server.http)(base_url=server.url, timeout=WAIT_SECONDS)
    server.http.get("/deployments")  # a connection from before
    limit_descriptors(server, LIMIT)
    with filled(server) as kept:
        assert LIMIT - RESERVE - 40 < len(kept) <= LIMIT - RESERVE
        for _ in range(20):
            with connect(server) as late:
                assert read_answer(late)[0] == 503
        # Who has a connection is served; there are descriptors left to start and to stop.
        started = server.deploy("echo started; sleep 1000")["id"]
        wait_for(lambda: server.log(started), "its output")
        assert server.http.post(f"/deployments/{started}/stop").status_code == 202
        assert server.wait_for_end(started)["state"] == "stopped"
        ask(kept[-1], f"/logs/{started}/lines")
        assert json.loads(read_answer(kept[-1])[2])["lines"] == ["started"]
    wait_for(lambda: len(read_events(server.http, f"/logs/{started}")), "room")
    with connect(server) as sock:
        ask(sock, "/presets")
        assert read_answer(sock)[0] == 200
    server.wait_for_end(running)
    assert server.log(running) == b"".join(b"%d\n" % number for number in range(1, 101))
    assert capfd.readouterr().err.count("too many connections") == 1


def test_viewers_of_many_logs_leave_descriptors_for_others(server: Server) -> None:
    """Each takes one for its connection and one for its log: more than there are, in all."""
    with contextlib.ExitStack() as stack:
        for number in range(LIMIT):  # as long as we have them open, they run
            path = server.data_dir / f"log{number}.log"
            stack.enter_context(path.open("ab", buffering=0)).write(b"a line\n")
        server.wait_for_state(f"log{LIMIT - 1}", "running")
        limit_descriptors(server, LIMIT)
        first, *others = stack.enter_context(filled(server))
        for number, sock in enumerate(others):
            ask(sock, f"/logs/log{number}", EVENTS)
        statuses = [int(sock.recv(15).split(b" ")[1]) for sock in others]
        assert set(statuses) == {200, 503}
        assert descriptors_of(server) <= LIMIT - RESERVE // 2
        body = json.dumps({"command": "true"}).encode()
        head = f"POST /deployments HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        first.sendall(head.encode() + b"\r\n\r\n" + body)
        status, _, answer = read_answer(first)
        assert status == 201, answer
        assert server.wait_for_end(json.loads(answer)["id"])["state"] == "succeeded"


def test_without_a_descriptor_accepting_rests_and_takes_up_again(
    make_server: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing is taken for what it isn't, as long as it can't be read."""
    server = make_server()
    running = server.deploy("for i in $(seq 1 200); do echo $i; sleep 0.01; done")["id"]
    server.wait_for_state(running, "running")
    limit_descriptors(server, 5)
    with connect(server) as sock:
        ask(sock, "/presets")
        record = server.data_dir / f"{running}.json"
        wait_for(lambda: "succeeded" in record.read_text(), "the end of the command")
        for _ in range(50):  # meanwhile it hears of that
            assert server.record(running)["state"] == "running"
        limit_descriptors(server, 1024)
        assert read_answer(sock)[0] == 200
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if "cannot accept connections" in line]) == 1
    assert len(lines) < 100
    # What could not be read meanwhile is read now.
    assert server.wait_for_state(running, "succeeded")["exit_status"] == 0
    assert server.log(running) == b"".join(b"%d\n" % number for number in range(1, 201))


class Exhausted(socket.socket):
    """A listening socket that counts how often it is asked, and has no descriptor to give."""

    asked = 0
    is_exhausted = True

    def accept(self) -> tuple[socket.socket, object]:
        """See socket.accept."""
        self.asked += 1
        if self.is_exhausted:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_who_waits_to_be_accepted_keeps_nobody_busy() -> None:
    """The listening socket stays readable: a loop that tries on and on would do nothing else."""

    async def run() -> tuple[int, bytes]:
        listener = Exhausted()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        connections = Connections(HTTPServer(Application()), [listener], stall_seconds=60)
        connections.start()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        for _ in range(200):  # turns of the loop, in each of which it could have tried
            await asyncio.sleep(0.001)
        asked, listener.is_exhausted = listener.asked, False
        async with asyncio.timeout(WAIT_SECONDS):
            answer = await reader.read()
        writer.close()
        connections.close()
        return asked, answer

    asked, answer = asyncio.run(run())
    assert asked < 20
    assert answer.startswith(b"HTTP/1.1 404 ")


# --- time


def test_who_drips_a_request_is_let_go_and_a_silent_viewer_is_not(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(
        "header_seconds = 1\nbody_seconds = 1\nstall_seconds = 1\nping_seconds = 60"
    )
    gate = server.folder / "gate"
    running = server.deploy(f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo two")["id"]
    head = b"POST /deployments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with (
        open_stream(server.http, f"/logs/{running}") as viewer,
        server.http.stream("GET", f"/logs/{running}/raw") as raw,
        connect(server) as silent,
        connect(server) as idle,
        connect(server) as headers,
        connect(server) as body,
    ):
        viewer.wait_for_lines(1)
        pieces = raw.iter_raw()
        assert next(pieces) == b"one\n"
        ask(idle, "/presets")
        assert read_answer(idle)[0] == 200
        headers.sendall(b"GET /presets HTTP/1.1\r\n")
        body.sendall(head)
        for sock, drop in ((silent, b""), (headers, b"X-A: b\r\n"), (body, b"x"), (idle, b"")):
            wait_for(partial(has_hung_up, sock, drop), f"the end of {drop!r}")
        gate.touch()
        assert viewer.wait_for_lines(2) == ["one", "two"]
        viewer.read_to_end()
        assert b"".join(pieces) == b"two\n"


def has_hung_up(sock: socket.socket, drop: bytes) -> bool:
    """Whether the server has closed the connection; one more drop to it, if not."""
    time.sleep(0.05)  # a drip
    try:
        sock.sendall(drop)
        return bool(select.select([sock], [], [], 0)[0]) and sock.recv(1) == b""
    except OSError:
        return True


# --- those that take nothing

LINES = 200_000
STALLED = f"seq 1 {LINES}"


def wait_for_the_end_of(sock: socket.socket) -> None:
    """Wait until the server has ended the connection, without reading from it."""
    port = sock.getpeername()[1]
    wait_for(lambda: not server_end(sock, port), "the end of a connection that takes nothing")


def queued_bytes(server: Server, sock: socket.socket) -> int:
    """How many bytes for this client wait in the server's kernel."""
    here = sock.getsockname()[1]
    row = tcp_row(server.port, here)
    assert row, "the server has closed the connection"
    return int(row[4].partition(":")[0], 16)


def has_fallen_behind(server: Server, sock: socket.socket) -> bool:
    """Whether the server waits for this client to take more."""
    return queued_bytes(server, sock) > 100_000


def server_end(sock: socket.socket, port: int) -> str:
    """The timer (see proc(5)) of the server's end of this connection, "" once that has gone."""
    row = tcp_row(port, sock.getsockname()[1])
    return row[5].partition(":")[0] if row else ""


def stalled_events(server: Server, path: str, version: int = 1) -> bytes:
    """What had come by when the server gave up a client that didn't read."""
    with connect(server, receive_bytes=1 << 20) as sock:
        ask(sock, path, EVENTS, version=version)
        wait_for_the_end_of(sock)
        body = read_to_end(sock).partition(b"\r\n\r\n")[2]
    return unchunked(body) if version else body


@pytest.fixture(scope="module")
def stalling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nobody for long."""
    server = Server(tmp_path_factory.mktemp("stalling"), "stall_seconds = 0.5\nping_seconds = 60")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def running(stalling: Server) -> str:
    """A deployment that runs and has said much."""
    deployment_id = str(stalling.deploy(f"{STALLED}; sleep 1000", tty=False)["id"])
    end = b"\n%d\n" % LINES
    wait_for(lambda: stalling.log(deployment_id).endswith(end), "a long log")
    return deployment_id


@pytest.mark.parametrize(
    ("version", "query"), [(1, ""), (1, "batch=1"), (0, "")], ids=["live", "batches", "HTTP/1.0"]
)
def test_a_viewer_that_takes_nothing_is_let_go_and_comes_back_by_its_cursor(
    stalling: Server, running: str, version: int, query: str
) -> None:
    path = f"/logs/{running}?{query}"
    before = parse(stalled_events(stalling, path, version))
    assert before
    assert not [event for event in before if event.type == "end"]
    cursor = before[-1].last_event_id
    lines = lines_of(before)
    assert 0 < len(lines) < LINES
    with connect(stalling) as sock:
        ask(sock, path, EVENTS, f"Last-Event-ID: {cursor}", version=0)
        rest = b""
        while not rest.endswith(b"%d\n\n" % LINES):
            rest += sock.recv(1 << 20)
    lines += lines_of(parse(rest.partition(b"\r\n\r\n")[2]))
    assert lines == [str(number) for number in range(1, LINES + 1)]


def test_those_who_take_nothing_share_what_waits_for_them(server: Server) -> None:
    """A block of short lines is a megabyte and more on the wire."""
    running = server.deploy(f"{STALLED}; sleep 1000", tty=False)["id"]
    path = f"/logs/{running}"
    wait_for(lambda: server.log(running).endswith(b"\n%d\n" % LINES), "a long log")
    with open_stream(server.http, path) as stream:
        stream.wait(lambda: len(stream.raw) > 4_000_000, "some blocks")
    before = memory_bytes(server)
    with contextlib.ExitStack() as stack:
        stalled = []
        for _ in range(60):
            sock = stack.enter_context(connect(server, receive_bytes=4096))
            ask(sock, path, EVENTS)
            assert sock.recv(1)
            stalled.append(sock)
        wait_for(
            lambda: all(has_fallen_behind(server, sock) for sock in stalled), "all to fall behind"
        )
        assert memory_bytes(server) - before < 30_000_000
        # Nor does the kernel keep megabytes for each.
        assert all(queued_bytes(server, sock) < 500_000 for sock in stalled)


def test_who_takes_nothing_keeps_no_more_than_the_block_it_is_in(server: Server) -> None:
    """A block is half a megabyte here. Each is at a place of its own, so there is none to share."""
    name = drop_log(server, "places", b"".join(b"%078d\n" % number for number in range(400_000)))
    end = read_events(server.http, f"/logs/{name}?tail=0")[-1].last_event_id
    before = memory_bytes(server)
    with contextlib.ExitStack() as stack:
        for number in range(40):
            sock = stack.enter_context(connect(server, receive_bytes=4096))
            ask(sock, f"/logs/{name}?after={end[:8]}-{79 * 9000 * number}", EVENTS)
            assert sock.recv(1)
            wait_for(partial(has_fallen_behind, server, sock), "it to fall behind")
        assert memory_bytes(server) - before < 30_000_000


def test_a_download_that_takes_nothing_is_let_go_and_goes_on_by_its_range(
    stalling: Server,
) -> None:
    content = b"".join(b"%d\n" % number for number in range(2_000_000))
    name = drop_log(stalling, "download", content)
    with connect(stalling, receive_bytes=4096) as sock:
        ask(sock, f"/logs/{name}/raw")
        wait_for_the_end_of(sock)
        begun = read_to_end(sock).partition(b"\r\n\r\n")[2]
    rest = stalling.http.get(f"/logs/{name}/raw", headers={"Range": f"bytes={len(begun)}-"})
    assert rest.status_code == 206
    assert begun + rest.content == content


def test_what_lies_in_the_kernels_buffer_alone_is_a_stall_too(
    stalling: Server, running: str
) -> None:
    """A search, and the changes of the list: too little to fill a buffer, but never taken."""
    for path in (f"/logs/{running}/search?q=99", "/events", f"/logs/{running}?tail=2000"):
        with connect(stalling, receive_bytes=2048) as sock:
            ask(sock, path, EVENTS)
            if path == "/events":
                for _ in range(20):
                    stalling.deploy("true")
            wait_for_the_end_of(sock)


def test_whoever_goes_on_reading_however_slowly_stays(stalling: Server, running: str) -> None:
    """It takes some bytes in each half second."""
    with connect(stalling, receive_bytes=4096) as sock:
        ask(sock, f"/logs/{running}", EVENTS)
        for _ in range(40):
            time.sleep(0.05)  # a slow reader
            assert sock.recv(16384)
        assert server_end(sock, stalling.port)


def test_a_connection_of_any_kind_that_takes_nothing_is_closed(tmp_path: Path) -> None:
    """Also where the kernel doesn't see to it: this is no TCP."""

    class Much(RequestHandler):
        """Sends more than any buffer takes."""

        def get(self) -> None:
            """See the class."""
            self.write(b"x" * 10_000_000)

    async def run() -> int:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.setblocking(False)
        server = HTTPServer(Application([("/", Much)]))
        connections = Connections(server, [listener], stall_seconds=0.2)
        connections.start()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"), limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            await reader.readexactly(1)  # and no more
            while connections.open:  # noqa: ASYNC110 - nothing tells when that changes
                await asyncio.sleep(0.01)
        got = len(await reader.read(-1))
        writer.close()
        connections.close()
        return got

    assert asyncio.run(run()) < 10_000_000


def test_a_machine_that_has_vanished_is_found_out(server: Server, known: str) -> None:
    """The kernel probes connections on which nothing is sent: /proc/net/tcp says so (timer 2)."""
    with connect(server) as sock:
        ask(sock, f"/logs/{known}/raw")
        sock.recv(1)
        wait_for(lambda: server_end(sock, server.port) == "02", "the timer of probes")


@pytest.fixture
def known(server: Server) -> str:
    """A deployment that runs and has said something."""
    return str(server.deploy("echo a; sleep 1000")["id"])


# --- many that come and go


def memory_bytes(server: Server) -> int:
    assert server.process is not None
    (kb,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    return int(kb) * 1024


def leave_at_once(_: socket.socket, path: str) -> None:
    """Without a word."""


def leave_in_the_headers(sock: socket.socket, path: str) -> None:
    """Half a request."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: loc".encode())


def leave_after_asking(sock: socket.socket, path: str) -> None:
    """A whole one."""
    ask(sock, path, EVENTS)


def leave_after_more(sock: socket.socket, path: str) -> None:
    """A whole one and some bytes, which the server never reads."""
    ask(sock, f"{path}/raw")
    sock.sendall(b"more")


def leave_after_the_first_bytes(sock: socket.socket, path: str) -> None:
    """With what has come unread."""
    ask(sock, path, EVENTS)
    assert b" 200 " in sock.recv(20)


LEAVINGS: tuple[Callable[[socket.socket, str], None], ...] = (
    leave_at_once,
    leave_in_the_headers,
    leave_after_asking,
    leave_after_more,
    leave_after_the_first_bytes,
)


def wave(server: Server, path: str) -> None:
    """Some hundred at a time, of all kinds."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(WAVE_CONNECTIONS)]
        for number, sock in enumerate(socks):
            LEAVINGS[number % len(LEAVINGS)](sock, path)


def test_thousands_that_come_and_leave_leave_nothing_behind(
    make_server: Callable[..., Server],
) -> None:
    """CHURN_CONNECTIONS says how many; 2,000."""
    server = make_server(f"max_viewers = {WAVE_CONNECTIONS}\nstall_seconds = 2")
    path = f"/logs/{server.deploy('seq 1 1000; sleep 1000')['id']}"
    with open_stream(server.http, path) as stream:
        stream.wait_for_lines(1000)
    descriptors = wait_for(lambda: descriptors_of(server), "a count")
    for number in range(CHURN_CONNECTIONS // WAVE_CONNECTIONS):
        wave(server, path)
        wait_for(lambda: descriptors_of(server) <= descriptors, "the descriptors of a wave")
        if number == 0:
            before = memory_bytes(server)
    assert memory_bytes(server) - before < 8_000_000
    # Not one is still counted.
    with contextlib.ExitStack() as stack:
        for _ in range(WAVE_CONNECTIONS):
            sock = stack.enter_context(connect(server))
            ask(sock, path, EVENTS)
            assert b" 200 " in sock.recv(20)
        with connect(server) as late:
            ask(late, path, EVENTS)
            assert read_answer(late)[0] == 503
