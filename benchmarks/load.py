"""A load: one writer and any number of viewers, who count and time every line.

    python -m benchmarks.load --port 5000 --path /logs/mine --file data/mine.log --viewers 1000

The viewers wait on one epoll in a process of its own. Each line begins with `~` and the time at
which it was written: 19 digits of the monotonic clock's nanoseconds (8 hex digits of microseconds
if the line is short). A viewer counts the `~` of each piece that it receives, whatever the framing
around them, and reads the times of the first and the last whole stamp; those between are taken to
lie evenly between them. A piece that many viewers get, byte for byte the same, is looked at once.
So a few microseconds of Python do for a piece of any number of lines, and one processor keeps up
with millions of lines a second.

The result is one object of JSON, see `LoadResult`. With a rate of 0 the viewers wait for
`--seconds` and then get one line: what the server needed meanwhile, and when the last had it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from benchmarks.system import (
    LOAD_CPU,
    cpu_seconds,
    pin,
    raise_descriptor_limit,
    resident_bytes,
    tree,
)

ROOT = Path(__file__).parent.parent

_BUFFER_BYTES = 256 * 1024
_CONNECT_AT_ONCE = 256  # well below a server's backlog: a SYN too many would wait for a second
_STEP_SECONDS = 0.005
_WARM_TRIES = 10
_WARM_SECONDS = 2.0
_QUIET_SECONDS = 0.3
_BUCKET_NS = 20_000
_BUCKETS = 1_500_000  # 30 s
_STALLED_BUFFER_BYTES = 4096
_FILLER_BYTES = 500_000
_MARK = ord("~")


class LoadError(Exception):
    """The load could not be made: a server refused, or what it sent makes no sense."""


@dataclass(slots=True)
class Load:
    """What to do. Viewers are dealt out to the paths in turn; file and path belong together."""

    port: int
    path: list[str]
    file: list[str]
    viewers: int = 1
    stalled: int = 0  # how many more connect, and read nothing
    rate: float = 100.0  # lines a second, to each file
    seconds: float = 5.0
    line_bytes: int = 100
    drain_seconds: float = 10.0
    server: list[int] = field(default_factory=list)  # pids: they and their children are measured

    def run(self) -> LoadResult:
        """Do it in a process of its own. Raises LoadError."""
        command = [sys.executable, "-m", "benchmarks.load"]
        for item in fields(self):
            value = getattr(self, item.name)
            for one in value if isinstance(value, list) else [value]:
                command += [f"--{item.name.replace('_', '-')}", str(one)]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if process.returncode:
            raise LoadError(f"the load failed: {process.stderr.strip()[-500:]}")
        return LoadResult(**json.loads(process.stdout))

    def run_beside(self, work: Callable[[], object]) -> LoadResult:
        """The same while `work` is done, again and again. Raises LoadError."""
        results: list[LoadResult | LoadError] = []
        thread = threading.Thread(target=lambda: results.append(self._result()))
        thread.start()
        while thread.is_alive():
            work()
        thread.join()
        (result,) = results
        if isinstance(result, LoadError):
            raise result
        return result

    def _result(self) -> LoadResult | LoadError:
        try:
            return self.run()
        except LoadError as error:
            return error


@dataclass(slots=True)
class LoadResult:
    """What came of it. Times of lines are from the writer's `write` to the viewer's `recv`."""

    viewers: int
    complete: int  # viewers that got each line
    lines: int  # written in the measured time, to all files
    delivered: int
    share: float
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float  # of the server's processes
    lines_per_cpu_second: float
    kb_per_viewer: float
    server_mb: float  # resident, at the end
    server_growth_mb: float  # while it was measured
    load_cpu_share: float  # of one processor: near 1.0 the load itself is the limit
    idle_cpu_seconds: float = 0.0


class Delays:
    """The delays of any number of lines, in buckets of 20 microseconds."""

    def __init__(self) -> None:
        self._steps = [0.0] * (_BUCKETS + 1)
        self.max_ns = 0

    def add(self, count: int, longest_ns: int, shortest_ns: int) -> None:
        """Lines whose delays lie evenly between two. Constant time: only the ends are noted."""
        if longest_ns > self.max_ns:
            self.max_ns = longest_ns
        first = min(_BUCKETS - 1, max(0, shortest_ns) // _BUCKET_NS)
        end = min(_BUCKETS - 1, max(0, longest_ns) // _BUCKET_NS) + 1
        if end <= first:
            end = first + 1
        share = count / (end - first)
        self._steps[first] += share
        self._steps[end] -= share

    def percentiles_ms(self, *percents: float) -> list[float]:
        """The delays that these percentages of the lines don't exceed, ascending."""
        counts: list[float] = []
        density = 0.0
        for step in self._steps:
            density += step
            counts.append(density)
        total, seen = sum(counts), 0.0
        found: list[float] = []
        wanted = [total * percent / 100 for percent in percents]
        for bucket, count in enumerate(counts):
            seen += count
            while len(found) < len(wanted) and seen >= wanted[len(found)] - 1e-6:
                found.append((bucket + 1) * _BUCKET_NS / 1e6)
        return found + [self.max_ns / 1e6] * (len(wanted) - len(found))


