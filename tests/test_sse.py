"""Lines to events: framing, cursors, redraws, cuts."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal
from wcwidth import wcwidth

from tornado_logs import sse
from tornado_logs.journal import LogFile
from tornado_logs.redraw import char_width, redraw
from tornado_logs.sse import (
    Cursor,
    encode_batch,
    encode_event,
    encode_lines,
    encode_plain_batch,
    encode_plain_lines,
    line_cursors,
    line_ends,
    parse_cursor,
    visible_block,
    visible_line,
    visible_lines,
)

MARK = "a1b2c3d4"
LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=20)


def test_each_line_is_an_event_with_the_cursor_after_it() -> None:
    block = b"one\ntwo\n"
    cursors = line_cursors(10, line_ends(block, 10), 3, MARK)
    wire = encode_lines(visible_lines(block, 100), cursors)
    assert wire == b"id: a1b2c3d4-0:4\ndata: one\n\nid: a1b2c3d4-0:5\ndata: two\n\n"


def test_percent_signs_in_lines_are_text() -> None:
    block = b"100% %s %d %(x)s\n"
    cursors = line_cursors(0, line_ends(block, 0), 0, MARK)
    plain = b"".join(encode_plain_lines(block, 0, 0, MARK)[0])
    for wire in (encode_lines([block[:-1]], cursors), plain):
        assert b"data: 100% %s %d %(x)s\n" in wire


def test_a_batch_is_one_event_with_one_cursor() -> None:
    wire = encode_batch([b"one", b"", b"three"], 11, MARK)
    assert wire == b"id: a1b2c3d4-11\ndata: one\ndata: \ndata: three\n\n"


@given(LINES, st.booleans(), st.integers(0, 1 << 40))
def test_there_is_an_end_for_each_line_and_the_last_is_the_blocks(
    lines: list[bytes], whole: bool, offset: int
) -> None:
    block = b"".join(line + b"\n" for line in lines) + (b"" if whole else b"rest")
    ends = line_ends(block, offset)
    assert len(ends) == len(visible_lines(block, 1000)) == len(lines) + (not whole)
    assert not ends or ends[-1] == offset + len(block)


@given(st.binary(max_size=400))
def test_no_bytes_of_a_log_can_break_the_framing(block: bytes) -> None:
    lines = visible_lines(block, 100)
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    wire = encode_lines(lines, line_cursors(0, line_ends(block, 0), 0, MARK))
    assert wire.count(b"\n") == 3 * len(lines)
    wire.decode()


# Of what redraws, of what begins a character and of what is none, each more often than of the rest.
ODD_LINES = st.lists(
    st.lists(
        st.sampled_from(
            [b"\r", b"\x1b[2K", b"\b", b"\xc3", b"\xa9", b"\xe2\x82", b"\xff", b"ab%d"]
        ),
        max_size=8,
    ).map(b"".join),
    max_size=8,
)


@given(st.one_of(LINES, ODD_LINES), st.booleans(), st.integers(1, 50))
def test_a_block_is_shown_as_its_lines_are_only_faster(
    lines: list[bytes], whole: bool, most: int
) -> None:
    block = b"\n".join(lines) + b"\n" * whole
    shown = [visible_line(line, most) for line in block.split(b"\n")]
    assert visible_block(block, most).split(b"\n") == shown


@given(st.one_of(LINES, ODD_LINES).filter(bool), st.integers(1, 50))
def test_what_is_shown_is_encoded_for_all_lines_at_once_as_for_each(
    lines: list[bytes], most: int
) -> None:
    block = b"".join(line + b"\n" for line in lines)
    shown, ends = visible_lines(block, most), line_ends(block, 10)
    cursors = line_cursors(10, ends, 3, MARK)
    plain, count = encode_plain_lines(visible_block(block, most), 10, 3, MARK)
    assert b"".join(plain) == encode_lines(shown, cursors)
    assert count == len(lines)
    batch = encode_plain_batch(visible_block(block, most), ends[-1], MARK)
    assert b"".join(batch) == encode_batch(shown, ends[-1], MARK)


@given(st.lists(st.integers(0, 40), min_size=1), st.data())
def test_a_line_has_the_same_cursor_however_the_log_is_read(
    lengths: list[int], data: st.DataObject
) -> None:
    lines = [b"%" * length + b"\n" for length in lengths]
    with TemporaryDirectory() as folder, patch.object(sse, "CELL_BYTES", 16):
        path = Path(folder) / "x.log"
        path.write_bytes(b"".join(lines))
        log = LogFile(str(path))
        cursors: list[Cursor] = []
        start = number = 0
        while number < len(lines):
            size = data.draw(st.integers(start, log.size()))
            block = log.block_now(start, max(size, start + len(lines[number])))
            assert block is not None
            assert block.start == start
            before = log.lines_before(start)
            found = line_cursors(start, line_ends(block.data, start), before, MARK)
            assert found
            if max(len(line) for line in lines[number : number + len(found)]) <= 16:
                shown = visible_lines(block.data, 100)
                plain, count = encode_plain_lines(block.data, start, before, MARK)
                assert b"".join(plain) == encode_lines(shown, found)
                assert count == len(found)
            cursors += found
            start, number = block.end, number + len(found)
        assert len(set(cursors)) == len(cursors)
        ends = line_ends(b"".join(lines), 0)
        for cursor, end in zip(cursors, ends, strict=True):
            assert log.cursor(end) == Cursor(log.mark(), cursor.offset, cursor.lines)
            if cursor.lines:
                assert log.after_lines(cursor.offset, cursor.lines) == end
                assert log.after_lines(cursor.offset, cursor.lines + len(lines)) is None
            else:
                assert cursor.offset == end
        log.close()


@pytest.mark.parametrize("count", [1, 8190, 8191, 8192, 65_534, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("before", [0, 5, 70_000])
def test_lines_are_numbered_whether_their_numbers_are_kept_or_not(count: int, before: int) -> None:
    buffers, encoded = encode_plain_lines(b"%\n" * count, 0, before, MARK)
    assert encoded == count
    numbers = range(before + 1, before + count + 1)
    assert b"".join(buffers) == b"".join(b"id: a1b2c3d4-0:%d\ndata: %%\n\n" % n for n in numbers)


def test_text_that_merely_looks_like_an_end_of_line_is_left_alone() -> None:
    line = "a\u2028b\u2029c\x85d\x0be\x0cf\x00g".encode()
    assert visible_lines(line + b"\n", 100) == [line]


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    assert visible_lines(b"caf\xe9\nok\n", 100) == ["caf\ufffd".encode(), b"ok"]


@pytest.mark.parametrize(
    ("drawn", "shown"),
    [
        ("10%\r20%\r100%", "100%"),
        ("abcdef\rxy", "xycdef"),
        ("done\r", "done"),
        ("done\r\r", "done"),
        ("\rx", "x"),
        ("loading...\r\x1b[Kok", "ok\x1b[K"),
        ("loading...\x1b[2K\rok", "ok\x1b[K"),
        ("abc\x1b[1K\rx", "x\x1b[0m   "),
        ("abc\b\bX\r", "abc\b\bX"),
        ("abc\rX\b\x1b[2CZ", "XbZ"),
        ("a\r\x1b[5GZ", "a\x1b[3CZ"),
        ("\x1b[32m50%\x1b[0m\r\x1b[32m100%\x1b[0m", "\x1b[0;32m100%\x1b[0m"),
        ("\x1b[?25l\x1b]0;title\x07one\rtwo", "two"),
        ("日本\rx", "x 本"),
        ("日本\r\x1b[3Cx", "日 x"),
        ("日本\rabc", "abc "),
        ("e\u0301x\r\x1b[Cy", "e\u0301y"),
        ("\U0001f469\u200d\U0001f4bbx\r\x1b[2Cy", "\U0001f469\u200d\U0001f4bby"),
        ("\U0001f44d\U0001f3fdx\r\x1b[2Cy", "\U0001f44d\U0001f3fdy"),
        ("a\tb\rx", "x\tb"),
        ("a\tb\r\x1b[3Cx", "a\x1b[2Cx\x1b[4Cb"),
        ("\x1b[2A\x1b[2K\rpulled\r\x1b[2B", "\x1b[2Fpulled\x1b[K\x1b[2E"),
        ("\x1b[A\rone\x1b[B\rtwo", "\x1b[1Fone\x1b[1Etwo"),
        ("gone\r\x1b[2A\x1b[Jnew", "\x1b[2Fnew\x1b[J"),
        ("x\r\x1b]8;;http://a/\x1b\\a\x1b]8;;\x1b\\", "\x1b]8;;http://a/\x1b\\a\x1b]8;;\x1b\\"),
        ("text\r\x1b7\x1b[50;0fProgress: [ 10%]\x1b8", "text"),
        ("a\rb\x1b[3", "b\x1b[3"),
    ],
)
def test_a_carriage_return_redraws_as_a_terminal_does(drawn: str, shown: str) -> None:
    assert visible_line(drawn.encode(), 1000).decode() == shown


def test_colours_stay_with_what_they_coloured_through_a_redraw() -> None:
    line = visible_line(b"\x1b[31mred text\x1b[0m\rR", 1000).decode()
    assert line == "\x1b[0mR\x1b[31med text\x1b[0m"


PIECES = st.one_of(
    st.text("abc xyz", min_size=1, max_size=12),
    st.text("日本語📦a", min_size=1, max_size=5),
    st.sampled_from(["e\u0301", "█▌", "\r", "\b", "\t", "\x1b[?25l", "\x1b]0;title\x07"]),
    st.builds("\x1b[{}{}".format, st.sampled_from(["", 1, 2]), st.just("K")),
    st.builds("\x1b[{}{}".format, st.integers(0, 12), st.sampled_from("CDGX")),
    st.sampled_from(["\x1b[0m", "\x1b[31m", "\x1b[1;44m", "\x1b[22m", "\x1b[m", "\x1b[38;5;208m"]),
)
MOVES = st.one_of(
    st.builds("\x1b[{}{}".format, st.integers(0, 1), st.sampled_from("ABEF")),
    st.sampled_from(["\x1b[J", "\x1bM", "\x1b7there\x1b[A\x1b8", "\x1b[A"]),
)
OLD_ROWS = "".join(f"\x1b[0mold row {n} {'日本' * (n % 4)} {'.' * n}\n" for n in range(16))


@given(st.lists(PIECES, max_size=14), st.booleans())
def test_a_redrawn_line_does_to_a_terminal_what_the_whole_line_does(
    pieces: list[str], is_over_old_rows: bool
) -> None:
    line = "".join(pieces)
    before = OLD_ROWS + "\x1b[8A" if is_over_old_rows else ""
    compare_on_terminals(before, line)


@given(st.lists(PIECES | MOVES, max_size=14))
def test_moves_to_other_rows_outlast_a_redraw(pieces: list[str]) -> None:
    # In the middle of enough rows that none of the moves meets an edge.
    line = "".join(pieces)
    compare_on_terminals(OLD_ROWS + "\n" * 26 + "\x1b[28A", line)


def compare_on_terminals(before: str, line: str) -> None:
    """The same rows, styles and cursor row come of `line` as of what `redraw` makes of it."""
    whole = Terminal(rows=60).feed(before + line + "\n")
    short = Terminal(rows=60).feed(before + redraw(line) + "\n")
    assert "\r" not in redraw(line)
    assert short.text == whole.text
    assert short.styles == whole.styles
    assert short.row == whole.row


def test_what_a_line_draws_in_ever_new_colours_costs_no_memory() -> None:
    steps = "".join(f"\x1b[38;5;{n % 256}m{n % 10}\x1b[39m\x1b[1m\x1b[22m" for n in range(8000))
    line = visible_line(("\r" + steps.replace("m", "m\r")).encode(), 65536)
    assert len(line) < 100


def test_a_line_that_goes_back_by_escapes_alone_is_drawn_before_it_is_cut() -> None:
    frames = "".join(f"\x1b[2K\x1b[1GFrame {n}" for n in range(1000))
    assert visible_line(frames.encode(), 200) == b"Frame 999\x1b[K"


@pytest.mark.parametrize("escape", ["\x1b[38;5;2m", "\x1b]8;;http://a/\x1b\\"])
def test_a_long_line_is_not_cut_within_an_escape_sequence(escape: str) -> None:
    for most in range(len(escape)):
        cut = visible_line(("abc" + escape + "d" * 20).encode(), 3 + most).decode()
        assert cut.startswith("abc … ["), most


def test_characters_take_the_columns_that_terminals_give_them() -> None:
    # But for the few that versions of Unicode differ in, and spacing marks, where terminals do.
    unseen = ("Cc", "Cf", "Cn", "Co", "Cs", "Mc", "Zl", "Zp")
    chars = [c for c in map(chr, range(32, 0x20000)) if unicodedata.category(c) not in unseen]
    differing = [char for char in chars if char_width(char) != wcwidth(char)]
    assert len(differing) < len(chars) / 200, differing


def test_a_column_far_out_costs_no_memory() -> None:
    assert len(visible_line(b"\r\x1b[999999999999Cx", 100_000)) < 100_000


def test_a_long_line_is_cut_at_a_character_and_says_how_much_is_missing() -> None:
    line = ("ä" * 50).encode()
    cut = visible_line(line, 11)
    assert cut.decode().startswith("ä" * 5 + " … [90 bytes left out")
    assert visible_line(line, 100) == line
    assert "1,000,000 bytes left out" in visible_line(line, 100, 1_000_000).decode()


def test_the_mark_of_a_cut_line_counts_the_bytes_of_the_log_not_of_the_wire() -> None:
    cut = visible_line(b"\xff" * 50, 11).decode()
    assert cut.startswith("\ufffd" * 11 + " … [39 bytes left out")


def test_a_cursor_reads_back_as_it_was_written() -> None:
    for cursor in (
        Cursor(MARK, 0),
        Cursor(MARK, 10**12),
        Cursor(MARK, 2 * sse.CELL_BYTES, 3),
        Cursor(MARK, 7, 0, ended=True),
        Cursor(MARK, 0, 3, ended=True),
    ):
        assert parse_cursor(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "7", "-7", "a1b2c3d4", "a1b2c3d4-", "a1b2c3d4--1", "a1b2c3d4-7-", "A1B2C3D4-7",
             "a1b2c3d4-7:", "a1b2c3d4-7.1", "a1b2c3d4-:7", "a1b2c3d4-7:0", "a1b2c3d4-7:01",
             "a1b2c3d4-٣", "a1b2c3d4-7\n", "a1b2c3d4-" + "9" * 30]
)  # fmt: skip
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert parse_cursor(text) is None


def test_data_with_several_lines_has_a_field_for_each() -> None:
    assert encode_event("note", "a\nb") == b"event: note\ndata: a\ndata: b\n\n"
