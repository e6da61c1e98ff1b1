r"""One log on disk: append to it, read blocks of it from an offset, find its lines by number.

    writer = JournalWriter(log_fd, "data/x.idx")       # in the capture process, the only writer
    writer.append(b"one\ntwo\n")

    log = LogFile("data/x.log")                        # in any number of readers
    block = log.read_block(0, log.size())              # Block(start=0, end=8, data=b"one\ntwo\n")

The log holds the bytes of its source and nothing else. The index beside it (`log_index`) holds
checkpoints, so that a line of a log of any size is found by a short scan.

The oldest part of a log may be dropped to keep it small (`LogLimit`): offsets and line numbers stay
what they were, and what is left begins with the first line that is there as a whole. How much was
dropped, the file itself tells (`holes`); a reader may hear of it while it reads, or afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from tornado_logs import holes, sse
from tornado_logs.disk import EXHAUSTED
from tornado_logs.log_index import (
    CHECKPOINT_BYTES,
    DISK_BLOCK_BYTES,
    SCAN_BYTES,
    Checkpoints,
    FalseIndexError,
    FileCheckpoints,
    IndexWriter,
    NoTimesError,
    ScannedCheckpoints,
    count_newlines,
    mark_of_index,
    newlines_between,
    open_checkpoints,
    read_pieces,
)

BLOCK_BYTES = sse.CELL_BYTES
"""How much of a log is read at a time, but for the rest of a line: the lines of a cell."""

CHECKPOINT_SECONDS = 0.01
_MARK_BYTES = 256
_LOOKS_BYTES = (1024, 64 * 1024)  # for the end of a cell's last line: most are short
_STRIDE_BYTES = 2048
# Encoding takes some 50 ns for each of many short lines; a redraw takes 2 µs, in colours 100.
_MOST_LINES = 40_000
_SHORT_LINES_STEP_BYTES = 32 * 1024
_MOST_REDRAWS = 200
_REDRAWN_STEP_BYTES = 8 * 1024
_SAMPLE_STRIDE = 127  # a prime: lines of any one length, but a multiple of it, show as they are
_MOST_STEP_BYTES = 64 * 1024 * 1024

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
        return min(self.max_bytes // 8, _MOST_STEP_BYTES)


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
        self._index = IndexWriter(index_path, clock())

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
        self._lines += count_newlines(piece if written == len(piece) else piece[:written])
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
        block = block if DISK_BLOCK_BYTES < block <= limit.step_bytes // 2 else DISK_BLOCK_BYTES
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
        self.dropped_bytes = min(
            self.dropped_bytes, self.offset // DISK_BLOCK_BYTES * DISK_BLOCK_BYTES
        )
        offset = self._lines = 0
        try:
            # Opened by path: the log's own descriptor is for appending only.
            with open(self._log_path, "rb", buffering=0) as log:
                for piece in read_pieces(log.fileno(), self.offset):
                    offset += len(piece)
                    self._lines += count_newlines(piece)
                    self._index.add(self._clock(), offset, self._lines)
        except OSError:
            self._index.give_up()
        self._checkpoint_offset, self._checkpoint_time = -1, 0.0


def _full_sentence(limit: LogLimit, cannot_drop: str) -> str:
    reached = f"its log reached max_log_bytes = {limit.max_bytes}, so the run was stopped"
    if cannot_drop:
        reason = "the file system of the data folder can't drop the beginning of a file"
        return f"{reached}: {reason} ({cannot_drop})"
    return f'{reached}; a larger limit, or when_log_full = "drop_oldest", lets it go on'


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
        self._index: Checkpoints | None = None
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
        return sse.cell_end(hole_bytes) if hole_bytes else 0

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
        for piece in read_pieces(self.fd, self.size(), offset):
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
            return lines + newlines_between(self.fd, offset, end)
        offset, lines = self._ask(lambda known: known.after_offset(end, self.size()))
        return lines - newlines_between(self.fd, end, offset)

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
            if mark := mark_of_index(self.path):
                return mark
        except OSError as error:
            if error.errno in EXHAUSTED:  # it passes; another mark would send viewers back
                raise
        head = self.read(0, _MARK_BYTES)
        if b"\n" not in head and len(head) < _MARK_BYTES:
            return UNSETTLED_MARK
        return f"{zlib.crc32(head[: head.find(10) + 1 or None]):08x}"

    def lines_before(self, offset: int) -> int:
        """How many lines begin before `offset`, itself a line's beginning, in its cell."""
        cell = sse.cell_of(offset) * sse.CELL_BYTES
        # A line begins after an LF; the one before the cell tells of a line that begins with it.
        since = max(0, cell - 1)
        return count_newlines(self.read(since, offset - since)) - (cell > 0)

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
        cell = sse.cell_of(start) * sse.CELL_BYTES
        lines = self.lines_before(start) + 1
        return sse.Cursor(self.mark(), *((cell, lines) if self.is_there(cell) else (offset, 0)))

    def after_lines(self, offset: int, count: int) -> int | None:
        """The offset after `count` lines that begin in the cell at `offset`; None if it has less.

        As a cursor has them: no line is longer than a cell, and each has its LF.
        """
        since = max(0, offset - 1)
        data = self.read(since, 2 * sse.CELL_BYTES + 1)
        try:
            # A line begins after an LF, the log's first one without.
            last = _nth_line_end(data, count if offset else count - 1)
            end = data.index(b"\n", last) + 1
        except ValueError:
            return None
        return since + end if since + last < sse.cell_end(offset) else None

    def is_line_start(self, offset: int, *, ended: bool = False) -> bool:
        """Whether a line begins, or will begin, at `offset`; of an ended log also its very end."""
        size = self.size()
        if offset == 0 or (ended and offset == size):
            return True
        if offset < self.first_byte():  # nobody can tell any more
            return True
        return offset <= size and self.read(offset - 1, 1) == b"\n"

    def read_block(self, offset: int, size: int, *, ended: bool = False) -> Block | None:
        """The whole lines from `offset` on that begin in its cell; None if none is whole yet.

        Without the last of them, where it goes far on in the next cell; and the first of them alone
        where to encode all takes long. `size` is the log's, as the caller knows it. With `ended`
        the last line counts without its LF. Raises LineTooLongError where the line has to be
        searched for its end.
        """
        data = _first_step(self.read(offset, self._lines_end(offset, size) - offset))
        end = data.rfind(b"\n") + 1
        if not end and len(data) < min(BLOCK_BYTES, size - offset):
            # One line, which goes far on in the next cell.
            data = self.read(offset, min(BLOCK_BYTES, size - offset))
            end = data.find(b"\n") + 1
        if end > BLOCK_BYTES:
            end = _without_long_line(data, end)
        if end:
            return Block(offset, offset + end, data if end == len(data) else data[:end])
        if len(data) >= BLOCK_BYTES:
            raise LineTooLongError(offset)
        return Block(offset, offset + len(data), data) if ended and data else None

    def _lines_end(self, offset: int, size: int) -> int:
        """Up to where to read, to have a cell's lines and nothing to cut off: that costs a copy."""
        end = sse.cell_end(offset)
        if size <= end:
            return size
        for look_bytes in _LOOKS_BYTES:
            over = self.read(end - 1, min(size - end, look_bytes) + 1)
            if (line_end := over.find(b"\n")) >= 0:
                return end + line_end
        return end  # the last one, which is long, is read by itself

    def scan_long_line(self, line: LongLine, size: int, max_bytes: int) -> bool:
        """Search on for the line's end, through `max_bytes` at most; whether there is more."""
        limit = min(size, line.scanned + max_bytes)
        while line.scanned < limit:
            piece = self.read(line.scanned, min(SCAN_BYTES, limit - line.scanned))
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
        for piece in read_pieces(self.fd, self.size(), offset):
            count = count_newlines(piece)
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
            count = lines + newlines_between(self.fd, offset, end)
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
            start = max(first, end - SCAN_BYTES)
            piece = self.read(start, end - start)
            count = count_newlines(piece)
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
        return isinstance(self._checkpoints(), FileCheckpoints)

    def _ask(self, question: Callable[[Checkpoints], _Answer]) -> _Answer:
        """The answer by the index, or without it once that is found to be false."""
        try:
            return question(self._checkpoints())
        except FalseIndexError:
            with self._index_lock:
                self._index = ScannedCheckpoints(self)
            return question(self._index)

    def _checkpoints(self) -> Checkpoints:
        with self._index_lock:
            if self._index is None:
                self._index = open_checkpoints(self)
            return self._index


