"""Reads whole answers at the least cost to the reader, for measurements of throughput.

    drained = drain(port, Request("/logs/mine"), viewers=50)
    drained.seconds, drained.body_bytes, drained.tails

The bytes go to one buffer and are only counted; the ends of the answers are kept to be checked.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.common import BenchmarkError

_BUFFER_BYTES = 1024 * 1024
_TAIL_BYTES = 8192
_HEAD_BYTES = 4096
_STUCK_SECONDS = 60.0
_SHOWN_BYTES = 64 * 1024  # at the end of an answer that is skipped


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    path: str
    accept: str = "text/event-stream"

    def encode(self, port: int) -> bytes:
        """The bytes of the request; the answer ends with the connection."""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: {self.accept}\r\n"
            "Connection: close\r\n\r\n"
        ).encode()


@dataclass(slots=True)
class Drained:
    """What came: the bytes of each answer without its head, and the last few of them."""

    seconds: float
    body_bytes: list[int] = field(default_factory=list)
    tails: list[bytes] = field(default_factory=list)


class _Answer:
    def __init__(self, port: int, request: Request) -> None:
        self.socket = socket.socket()
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(request.encode(port))
        self.body_bytes = 0
        self.tail = b""
        self._head = b""
        self.in_head = True

    def take(self, piece: memoryview) -> None:
        """Count a piece."""
        self.body_bytes += len(piece)
        self.tail = (self.tail + bytes(piece[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
        if self.in_head:
            self._head += bytes(piece[:_HEAD_BYTES])
            self._find_body()

    def _find_body(self) -> None:
        if (end := self._head.find(b"\r\n\r\n")) >= 0:
            if b" 200 " not in self._head[:20]:
                raise BenchmarkError(f"the server answered {self._head[:40]!r}")
            self.body_bytes -= end + 4
            self.in_head = False


class Reader:
    """Reads any number of answers at once, and asks again if that is wanted.

    With `rest_seconds` it rests before each look: what comes meanwhile is one piece, which costs
    less. Of answers that have `skipped_bytes` and more so many are thrown away, but for the end of
    those, without a copy of them: tcp(7), MSG_TRUNC. So they cost this process next to nothing.
    """

    def __init__(self, port: int, rest_seconds: float = 0.0, skipped_bytes: int = 0) -> None:
        self._port = port
        self._rest_seconds = rest_seconds
        self._skipped_bytes = skipped_bytes - _SHOWN_BYTES
        self._view = memoryview(bytearray(_BUFFER_BYTES))
        self._epoll = select.epoll()
        self._open: dict[int, tuple[Request, _Answer]] = {}
        self.total_bytes = 0

    def ask(self, request: Request) -> None:
        """Begin with another answer."""
        answer = _Answer(self._port, request)
        self._open[answer.socket.fileno()] = request, answer
        self._epoll.register(answer.socket.fileno(), select.EPOLLIN)

    def read(self) -> Iterator[tuple[Request, int, bytes]]:
        """Take what has come; of each answer that has ended its request, its bytes, its tail."""
        if self._rest_seconds:
            time.sleep(self._rest_seconds)
        if not (ready := self._epoll.poll(_STUCK_SECONDS)):
            raise BenchmarkError(f"nothing came for {_STUCK_SECONDS:g} s")
        for fd, _ in ready:
            request, answer = self._open[fd]
            if size := self._skip(answer):
                answer.body_bytes += size
            elif size := answer.socket.recv_into(self._view):
                answer.take(self._view[:size])
            else:
                self._end(fd)
                yield request, answer.body_bytes, answer.tail
            self.total_bytes += size

    def _skip(self, answer: _Answer) -> int:
        most = min(self._skipped_bytes - answer.body_bytes, _BUFFER_BYTES)
        if answer.in_head or most <= 0:
            return 0
        return answer.socket.recv_into(self._view, most, socket.MSG_TRUNC)

    @property
    def is_done(self) -> bool:
        """Whether all answers have ended."""
        return not self._open

    def close(self) -> None:
        """Close what is still open."""
        for fd in tuple(self._open):
            self._end(fd)
        self._epoll.close()

    def _end(self, fd: int) -> None:
        _, answer = self._open.pop(fd)
        self._epoll.unregister(fd)
        answer.socket.close()


def drain(port: int, request: Request, viewers: int = 1) -> Drained:
    """Read the answers of all viewers at once, each to its end."""
    drained = Drained(0.0)
    started = time.monotonic()
    with contextlib.closing(Reader(port)) as reader:
        for _ in range(viewers):
            reader.ask(request)
        while not reader.is_done:
            for _, body_bytes, tail in reader.read():
                drained.body_bytes.append(body_bytes)
                drained.tails.append(tail)
    drained.seconds = time.monotonic() - started
    return drained


def seconds_to(port: int, request: Request, wanted: bytes, timeout: float = 300.0) -> float:
    """How long from the request, on a new connection, until these bytes have come."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request.encode(port))
        came = b""
        while wanted not in came:
            piece = connection.recv(65536)
            if not piece:
                raise BenchmarkError(f"{request.path} ended without {wanted!r}: {came[-200:]!r}")
            came = came[-len(wanted) :] + piece
    return time.monotonic() - started
