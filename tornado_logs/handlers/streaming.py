"""The one loop that sends a log to a viewer, whichever request asked for it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from tornado_logs import sse
from tornado_logs.deployment import Record
from tornado_logs.follower import Follower, Framing
from tornado_logs.handlers.base import EVENTS, BaseHandler, UserError


@dataclass(frozen=True, slots=True)
class Start:
    """Where a viewer begins; `reset` if that isn't where it asked to."""

    offset: int
    reset: bool = False


class StreamingHandler(BaseHandler):
    """Sends a log, live, until it has ended or the viewer has gone."""

    _streaming: asyncio.Task[None] | None = None
    _viewer_gone = False

    def on_connection_close(self) -> None:
        """The viewer has gone: stop waiting for news on its behalf."""
        super().on_connection_close()
        self._viewer_gone = True
        if self._streaming is not None:
            self._streaming.cancel()

    def on_finish(self) -> None:
        """A client of HTTP/1.0 knows the end of a stream by the connection's, whatever it asked."""
        if self._streaming is not None and self.request.version == "HTTP/1.0":
            connection = self.request.connection
            if isinstance(connection, HTTP1Connection):
                connection.close()

    async def stream(self, record: Record, *, raw: bool) -> None:
        """Answer the request with the log of this deployment."""
        try:
            follower = self.services.followers.follow(record)
        except FileNotFoundError:
            raise UserError(404, f"the log of {record.id} was deleted") from None
        self._streaming = asyncio.create_task(self._stream(follower, raw=raw))
        try:
            await self._streaming
        except asyncio.CancelledError:
            if not self._viewer_gone:
                raise
        finally:
            self.services.followers.release(follower)

    async def _stream(self, follower: Follower, *, raw: bool) -> None:
        cursor = None if raw else self._cursor()
        if cursor is not None and follower.is_at(cursor) and follower.has_nothing_after(cursor):
            self.set_status(204)  # stops an EventSource for good
            return
        start = await self._start_position(follower, cursor)
        self._set_headers(raw=raw)
        pieces = follower.stream(
            start.offset,
            self._framing(raw=raw),
            partial=self._flag("partial"),
            reset=start.reset,
        )
        async with contextlib.aclosing(pieces):
            with contextlib.suppress(StreamClosedError):
                await self.flush()  # the headers, at once
                async for piece in pieces:
                    self.write(piece)
                    await self.flush()

    def _set_headers(self, *, raw: bool) -> None:
        content_type = "text/plain" if raw else EVENTS
        self.set_header("Content-Type", f"{content_type}; charset=utf-8")
        # no-transform and the second are for proxies: neither compress nor hold back.
        self.set_header("Cache-Control", "no-cache, no-transform")
        self.set_header("X-Accel-Buffering", "no")

    def _framing(self, *, raw: bool) -> Framing:
        if raw:
            return Framing.RAW
        return Framing.BATCHES if self._flag("batch") else Framing.EVENTS

    def _flag(self, name: str) -> bool:
        return self.get_query_argument(name, "") in ("1", "true")

    def _cursor(self) -> sse.Cursor | None:
        """Where the client wants to go on: the header wins, as a browser repeats the URL."""
        text = self.request.headers.get("Last-Event-ID") or self.get_query_argument("after", "")
        if not text:
            return None
        # One that we never gave out can't be right for any log.
        return sse.parse_cursor(text) or sse.Cursor("", 1 << 62)

    async def _start_position(self, follower: Follower, cursor: sse.Cursor | None) -> Start:
        if cursor is not None:
            return Start(cursor.offset) if follower.is_at(cursor) else Start(0, reset=True)
        tail = self.get_query_argument("tail", "")
        if not tail:
            return Start(0)
        if not (tail.isascii() and tail.isdecimal() and len(tail) < 19):
            raise UserError(400, f"tail takes a number of lines, found {tail!r}")
        return Start(await follower.tail_start(int(tail)))