def _with_times(checkpoints: Checkpoints) -> FileCheckpoints:
    if not isinstance(checkpoints, FileCheckpoints):
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


def _first_step(data: bytes) -> bytes:
    """Up to where to encode in one go: all, unless so many lines, or redraws, take too long.

    What is slow holds up every other viewer of the server for as long.
    """
    step_bytes = _step_bytes(data)
    if len(data) <= step_bytes:
        return data
    end = data.find(b"\n", step_bytes - 1) + 1
    return data[:end] if end else data


def _step_bytes(data: bytes) -> int:
    # By a sample: to count them all takes as long as to send the block.
    sample = data[::_SAMPLE_STRIDE]
    redraws, at = 0, sample.find(b"\r")
    while at >= 0:
        after = at * _SAMPLE_STRIDE + 1
        redraws += data[after : after + 1] != b"\n"
        at = sample.find(b"\r", at + 1)
    if redraws * _SAMPLE_STRIDE > _MOST_REDRAWS:
        return _REDRAWN_STEP_BYTES
    is_slow = sample.count(b"\n") * _SAMPLE_STRIDE > _MOST_LINES
    return _SHORT_LINES_STEP_BYTES if is_slow else len(data)


def _without_long_line(data: bytes, end: int) -> int:
    """Where these lines end without the last, if that is longer than a block.

    It is shown in another way then, which mustn't depend on who reads it, and when.
    """
    start = data.rfind(b"\n", 0, end - 1) + 1
    return start if end - start > BLOCK_BYTES else end


def settled_size(offset: int) -> int:
    """From which size of a log on the block at `offset` stays what it is.

    One line alone may still be too long for a block then, or not whole yet.
    """
    return sse.cell_end(offset) + max(_LOOKS_BYTES)


class LineTooLongError(Exception):
    """A line doesn't fit into a block: `offset` is where it begins."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def _nth_line_end(piece: bytes, count: int) -> int:
    """Where in `piece` the `count`th LF ends; 0 for none. Raises ValueError if there are fewer."""
    end = 0
    # To count them is far faster than to find each.
    while (found := piece.count(b"\n", end, end + _STRIDE_BYTES)) < count:
        count -= found
        end += _STRIDE_BYTES
        if end > len(piece):
            raise ValueError
    for _ in range(count):
        end = piece.index(b"\n", end) + 1
    return end
