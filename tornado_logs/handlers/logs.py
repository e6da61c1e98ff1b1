"""The logs: as events, as raw bytes, and any window of lines by number."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from tornado.web import StaticFileHandler

from tornado_logs import sse
from tornado_logs.deployment import Record
from tornado_logs.handlers.base import EVENTS, HTML, TEXT, BaseHandler, UserError
from tornado_logs.handlers.streaming import StreamingHandler
from tornado_logs.journal import BLOCK_BYTES, LogFile, block_lines

if TYPE_CHECKING:
    from tornado_logs.app import Services

_MAX_LINES = 10_000
_MAX_WINDOW_BYTES = 16 * 1024 * 1024


class LogHandler(StreamingHandler):
    """`GET /logs/<id>`: the events of a log; its bytes for a client that accepts text alone."""

    async def get(self, deployment_id: str) -> None:
        """Stream it; a browser that was sent here by hand gets the page instead."""
        record = self.record(deployment_id)
        wanted = self.wants(EVENTS, TEXT, HTML)
        if wanted == HTML:
            self.redirect(f"/deployments/{record.id}", status=303)
        else:
            await self.stream(record, raw=wanted == TEXT)


class RawLogHandler(StreamingHandler, StaticFileHandler):
    """`GET /logs/<id>/raw`: the bytes. Live while it runs; a file with ranges once it has ended."""

    deployment: Record

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
            await StaticFileHandler.get(self, path, include_body)
        elif include_body:
            await self.stream(self.deployment, raw=True)
        else:
            self.set_header("Content-Type", "text/plain; charset=utf-8")

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
        return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'

    def get_content_type(self) -> str:
        """Never anything that a browser would run."""
        return "text/plain; charset=utf-8"

    @classmethod
    def get_content(
        cls, abspath: str, start: int | None = None, end: int | None = None
    ) -> Generator[bytes, None, None]:
        """The bytes from `start` to `end`, in blocks."""
        log = LogFile(abspath)
        try:
            offset, end = start or 0, log.size() if end is None else end
            while data := log.read(offset, min(BLOCK_BYTES, end - offset)):
                offset += len(data)
                yield data
        finally:
            log.close()


class LinesHandler(BaseHandler):
    """`GET /logs/<id>/lines?from=&count=`: any window of lines by number."""

    async def get(self, deployment_id: str) -> None:
        """`from` counts from 1, or with a minus from the end; `count` is 1,000 unless given."""
        record = self.record(deployment_id)
        first, count = self._number("from", 1), self._number("count", 1000)
        if first == 0:
            raise UserError(400, "lines count from 1, or from -1 at the end; from=0 is neither")
        if not 1 <= count <= _MAX_LINES:
            raise UserError(400, f"count takes 1 to {_MAX_LINES} lines, found {count}")
        window = await asyncio.get_running_loop().run_in_executor(
            None, self._window, record, first, count
        )
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(window)

    def _number(self, name: str, default: int) -> int:
        text = self.get_query_argument(name, str(default))
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
            raise UserError(400, f"{name} takes a whole number, found {text!r}")
        return int(text)

    def _window(self, record: Record, first: int, count: int) -> bytes:
        """In a thread of its own: it may have to search, and to encode many megabytes."""
        try:
            log = LogFile(self.services.deployments.log_path(record.id))
        except FileNotFoundError:
            raise UserError(404, f"the log of {record.id} was deleted") from None
        try:
            most = self.services.config.max_line_bytes
            return json.dumps(_read_window(log, record, first, count, most)).encode() + b"\n"
        finally:
            log.close()


def _read_window(
    log: LogFile, record: Record, first: int, count: int, max_line_bytes: int
) -> dict[str, Any]:
    size = log.size()
    ended = record.state.is_final
    whole = log.count_lines(size)
    has_rest = ended and size > 0 and log.read(size - 1, 1) != b"\n"
    total = whole + has_rest
    number = max(0, total + first if first < 0 else first - 1)
    offset = log.line_start(number) if number < total else None
    if offset is None:  # beyond the last line: an empty window, from which one can follow on
        number = total
        offset = size if has_rest else log.line_start(whole) or 0
    lines: list[bytes] = []
    lines_wanted, room = min(count, total - number), _MAX_WINDOW_BYTES
    while len(lines) < lines_wanted and room > 0 and (block := log.block_now(offset, size)):
        found, ends = block_lines(block, max_line_bytes)
        found = found[: lines_wanted - len(lines)]
        lines += found
        offset = ends[len(found) - 1]
        room -= sum(map(len, found))
    return {
        "from": number + 1,
        "lines": [line.decode() for line in lines],
        "total_lines": total,
        "cursor": str(sse.Cursor(log.mark(), offset)),
        "ended": ended,
    }
