"""Accepts connections for a server, no more than it can keep, and ends those that stand still.

    connections = Connections(server, sockets, stall_seconds=300.0)
    connections.start()
    ...
    connections.close()             # accepts no more; those that are open, the server ends

Tornado would do the accepting too. But where the system has no descriptor or no memory left, its
listening socket stays readable, and its loop does nothing but log that. Here the loop rests for a
moment; and with a few descriptors left, who comes is told so, instead of nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from typing import Any

from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from tornado_logs import descriptors

_ACCEPTED_AT_A_TIME = 128  # then others have their turn
_REST_SECONDS = 1.0
_SILENT_SECONDS = 60.0
_LOOKED_AT_AT_A_TIME = 256  # some 1 ms
_MOST_SWEEP_SECONDS = 15.0
_RETRY_AFTER_SECONDS = 5
_MOST_UNSENT_BYTES = 128 * 1024

# tcp(7) has no names for them in Python: include/net/tcp_states.h
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds

_Stall = tuple[float, int]
"""Since when a client has taken nothing, and how many bytes the kernel had for it then."""

logger = logging.getLogger("tornado_logs")


def _refusal() -> bytes:
    sentence = (
        "this server has as many connections open as the system lets it; "
        f"try again in {_RETRY_AFTER_SECONDS} seconds"
    )
    body = json.dumps({"error": sentence}).encode() + b"\n"
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Retry-After: {_RETRY_AFTER_SECONDS}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


_REFUSAL = _refusal()


class Connection(IOStream):
    """A client's connection, which knows whether the client has taken anything lately."""

    def __init__(self, sock: socket.socket, connections: Connections) -> None:
        super().__init__(sock)
        self.has_moved = False
        self._connections = connections
        connections.open[self] = None

    def write_to_fd(self, data: memoryview) -> int:
        """See BaseIOStream: only what the socket didn't take at once comes by here again."""
        sent_bytes = super().write_to_fd(data)
        self.has_moved = True
        return sent_bytes

    def close_fd(self) -> None:
        """See BaseIOStream."""
        self._connections.open.pop(self, None)
        super().close_fd()


class Connections:
    """The connections of one process, from their acceptance on."""

    def __init__(
        self, server: TCPServer, sockets: Sequence[socket.socket], stall_seconds: float
    ) -> None:
        """The sockets listen already. `stall_seconds`: how long a client may take nothing."""
        self._server = server
        self._sockets = sockets
        self._stall_seconds = stall_seconds
        self.open: dict[Connection, None] = {}  # an ordered set, and half as large as one
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._silent_until = 0.0
        self._stalled: dict[Connection, _Stall] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accept connections."""
        for sock in self._sockets:
            _set_options(sock, self._stall_seconds)
        self._listen()
        self._sweeper = self._loop.create_task(self._sweep())

    def close(self) -> None:
        """Accept no more of them, and close the listening sockets."""
        self._pause()
        for sock in self._sockets:
            sock.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _listen(self) -> None:
        self._rest = None
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def _pause(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_A_TIME):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: see accept(2)
                self._take_a_rest(error)
                return
            if descriptors.is_for_a_connection(connection.fileno()):
                self._serve(connection, address)
            else:
                self._refuse(connection)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        stream = Connection(connection, self)
        try:
            self._server.handle_stream(stream, address)
        except Exception:  # as Tornado does: the next one has done nothing wrong
            logger.exception("cannot serve a connection from %s", address)
            stream.close()

    def _take_a_rest(self, error: OSError) -> None:
        """The socket stays readable, so as long as it is listened to, the loop would spin."""
        self._say("cannot accept connections: %s; trying again each second", error.strerror)
        self._pause()
        self._rest = self._loop.call_later(_REST_SECONDS, self._listen)

    def _refuse(self, connection: socket.socket) -> None:
        self._say(
            "there are too many connections: new ones are refused; `ulimit -n` says how many "
            "descriptors there may be"
        )
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_REFUSAL)
            # Whatever is unread when we close makes of it a reset, which may overtake the answer.
            connection.recv(65536)

    def _say(self, message: str, *values: object) -> None:
        """At most once a minute: it comes with each connection."""
        if self._loop.time() >= self._silent_until:
            self._silent_until = self._loop.time() + _SILENT_SECONDS
            logger.error(message, *values)

    # --- those that stand still

    async def _sweep(self) -> None:
        """Look at all connections, time and again: so what sends to them needn't."""
        while True:
            await asyncio.sleep(min(self._stall_seconds / 4, _MOST_SWEEP_SECONDS))
            stalled: dict[Connection, _Stall] = {}
            ended = 0
            for number, connection in enumerate(tuple(self.open)):
                if number % _LOOKED_AT_AT_A_TIME == _LOOKED_AT_AT_A_TIME - 1:
                    await asyncio.sleep(0)
                ended += self._look_at(connection, stalled)
            self._stalled = stalled
            if ended:
                logger.info("%d clients took nothing for %g s", ended, self._stall_seconds)

    def _look_at(self, connection: Connection, stalled: dict[Connection, _Stall]) -> bool:
        """Close it if its client has gone, or takes nothing; whether that was for the latter."""
        if connection.closed():
            return False
        if connection.writing():
            now, queued_bytes = self._loop.time(), _queued_bytes(connection.socket)
            since, queued_before = self._stalled.get(connection, (now, queued_bytes))
            if connection.has_moved or queued_bytes < queued_before:
                connection.has_moved, since = False, now
            stalled[connection] = since, queued_bytes
            if now - since >= self._stall_seconds:
                _reset(connection)
                return True
        if not connection.reading() and _has_gone(connection.socket):
            connection.close()
        return False


def _reset(connection: Connection) -> None:
    """Close it at once: else the kernel would keep for it what lies in its buffer."""
    with contextlib.suppress(OSError):
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()


def _queued_bytes(sock: socket.socket) -> int:
    """How many bytes the kernel has yet to send, or to hear of (tcp(7), SIOCOUTQ).

    What a slow client takes shows there first: there may be megabytes, and the kernel asks us for
    more only after a third of them.
    """
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _has_gone(sock: socket.socket) -> bool:
    """Whether the client has closed its side, also where what it sent before was never read.

    An IOStream doesn't hear of that end: it listens no more once it has something unread.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        (state,) = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:  # no TCP
        return False
    return state in (_TCP_CLOSE, _TCP_CLOSE_WAIT)


def _set_options(sock: socket.socket, stall_seconds: float) -> None:
    """What Linux passes on to each connection that a listening socket accepts.

    Probes find out that a client's machine is gone where nothing is sent to it; and what was sent
    and is neither taken nor acknowledged ends the connection, also where no byte of it is ours any
    more, but all in the kernel's buffer.
    """
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(stall_seconds)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_seconds * 1000))
    # Else the kernel takes megabytes for each client that takes nothing, and each push to it costs
    # what it costs to one that reads. What is on its way to a fast client far away isn't limited.
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT_BYTES)
