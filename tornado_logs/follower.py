"""Follows logs for their viewers: tells when a log grows, and encodes each block once for all.

    follower = followers.follow(record)
    position = follower.begin(offset, Framing.EVENTS)
    while not position.done:
        chunk = await follower.next(position)      # None at the live edge
        ...                                        # then: await follower.wait(position)

A viewer is a position and a socket; nothing waits for it in memory. `next` reads the file at the
viewer's own offset, when the viewer has taken what came before. Viewers for whom the same comes
next get the same chunk, from a cache of the last few blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from tornado_logs import sse
from tornado_logs.config import Config
from tornado_logs.deployment import Record
from tornado_logs.journal import (
    BLOCK_BYTES,
    UNSETTLED_MARK,
    Block,
    DroppedError,
    LineTooLongError,
    LogFile,
    LongLine,
    Place,
    block_lines,
    settled_size,
)
from tornado_logs.store import Deployments

_CACHED_CHUNKS = 4
_NOTED_PLACES = 32
_SCAN_SLICE_BYTES = 4 * 1024 * 1024  # some milliseconds of the event loop's time
_ENDING_BYTES = 256

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Framing(Enum):
    """How a log's bytes go over the wire."""

    EVENTS = "one event per line"
    BATCHES = "many lines in one event"
    RAW = "the bytes as they are"


@dataclass(slots=True)
class Chunk:
    """Encoded bytes of a log up to offset `end`; `in_line`: bare ones that end within a line."""

    buffers: sse.Buffers
    end: int
    in_line: bool = False

    @property
    def data(self) -> bytes:
        """All in one piece: put together once for all who want it so."""
        if len(self.buffers) != 1:
            self.buffers = (b"".join(self.buffers),)
        return bytes(self.buffers[0])


@dataclass(slots=True)
class Position:
    """Where a viewer is in a log. `done` once it has had everything and the end."""

    offset: int
    framing: Framing
    cuts: int  # how often the log had begun anew by then
    partials: Partials | None = None
    done: bool = False
    in_line: bool = False  # of bare bytes: what was sent last is a line's beginning

    def advance(self, chunk: Chunk) -> None:
        """The viewer is sent this chunk."""
        self.offset, self.in_line = chunk.end, chunk.in_line

    @property
    def has_events(self) -> bool:
        """Whether it takes events, not bare bytes."""
        return self.framing is not Framing.RAW


class Followers:
    """The logs that are being viewed, one follower for each."""

    def __init__(self, deployments: Deployments, settings: Config) -> None:
        self._deployments = deployments
        self._settings = settings
        self._followers: dict[str, Follower] = {}
        self._unlisten = deployments.listen(self._on_record)
        self._is_closed = False

    def follow(self, record: Record) -> Follower:
        """The follower of this log; `release` it once the viewer has gone. Raises OSError."""
        follower = self._followers.get(record.id)
        if follower is None:
            path = self._deployments.log_path(record.id)
            follower = Follower(path, record, self._deployments.summary, self._settings)
            self._followers[record.id] = follower
            self._deployments.listen_to_log(record.id, follower.look)
        if self._is_closed:
            follower.shut_down()
        follower.viewers += 1
        return follower

    def release(self, follower: Follower) -> None:
        """A viewer has gone; with the last one the log is closed."""
        follower.viewers -= 1
        if not follower.viewers:
            del self._followers[follower.record.id]
            self._deployments.listen_to_log(follower.record.id, None)
            follower.close()

    def close(self) -> None:
        """Follow nothing any more: all streams end, without having been told of an end."""
        self._unlisten()
        self._is_closed = True
        for follower in self._followers.values():
            follower.shut_down()

    def _on_record(self, deployment_id: str, record: Record | None) -> None:
        if follower := self._followers.get(deployment_id):
            follower.update(record)