@dataclass(frozen=True, slots=True)
class Stamp:
    """How a line says when it was written."""

    width: int
    now: Callable[[], bytes]
    age_ns: Callable[[bytes, int], int]

    @classmethod
    def for_lines_of(cls, line_bytes: int) -> Stamp:
        """Nanoseconds where there is room for them."""
        if line_bytes > 20:
            return cls(
                19, lambda: b"%019d" % time.monotonic_ns(), lambda text, now: now - int(text)
            )
        return cls(8, _short_now, _short_age)


def _short_now() -> bytes:
    return b"%08x" % (time.monotonic_ns() // 1000 % 2**32)


def _short_age(text: bytes, now_ns: int) -> int:
    return (now_ns // 1000 - int(text, 16)) % 2**32 * 1000


class Viewers:
    """All connections, and what came by each."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._stamp = Stamp.for_lines_of(load.line_bytes)
        self._epoll = select.epoll()
        self._receive: dict[int, Callable[[bytearray], int]] = {}
        self._buffer = bytearray(_BUFFER_BYTES)
        self._piece = b""  # the last that came, and what is in it
        self._count = self._first_ns = self._last_ns = 0
        self._sockets: list[socket.socket] = []
        self._stalled: list[socket.socket] = []
        self.log_of: dict[int, int] = {}
        self.lines: dict[int, int] = {}
        self.total = 0
        self.last_at_ns = 0
        self.delays = Delays()

    def connect(self) -> None:
        """Connect them all, a few at a time; each has the head of its response afterwards."""
        for number in range(self._load.stalled):
            self._stalled.append(self._open(number, stalled=True))
        for first in range(0, self._load.viewers, _CONNECT_AT_ONCE):
            last = min(self._load.viewers, first + _CONNECT_AT_ONCE)
            for viewer in [self._open(number) for number in range(first, last)]:
                self._expect_ok(viewer)
                self._sockets.append(viewer)
                viewer.setblocking(False)
                self._receive[viewer.fileno()] = viewer.recv_into
                self._epoll.register(viewer.fileno(), select.EPOLLIN)

    def _open(self, number: int, *, stalled: bool = False) -> socket.socket:
        viewer = socket.socket()
        if stalled:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_BUFFER_BYTES)
        # Closed by a reset, so that thousands of ports aren't kept waiting after each run.
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        viewer.settimeout(30.0)
        viewer.connect(("127.0.0.1", self._load.port))
        log = number % len(self._load.path)
        request = f"GET {self._load.path[log]} HTTP/1.1\r\nHost: 127.0.0.1:{self._load.port}\r\n"
        viewer.sendall(f"{request}Accept: text/event-stream\r\n\r\n".encode())
        if not stalled:
            self.log_of[viewer.fileno()] = log
            self.lines[viewer.fileno()] = 0
        return viewer

    def _expect_ok(self, viewer: socket.socket) -> None:
        # Only looked at: the head is received later, as a part of a piece, and holds no line.
        head = viewer.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
        if b" 200" not in head:
            raise LoadError(f"the server answered {head!r}")

    def poll(self, seconds: float) -> None:
        """Take what has come, waiting for it if need be."""
        buffer, lines, receive = self._buffer, self.lines, self._receive
        for fd, _ in self._epoll.poll(seconds, 1024):
            try:
                size = receive[fd](buffer)
            except ConnectionError:
                size = 0
            if not size:
                raise LoadError("the server closed a connection")
            now = time.monotonic_ns()
            # A push gives the same bytes to all: comparing them is several times faster than
            # counting in them, and no less exact.
            if size != len(self._piece) or not buffer.startswith(self._piece):
                self._piece = bytes(memoryview(buffer)[:size])
                self._count, self._first_ns, self._last_ns = self._read(self._piece, now)
            if count := self._count:
                lines[fd] += count
                self.total += count
                self.last_at_ns = now
                if self._last_ns:
                    self.delays.add(count, now - self._first_ns, now - self._last_ns)

    def _read(self, piece: bytes, now: int) -> tuple[int, int, int]:
        """How many lines begin in a piece, and when the first and the last were written.

        The last is 0 where no stamp is whole: its digits come with the next piece.
        """
        width = self._stamp.width
        first, last = piece.find(_MARK), piece.rfind(_MARK)
        if last + width >= len(piece):
            last = piece.rfind(_MARK, 0, last)
        if last < 0:
            return piece.count(_MARK), 0, 0
        written = [
            now - self._stamp.age_ns(piece[mark + 1 : mark + 1 + width], now)
            for mark in (first, last)
        ]
        return piece.count(_MARK), written[0], written[1]

    def poll_for(self, seconds: float) -> None:
        """Take what comes within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.poll(left)

    def poll_until_quiet(self) -> None:
        """Take what comes until nothing more does."""
        before = -1
        while before != self.total:
            before = self.total
            self.poll_for(_QUIET_SECONDS)

    def start_over(self) -> None:
        """Count and time from zero."""
        self.lines = dict.fromkeys(self.lines, 0)
        self.total = 0
        self.delays = Delays()

    def close(self) -> None:
        """Close all connections."""
        for viewer in self._sockets + self._stalled:
            viewer.close()


class Writer:
    """Writes lines at a fixed rate, in a process of its own: no viewer holds it up."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._stamp = Stamp.for_lines_of(load.line_bytes)
        self._orders, self._order = os.pipe()
        self._answer, self._answers = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._obey()
        os.close(self._orders)
        os.close(self._answers)
        os.set_blocking(self._answer, False)

    def write_one(self) -> None:
        """Order a single line in each file."""
        os.write(self._order, b"1")

    def write_filler(self) -> None:
        """Order as many lines at once as no buffer of a viewer who reads nothing has room for."""
        os.write(self._order, b"f")

    def write_all(self) -> None:
        """Order all lines, at their rate."""
        os.write(self._order, b"*")

    def answered(self) -> int | None:
        """How many lines each file got by the last order; None until it is done."""
        try:
            return int(os.read(self._answer, 64))
        except BlockingIOError:
            return None

    def close(self) -> None:
        """End the process."""
        os.close(self._order)
        os.waitpid(self.pid, 0)
        os.close(self._answer)

    def _obey(self) -> None:
        """The life of the writing process: it ends with its orders."""
        status = 1
        try:
            os.close(self._order)
            with contextlib.suppress(OSError):  # where we may: a late writer would look like delay
                os.setpriority(os.PRIO_PROCESS, 0, -10)
            flags = os.O_WRONLY | os.O_APPEND
            files = [os.open(name, flags) for name in self._load.file]
            while order := os.read(self._orders, 1):
                if order == b"*":
                    written = self._run(files)
                else:
                    filler = _FILLER_BYTES // self._load.line_bytes
                    written = self._write(files, 1 if order == b"1" else filler)
                os.write(self._answers, b"%d\n" % written)
            status = 0
        finally:
            os._exit(status)

    def _write(self, files: Sequence[int], count: int) -> int:
        for file in files:
            data = self._line() * count
            while data:
                data = data[os.write(file, data) :]
        return count

    def _line(self) -> bytes:
        line = b"~" + self._stamp.now()
        return line + b" " * (self._load.line_bytes > 20) + b"x" * self._padding + b"\n"

    @property
    def _padding(self) -> int:
        return max(0, self._load.line_bytes - self._stamp.width - 2 - (self._load.line_bytes > 20))

    def _run(self, files: Sequence[int]) -> int:
        """The lines that are due, each millisecond at most; several files take turns."""
        load = self._load
        wanted = int(load.rate * load.seconds)
        tick = max(0.001, 1 / load.rate) / len(files)
        started, written = time.monotonic(), [0] * len(files)
        turn = 0
        while written[-1] < wanted:
            time.sleep(max(0.0, started + turn * tick - time.monotonic()))
            number = turn % len(files)
            due = min(wanted, int((time.monotonic() - started) * load.rate) + 1)
            if due > written[number]:
                self._write(files[number : number + 1], due - written[number])
                written[number] = due
            turn += 1
        return wanted


def measure(load: Load) -> LoadResult:
    """Make the load, and say what came of it."""
    raise_descriptor_limit()
    pin(LOAD_CPU)
    writer = Writer(load)
    viewers = Viewers(load)
    try:
        return _measure(load, writer, viewers)
    finally:
        writer.close()
        viewers.close()


def _measure(load: Load, writer: Writer, viewers: Viewers) -> LoadResult:
    before_bytes = resident_bytes(tree(load.server))
    viewers.connect()
    _warm_up(load, writer, viewers)
    pids = tree(load.server)
    idle_bytes = resident_bytes(pids)
    idle_cpu = _wait_idle(load, viewers, pids) if not load.rate else 0.0
    viewers.start_over()
    cpu, own_cpu, started_ns = cpu_seconds(pids), time.process_time(), time.monotonic_ns()
    lines = _run(load, writer, viewers)
    seconds = (viewers.last_at_ns - started_ns) / 1e9
    own_cpu = time.process_time() - own_cpu
    cpu = cpu_seconds(pids) - cpu
    end_bytes = resident_bytes(pids)
    p50, p99 = viewers.delays.percentiles_ms(50, 99)
    expected = lines * load.viewers
    return LoadResult(
        viewers=load.viewers,
        complete=sum(count == lines for count in viewers.lines.values()),
        lines=lines * len(load.file),
        delivered=viewers.total,
        share=viewers.total / expected,
        seconds=seconds,
        p50_ms=p50,
        p99_ms=p99,
        max_ms=viewers.delays.max_ns / 1e6,
        cpu_seconds=cpu,
        lines_per_cpu_second=viewers.total / cpu if cpu else 0.0,
        kb_per_viewer=(idle_bytes - before_bytes) / 1024 / load.viewers,
        server_mb=end_bytes / 1e6,
        server_growth_mb=(end_bytes - idle_bytes) / 1e6,
        load_cpu_share=own_cpu / seconds if seconds > 0 else 0.0,
        idle_cpu_seconds=idle_cpu,
    )


def _warm_up(load: Load, writer: Writer, viewers: Viewers) -> None:
    """A line at a time until each viewer has seen one: then it is where the log ends."""
    for _ in range(_WARM_TRIES):
        writer.write_one()
        end = time.monotonic() + _WARM_SECONDS
        done = False
        while time.monotonic() < end and not (done and all(viewers.lines.values())):
            viewers.poll(_STEP_SECONDS)
            done = done or writer.answered() is not None
        if done and all(viewers.lines.values()):
            viewers.poll_until_quiet()
            if load.stalled:
                _fill(writer, viewers)
            return
    missing = sum(not count for count in viewers.lines.values())
    raise LoadError(f"{missing} of {load.viewers} viewers get no line")


def _fill(writer: Writer, viewers: Viewers) -> None:
    """Have those who read nothing be stuck from here on: until then they cost what readers do."""
    viewers.start_over()
    writer.write_filler()
    lines: int | None = None
    end = time.monotonic() + _WARM_SECONDS * _WARM_TRIES
    while lines is None or min(viewers.lines.values()) < lines:
        if time.monotonic() > end:
            raise LoadError("the viewers that read don't get what fills the others' buffers")
        viewers.poll(_STEP_SECONDS)
        lines = writer.answered() if lines is None else lines
    viewers.poll_until_quiet()


def _wait_idle(load: Load, viewers: Viewers, pids: set[int]) -> float:
    before = cpu_seconds(pids)
    viewers.poll_for(load.seconds)
    return cpu_seconds(pids) - before


def _run(load: Load, writer: Writer, viewers: Viewers) -> int:
    """All lines; how many there were in each file. Ends when all have come, or none come more."""
    (writer.write_all if load.rate else writer.write_one)()
    lines: int | None = None
    written_at_ns = 0
    while lines is None or (
        viewers.total < lines * load.viewers
        and time.monotonic_ns() - max(viewers.last_at_ns, written_at_ns) < load.drain_seconds * 1e9
    ):
        viewers.poll(_STEP_SECONDS)
        if lines is None and (lines := writer.answered()) is not None:
            written_at_ns = time.monotonic_ns()
    viewers.poll_until_quiet()  # nothing may come twice
    return lines


def main() -> None:
    """Print what came of the load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", action="append", required=True, help="may be repeated")
    parser.add_argument("--file", action="append", required=True, help="one for each path")
    parser.add_argument("--viewers", type=int, default=1)
    parser.add_argument("--stalled", type=int, default=0, help="more that read nothing")
    parser.add_argument("--rate", type=float, default=100.0, help="lines a second; 0: idle")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--line-bytes", type=int, default=100)
    parser.add_argument("--drain-seconds", type=float, default=10.0)
    parser.add_argument("--server", type=int, action="append", default=[], help="a pid")
    load = Load(**vars(parser.parse_args()))
    try:
        print(json.dumps(asdict(measure(load))))
    except (LoadError, OSError) as error:
        sys.exit(f"load: {error}")


if __name__ == "__main__":
    main()
