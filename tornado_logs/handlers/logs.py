"""The logs: as events, as raw bytes, any window of lines, and searches."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tornado.http1connection import HTTP1Connection
from tornado.web import StaticFileHandler

from tornado_logs.deployment import Record
from tornado_logs.follower import Follower
from tornado_logs.handlers.base import EVENTS, HTML, TEXT, BaseHandler, UserError
from tornado_logs.handlers.streaming import StreamingHandler
from tornado_logs.journal import BLOCK_BYTES, LogFile
from tornado_logs.log_index import NoTimesError
from tornado_logs.query import Query, QueryError, compile_query
from tornado_logs.search import ERRORS, STRUCTURE, Search
from tornado_logs.window import Wanted, read_window
from tornado_logs.zero_copy import PIECE_BYTES, send_file

if TYPE_CHECKING:
    from tornado_logs.app import Services

_MAX_LINES = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS = re.compile(r"\d{1,15}(\.\d{1,6})?", re.ASCII)


def open_log(services: Services, record: Record) -> LogFile:
    """The log of a deployment, to be closed. Raises UserError (404)."""
    try:
        return LogFile(services.deployments.log_path(record.id), record.dropped_bytes)
    except FileNotFoundError:
        raise UserError(404, f"the log of {record.id} was deleted") from None


class LogHandler(StreamingHandler):
    """`GET /logs/<id>`: the events of a log; its bytes for a client that accepts text alone."""

    is_shareable = True

    async def get(self, deployment_id: str) -> None:
        """Stream it; a browser that was sent here by hand gets the page instead."""
        record = self.record(deployment_id)
        wanted = self.wants(EVENTS, TEXT, HTML)
        if wanted == HTML:
            self.redirect(f"/deployments/{record.id}", status=303)
        else:
            await self.stream(record, raw=wanted == TEXT)


class RawLogHandler(StreamingHandler, StaticFileHandler):
    """`GET /logs/<id>/raw`: the bytes. Live while it runs; a file with ranges once it has ended.

    Of a log that has dropped its oldest part, what is left, from the first whole line on.
    """

    is_shareable = True

    deployment: Record
    dropped_bytes = 0  # what the file has of them isn't there: the answer begins behind them

    def initialize(self, services: Services) -> None:  # type: ignore[override]
        """Give both parents theirs."""
        BaseHandler.initialize(self, services)
        StaticFileHandler.initialize(self, services.deployments.data_dir)

    async def head(self, path: str) -> None:
        """The headers alone."""
        await self.get(path, include_body=False)

    async def get(self, path: str, include_body: bool = True) -> None:
        """`path` is the deployment's id."""
        self.deployment = self.record(path)
        if self.deployment.state.is_final:
            await self._pass_dropped()
            await self._send_file(include_body=include_body)
        elif include_body:
            await self.stream(self.deployment, raw=True)
        else:
            self.set_header("Content-Type", "text/plain; charset=utf-8")

    async def _pass_dropped(self) -> None:
        if self.deployment.dropped_bytes is not None:
            loop = asyncio.get_running_loop()
            self.dropped_bytes = await loop.run_in_executor(None, self._first_line)
            self.set_header("X-Dropped-Bytes", str(self.dropped_bytes))

    def _first_line(self) -> int:
        log = open_log(self.services, self.deployment)
        try:
            place = log.first_place()
            return place.offset if place.has_line else log.size()
        finally:
            log.close()

    async def _send_file(self, *, include_body: bool) -> None:
        seat = self.admit(self.deployment.id) if include_body else None
        try:
            await StaticFileHandler.get(self, self.deployment.id, include_body)
        finally:
            if seat is not None:
                seat.release()

    def get_absolute_path(self, root: str, path: str) -> str:  # type: ignore[override]
        """The log's file; the id was checked by then."""
        return os.path.abspath(os.path.join(root, f"{path}.log"))

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """A log that went away meanwhile is a 404 like any other."""
        if not os.path.exists(absolute_path):
            raise UserError(404, f"the log of {self.deployment.id} was deleted")
        return super().validate_absolute_path(root, absolute_path)

    def compute_etag(self) -> str | None:
        """From what the file system knows: a hash of the bytes would mean reading them all."""
        if not self.deployment.state.is_final:
            return None
        status = os.stat(self.get_absolute_path(self.root, self.deployment.id))
        dropped = f"-{self.dropped_bytes:x}" if self.dropped_bytes else ""
        return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}{dropped}"'

    def flush(self, include_footers: bool = False) -> asyncio.Future[None]:
        """Give others their turn after each block, also where the socket takes all at once."""
        # What went from the file itself leaves nothing to be written; a task would miss its turn.
        if self._headers_written and not any(self._write_buffer):
            self._write_buffer.clear()  # of a mark for each piece
            return self.services.live.reading.ask(self)
        flushed = asyncio.ensure_future(self._flush_and_wait(super().flush(include_footers)))
        # Nobody waits for the last one, and whoever waits for another has gone with the viewer.
        flushed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return flushed

    async def _flush_and_wait(self, flushed: asyncio.Future[None]) -> None:
        await flushed
        await self.services.live.reading.ask(self)

    def get_content_type(self) -> str:
        """Never anything that a browser would run."""
        return "text/plain; charset=utf-8"

    def get_content_size(self) -> int:
        """Of what is left."""
        return super().get_content_size() - self.dropped_bytes

    def get_content(  # type: ignore[override]
        self, abspath: str, start: int | None = None, end: int | None = None
    ) -> Generator[bytes, None, None]:
        """The bytes from `start` to `end` of what is left, in blocks."""
        log = LogFile(abspath)
        try:
            offset = self.dropped_bytes + (start or 0)
            end = log.size() if end is None else self.dropped_bytes + end
            while data := log.read(offset, min(BLOCK_BYTES, end - offset)):
                offset += len(data)
                yield data
                while passed_bytes := self._pass(log.fd, offset, end):
                    offset += passed_bytes
                    yield b""  # others have their turn
        finally:
            log.close()

    def _pass(self, fd: int, offset: int, end: int) -> int:
        """Send what a socket that waits for more takes from the file itself; how many bytes.

        One piece, or as many as there is time for. Of a log that others write, none: see
        `Follower.file_of`.
        """
        stream, connection = self._plain_stream(), self.request.connection
        if stream is None or self.deployment.request is None:
            return 0
        # Tornado holds an answer to its Content-Length, and has no other way to be told of these.
        assert isinstance(connection, HTTP1Connection)
        owed_bytes = connection._expected_content_remaining
        if not owed_bytes:  # the file has grown since its length was told
            return 0
        passed_bytes = 0
        for start in range(offset, min(end, offset + owed_bytes), PIECE_BYTES):
            count = min(PIECE_BYTES, end - start, owed_bytes - passed_bytes)
            sent_bytes = send_file(stream.socket, fd, start, count)
            passed_bytes += sent_bytes
            if sent_bytes < count or not self.services.live.reading.may_go_on(self, bare=True):
                break
        connection._expected_content_remaining = owed_bytes - passed_bytes
        return passed_bytes


