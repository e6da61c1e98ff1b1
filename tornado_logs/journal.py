r"""One log on disk: append to it, read blocks of it from an offset, find its lines by number.

    writer = JournalWriter(log_fd, "data/x.idx")       # in the capture process, the only writer
    writer.append(b"one\ntwo\n")

    log = LogFile("data/x.log")                        # in any number of readers
    block = log.read_block(0, log.size())              # Block(start=0, end=8, data=b"one\ntwo\n")

The log holds the bytes of its source and nothing else. The index beside it holds checkpoints, so
that a line of a log of any size is found by a short scan; without an index (a bare log), the
reader makes checkpoints of its own, in memory.

The index: records of 24 bytes, little-endian. The first: `TLOGIDX1`, the log's mark (8 hex digits),
the time it was made. Each other: the time, the byte offset that the log had reached, the number of
LFs before it. Times are microseconds since 1970, UTC.

The oldest part of a log may be dropped to keep it small (`LogLimit`): offsets and line numbers stay
what they were, and what is left begins with the first line that is there as a whole. How much was
dropped, the file itself tells (`holes`); a reader may hear of it while it reads, or afterwards.
What the index had of that part is dropped too, but for its first block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import threading
import time
import zlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from tornado_logs import holes, sse
from tornado_logs.disk import EXHAUSTED

BLOCK_BYTES = 256 * 1024
"""How much of a log is read, encoded and sent at a time."""

CHECKPOINT_BYTES = 1024 * 1024
CHECKPOINT_SECONDS = 0.01
_MAX_GAP_BYTES = 4 * CHECKPOINT_BYTES  # as much is read to check what one says

_MAGIC = b"TLOGIDX1"
_HEADER = struct.Struct("<8s8sQ")
_CHECKPOINT = struct.Struct("<QQQ")
_SCAN_BYTES = 1024 * 1024
_ENTRIES = 4096  # of an index, read at a time
_MARK_BYTES = 256
_BLOCK_BYTES = 4096  # what a hole begins and ends with, at least
_MOST_STEP_BYTES = 64 * 1024 * 1024
_INDEX_STEP_BYTES = 64 * 1024  # the index is dropped by so much at a time
_MOST_SCANS = 64  # of logs without an index; that of 10 GB takes 1 MB
_INDEX_HEAD = re.compile(_MAGIC + rb"[0-9a-f]{8}")

UNSETTLED_MARK = "00000000"

_Answer = TypeVar("_Answer")


class LogFullError(Exception):
    """A log has as many bytes as it may have. The message is a sentence for the user."""


class DroppedError(Exception):
    """What was to be read isn't there any more: it belonged to the oldest part of the log."""


