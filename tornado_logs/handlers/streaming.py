"""Sends a log to a viewer, whichever request asked for it: by `live`, or by a loop of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from tornado_logs import sse
from tornado_logs.deployment import Record
from tornado_logs.follower import Follower, Followers, Framing, Position
from tornado_logs.handlers.base import TEXT, BaseHandler, UserError
from tornado_logs.viewers import Seat


class StreamingHandler(BaseHandler):
    """Sends a log, live, until it has ended or the viewer has gone."""

    _streaming: asyncio.Task[bool] | None = None
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

    async def stream(self, record: Record, *, raw: bool, seat: Seat | None = None) -> None:
        """Answer the request with this deployment's log. `seat`: what the viewer has already."""
        seat = seat or self.admit(record.id)
        await self._follow(record, partial(self._stream, seat=seat, raw=raw), seat)

    async def follow(
        self, record: Record, answer: Callable[[Follower], Coroutine[Any, Any, bool]]
    ) -> None:
        """Answer with what `answer` sends as it follows the log; cancel it if the viewer goes."""
        await self._follow(record, answer, self.admit(record.id))

    async def _follow(
        self, record: Record, answer: Callable[[Follower], Coroutine[Any, Any, bool]], seat: Seat
    ) -> None:
        """`answer` returns whether it has left follower and seat to another, who releases them."""
        try:
            follower = self.services.followers.follow(record)
        except BaseException as error:
            seat.release()
            if isinstance(error, FileNotFoundError):
                raise UserError(404, f"the log of {record.id} was deleted") from None
            raise
        self._streaming = asyncio.create_task(answer(follower))
        self.services.streams.add(self)
        taken = False
        ending = self._disconnect_later()
        try:
            taken = await self._streaming
        except asyncio.CancelledError:
            if not self._viewer_gone:
                raise
        except StreamClosedError:
            pass
        finally:
            if ending is not None:
                ending.cancel()
            if not taken:
                _let_go(self.services.followers, follower, seat)

    def _disconnect_later(self) -> asyncio.TimerHandle | None:
        """A share link holds for a while, and so does what is read by it."""
        user = self.known_user()
        if user.via != "share" or user.until is None:
            return None
        seconds = max(0.0, user.until - time.time())
        return asyncio.get_running_loop().call_later(seconds, self.disconnect)

    async def _stream(self, follower: Follower, *, seat: Seat, raw: bool) -> bool:
        """Send the log; whether somebody else does, and has taken follower and seat along."""
        cursor = None if raw else self._cursor()
        if cursor is not None and cursor.ended:
            offset = follower.offset_of(cursor)
            if offset is not None and follower.has_nothing_after(offset):
                self.set_status(204)  # stops an EventSource for good
                return False
        position = await self._begin(follower, cursor, self._framing(raw=raw))
        self.set_stream_headers(raw=raw)
        await self.flush()  # the headers, at once
        if stream := self._plain_stream():
            self.detach()
            on_gone = partial(_let_go, self.services.followers, follower, seat)
            self.services.live.take(stream, follower, position, on_gone)
            return True
        await self._send(follower, position)
        return False

    def _plain_stream(self) -> IOStream | None:
        """The connection, if it can be taken from us: plain TCP, and chunked as HTTP/1.1 is.

        Not that of a share link's viewer, whose time will be over.
        """
        connection = self.request.connection
        if self.known_user().via == "share":
            return None
        if self.request.version != "HTTP/1.1" or not isinstance(connection, HTTP1Connection):
            return None
        stream = connection.stream
        return None if isinstance(stream, SSLIOStream) or stream.closed() else stream

    async def _send(self, follower: Follower, position: Position) -> None:
        """The way that always works: HTTP/1.0, TLS."""
        data = follower.preamble(position).data
        while not follower.shutting_down:
            if data:
                self.write(data)
                await self.flush()
            if position.done:
                return
            if chunk := await follower.next(position):
                data = chunk.data
            else:
                is_ping = not await follower.wait(position) and position.has_events
                data = sse.HEARTBEAT if is_ping else b""
        if not position.has_events:
            self.disconnect()  # without its last chunk: nobody shall take a part for the whole

    def set_stream_headers(self, *, raw: bool) -> None:
        """For a stream that nobody may keep or hold back: of bare bytes, or of events."""
        self.set_event_headers()
        if raw:
            self.set_header("Content-Type", f"{TEXT}; charset=utf-8")
        self.set_header("Connection", "close")

    def _framing(self, *, raw: bool) -> Framing:
        if raw:
            return Framing.RAW
        return Framing.BATCHES if self.flag("batch") else Framing.EVENTS

    def _cursor(self) -> sse.Cursor | None:
        """Where the client wants to go on: the header wins, as a browser repeats the URL."""
        text = self.request.headers.get("Last-Event-ID") or self.get_query_argument("after", "")
        if not text:
            return None
        # One that we never gave out can't be right for any log.
        return sse.parse_cursor(text) or sse.Cursor("", 1 << 62)

    async def _begin(
        self, follower: Follower, cursor: sse.Cursor | None, framing: Framing
    ) -> Position:
        """Where the viewer asked to begin, or the start if that can't be right."""
        wants_partial = self.flag("partial")
        if cursor is not None:
            offset = follower.offset_of(cursor)
            return follower.begin(offset or 0, framing, partial=wants_partial, reset=offset is None)
        if not self.get_query_argument("tail", ""):
            return follower.begin(0, framing, partial=wants_partial)
        tail = self.number("tail", 0, least=0)
        try:
            start = await follower.tail_start(tail)
        except FileNotFoundError:
            raise UserError(404, f"the log of {follower.record.id} was deleted") from None
        return follower.begin(start, framing, partial=wants_partial)


def _let_go(followers: Followers, follower: Follower, seat: Seat) -> None:
    """The viewer has gone. Bound to no handler: none is kept for as long as a stream is open."""
    followers.release(follower)
    seat.release()