class LinesHandler(BaseHandler):
    """`GET /logs/<id>/lines`: any window of lines, by number or by time."""

    is_shareable = True

    async def get(self, deployment_id: str) -> None:
        """`from` (1 is the first, -1 the last) or `time`; `count`; `times=1`."""
        record, wanted = self.record(deployment_id), self._wanted()
        window = await asyncio.get_running_loop().run_in_executor(
            None, self._window, record, wanted
        )
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(window)

    def _wanted(self) -> Wanted:
        first = self.number("from", 1)
        count = self.number("count", 1000, least=1, most=_MAX_LINES)
        if first == 0:
            raise UserError(400, "lines count from 1, or from -1 at the end; from=0 is neither")
        time_us = self._time_us()
        if time_us is not None and self.get_query_argument("from", ""):
            raise UserError(400, "a window begins at a line or at a time: from or time")
        return Wanted(first, count, time_us, self.flag("times"))

    def _time_us(self) -> int | None:
        """`time` in microseconds since 1970: asked for in milliseconds, or in ISO 8601."""
        text = self.get_query_argument("time", "")
        if _MILLISECONDS.fullmatch(text):
            return int(float(text) * 1000)
        try:
            moment = self.moment("time")
            return (moment - _EPOCH) // timedelta(microseconds=1) if moment else None
        except (ValueError, OverflowError):
            raise UserError(
                400,
                f"time takes ISO 8601, such as 2026-11-22T10:30:15Z, or milliseconds since 1970; "
                f"found {text!r}",
            ) from None

    def _window(self, record: Record, wanted: Wanted) -> bytes:
        """In a thread of its own: it may have to search, and to encode many megabytes."""
        log = open_log(self.services, record)
        try:
            most = self.services.config.max_line_bytes
            ended = record.state.is_final
            window = read_window(log, wanted, ended=ended, max_line_bytes=most)
        except NoTimesError:
            raise UserError(
                400, f"nobody knows when the lines of {record.id} were written: it has no index"
            ) from None
        finally:
            log.close()
        return json.dumps(window).encode() + b"\n"


class SearchHandler(StreamingHandler):
    """`GET /logs/<id>/search`: the numbers of the lines that match, as they are found."""

    is_shareable = True

    async def get(self, deployment_id: str) -> None:
        """`q`, with `regex=1` and `case=1`; or `errors=1`; or `structure=1`. And `from`."""
        record, query = self.record(deployment_id), self._query()
        first = self.number("from", 1, least=1)
        if self.request.headers.get("Last-Event-ID") == "end":
            self.set_status(204)  # stops an EventSource for good
            return
        await self.follow(record, lambda follower: self._search(follower, query, first))

    async def _search(self, follower: Follower, query: Query, first: int) -> bool:
        services = self.services
        self.set_stream_headers(raw=False)
        await self._write(f"retry: {services.config.retry_ms}\n\n".encode())
        search = Search(
            follower,
            services.deployments.log_path(follower.record.id),
            query,
            from_line=first,
            slots=services.search_slots,
            ping_seconds=services.config.ping_seconds,
        )
        await search.run(self._write)
        return False

    def _query(self) -> Query:
        """Raises UserError (400)."""
        asked = [name for name in ("q", "errors", "structure") if name in self._arguments()]
        if len(asked) != 1:
            raise UserError(400, "a search is for q=TEXT, or errors=1, or structure=1; just one")
        if asked != ["q"]:
            return ERRORS if asked == ["errors"] else STRUCTURE
        try:
            text = self._arguments()["q"][-1].decode()
            return compile_query(text, regex=self.flag("regex"), case=self.flag("case"))
        except UnicodeDecodeError:
            raise UserError(400, "q takes text in UTF-8") from None
        except QueryError as error:
            raise UserError(400, str(error)) from None

    def _arguments(self) -> dict[str, list[bytes]]:
        # Not get_query_argument: that trims, and makes spaces of control characters.
        return self.request.query_arguments

    async def _write(self, data: bytes) -> None:
        self.write(data)
        await self.flush()
