"""A log on disk: appending, blocks of whole lines, lines by number, marks."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_logs import journal, log_index
from tornado_logs.journal import (
    BLOCK_BYTES,
    JournalWriter,
    LineTooLongError,
    LogFile,
    LongLine,
    block_lines,
)
from tornado_logs.log_index import NoTimesError
from tornado_logs.sse import cell_end, cell_of


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        """Like time.time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(tmp_path: Path, clock: Clock) -> Iterator[JournalWriter]:
    fd = os.open(tmp_path / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield JournalWriter(fd, str(tmp_path / "x.idx"), clock)
    os.close(fd)


def checkpoints(folder: Path) -> int:
    return (folder / "x.idx").stat().st_size // 24 - 1


def open_log(folder: Path, data: bytes | None = None) -> LogFile:
    if data is not None:
        (folder / "x.log").write_bytes(data)
    return LogFile(str(folder / "x.log"))


def test_what_is_appended_is_in_the_file_byte_by_byte(
    writer: JournalWriter, tmp_path: Path
) -> None:
    pieces = [b"one\n", b"", b"t\x00w\xff", b"o\r\n", b"rest"]
    for piece in pieces:
        writer.append(piece)
    assert (tmp_path / "x.log").read_bytes() == b"".join(pieces)


@given(
    lines=st.lists(st.integers(0, 300), max_size=200),
    times=st.integers(1, 40),
    rest=st.sampled_from([b"", b"rest", b"x" * 3000]),
)
def test_lines_are_counted_whether_they_are_long_or_short(
    lines: list[int], times: int, rest: bytes
) -> None:
    data = b"".join(b"." * length + b"\n" for length in lines) * times
    assert log_index.count_newlines(data + rest) == len(lines) * times
    assert log_index.count_newlines(rest + data) == len(lines) * times


def test_checkpoints_are_at_least_ten_milliseconds_apart(
    writer: JournalWriter, clock: Clock, tmp_path: Path
) -> None:
    for _ in range(100):
        writer.append(b"line\n")
        clock.now += 0.001
    assert 9 <= checkpoints(tmp_path) <= 11


def test_there_is_a_checkpoint_for_each_mebibyte_however_fast_it_comes(
    writer: JournalWriter, tmp_path: Path
) -> None:
    for _ in range(40):
        writer.append(b"x" * 100_000)
    assert checkpoints(tmp_path) >= 3


def test_the_last_bytes_get_their_checkpoint_without_more_to_come(
    writer: JournalWriter, clock: Clock, tmp_path: Path
) -> None:
    writer.append(b"one\n")
    writer.append(b"two\n")
    assert checkpoints(tmp_path) == 1
    assert writer.idle_seconds() == pytest.approx(0.01)
    clock.now += 0.02
    writer.settle()
    assert checkpoints(tmp_path) == 2
    assert writer.idle_seconds() is None


def test_a_clock_set_back_does_not_hold_checkpoints_up(
    writer: JournalWriter, clock: Clock, tmp_path: Path
) -> None:
    writer.append(b"one\n")
    clock.now -= 3600
    writer.append(b"two\n")
    assert checkpoints(tmp_path) == 2


def test_a_log_cut_by_somebody_else_gets_a_new_index_and_mark(
    writer: JournalWriter, tmp_path: Path
) -> None:
    writer.append(b"one\ntwo\n")
    before = open_log(tmp_path).mark()
    os.truncate(tmp_path / "x.log", 0)
    writer.append(b"three\n")
    log = open_log(tmp_path)
    assert log.mark() != before
    assert log.count_lines(log.size()) == 1


def test_a_block_is_whole_lines(tmp_path: Path) -> None:
    log = open_log(tmp_path, b"one\ntwo\nthr")
    block = log.read_block(0, log.size())
    assert block is not None
    assert (block.start, block.end, block.data) == (0, 8, b"one\ntwo\n")
    assert log.read_block(8, log.size()) is None
    rest = log.read_block(8, log.size(), ended=True)
    assert rest is not None
    assert rest.data == b"thr"


def test_blocks_join_to_the_log_and_each_is_the_lines_of_a_cell(tmp_path: Path) -> None:
    data = b"".join(b"line %d\n" % n for n in range(100_000))
    log = open_log(tmp_path, data)
    offset, joined = 0, b""
    while block := log.read_block(offset, log.size()):
        assert block.start == offset
        last = data.rindex(b"\n", 0, block.end - 1) + 1
        assert cell_of(block.start) == cell_of(last)
        joined, offset = joined + block.data, block.end
        assert block.end == len(data) or block.end >= cell_end(block.start)
    assert joined == data


@pytest.mark.parametrize("line", [b"\n", b"yes\n", b"\r\n", b"1 %\r2 %\rdone\n"])
@pytest.mark.parametrize("usual_bytes", [0, 1000, 400_000])
def test_lines_that_take_long_to_encode_are_read_in_small_steps(
    tmp_path: Path, line: bytes, usual_bytes: int
) -> None:
    data = (b"x" * 99 + b"\n") * (usual_bytes // 100) + line * (400_000 // len(line))
    log = open_log(tmp_path, data)
    offset, joined = 0, b""
    while block := log.read_block(offset, log.size()):
        joined, offset = joined + block.data, block.end
        lines, redraws = block.data.count(b"\n"), block.data.count(b"%\r")
        assert lines < 50_000
        assert redraws < 1500
    assert joined == data


@pytest.mark.parametrize("line", [b"x" * 99 + b"\n", b"x" * 98 + b"\r\n", b"x" * 9 + b"\r\n"])
def test_usual_lines_are_read_in_whole_blocks(tmp_path: Path, line: bytes) -> None:
    log = open_log(tmp_path, line * (400_000 // len(line)))
    block = log.read_block(0, log.size())
    assert block is not None
    assert BLOCK_BYTES <= block.end < BLOCK_BYTES + len(line)


@pytest.mark.parametrize("length", [10, 3000, BLOCK_BYTES // 2 - 1, BLOCK_BYTES - 1])
@pytest.mark.parametrize("over_bytes", [0, 1, 5, 2000])
def test_a_line_that_goes_on_in_the_next_cell_is_read_whole(
    tmp_path: Path, length: int, over_bytes: int
) -> None:
    line = b"x" * length + b"\n"
    before = (b"y" * 49 + b"\n") * (BLOCK_BYTES // 50 + 50)
    before = before[len(before) - (BLOCK_BYTES + over_bytes - len(line)) :]
    log = open_log(tmp_path, before + line + b"next\n")
    offset, blocks = 0, []
    while block := log.read_block(offset, log.size()):
        blocks.append(block.data)
        offset = block.end
    assert b"".join(blocks) == before + line + b"next\n"
    assert sum(line in block for block in blocks) == 1
    if cell_of(len(before)) == 0:  # while it isn't whole, what stands before it is
        first = log.read_block(0, len(before) + len(line) - 1)
        assert (first.data if first else b"") == before


@pytest.mark.parametrize("before", [b"", b"before\n"])
def test_a_line_little_longer_than_a_block_is_too_long_whoever_reads_it(
    tmp_path: Path, before: bytes
) -> None:
    line = b"x" * (BLOCK_BYTES - 1)
    log = open_log(tmp_path, before + line + b"\n" + line + b"y\nlast\n")
    offset = 0
    while offset < len(before) + BLOCK_BYTES:
        block = log.read_block(offset, log.size())
        assert block is not None
        offset = block.end
    for size in (log.size() - 6, log.size()):  # not whole yet, and whole
        with pytest.raises(LineTooLongError):
            log.read_block(offset, size)


def test_a_line_longer_than_a_block_is_found_in_slices_and_never_held(tmp_path: Path) -> None:
    length = 5_000_000
    log = open_log(tmp_path, b"x" * length + b"\nnext\n")
    with pytest.raises(LineTooLongError):
        log.read_block(0, log.size())
    line = LongLine(0, 0, 0)
    slices = 1
    while log.scan_long_line(line, log.size(), 1_000_000):
        slices += 1
    assert slices == 6
    assert line.end == length
    block = log.long_block(line, log.size())
    assert (block.end, len(block.data)) == (length + 1, BLOCK_BYTES)
    lines, ends = block_lines(block, 100)
    assert ends == [length + 1]
    assert f"[{length - 100:,} bytes left out" in lines[0].decode()


def test_of_a_long_line_of_redraws_the_last_is_shown(tmp_path: Path) -> None:
    drawn = b"".join(b"\r%6d%%" % n for n in range(100_000))
    log = open_log(tmp_path, drawn + b"\n")
    block = log.block_now(0, log.size())
    assert block is not None
    assert block_lines(block, 65536) == ([b" 99999%"], [len(drawn) + 1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), max_size=60),
    rest=st.integers(0, 5),
    indexed=st.booleans(),
)
def test_lines_are_found_by_number_with_an_index_and_without(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], rest: int, indexed: bool
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    pieces = [b"x" * length + b"\n" for length in lengths] + [b"y" * rest]
    data = b"".join(pieces)
    if indexed:
        clock = Clock()
        fd = os.open(folder / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        writer = JournalWriter(fd, str(folder / "x.idx"), clock)
        for start in range(0, len(data), 97):  # pieces end anywhere, seldom at a line's end
            writer.append(data[start : start + 97])
            clock.now += 0.02
        writer.close()
        os.close(fd)
    log = open_log(folder, None if indexed else data)
    for number in range(len(lengths) + 1):
        start = sum(map(len, pieces[:number]))
        assert log.line_start(number) == start
        assert log.count_lines(start) == number
    assert log.line_start(len(lengths) + 1) is None
    for lines in range(len(pieces) + 1):
        # Of an ended log the last line counts without its LF; of one that grows it is left over.
        ended = b"".join((pieces if rest else pieces[:-1])[-lines:] if lines else [])
        assert log.tail_start(lines, len(data), ended=True) == len(data) - len(ended)
        growing = b"".join([*(pieces[:-1][-lines:] if lines else []), b"y" * rest])
        assert log.tail_start(lines, len(data)) == len(data) - len(growing)


def test_lines_of_a_bare_log_are_found_across_scanned_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (journal, log_index):
        monkeypatch.setattr(module, "SCAN_BYTES", 1000)
    data = b"".join(b"line %d\n" % n for n in range(5000))
    log = open_log(tmp_path, data)
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for number in (0, 1, 2, 999, 1000, 4999, 5000):
        assert log.line_start(number) == starts[number]
        assert log.tail_start(5000 - number, len(data)) == starts[number]
    with (tmp_path / "x.log").open("ab") as file:
        file.write(b"more\n")
    assert log.count_lines(log.size()) == 5001


def test_an_index_that_lies_is_not_believed(writer: JournalWriter, tmp_path: Path) -> None:
    writer.append(b"one\n" * 1000)
    (tmp_path / "x.log").write_bytes(b"a\nb\n")
    log = open_log(tmp_path)
    assert log.count_lines(log.size()) == 2
    (tmp_path / "x.idx").write_bytes(b"garbage" * 20)
    assert open_log(tmp_path).line_start(1) == 2


def test_a_torn_checkpoint_is_passed_over(writer: JournalWriter, tmp_path: Path) -> None:
    writer.append(b"one\ntwo\n")
    with (tmp_path / "x.idx").open("ab") as file:
        file.write(b"torn")
    assert open_log(tmp_path).line_start(1) == 4


def test_the_mark_of_a_bare_log_is_its_first_lines_and_stays_as_it_grows(tmp_path: Path) -> None:
    first = open_log(tmp_path, b"begin 1\n").mark()
    assert open_log(tmp_path, b"begin 1\nmore\nand more\n").mark() == first
    assert open_log(tmp_path, b"begin 2\nmore\n").mark() != first


def test_a_replaced_log_is_not_at_its_path(tmp_path: Path) -> None:
    log = open_log(tmp_path, b"one\n")
    assert log.is_at_path()
    (tmp_path / "new").write_bytes(b"two\n")
    (tmp_path / "new").rename(tmp_path / "x.log")
    assert not log.is_at_path()


def test_a_log_without_an_index_is_read_through_once_for_all_who_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"a line of a log\n" * 400_000)
    read_bytes = 0
    pread = os.pread

    def counted(fd: int, count: int, offset: int) -> bytes:
        nonlocal read_bytes
        data = pread(fd, count, offset)
        read_bytes += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    for opened in range(10):
        log = LogFile(str(path))
        assert log.count_lines(log.size()) == 400_000
        assert log.line_start(399_000) == 399_000 * 16
        log.close()
        if opened == 0:
            first_bytes = read_bytes
    assert first_bytes > 400_000 * 16
    assert read_bytes < 5 * first_bytes


def test_a_log_without_an_index_that_is_written_anew_is_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for lines, filler in ((100_000, b"a"), (90_000, b"b"), (200_000, b"c")):
        # The same file and the same first line: only what comes after it differs.
        path.write_bytes(b"first\n" + (filler * 29 + b"\n") * lines)
        log = LogFile(str(path))
        assert log.count_lines(log.size()) == lines + 1
        log.close()


LOG = b"".join(b"x" * (number % 7) + b"\n" for number in range(120)) + b"rest"


def write_log(folder: Path, data: bytes = LOG, piece_bytes: int = 23) -> bytes:
    """Write a log with a checkpoint after each piece; its index."""
    clock = Clock()
    fd = os.open(folder / "x.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    writer = JournalWriter(fd, str(folder / "x.idx"), clock)
    for start in range(0, len(data), piece_bytes):
        writer.append(data[start : start + piece_bytes])
        clock.now += 0.02
    writer.close()
    os.close(fd)
    return (folder / "x.idx").read_bytes()


def check_lines(folder: Path, data: bytes) -> None:
    """Every line of the log is where it is, by whatever question."""
    log = open_log(folder)
    starts = [0] + [at + 1 for at, byte in enumerate(data) if byte == 10]
    assert [log.line_start(number) for number in range(len(starts))] == starts
    assert log.line_start(len(starts)) is None
    for end in range(0, len(data) + 1, 7):
        assert log.count_lines(end) == data.count(b"\n", 0, end)
    assert log.tail_start(3, len(data)) == starts[max(0, len(starts) - 4)]
    with contextlib.suppress(NoTimesError):
        log.line_at_time(int((Clock().now + 0.5) * 1e6))
        assert len(log.line_times(0, len(starts))) == len(starts)
    log.close()


def test_an_index_cut_at_any_byte_tells_no_wrong_line(tmp_path: Path) -> None:
    index = write_log(tmp_path)
    for size in [*range(100), *range(100, len(index), 11), len(index)]:
        (tmp_path / "x.idx").write_bytes(index[:size])
        check_lines(tmp_path, LOG)


def test_a_log_cut_at_any_byte_has_the_lines_that_are_left(tmp_path: Path) -> None:
    write_log(tmp_path)
    for size in range(len(LOG), -1, -1):
        os.truncate(tmp_path / "x.log", size)
        if size % 5 == 0 or size < 20:
            check_lines(tmp_path, LOG[:size])


ENTRY = struct.Struct("<QQQ")


def changed(index: bytes, number: int, offset: int, lines: int) -> bytes:
    """The index with another offset and another count of lines in one of its checkpoints."""
    at = number * ENTRY.size
    time_us, _, _ = ENTRY.unpack_from(index, at)
    return index[:at] + ENTRY.pack(time_us, offset, lines) + index[at + ENTRY.size :]


FALSE_INDEXES: dict[str, Callable[[bytes], bytes]] = {
    "of another version": lambda index: b"TLOGIDX2" + index[8:],
    "without a mark": lambda index: index[:8] + b"********" + index[16:],
    "all zeros": lambda index: bytes(len(index)),
    "zeros at its end, as a power loss leaves them": lambda index: index[:240] + bytes(240),
    "zeros in its middle": lambda index: index[:120] + bytes(240) + index[360:],
    "misaligned": lambda index: index[:125] + index[133:],
    "garbage": lambda index: index[:24] + bytes(range(1, 241)),
    "offsets that go back": lambda index: index[:24] + index[24:][::-1],
    "its checkpoints in another order": lambda index: (
        index[:24] + b"".join(index[at : at + 24] for at in range(len(index) - 24, 0, -24))
    ),
    "beyond the log": lambda index: index[:-24] + ENTRY.pack(1, 1 << 40, 1 << 40),
    "beyond it in the middle": lambda index: changed(index, 9, 1 << 40, 60),
    "too many lines": lambda index: changed(index, 9, 9 * 23, 1000),
    "one line too few": lambda index: changed(index, 9, 9 * 23, LOG.count(b"\n", 0, 9 * 23) - 1),
}


@pytest.mark.parametrize("what", FALSE_INDEXES)
def test_a_false_index_tells_no_wrong_line(tmp_path: Path, what: str) -> None:
    (tmp_path / "x.idx").write_bytes(FALSE_INDEXES[what](write_log(tmp_path)))
    check_lines(tmp_path, LOG)


def test_the_index_of_an_older_log_tells_no_wrong_line(tmp_path: Path) -> None:
    older = write_log(tmp_path, b"".join(b"%d older\n" % number for number in range(60)))
    write_log(tmp_path)
    (tmp_path / "x.idx").write_bytes(older)
    check_lines(tmp_path, LOG)


def test_a_checkpoint_written_in_part_leaves_the_next_ones_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, calls = os.pwrite, 0

    def in_part(fd: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        return pwrite(fd, data[:11] if calls % 5 == 3 else data, offset)

    monkeypatch.setattr(os, "pwrite", in_part)
    index = write_log(tmp_path)
    assert len(index) // 24 == calls - calls // 5  # a gap for each, and no more than that
    log = open_log(tmp_path)
    assert log.line_start(100) == LOG.replace(b"\n", b"\0", 99).index(b"\n") + 1
    assert log.has_index
    check_lines(tmp_path, LOG)


def test_a_log_whose_index_cannot_be_made_is_written_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "x.idx").mkdir()
    fd = os.open(tmp_path / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = JournalWriter(fd, str(tmp_path / "x.idx"))
    writer.append(LOG)
    writer.settle()
    writer.close()
    os.close(fd)
    check_lines(tmp_path, LOG)


def test_a_log_that_reaches_its_limit_has_as_many_bytes_as_its_writer_says(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = JournalWriter(fd, str(tmp_path / "x.idx"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))  # a write beyond it is one in part
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.append(LOG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.offset == 300
    writer.append(LOG[300:])
    writer.close()
    os.close(fd)
    check_lines(tmp_path, LOG)


def test_a_large_piece_and_a_log_of_somebody_else_s_get_their_checkpoints_too(
    writer: JournalWriter, tmp_path: Path
) -> None:
    data = b"a line of a log\n" * 400_000
    writer.append(data)
    assert checkpoints(tmp_path) >= 6
    assert open_log(tmp_path).line_start(399_000) == 399_000 * 16
    (tmp_path / "x.log").write_bytes(data[: len(data) // 2])
    writer.append(b"more\n")
    assert checkpoints(tmp_path) >= 3
    log = open_log(tmp_path)
    assert log.line_start(199_000) == 199_000 * 16
    assert log.has_index
