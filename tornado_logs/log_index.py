"""The index of a log: where it has how many lines, so that any of them is found by a short scan.

    index = IndexWriter("data/x.idx", time.time())     # beside the log, in the capture process
    index.add(time.time(), offset=8, lines=2)

    checkpoints = open_checkpoints(log)                # in a reader
    checkpoints.before_line(1, log.size())             # (0, 0)

Records of 24 bytes, little-endian. The first: `TLOGIDX1`, the mark of the log (8 hex), the time it
was made. Each other is a checkpoint: the time, the byte offset that the log had reached, the number
of LFs before it. Times are microseconds since 1970, UTC. What an index has of a dropped part of its
log is dropped too, but for its first block. A log without an index gets checkpoints in memory, by
being read.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from tornado_logs import holes

CHECKPOINT_BYTES = 1024 * 1024
"""How far checkpoints are apart at most, unless some could not be written."""

DISK_BLOCK_BYTES = 4096
"""What a hole in a file begins and ends with, at least."""

SCAN_BYTES = 1024 * 1024
"""How much of a log is read at a time where lines are counted."""

_MAX_GAP_BYTES = 4 * CHECKPOINT_BYTES  # as much is read to check what one says
_MAGIC = b"TLOGIDX1"
_HEADER = struct.Struct("<8s8sQ")
_CHECKPOINT = struct.Struct("<QQQ")
_ENTRIES = 4096  # of an index, read at a time
_MARK_BYTES = 256
_DROP_STEP_BYTES = 64 * 1024  # the index is dropped by so much at a time
_MOST_SCANS = 64  # of logs without an index; that of 10 GB takes 1 MB
_SAMPLE_BYTES = 512
_LONG_LINE_BYTES = 60
_INDEX_HEAD = re.compile(_MAGIC + rb"[0-9a-f]{8}")


class Log(Protocol):
    """What checkpoints need of a log: `journal.LogFile` has it."""

    path: str
    fd: int

    def size(self) -> int:
        """How many bytes it has now."""

    def first_byte(self) -> int:
        """The offset of the first one that counts as there."""

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes at `offset`."""

    def mark(self) -> str:
        """What tells it from another of its name."""


class IndexWriter:
    """Writes an index. A log is whole without one, so nothing that fails here is an error."""

    def __init__(self, path: str, now: float) -> None:
        self.reached = 0  # the offset of the last checkpoint that is in the index
        self._path = path
        self._dropped_bytes = DISK_BLOCK_BYTES  # from the end of the first block on
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
            end = kept * size // DISK_BLOCK_BYTES * DISK_BLOCK_BYTES
            if end - self._dropped_bytes >= _DROP_STEP_BYTES:
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
        self._dropped_bytes = DISK_BLOCK_BYTES
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


def count_newlines(data: bytes) -> int:
    """How many LFs there are in it. Counting them is what captures and scans are bound by."""
    # `count` looks at each byte in turn; `replace` leaps from one LF to the next, which pays where
    # lines are long.
    if len(data) < 4 * _SAMPLE_BYTES:
        return data.count(b"\n")
    middle = len(data) // 2
    sample = data.count(b"\n", 0, _SAMPLE_BYTES)
    sample += data.count(b"\n", middle, middle + _SAMPLE_BYTES)
    if sample > 2 * _SAMPLE_BYTES // _LONG_LINE_BYTES:
        return data.count(b"\n")
    return len(data) - len(data.replace(b"\n", b""))


def read_pieces(fd: int, end: int, start: int = 0) -> Iterator[bytes]:
    """The bytes of a file from `start` to `end`, 1 MiB at a time; fewer, if it was cut."""
    while start < end:
        piece = os.pread(fd, min(SCAN_BYTES, end - start), start)
        if not piece:
            return
        yield piece
        start += len(piece)


def newlines_between(fd: int, start: int, end: int) -> int:
    """How many LFs a file has from `start` to `end`."""
    return sum(count_newlines(piece) for piece in read_pieces(fd, end, start))


class NoTimesError(Exception):
    """A log has no index, so nobody knows when its lines were written."""


class FalseIndexError(Exception):
    """What an index says isn't so: it is damaged, or of another log."""


def index_path(log_path: str) -> str:
    """Where the index of a log is."""
    return log_path.removesuffix(".log") + ".idx"


class Checkpoints(Protocol):
    """Places in a log of which offset and number of LFs before it are known."""

    def before_line(self, number: int, size: int) -> tuple[int, int]:
        """(offset, lines) of the last checkpoint with fewer than `number` LFs before it."""

    def before_offset(self, end: int, size: int) -> tuple[int, int]:
        """(offset, lines) of the last checkpoint at or before the offset `end`."""

    def after_offset(self, start: int, size: int) -> tuple[int, int]:
        """(offset, lines) of the first checkpoint at or after the offset `start`.

        `start` itself if there is none, with the lines of the last before it.
        """


def open_checkpoints(log: Log) -> Checkpoints:
    """Those of the log's index, which may be false; of the log itself, where it has none."""
    found = FileCheckpoints.open(log)  # which may be empty, and false for that
    return ScannedCheckpoints(log) if found is None else found


def mark_of_index(log_path: str) -> str | None:
    """The mark that the log's index has, None where there is no index. Raises OSError."""
    try:
        with open(index_path(log_path), "rb") as file:
            header = file.read(_HEADER.size)
    except FileNotFoundError:
        return None
    return header[8:16].decode() if _INDEX_HEAD.match(header) else None


