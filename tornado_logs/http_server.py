"""Tornado's HTTP server, which can end without cutting off the answers that it owes.

server = DrainingServer(application)
connections = Connections(server, sockets, stall_seconds)
...
await server.stop_accepting(connections.close)
was_all_answered = await server.drain(5.0)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

_TURNS = 5


class DrainingServer(HTTPServer):
    """Knows which connections have been asked for something that they haven't answered yet."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Tornado's hook in place of `__init__`."""
        super().initialize(*args, **kwargs)
        self._busy: set[object] = set()
        self._is_draining = False
        self._has_answered = asyncio.Event()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """A connection waits for its next request: the one before was answered."""
        self._note_answer(server_conn)
        if self._is_draining:
            cast(HTTP1ServerConnection, server_conn).stream.close()
        delegate = super().start_request(server_conn, request_conn)
        return _Request(delegate, partial(self._busy.add, server_conn))

    def on_close(self, server_conn: object) -> None:
        """A connection was closed, or taken by somebody else."""
        self._note_answer(server_conn)
        super().on_close(server_conn)

    def _note_answer(self, server_conn: object) -> None:
        self._busy.discard(server_conn)
        self._has_answered.set()

    async def stop_accepting(self, stop: Callable[[], None]) -> None:
        """Take what has come by now, connections and requests, and `stop` to take more."""
        # One waits to be accepted, then to be read, then to be parsed: each takes a turn.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        stop()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def drain(self, seconds: float) -> bool:
        """Close each connection once it has answered, within `seconds`; whether all have."""
        self._is_draining = True
        for connection in tuple(self._connections):
            if connection not in self._busy:
                connection.stream.close()
        try:
            async with asyncio.timeout(seconds):
                while self._busy:
                    self._has_answered.clear()
                    await self._has_answered.wait()
        except TimeoutError:
            return False
        return True


class _Request(HTTPMessageDelegate):
    """Passes a request on to the application, and says so once it has begun."""

    def __init__(self, application: HTTPMessageDelegate, on_begin: Callable[[], None]) -> None:
        self._application = application
        self._on_begin = on_begin

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._on_begin()
        return self._application.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._application.data_received(chunk)

    def finish(self) -> None:
        self._application.finish()

    def on_connection_close(self) -> None:
        self._application.on_connection_close()