class Follower:
    """One log that is being viewed, by any number of viewers."""

    def __init__(
        self,
        path: str,
        record: Record,
        summarize: Callable[[Record], Mapping[str, Any]],
        settings: Config,
    ) -> None:
        """Raises OSError if the log can't be opened."""
        self.record = record
        self.viewers = 0
        self._summarize = summarize
        self._settings = settings
        self._dropped_bytes = record.dropped_bytes  # also once its record can't be read any more
        self._log = LogFile(path, record.dropped_bytes)
        self._size = 0
        self._beginning = self._ending = b""
        self._note_size(self._log.size())
        self._mark = UNSETTLED_MARK
        self._was_cut = False
        self.cuts = 0  # how often the log began anew; who has seen fewer of them starts over
        self._deleted = False
        self.shutting_down = False
        self._chunks: dict[tuple[Framing, int, int], Chunk] = {}
        self._lines_before: dict[int, int] = {}  # what `LogFile.lines_before` says of some offsets
        self._places: dict[sse.Cursor, int] = {}  # what `LogFile.after_lines` says of some
        self._long_lines: dict[int, LongLine] = {}
        self._waiting: set[asyncio.Future[bool]] = set()
        self._listeners: set[Callable[[], None]] = set()
        self._ping = asyncio.get_running_loop().call_later(settings.ping_seconds, self._on_ping)

    def close(self) -> None:
        """Close the log; no stream may be read afterwards."""
        self._ping.cancel()
        self._log.close()

    def shut_down(self) -> None:
        """End all streams at once."""
        self.shutting_down = True
        self._wake()

    def update(self, record: Record | None) -> None:
        """The record has changed; with None the log was removed."""
        if record is None:
            self._deleted = True
        else:
            self._deleted = False
            self.record = record
            if record.dropped_bytes is not None:
                self._dropped_bytes = record.dropped_bytes
        self.look()
        self._chunks.clear()  # the last line may or may not count without its LF now
        self._wake()

    def look(self) -> None:
        """See what has become of the file, and wake the viewers if there is something for them."""
        if not self._log.is_at_path():
            self._reopen()
        size = self._log.size()
        if size < self._size or self._is_written_anew():
            self._start_over()
        if size != self._size:
            self._note_size(size)
            self._wake()

    def _note_size(self, size: int) -> None:
        self._size = size
        self._ending = self._bytes_before(size)
        # Of one that drops its oldest part, the beginning may become zeros.
        if len(self._beginning) < _ENDING_BYTES and self._dropped_bytes is None:
            self._beginning = self._log.read(0, min(size, _ENDING_BYTES))

    def _is_written_anew(self) -> bool:
        """Whether it was cut, and has grown beyond what it was before we heard of that."""
        if self._log.read(0, len(self._beginning)) != self._beginning:
            return True
        # What zeros there are now may be the end of a hole.
        return not self._ending.endswith(self._bytes_before(self._size).lstrip(b"\0"))

    def _bytes_before(self, offset: int) -> bytes:
        start = max(0, offset - _ENDING_BYTES)
        return self._log.read(start, offset - start)

    def _reopen(self) -> None:
        dropped_bytes = self.record.dropped_bytes
        try:
            log = LogFile(self._log.path, dropped_bytes)
        except OSError:  # gone, which viewers hear of by its record; or open at the next look
            return
        self._log.close()
        self._log, self._dropped_bytes = log, dropped_bytes
        self._start_over()

    def _start_over(self) -> None:
        self.cuts += 1
        self._size = 0
        self._beginning = b""
        self._was_cut = True
        self._mark = UNSETTLED_MARK
        self._chunks.clear()
        self._lines_before.clear()
        self._places.clear()
        self._long_lines.clear()
        self._wake()

    def mark(self) -> str:
        """The log's mark; see `LogFile.mark`."""
        # After a cut the capture process gives the log a new mark, but a moment later than we look.
        if self._mark == UNSETTLED_MARK or self._was_cut:
            self._mark = self._log.mark()
        return self._mark

    def offset_of(self, cursor: sse.Cursor) -> int | None:
        """Where in the log this cursor is; None if the log can't have given it out."""
        self.look()
        if (cursor.offset or cursor.lines) and cursor.mark != self.mark():
            return None
        if cursor.lines:
            offset = self._after_lines(cursor)
            # Of lines that were dropped nobody knows the ends: it goes on where their cell began.
            return offset if self._log.is_there(cursor.offset) else cursor.offset
        ended = self.record.state.is_final
        is_line_start = self._log.is_line_start(cursor.offset, ended=ended)
        return cursor.offset if is_line_start else None

    def _after_lines(self, cursor: sse.Cursor) -> int | None:
        """See `LogFile.after_lines`. After a restart of the server, thousands ask for one place."""
        offset = self._places.get(cursor)
        if offset is None:
            offset = self._log.after_lines(cursor.offset, cursor.lines)
            if offset is not None:
                _keep(self._places, cursor, offset, _NOTED_PLACES)
        return offset

    def has_nothing_after(self, offset: int) -> bool:
        """Whether whoever has had the end, and comes back with this offset, has had everything."""
        return self.record.state.is_final and offset == self._size

    async def tail_start(self, lines: int) -> int:
        """The offset at which the last `lines` lines begin."""
        loop = asyncio.get_running_loop()
        while True:
            cuts = self.cuts
            start = await loop.run_in_executor(None, self._tail_start, lines)
            if cuts == self.cuts:
                return start

    def _tail_start(self, lines: int) -> int:
        # Opened anew: this runs in a thread, where the follower's own may be closed at any time.
        log, ended = self._another_log(), self.record.state.is_final
        try:
            return log.tail_start(lines, log.size(), ended=ended)
        finally:
            log.close()

    def begin(
        self, offset: int, framing: Framing, *, partial: bool = False, reset: bool = False
    ) -> Position:
        """Where a viewer begins.

        `partial`: it also wants the line that is still being written. `reset`: it asked for a
        position that this log doesn't have, and is told to begin anew.
        """
        partials = None
        if partial and framing is not Framing.RAW:
            partials = Partials(self._settings.partial_seconds)
        return Position(offset, framing, -1 if reset else self.cuts, partials)

    def preamble(self, position: Position) -> Chunk:
        """What a stream begins with."""
        return _event(position, f"retry: {self._settings.retry_ms}\n\n".encode())

    async def next(self, position: Position, limit: int | None = None) -> Chunk | None:
        """What comes next for this viewer; None at the live edge. Moves and ends the position.

        With `limit`, a line's start, nothing from there on, unless what is before it was dropped.
        """
        while position.cuts == self.cuts:
            offset = position.offset
            try:
                chunk = await self._chunk(offset, position.framing, limit)
            except DroppedError:
                gap = await self._pass_gap(position)
                if gap == b"":
                    continue
                return None if gap is None else Chunk((gap,), position.offset)
            if position.cuts != self.cuts:
                break
            if chunk is not None:
                position.advance(chunk)
                return chunk
            if self.has_ended:
                position.done = True
                return _event(position, self._end(offset))
            return self.partial_chunk(position)
        position.cuts, position.offset = self.cuts, 0
        if position.partials:
            position.partials.forget()  # of the same length it is another all the same
        return _event(position, self._reset())

    def chunk_now(self, offset: int, framing: Framing, limit: int | None = None) -> Chunk | None:
        """The next encoded block at `offset`, None if there is none yet.

        Raises LineTooLongError where `next` has to be awaited for it, DroppedError where it was
        dropped.
        """
        size = self._size if limit is None else min(limit, self._size)
        # By the size too: what others got here a while ago lacks the lines that came since.
        key = (framing, offset, min(size, self._settled_size(offset, framing)))
        kept = self._chunks.get(key)
        chunk = kept or self._read_chunk(offset, size, framing)
        # A kept one too: who comes back to a cell that is gone has had some of it already.
        self._check_there(offset)
        # Nobody shares what one alone gets: to use the same memory again at once is faster.
        if chunk is not None and kept is None and self.viewers > 1:
            _keep(self._chunks, key, chunk, _CACHED_CHUNKS)
        return chunk

    def _settled_size(self, offset: int, framing: Framing) -> int:
        """From which size of the log on the chunk at `offset` stays what it is."""
        if framing is Framing.RAW:
            return offset + BLOCK_BYTES
        # The last line of an ended log may lack its LF, and be of any length.
        return self._size if self.has_ended else settled_size(offset)

    def _read_chunk(self, offset: int, size: int, framing: Framing) -> Chunk | None:
        if framing is Framing.RAW:
            data = self._log.read(offset, min(BLOCK_BYTES, size - offset))
            in_line = not data.endswith(b"\n")
            return Chunk((data,), offset + len(data), in_line) if data else None
        block = self._log.read_block(offset, size, ended=self.has_ended)
        return self._encode(block, framing) if block else None

    def file_of(self, position: Position, end: int) -> int | None:
        """The log's descriptor, if bare bytes from the position to `end` can go as they are.

        None where they have to be read, or aren't there. What the capture process drops has to, and
        what others write, who may cut it: pages on their way become zeros then.
        """
        can_go = (
            not position.has_events
            and position.cuts == self.cuts
            and self.record.request is not None
            and self._dropped_bytes is None
            and end <= self._size
            and end <= self._log.size()  # it may have been cut since we looked
        )
        return self._log.fd if can_go else None

    def _check_there(self, offset: int) -> None:
        """After what stands at `offset` was read: zeros, if it was dropped by then."""
        if not self._log.is_there(offset):
            self._long_lines.pop(offset, None)
            raise DroppedError(offset)

    async def _pass_gap(self, position: Position) -> bytes | None:
        """Move a position in the dropped part to the first line that is there.

        What tells the viewer so, which for bare bytes is the end of a line that was begun, if any;
        None if there is no such line.
        """
        offset, cuts = position.offset, self.cuts
        loop = asyncio.get_running_loop()
        try:
            place, next_line = await loop.run_in_executor(None, self._first_place)
        except FileNotFoundError:
            if not self._deleted:  # we'll hear of it
                return None
            place, next_line = Place(self._size, 0), None
        if cuts != self.cuts or place.offset <= offset:  # another log; or it was no gap after all
            return b"" if place.has_line else None
        if not place.has_line:
            return None
        position.offset = place.offset
        if not position.has_events:
            in_line, position.in_line = position.in_line, False
            return b"\n" if in_line else b""
        data = {"dropped_bytes": place.offset - offset, "next_line": next_line}
        return sse.encode_json("gap", data, sse.Cursor(self.mark(), place.offset))

    def _first_place(self) -> tuple[Place, int | None]:
        """Where the first line is that is there, and its number if anybody knows it."""
        log, ended = self._another_log(), self.has_ended
        try:
            place = log.first_place()
            if not place.has_line and ended:  # nor will there be one
                place = Place(log.size(), place.lines + 1)
            return place, place.lines + 1 if log.has_index else None
        finally:
            log.close()

    def _another_log(self) -> LogFile:
        """For a thread: ours may be closed meanwhile. Raises OSError."""
        return LogFile(self._log.path, self._dropped_bytes)

    @property
    def size(self) -> int:
        """The log's size, as far as we have heard."""
        return self._size

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be added to the log any more."""
        return self._deleted or self.record.state.is_final

    def _reset(self) -> bytes:
        data = {"reason": "the log is not the one that the cursor is of: it starts over"}
        return sse.encode_json("reset", data, sse.Cursor(self.mark(), 0))

    def _end(self, offset: int) -> bytes:
        summary = dict(self._summarize(self.record))
        if self._deleted:
            summary["error"] = "the log was deleted while it was being read"
        return sse.encode_json("end", summary, sse.Cursor(self.mark(), offset, ended=True))

    async def _chunk(self, offset: int, framing: Framing, limit: int | None) -> Chunk | None:
        try:
            return self.chunk_now(offset, framing, limit)
        except LineTooLongError:
            block = await self._long_block(offset)
            chunk = self._encode(block, framing) if block else None
            self._check_there(offset)
            return chunk

    def _encode(self, block: Block, framing: Framing) -> Chunk:
        encode = self._batch if framing is Framing.BATCHES else self._lines
        return Chunk(encode(block, self._shown(block)), block.end)

    def _shown(self, block: Block) -> bytes | None:
        """What viewers get of whole lines; None of one that fits into no block, or isn't whole."""
        if block.left_out_bytes or not block.data.endswith(b"\n"):
            return None
        return sse.visible_block(block.data, self._settings.max_line_bytes)

    def _batch(self, block: Block, shown: bytes | None) -> sse.Buffers:
        if shown is not None:
            return sse.encode_plain_batch(shown, block.end, self.mark())
        lines, _ = block_lines(block, self._settings.max_line_bytes)
        return (sse.encode_batch(lines, block.end, self.mark()),)

    def _lines(self, block: Block, shown: bytes | None) -> sse.Buffers:
        before = self._lines_before.get(block.start)
        if before is None:
            before = self._log.lines_before(block.start)
        is_whole = block.data.endswith(b"\n")
        buffers: sse.Buffers
        if shown is not None:
            buffers, count = sse.encode_plain_lines(shown, block.start, before, self.mark())
        else:
            lines, ends = block_lines(block, self._settings.max_line_bytes)
            cursors = sse.line_cursors(block.start, ends, before, self.mark(), is_whole=is_whole)
            buffers, count = (sse.encode_lines(lines, cursors),), len(lines)
        if is_whole:  # most go on where it ends
            following = 0 if block.end >= sse.cell_end(block.start) else before + count
            _keep(self._lines_before, block.end, following, _NOTED_PLACES)
        return buffers

    async def _long_block(self, offset: int) -> Block | None:
        """A line longer than a block: found in slices, so that nobody else waits for it."""
        cuts = self.cuts
        line = self._long_lines.setdefault(offset, LongLine(offset, offset, offset))
        while line.end is None and self._log.scan_long_line(line, self._size, _SCAN_SLICE_BYTES):
            await asyncio.sleep(0)
            if cuts != self.cuts:
                return None
            self._check_there(offset)
        self._check_there(offset)
        if line.end is None and not (self.has_ended and line.scanned == self._size):
            return None
        self._long_lines.pop(offset, None)
        return self._log.long_block(line, self._size)

    def partial_chunk(self, position: Position) -> Chunk | None:
        """What `partial` has for this viewer, if it wants that."""
        if position.partials is None:
            return None
        data = self.partial(position.offset, position.partials)
        return None if data is None else Chunk((data,), position.offset)

    def partial(self, offset: int, partials: Partials) -> bytes | None:
        """The unfinished line at `offset`, if it has changed and its time has come."""
        if not partials.is_due(self._size, offset):
            return None
        most = self._settings.max_line_bytes
        data = self._log.read(max(offset, self._size - most), most)
        left_out_bytes = 0
        if self._size - offset > most:
            redrawn = data.find(b"\r") + 1
            left_out_bytes = 0 if redrawn else self._size - offset - most
            data = data[redrawn:] if redrawn else self._log.read(offset, most)
        # A character whose last bytes aren't there yet is no invalid one.
        line = sse.visible_line(sse.whole_characters(data), most, left_out_bytes)
        # A line end that has come meanwhile is none of this event's.
        return sse.encode_event("partial", line.decode().partition("\n")[0])

    async def wait(self, position: Position) -> bool:
        """Wait at the live edge until something may have happened; False: a ping is due."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(future)
        seconds = position.partials.seconds_to_wait() if position.partials else None
        timer = None if seconds is None else loop.call_later(seconds, _resolve, future)
        try:
            return await future
        finally:
            self._waiting.discard(future)
            if timer is not None:
                timer.cancel()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called when something may have happened, until the result is called."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _wake(self, *, ping: bool = False) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(not ping)
        if not ping:
            for listener in tuple(self._listeners):
                listener()

    def _on_ping(self) -> None:
        with contextlib.suppress(OSError):
            self.look()  # once more, should it have been impossible when there was news
        self._wake(ping=True)
        loop = asyncio.get_running_loop()
        self._ping = loop.call_later(self._settings.ping_seconds, self._on_ping)


class Partials:
    """Which state of the unfinished line one viewer has seen, and when it may see the next."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._loop = asyncio.get_running_loop()
        self._seen = (0, 0)
        self._wanted = False
        self._next_at = 0.0

    def is_due(self, size: int, offset: int) -> bool:
        """Whether to send the line from `offset` to `size` now; counts it as sent then."""
        state = (size, offset)
        if size == offset:
            self._seen, self._wanted = state, False
            return False
        self._wanted = state != self._seen
        if not self._wanted or self._loop.time() < self._next_at:
            return False
        self._seen, self._wanted = state, False
        self._next_at = self._loop.time() + self._interval_seconds
        return True

    def forget(self) -> None:
        """Send the line again, however little it has changed."""
        self._seen = (0, 0)

    def seconds_to_wait(self) -> float | None:
        """How long until the state that waits may be sent; None if none waits."""
        return max(0.0, self._next_at - self._loop.time()) if self._wanted else None


def _event(position: Position, data: bytes) -> Chunk:
    """An event where this viewer is: of bare bytes it gets none."""
    return Chunk((data,) if position.has_events else (), position.offset)


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Keep `value` too, and so many in all: the newest."""
    kept[key] = value
    while len(kept) > most:
        del kept[next(iter(kept))]


def _resolve(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)