class FileCheckpoints:
    """The checkpoints of an index file, read where they are needed and never kept.

    Whatever is built on one is checked by the log: what lies between it and the one before has to
    have as many LFs as they say. Raises FalseIndexError where it has not.

    Those of the part that was dropped may be all zeros. That leaves no doubt where the others are
    looked for: zeros are less than what they have, as the true ones would be.
    """

    def __init__(self, fd: int, log: Log) -> None:
        self._fd = fd
        self._log = log

    def __del__(self) -> None:
        os.close(self._fd)

    @classmethod
    def open(cls, log: Log) -> FileCheckpoints | None:
        """None where the log has no index, or one that isn't its own."""
        try:
            index = cls(os.open(index_path(log.path), os.O_RDONLY), log)
            if not _INDEX_HEAD.match(os.pread(index._fd, _HEADER.size, 0)):
                return None
            reached = index._entry(len(index) - 1)[0] if len(index) else 0
        except (OSError, FalseIndexError):
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
            raise FalseIndexError
        return entry

    def _checked(self, number: int) -> tuple[int, int]:
        """Its offset and the lines before it, if they fit the log and the checkpoint before."""
        offset, lines = self._entry(number)
        start, lines_before = self._entry(number - 1) if number else (0, 0)
        if start < self._log.first_byte():  # of what was dropped nobody knows better
            return offset, lines
        if not start <= offset <= min(self._log.size(), start + _MAX_GAP_BYTES):
            raise FalseIndexError
        counted = newlines_between(self._log.fd, start, offset)
        if counted != lines - lines_before and start >= self._log.first_byte():
            raise FalseIndexError
        return offset, lines

    def _time(self, number: int) -> int:
        return self._checkpoint(number)[0]

    def _checkpoint(self, number: int) -> tuple[int, int, int]:
        """Its time in microseconds since 1970, its offset, and the lines before it."""
        data = os.pread(self._fd, _CHECKPOINT.size, (number + 1) * _CHECKPOINT.size)
        if len(data) < _CHECKPOINT.size:  # cut meanwhile
            raise FalseIndexError
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
        """See `Checkpoints`."""
        return self._last(lambda entry: entry[1], number)

    def before_offset(self, end: int, size: int) -> tuple[int, int]:
        """See `Checkpoints`."""
        return self._last(lambda entry: entry[0], end + 1)

    def after_offset(self, start: int, size: int) -> tuple[int, int]:
        """See `Checkpoints`."""
        found = bisect_left(range(len(self)), start, key=lambda i: self._entry(i)[0])
        if found < len(self):
            return self._entry(found)
        return start, self._entry(found - 1)[1] if found else 0


class ScannedCheckpoints:
    """Checkpoints made by reading the log once, as far as is asked for."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._scan = _scan_of(log)

    def before_line(self, number: int, size: int) -> tuple[int, int]:
        """See `Checkpoints`."""
        scan = self._scan
        with scan.lock:
            scan.extend(self._log, size, lambda: scan.lines[-1] >= number)
            found = bisect_right(scan.lines, number - 1) - 1
            return scan.offsets[found], scan.lines[found]

    def before_offset(self, end: int, size: int) -> tuple[int, int]:
        """See `Checkpoints`."""
        scan = self._scan
        with scan.lock:
            scan.extend(self._log, size, lambda: scan.offsets[-1] >= end)
            found = max(0, bisect_right(scan.offsets, end) - 1)
            return scan.offsets[found], scan.lines[found]

    def after_offset(self, start: int, size: int) -> tuple[int, int]:
        """See `Checkpoints`."""
        return start, self.before_offset(start, size)[1]


class _Scan:
    """What was found by reading one log; who opens it next goes on from there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.offsets = [0]
        self.lines = [0]
        self._last_bytes = b""  # those before the last checkpoint

    def extend(self, log: Log, size: int, is_enough: Callable[[], bool]) -> None:
        """Read on, if need be. Begins anew if the log was cut or written anew since."""
        if size < self.offsets[-1] or self._last_bytes != self._bytes_before(log, self.offsets[-1]):
            self.offsets, self.lines = [0], [0]
        if self.offsets[-1] < log.first_byte():  # no need to read zeros
            self.offsets.append(log.first_byte())
            self.lines.append(self.lines[-1])
        # Whole pieces only: a checkpoint within what is still growing would be one each call.
        whole = size - (size - self.offsets[-1]) % SCAN_BYTES
        for piece in read_pieces(log.fd, whole, self.offsets[-1]):
            if is_enough():
                break
            self.offsets.append(self.offsets[-1] + len(piece))
            self.lines.append(self.lines[-1] + count_newlines(piece))
        self._last_bytes = self._bytes_before(log, self.offsets[-1])

    @staticmethod
    def _bytes_before(log: Log, offset: int) -> bytes:
        return log.read(max(0, offset - _MARK_BYTES), min(_MARK_BYTES, offset))


_scans: OrderedDict[tuple[int, int, str], _Scan] = OrderedDict()
_scans_lock = threading.Lock()


def _scan_of(log: Log) -> _Scan:
    status = os.fstat(log.fd)
    key = (status.st_dev, status.st_ino, log.mark())
    with _scans_lock:
        scan = _scans.pop(key, None) or _Scan()
        _scans[key] = scan
        if len(_scans) > _MOST_SCANS:
            _scans.popitem(last=False)
    return scan