@dataclass(frozen=True, slots=True)
class LogLimit:
    """How many bytes a log may take on disk, and whether its oldest part is dropped to go on."""

    max_bytes: int
    drops_oldest: bool = False

    @property
    def step_bytes(self) -> int:
        """How much is dropped at a time: meanwhile nothing is written."""
        return min(self.max_bytes // 4, _MOST_STEP_BYTES)


@dataclass(frozen=True, slots=True)
class Place:
    """An offset of a log at which a line begins, and how many LFs there are before it.

    Without a line: none is there as a whole yet, and the offset lies in the dropped part.
    """

    offset: int
    lines: int
    has_line: bool = True


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a log, from offset `start` to offset `end`.

    `data` is their bytes, LFs included; the last line of an ended log may lack it. Of one line that
    is too long to be held, `data` is what a reader gets to see, and `left_out_bytes` what not.
    """

    start: int
    end: int
    data: bytes
    left_out_bytes: int = 0


@dataclass(slots=True)
class LongLine:
    """How far the search for the end of a long line has come; kept, so none is read twice."""

    start: int
    scanned: int
    last_redraw: int  # where the text after the line's last CR begins
    after_cr: int | None = None  # after a CR that the scan ended with; a redraw if text follows
    end: int | None = None  # the offset of its LF, once found


class JournalWriter:
    """Appends to a log and keeps its index. Holds no more than the piece it is given.

    `offset` is how many bytes are in the log: exactly so, whatever fails. `dropped_bytes` of them,
    the first ones, aren't there any more.
    """

    def __init__(
        self,
        log_fd: int,
        index_path: str,
        clock: Callable[[], float] = time.time,
        limit: LogLimit | None = None,
    ) -> None:
        self.offset = 0
        self.dropped_bytes = 0
        self._log_fd = log_fd
        self._log_path = index_path.removesuffix(".idx") + ".log"
        self._clock = clock
        self._limit = limit
        self._cannot_drop = ""
        self._lines = 0
        self._checkpoint_offset = 0
        self._checkpoint_time = 0.0
        self._index = _IndexWriter(index_path, clock())

    def append(self, piece: bytes) -> None:
        """Write all of `piece`. Raises OSError, with what could be written in the log.

        Raises LogFullError too, as `write` does.
        """
        while piece:
            piece = piece[self.write(piece) :]

    def write(self, piece: bytes) -> int:
        """Write what the disk takes of `piece` at once, and return how many bytes that was.

        Raises OSError, or LogFullError where it has as many bytes as it may have; then it was none.
        """
        # Before the first new byte is there to be read: its cursor shall have the new mark.
        if os.fstat(self._log_fd).st_size != self.offset:
            self._start_over()
        most = self._make_room(min(len(piece), CHECKPOINT_BYTES))
        # No more at once than may lie between two checkpoints.
        written = os.write(self._log_fd, memoryview(piece)[:most])
        self.offset += written
        self._lines += piece.count(b"\n", 0, written)
        now = self._clock()
        # A clock set back must not hold checkpoints up, hence abs().
        late = abs(now - self._checkpoint_time) >= CHECKPOINT_SECONDS
        if late or self.offset - self._checkpoint_offset >= CHECKPOINT_BYTES:
            self._checkpoint(now)
        return written

    def _make_room(self, wanted: int) -> int:
        """How many of so many bytes may be written now. Raises LogFullError if none."""
        limit = self._limit
        if limit is None:
            return wanted
        if limit.drops_oldest and wanted > self._room(limit):
            wanted = min(wanted, limit.step_bytes)
            if wanted > self._room(limit):
                self._try_to_drop(limit)
        room = self._room(limit)
        if wanted and not room:
            raise LogFullError(_full_sentence(limit, self._cannot_drop))
        return min(wanted, room)

    def _room(self, limit: LogLimit) -> int:
        return max(0, limit.max_bytes - (self.offset - self.dropped_bytes))

    def _try_to_drop(self, limit: LogLimit) -> None:
        """Make room for one step; where the file system can't, never try again."""
        # The lines behind the hole are counted from a checkpoint behind it.
        self._checkpoint_here()
        try:
            self._drop_oldest(limit)
        except OSError as error:
            self._cannot_drop = error.strerror or str(error)
            self._limit = replace(limit, drops_oldest=False)
        self._checkpoint_here()  # if there was no room for it before
        self._index.drop_before(self.dropped_bytes)

    def _drop_oldest(self, limit: LogLimit) -> None:
        """Raises OSError."""
        block = os.fstat(self._log_fd).st_blksize
        block = block if _BLOCK_BYTES < block <= limit.step_bytes // 2 else _BLOCK_BYTES
        end = self.offset - (limit.max_bytes - limit.step_bytes)
        end += -end % block
        holes.punch(self._log_fd, self.dropped_bytes, end)
        self.dropped_bytes = end

    def _checkpoint_here(self) -> None:
        if self._index.reached != self.offset:
            self._checkpoint(self._clock())

    def idle_seconds(self) -> float | None:
        """After how long `settle` has something to do, None if it has nothing."""
        if self.offset == self._checkpoint_offset:
            return None
        return max(0.0, CHECKPOINT_SECONDS - abs(self._clock() - self._checkpoint_time))

    def settle(self) -> None:
        """Give the last bytes their checkpoint, if one is due."""
        if self.idle_seconds() == 0.0:
            self._checkpoint(self._clock())

    def close(self) -> None:
        """Write the last checkpoint. The log's descriptor stays its owner's."""
        self._checkpoint_here()
        self._index.close()

    def _checkpoint(self, now: float) -> None:
        # One that can't be written is a gap, which costs a reader a longer scan. None is tried
        # again at once: that would be a busy loop for as long as the disk is full.
        self._index.add(now, self.offset, self._lines)
        self._checkpoint_offset, self._checkpoint_time = self.offset, now

    def _start_over(self) -> None:
        """Somebody else cut or wrote the log: its offsets mean something else from here on."""
        self._index.restart(self._clock())
        self.offset = os.fstat(self._log_fd).st_size
        self.dropped_bytes = min(self.dropped_bytes, self.offset // _BLOCK_BYTES * _BLOCK_BYTES)
        offset = self._lines = 0
        try:
            # Opened by path: the log's own descriptor is for appending only.
            with open(self._log_path, "rb", buffering=0) as log:
                for piece in _pieces(log.fileno(), self.offset):
                    offset += len(piece)
                    self._lines += piece.count(b"\n")
                    self._index.add(self._clock(), offset, self._lines)
        except OSError:
            self._index.give_up()
        self._checkpoint_offset, self._checkpoint_time = -1, 0.0


class _IndexWriter:
    """Writes an index. A log is whole without one, so nothing that fails here is an error."""

    def __init__(self, path: str, now: float) -> None:
        self.reached = 0  # the offset of the last checkpoint that is in the index
        self._path = path
        self._dropped_bytes = _BLOCK_BYTES  # from the end of the first block on
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._begin(now)

    def restart(self, now: float) -> None:
        """Begin anew, by another mark: what the index says is of a log that is no more."""
        self.reached = -1
        if self._fd >= 0 and self._empty():
            self._begin(now)

    def add(self, now: float, offset: int, lines: int) -> None:
        """Add a checkpoint, if it can be written."""
        if self._write(_CHECKPOINT.pack(int(now * 1e6), offset, lines)):
            self.reached = offset

    def drop_before(self, offset: int) -> None:
        """Drop all but the last checkpoint before `offset`; the block with the header stays."""
        size = _CHECKPOINT.size
        with contextlib.suppress(OSError):  # it is small
            count = max(0, self._end // size - 1)
            kept = bisect_right(range(count), offset, key=self._offset_of)
            end = kept * size // _BLOCK_BYTES * _BLOCK_BYTES
            if end - self._dropped_bytes >= _INDEX_STEP_BYTES:
                holes.punch(self._fd, self._dropped_bytes, end)
                self._dropped_bytes = end

    def _offset_of(self, number: int) -> int:
        data = os.pread(self._fd, _CHECKPOINT.size, (number + 1) * _CHECKPOINT.size)
        return int(_CHECKPOINT.unpack(data)[1])

    def give_up(self) -> None:
        """Leave an index that says nothing, and write on it no more."""
        if self._fd >= 0 and self._empty():
            self.close()

    def close(self) -> None:
        """Close its file, if it is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self, now: float) -> None:
        """Now or never: a mark that came to be later would make cursors false that are out."""
        self._end = 0
        self._dropped_bytes = _BLOCK_BYTES
        mark = os.urandom(4).hex().encode()
        if not self._write(_HEADER.pack(_MAGIC, mark, int(now * 1e6))):
            self.give_up()

    def _write(self, entry: bytes) -> bool:
        # Not by appending: the next one stands in the place of one that was written in part.
        try:
            written = os.pwrite(self._fd, entry, self._end) if self._fd >= 0 else 0
        except OSError:
            return False
        if written < len(entry):
            return False
        self._end += written
        return True

    def _empty(self) -> bool:
        try:
            os.ftruncate(self._fd, 0)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            return False
        return True


def _full_sentence(limit: LogLimit, cannot_drop: str) -> str:
    reached = f"its log reached max_log_bytes = {limit.max_bytes}, so the run was stopped"
    if cannot_drop:
        reason = "the file system of the data folder can't drop the beginning of a file"
        return f"{reached}: {reason} ({cannot_drop})"
    return f'{reached}; a larger limit, or when_log_full = "drop_oldest", lets it go on'


def _pieces(fd: int, end: int, start: int = 0) -> Iterator[bytes]:
    while start < end:
        piece = os.pread(fd, min(_SCAN_BYTES, end - start), start)
        if not piece:  # cut meanwhile
            return
        yield piece
        start += len(piece)


class LogFile:
    """The reading side of one log. Safe to use from several threads; knows nothing of writers."""

    def __init__(self, path: str, dropped_bytes: int | None = None) -> None:
        """Raises OSError: FileNotFoundError too where the path names no regular file.

        `dropped_bytes`: None for a log of which nothing is ever dropped; else how much of its
        oldest part has been, at least (a copy of it may have zeros where the hole was).
        """
        self.path = path
        self._dropped_bytes = dropped_bytes
        self._kept = (0, Place(0, 0))
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would block here
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            os.close(self.fd)
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        self._index: _Checkpoints | None = None
        self._index_lock = threading.Lock()

    def close(self) -> None:
        """Close the descriptor; nothing may be read afterwards."""
        os.close(self.fd)

    def open_again(self) -> int:
        """Another descriptor of the same file, with a position of its own. Raises OSError."""
        try:
            return os.open(f"/dev/fd/{self.fd}", os.O_RDONLY)
        except OSError:  # without /proc; where the position is shared then, nothing else moves it
            return os.dup(self.fd)

    def size(self) -> int:
        """How many bytes the log has now."""
        return os.fstat(self.fd).st_size

    def first_byte(self) -> int:
        """The offset of the first byte that counts as there: 0, if nothing was dropped.

        With the cell that begins there, and the byte before it, which tells whether a line does.
        """
        if self._dropped_bytes is None:  # a sparse file of another's making is not our affair
            return 0
        return min(self.size(), self._first_cell(self._dropped_bytes))

    def _first_cell(self, dropped_bytes: int) -> int:
        hole_bytes = max(dropped_bytes, holes.data_from(self.fd, 0))
        return (hole_bytes // sse.CELL_BYTES + 1) * sse.CELL_BYTES if hole_bytes else 0

    def is_there(self, offset: int) -> bool:
        """Whether nothing from `offset` on is dropped.

        To be asked after what stands there was read: it may go, and be read as zeros, any time.
        """
        return self._dropped_bytes is None or offset >= self._first_cell(self._dropped_bytes)

    def first_place(self) -> Place:
        """Where the first line begins that is there as a whole. May scan, if any was dropped."""
        while start := self.first_byte():
            before, place = self._kept
            if before == start and place.has_line:
                return place
            place = self._place_after(start)
            if self.first_byte() == start:
                self._kept = (start, place)
                return place
        return Place(0, 0)

    def _place_after(self, start: int) -> Place:
        """Of the first line that begins at `start` or later."""
        offset = start - 1
        for piece in _pieces(self.fd, self.size(), offset):
            line_end = piece.find(b"\n") + 1
            if line_end:
                offset += line_end
                return Place(offset, self._lines_before(offset))
            offset += len(piece)
        return Place(start - 1, self._lines_before(offset), has_line=False)

    def _lines_before(self, end: int) -> int:
        """How many LFs there are before `end`, where the checkpoint before it may be too far."""
        offset, lines = self._ask(lambda known: known.before_offset(end, self.size()))
        if offset >= self.first_byte() or not self.has_index:
            return lines + sum(piece.count(b"\n") for piece in _pieces(self.fd, end, offset))
        offset, lines = self._ask(lambda known: known.after_offset(end, self.size()))
        return lines - sum(piece.count(b"\n") for piece in _pieces(self.fd, offset, end))

    def is_at_path(self) -> bool:
        """Whether the path still names this file, not another and not none."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes at `offset`; fewer only at the end, and none beyond it."""
        return os.pread(self.fd, max(0, count), offset)

    def mark(self) -> str:
        """Eight hex digits that tell this log from another of its name: see `sse.Cursor`.

        From the index where there is one, else from the log's first line (its first 256 bytes);
        UNSETTLED_MARK as long as that isn't whole. Raises OSError where that can't be told now.
        """
        try:
            with open(_index_path(self.path), "rb") as file:
                header = file.read(_HEADER.size)
        except OSError as error:
            if error.errno in EXHAUSTED:  # it passes; another mark would send viewers back
                raise
            header = b""
        if _INDEX_HEAD.match(header):
            return header[8:16].decode()
        head = self.read(0, _MARK_BYTES)
        if b"\n" not in head and len(head) < _MARK_BYTES:
            return UNSETTLED_MARK
        return f"{zlib.crc32(head[: head.find(10) + 1 or None]):08x}"

    def lines_before(self, offset: int) -> int:
        """How many lines begin before `offset`, itself a line's beginning, in its cell."""
        cell = offset // sse.CELL_BYTES * sse.CELL_BYTES
        # A line begins after an LF; the one before the cell tells of a line that begins with it.
        since = max(0, cell - 1)
        return self.read(since, offset - since).count(b"\n") - (cell > 0)

    def cursor(self, offset: int) -> sse.Cursor:
        """The cursor of this place, itself a line's beginning or the log's end.

        That of the line before it, as its event has it.
        """
        since = max(0, offset - sse.CELL_BYTES - 1)
        line = self.read(since, offset - since)
        start = line.rfind(b"\n", 0, -1) + 1
        if not line.endswith(b"\n") or len(line) - start > sse.CELL_BYTES:  # or it is long
            return sse.Cursor(self.mark(), offset)
        start += since
        cell = start // sse.CELL_BYTES * sse.CELL_BYTES
        lines = self.lines_before(start) + 1
        return sse.Cursor(self.mark(), *((cell, lines) if self.is_there(cell) else (offset, 0)))

    def after_lines(self, offset: int, count: int) -> int | None:
        """The offset after `count` lines that begin in the cell at `offset`; None if it has less.

        As a cursor has them: no line is longer than a cell, and each has its LF.
        """
        since = max(0, offset - 1)
        data = self.read(since, 2 * sse.CELL_BYTES + 1)
        start = data.find(b"\n") + 1 if offset else 0
        pieces = data[start:].split(b"\n", count)
        is_there = len(pieces) > count and (start or not offset)
        return since + len(data) - len(pieces[-1]) if is_there else None

    def is_line_start(self, offset: int, *, ended: bool = False) -> bool:
        """Whether a line begins, or will begin, at `offset`; of an ended log also its very end."""
        size = self.size()
        if offset == 0 or (ended and offset == size):
            return True
        if offset < self.first_byte():  # nobody can tell any more
            return True
        return offset <= size and self.read(offset - 1, 1) == b"\n"

    def read_block(self, offset: int, size: int, *, ended: bool = False) -> Block | None:
        """The whole lines at `offset`, some 256 KiB at most; None if no line is whole yet.

        `size` is the log's, as the caller knows it. With `ended` the last line counts without its
        LF. Raises LineTooLongError where the line has to be searched for its end.
        """
        data = self.read(offset, min(BLOCK_BYTES, size - offset))
        end = data.rfind(b"\n") + 1
        if end:
            return Block(offset, offset + end, data if end == len(data) else data[:end])
        if len(data) >= BLOCK_BYTES:
            raise LineTooLongError(offset)
        return Block(offset, offset + len(data), data) if ended and data else None

    def scan_long_line(self, line: LongLine, size: int, max_bytes: int) -> bool:
        """Search on for the line's end, through `max_bytes` at most; whether there is more."""
        limit = min(size, line.scanned + max_bytes)
        while line.scanned < limit:
            piece = self.read(line.scanned, min(_SCAN_BYTES, limit - line.scanned))
            end = piece.find(b"\n")
            _note_redraw(line, piece if end < 0 else piece[:end])
            if end >= 0:
                line.end = line.scanned + end
                return False
            if not piece:
                return False
            line.scanned += len(piece)
        return line.scanned < size

    def block_now(self, offset: int, size: int) -> Block | None:
        """`read_block` of an ended log, whatever a line's length: not for the event loop."""
        try:
            return self.read_block(offset, size, ended=True)
        except LineTooLongError:
            line = LongLine(offset, offset, offset)
            self.scan_long_line(line, size, size)
            return self.long_block(line, size)

    def long_block(self, line: LongLine, size: int) -> Block:
        """What a reader sees of a long line; without an end, it ends with the log, at `size`."""
        end = size if line.end is None else line.end
        following = end if line.end is None else end + 1
        drawn_bytes = end - line.last_redraw
        if drawn_bytes >= BLOCK_BYTES:
            data = self.read(line.last_redraw, BLOCK_BYTES)
            return Block(line.start, following, data, drawn_bytes - len(data))
        # The text fits; of the states drawn before it, the last may show to the right of it.
        data = self.read(end - BLOCK_BYTES, BLOCK_BYTES)
        return Block(line.start, following, data[data.find(b"\r") + 1 :])

    def find_line(self, number: int) -> Place | None:
        """Where line `number` (the first is 0) begins; None if there is none.

        The line after the last LF counts, even while it is empty. Of a line that was dropped, the
        first one that is there. May scan: not for the event loop.
        """
        while True:
            first = self.first_place()
            if number <= first.lines:
                return first
            start = max(
                first,
                Place(*self._ask(lambda known: known.before_line(number, self.size()))),
                key=lambda place: place.offset,
            )
            found = self._scan_for_line(start, number)
            if self.first_byte() <= start.offset:  # all was there that was counted
                return found

    def _scan_for_line(self, start: Place, number: int) -> Place | None:
        offset, lines = start.offset, start.lines
        for piece in _pieces(self.fd, self.size(), offset):
            count = piece.count(b"\n")
            if lines + count >= number:
                return Place(offset + _nth_line_end(piece, number - lines), number)
            lines += count
            offset += len(piece)
        return None

    def line_start(self, number: int) -> int | None:
        """The offset of `find_line`."""
        place = self.find_line(number)
        return None if place is None else place.offset

    def count_lines(self, end: int) -> int:
        """How many LFs there are before offset `end`. May scan: not for the event loop.

        Raises DroppedError if nobody can know, as that place was dropped.
        """
        while True:
            first = self.first_place()
            offset, lines = self._ask(lambda known: known.before_offset(end, self.size()))
            if offset < first.offset and offset != end:
                offset, lines = first.offset, first.lines
            if offset > end:
                raise DroppedError(f"the log has dropped what was at offset {end}")
            count = lines + sum(piece.count(b"\n") for piece in _pieces(self.fd, end, offset))
            if offset == end or self.first_byte() <= offset:
                return count

    def tail_start(self, lines: int, size: int, *, ended: bool = False) -> int:
        """The offset at which the last `lines` lines before `size` begin.

        With `ended` the last line counts without its LF. Costs what is read of these lines, or with
        an index what that takes. May scan: not for the event loop.
        """
        is_unfinished = size > 0 and self.read(size - 1, 1) != b"\n"
        if ended and lines == 0:
            return size
        if self.has_index:
            total = self.count_lines(size) + (ended and is_unfinished)
            start = self.line_start(max(0, total - lines))
            return size if start is None else start
        # The line begins after the LF before it: one more than ends the lines themselves.
        return self._after_last_lf(size, lines + 1 - (ended and is_unfinished))

    def _after_last_lf(self, end: int, number: int) -> int:
        """The offset after the LF that is the `number`th before `end`, counted backwards.

        The first line's, if there are fewer.
        """
        first = self.first_place().offset
        while end > first:
            start = max(first, end - _SCAN_BYTES)
            piece = self.read(start, end - start)
            count = piece.count(b"\n")
            if count >= number:
                return start + _nth_line_end(piece, count - number + 1)
            number -= count
            end = start
        return first

    def line_at_time(self, time_us: int) -> int | None:
        """The number (the first is 0) of the first line that was whole at this time or later.

        None if all were whole before. Raises NoTimesError for a log without an index.
        """
        return self._ask(lambda known: _with_times(known).line_at_time(time_us))

    def line_times(self, number: int, count: int) -> list[int]:
        """When each of the lines from `number` on was whole, in microseconds since 1970.

        The index knows it to some 10 ms: a line's time is that of the first checkpoint behind its
        LF. Raises NoTimesError for a log without an index.
        """
        return self._ask(lambda known: _with_times(known).line_times(number, count))

    def started_at(self) -> int:
        """When the first line that the log ever had was whole, as `line_times` tells it."""
        return self._ask(lambda known: _with_times(known).first_time())

    @property
    def has_index(self) -> bool:
        """Whether lines are found, and counted, without reading the log."""
        return isinstance(self._checkpoints(), _FileCheckpoints)

    def _ask(self, question: Callable[[_Checkpoints], _Answer]) -> _Answer:
        """The answer by the index, or without it once that is found to be false."""
        try:
            return question(self._checkpoints())
        except _FalseIndexError:
            with self._index_lock:
                self._index = _ScannedCheckpoints(self)
            return question(self._index)

    def _checkpoints(self) -> _Checkpoints:
        with self._index_lock:
            if self._index is None:
                found = _FileCheckpoints.open(self)  # which may be empty, and false for that
                self._index = _ScannedCheckpoints(self) if found is None else found
            return self._index


def _with_times(checkpoints: _Checkpoints) -> _FileCheckpoints:
    if not isinstance(checkpoints, _FileCheckpoints):
        raise NoTimesError
    return checkpoints


def _note_redraw(line: LongLine, text: bytes) -> None:
    """A CR redraws the line only if text comes after it: CRs at its very end do not."""
    drawn = text.rstrip(b"\r")
    if drawn:
        redraw = drawn.rfind(b"\r")
        if redraw >= 0:
            line.last_redraw = line.scanned + redraw + 1
        elif line.after_cr is not None:
            line.last_redraw = line.after_cr
        line.after_cr = None
    if len(drawn) < len(text):
        line.after_cr = line.scanned + len(text)


def block_lines(block: Block, max_line_bytes: int) -> tuple[list[bytes], list[int]]:
    """The lines of a block as a reader gets to see them, and the offset after each."""
    if block.end - block.start == len(block.data):
        lines = sse.visible_lines(block.data, max_line_bytes)
        return lines, sse.line_ends(block.data, block.start)
    return [sse.visible_line(block.data, max_line_bytes, block.left_out_bytes)], [block.end]


class NoTimesError(Exception):
    """A log has no index, so nobody knows when its lines were written."""


class _FalseIndexError(Exception):
    """What an index says isn't so: it is damaged, or of another log."""


class LineTooLongError(Exception):
    """A line doesn't fit into a block: `offset` is where it begins."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def _index_path(log_path: str) -> str:
    return log_path.removesuffix(".log") + ".idx"


def _nth_line_end(piece: bytes, count: int) -> int:
    end = 0
    for _ in range(count):
        end = piece.index(b"\n", end) + 1
    return end


class _Checkpoints(Protocol):
    """Places in a log of which offset and number of LFs before it are known."""

    def before_line(self, number: int, size: int) -> tuple[int, int]:
        """(offset, lines) of the last checkpoint with fewer than `number` LFs before it."""

    def before_offset(self, end: int, size: int) -> tuple[int, int]:
        """(offset, lines) of the last checkpoint at or before the offset `end`."""

    def after_offset(self, start: int, size: int) -> tuple[int, int]:
        """(offset, lines) of the first checkpoint at or after the offset `start`.

        `start` itself if there is none, with the lines of the last before it.
        """


class _FileCheckpoints:
    """The checkpoints of an index file, read where they are needed and never kept.

    Whatever is built on one is checked by the log: what lies between it and the one before has to
    have as many LFs as they say. Raises _FalseIndexError where it has not.

    Those of the part that was dropped may be all zeros. That leaves no doubt where the others are
    looked for: zeros are less than what they have, as the true ones would be.
    """

    def __init__(self, fd: int, log: LogFile) -> None:
        self._fd = fd
        self._log = log

    def __del__(self) -> None:
        os.close(self._fd)

    @classmethod
    def open(cls, log: LogFile) -> _FileCheckpoints | None:
        """None where the log has no index, or one that isn't its own."""
        try:
            index = cls(os.open(_index_path(log.path), os.O_RDONLY), log)
            if not _INDEX_HEAD.match(os.pread(index._fd, _HEADER.size, 0)):
                return None
            reached = index._entry(len(index) - 1)[0] if len(index) else 0
        except (OSError, _FalseIndexError):
            return None
        return index if reached <= log.size() else None

    def __len__(self) -> int:
        return max(0, os.fstat(self._fd).st_size // _CHECKPOINT.size - 1)

    def _entry(self, number: int) -> tuple[int, int]:
        _, offset, lines = self._checkpoint(number)
        return offset, lines

    def _last(self, key: Callable[[tuple[int, int]], int], below: int) -> tuple[int, int]:
        found = bisect_right(range(len(self)), below - 1, key=lambda i: key(self._entry(i)))
        if not found:
            return 0, 0
        entry = self._checked(found - 1)
        if key(entry) >= below:
            raise _FalseIndexError
        return entry

    def _checked(self, number: int) -> tuple[int, int]:
        """Its offset and the lines before it, if they fit the log and the checkpoint before."""
        offset, lines = self._entry(number)
        start, lines_before = self._entry(number - 1) if number else (0, 0)
        if start < self._log.first_byte():  # of what was dropped nobody knows better
            return offset, lines
        if not start <= offset <= min(self._log.size(), start + _MAX_GAP_BYTES):
            raise _FalseIndexError
        counted = sum(piece.count(b"\n") for piece in _pieces(self._log.fd, offset, start))
        if counted != lines - lines_before and start >= self._log.first_byte():
            raise _FalseIndexError
        return offset, lines

    def _time(self, number: int) -> int:
        return self._checkpoint(number)[0]

    def _checkpoint(self, number: int) -> tuple[int, int, int]:
        """Its time in microseconds since 1970, its offset, and the lines before it."""
        data = os.pread(self._fd, _CHECKPOINT.size, (number + 1) * _CHECKPOINT.size)
        if len(data) < _CHECKPOINT.size:  # cut meanwhile
            raise _FalseIndexError
        time_us, offset, lines = _CHECKPOINT.unpack(data)
        return time_us, offset, lines

    def line_at_time(self, time_us: int) -> int | None:
        """See `LogFile.line_at_time`. A clock that was set back makes it one of several."""
        found = bisect_left(range(len(self)), time_us, key=self._time)
        if found == len(self):
            return None
        return self._checked(found - 1)[1] if found else 0

    def line_times(self, number: int, count: int) -> list[int]:
        """See `LogFile.line_times`."""
        times: list[int] = []
        at = bisect_right(range(len(self)), number, key=lambda i: self._entry(i)[1])
        if at < len(self):
            self._checked(at)
        while len(times) < count and (entries := self._entries(at)):
            lines = [entry[2] for entry in entries]
            found = 0
            while len(times) < count:
                found = bisect_right(lines, number + len(times), found)
                if found == len(lines):
                    break
                # All lines that this checkpoint is the first behind.
                ends = min(count, lines[found] - number)
                times += [entries[found][0]] * (ends - len(times))
            at += len(entries)
        return times + [self._latest_time()] * (count - len(times))

    def _entries(self, start: int) -> list[tuple[int, int, int]]:
        size = _CHECKPOINT.size
        data = os.pread(self._fd, _ENTRIES * size, (start + 1) * size)
        return list(_CHECKPOINT.iter_unpack(data[: len(data) // size * size]))

    def _latest_time(self) -> int:
        """Of what has no checkpoint behind its LF: it lacks the LF, or was written just now."""
        reached = self._entry(len(self) - 1)[0] if len(self) else 0
        if reached >= self._log.size() and len(self):
            return self._time(len(self) - 1)
        return os.fstat(self._log.fd).st_mtime_ns // 1000

    def first_time(self) -> int:
        """See `LogFile.started_at`."""
        # Not by halves: the first ones are followed by zeros, if some were dropped.
        for time_us, _, lines in self._entries(0):
            if lines:
                return time_us
        return self.line_times(0, 1)[0]

    def before_line(self, number: int, size: int) -> tuple[int, int]:
        return self._last(lambda entry: entry[1], number)

    def before_offset(self, end: int, size: int) -> tuple[int, int]:
        return self._last(lambda entry: entry[0], end + 1)

    def after_offset(self, start: int, size: int) -> tuple[int, int]:
        found = bisect_left(range(len(self)), start, key=lambda i: self._entry(i)[0])
        if found < len(self):
            return self._entry(found)
        return start, self._entry(found - 1)[1] if found else 0


class _ScannedCheckpoints:
    """Checkpoints made by reading the log once, as far as is asked for."""

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self._scan = _scan_of(log)

    def before_line(self, number: int, size: int) -> tuple[int, int]:
        scan = self._scan
        with scan.lock:
            scan.extend(self._log, size, lambda: scan.lines[-1] >= number)
            found = bisect_right(scan.lines, number - 1) - 1
            return scan.offsets[found], scan.lines[found]

    def before_offset(self, end: int, size: int) -> tuple[int, int]:
        scan = self._scan
        with scan.lock:
            scan.extend(self._log, size, lambda: scan.offsets[-1] >= end)
            found = max(0, bisect_right(scan.offsets, end) - 1)
            return scan.offsets[found], scan.lines[found]

    def after_offset(self, start: int, size: int) -> tuple[int, int]:
        return start, self.before_offset(start, size)[1]


class _Scan:
    """What was found by reading one log; who opens it next goes on from there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.offsets = [0]
        self.lines = [0]
        self._last_bytes = b""  # those before the last checkpoint

    def extend(self, log: LogFile, size: int, is_enough: Callable[[], bool]) -> None:
        """Read on, if need be. Begins anew if the log was cut or written anew since."""
        if size < self.offsets[-1] or self._last_bytes != self._bytes_before(log, self.offsets[-1]):
            self.offsets, self.lines = [0], [0]
        if self.offsets[-1] < log.first_byte():  # no need to read zeros
            self.offsets.append(log.first_byte())
            self.lines.append(self.lines[-1])
        # Whole pieces only: a checkpoint within what is still growing would be one each call.
        whole = size - (size - self.offsets[-1]) % _SCAN_BYTES
        for piece in _pieces(log.fd, whole, self.offsets[-1]):
            if is_enough():
                break
            self.offsets.append(self.offsets[-1] + len(piece))
            self.lines.append(self.lines[-1] + piece.count(b"\n"))
        self._last_bytes = self._bytes_before(log, self.offsets[-1])

    @staticmethod
    def _bytes_before(log: LogFile, offset: int) -> bytes:
        return log.read(max(0, offset - _MARK_BYTES), min(_MARK_BYTES, offset))


_scans: OrderedDict[tuple[int, int, str], _Scan] = OrderedDict()
_scans_lock = threading.Lock()


def _scan_of(log: LogFile) -> _Scan:
    status = os.fstat(log.fd)
    key = (status.st_dev, status.st_ino, log.mark())
    with _scans_lock:
        scan = _scans.pop(key, None) or _Scan()
        _scans[key] = scan
        if len(_scans) > _MOST_SCANS:
            _scans.popitem(last=False)
    return scan
