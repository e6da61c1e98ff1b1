r"""Lines to Server-Sent Events, and cursors. Pure: no I/O.

    >>> buffers, count = encode_plain_lines(b"one\ntwo\n", 0, 0, "a1b2c3d4")
    >>> b"".join(buffers), count
    (b'id: a1b2c3d4-0:1\ndata: one\n\nid: a1b2c3d4-0:2\ndata: two\n\n', 2)

The standard is WHATWG HTML, section 9.2. A line of the stream ends at CR, LF or CRLF and at nothing
else (U+2028, NUL and their like are text), so what `visible_block` returns can break no framing
and inject no field: it holds no CR, and no LF but those that end the lines.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from tornado_logs.redraw import redraw

Buffers = Sequence[bytes | memoryview]
"""Bytes in pieces, as sendmsg(2) takes them: to put them together would be one more copy."""

HEARTBEAT = b": ping\n\n"
# 18 digits of an offset, and 13 of a cell's number, stay below the 2**63 that pread(2) takes.
_CURSOR = re.compile(
    r"([0-9a-f]{8})-(?:([0-9]{1,18})|([0-9]{1,13}):([1-9][0-9]{0,8}))(-end)?", re.ASCII
)
_KEPT_NUMBERS = (8192, 65_536)  # for lines of 40 bytes, or of 5, in all of a cell

CELL_BYTES = 320 * 1024
"""A log's lines are numbered within cells of so many bytes, each in that in which it begins.

They are read and encoded a cell at a time too: two of them fit into a processor's cache.
"""


def cell_of(offset: int) -> int:
    """The number of the cell that this offset lies in."""
    return offset // CELL_BYTES


def cell_end(offset: int) -> int:
    """Where the cell that this offset lies in ends, and the next begins."""
    return (cell_of(offset) + 1) * CELL_BYTES


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in one log: what an event id says, as `a1b2c3d4-71` or `a1b2c3d4-3:12`.

    `mark`: eight hex digits that tell this log from another that once had its name.
    `offset`: a byte offset in the log, and `lines`: after how many of the lines that begin there or
    later the position is. A line's own cursor has the offset of its cell, and its text the cell's
    number, which is shorter: to number lines is far cheaper than to add up their lengths. That of
    one longer than a cell has the offset after it.
    `ended`: `event: end` was delivered too, so whoever comes back with this wants nothing more.
    """

    mark: str
    offset: int
    lines: int = 0
    ended: bool = False

    def __str__(self) -> str:
        place = f"{cell_of(self.offset)}:{self.lines}" if self.lines else self.offset
        return f"{self.mark}-{place}{'-end' if self.ended else ''}"


def parse_cursor(text: str) -> Cursor | None:
    """The cursor that `text` stands for, None where it stands for none."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        return None
    mark, offset, cell, lines, end = match.groups()
    if cell is None:
        return Cursor(mark, int(offset), ended=bool(end))
    return Cursor(mark, int(cell) * CELL_BYTES, int(lines), bool(end))


def visible_lines(block: bytes, max_line_bytes: int) -> list[bytes]:
    """`visible_block` as lines without their ends; the last of `block` may lack its LF."""
    lines = visible_block(block, max_line_bytes).split(b"\n")
    if not block or block.endswith(b"\n"):
        lines.pop()
    return lines


def visible_block(block: bytes, max_line_bytes: int) -> bytes:
    """The lines of a block as a terminal would leave them: UTF-8 without CR, as many as there are.

    Invalid UTF-8 becomes U+FFFD, a CR within a line is a redraw, and what exceeds `max_line_bytes`
    is cut, with a mark. What needs nothing of that, as nearly all does, is returned as it is; and
    what can be done for all lines at once is a hundred times faster than for each.
    """
    pieces, done = [], 0
    while (place := _line_above(block, done, max_line_bytes)) is not None:
        start, end = place
        pieces.append(_visible_lines(block[done:start], max_line_bytes))
        pieces.append(visible_line(block[start:end], max_line_bytes))
        done = end
    if not done:
        return _visible_lines(block, max_line_bytes)
    return b"".join((*pieces, _visible_lines(block[done:], max_line_bytes)))


def _line_above(block: bytes, start: int, max_line_bytes: int) -> tuple[int, int] | None:
    """From where to where the first line goes, without its LF, that is longer than that."""
    while len(block) - start > max_line_bytes:
        line_end = block.rfind(b"\n", start, start + max_line_bytes + 1)
        if line_end < 0:
            end = block.find(b"\n", start + max_line_bytes)
            return start, len(block) if end < 0 else end
        start = line_end + 1
    return None


def _visible_lines(lines: bytes, max_line_bytes: int) -> bytes:
    """`visible_block` of lines none of which is longer."""
    if b"\r" in lines:
        lines = _without_crs(lines, max_line_bytes)
    return lines if is_utf8(lines) else lines.decode(errors="replace").encode()


def _without_crs(block: bytes, max_line_bytes: int) -> bytes:
    bare = block.replace(b"\r", b"")
    # To search for two bytes takes five times as long as to try whether all are CRLF.
    if bare.replace(b"\n", b"\r\n") == block:
        return bare
    return _without_redraws(block.replace(b"\r\n", b"\n"), max_line_bytes)


def _without_redraws(block: bytes, max_line_bytes: int) -> bytes:
    pieces: list[bytes] = []
    done = 0
    while (redraw_at := block.find(b"\r", done)) >= 0:
        start = block.rfind(b"\n", done, redraw_at) + 1 or done
        end = block.find(b"\n", redraw_at)
        end = len(block) if end < 0 else end
        pieces += (block[done:start], visible_line(block[start:end], max_line_bytes))
        done = end
    return b"".join((*pieces, block[done:]))


def line_ends(block: bytes, offset: int) -> list[int]:
    """The offset after each line of `block`, which begins at `offset`."""
    lines = block.split(b"\n")
    last = lines.pop()
    ends = list(accumulate((len(line) + 1 for line in lines), initial=offset))[1:]
    return [*ends, offset + len(block)] if last else ends


def encode_plain_lines(lines: bytes, offset: int, before: int, mark: str) -> tuple[Buffers, int]:
    """`encode_lines` of lines that begin at `offset`, in one cell: what replay is bound by.

    `lines` is what `visible_block` gives of whole lines, none longer than a cell. `before`: how
    many lines begin before them in their cell. How many they are is returned too.
    They become the format of one large formatting of numbers: none is ever an object.
    """
    head = b"id: %b-%d:%%b\ndata: " % (mark.encode(), cell_of(offset))
    plain = lines.replace(b"%", b"%%") if b"%" in lines else lines
    # After the last LF too: what it has grown by tells how many there were.
    template = plain.replace(b"\n", b"\n\n" + head)
    count = (len(template) - len(plain)) // (len(head) + 1)
    surplus = head % b"%d" % (before + count + 1)
    events = template % _numbers(before + 2, before + count + 2)
    return (head % b"%d" % (before + 1), memoryview(events)[: -len(surplus)]), count


def _numbers(start: int, stop: int) -> tuple[bytes, ...]:
    """The texts from `start` to before `stop`; those for usual lines are kept."""
    most = next((most for most in _KEPT_NUMBERS if stop <= most), _KEPT_NUMBERS[-1])
    kept = _kept_numbers(most)[start:stop]
    return kept if stop <= most else kept + _made_numbers(max(start, most), stop)


def _made_numbers(start: int, stop: int) -> tuple[bytes, ...]:
    return tuple(map(b"%d".__mod__, range(start, stop)))


@cache
def _kept_numbers(most: int) -> tuple[bytes, ...]:
    return _made_numbers(0, most)


def encode_plain_batch(block: bytes, end: int, mark: str) -> Buffers:
    """`encode_batch` of what `visible_block` gives of a block of whole lines that ends at `end`."""
    # Its last LF is replaced too: that is cut off again without one more copy of the block.
    lines = memoryview(block.replace(b"\n", b"\ndata: "))[: -len(b"\ndata: ")]
    return b"id: %b-%d\ndata: " % (mark.encode(), end), lines, b"\n\n"


def encode_lines(lines: Sequence[bytes], cursors: Iterable[Cursor]) -> bytes:
    """One event per line, each with the cursor after it."""
    events = zip(cursors, lines, strict=True)
    return b"".join(b"id: %b\ndata: %b\n\n" % (str(c).encode(), line) for c, line in events)


def line_cursors(
    offset: int, ends: Iterable[int], before: int, mark: str, *, is_whole: bool = True
) -> list[Cursor]:
    """The cursors after lines of one cell with these ends, of which the first begins at `offset`.

    `before`: how many lines begin before it in its cell. Not `is_whole`: the last one lacks its LF.
    """
    cell = cell_of(offset) * CELL_BYTES
    cursors = []
    for number, end in enumerate(ends, before + 1):
        is_long = end - offset > CELL_BYTES
        cursors.append(Cursor(mark, end) if is_long else Cursor(mark, cell, number))
        offset = end
    if cursors and not is_whole:
        cursors[-1] = Cursor(mark, offset)
    return cursors


def encode_batch(lines: Iterable[bytes], end: int, mark: str) -> bytes:
    """All lines in one event, so that they arrive together or not at all."""
    return b"id: %b-%d\ndata: %b\n\n" % (mark.encode(), end, b"\ndata: ".join(lines))


def encode_event(event: str, data: str, cursor: Cursor | None = None) -> bytes:
    """A named event. `data` may have several lines, ended by LF."""
    head = f"event: {event}\n" + (f"id: {cursor}\n" if cursor else "")
    return (head + "".join(f"data: {line}\n" for line in data.split("\n")) + "\n").encode()


def encode_json(event: str, data: Any, cursor: Cursor | None = None) -> bytes:
    """A named event whose data is one line of JSON."""
    return encode_event(event, json.dumps(data), cursor)


def is_utf8(data: bytes) -> bool:
    """Whether `data` is valid UTF-8."""
    if data.isascii():  # nearly always, and five times faster than to decode it
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def visible_line(line: bytes, max_line_bytes: int, left_out_bytes: int = 0) -> bytes:
    """What stands in a line (no LF) after all its redraws, as UTF-8, with its colours.

    What exceeds `max_line_bytes` is cut, with a mark that counts the bytes left out;
    `left_out_bytes` of them the caller has left out already.
    """
    line = line.rstrip(b"\r")
    # Bars that go back by escape sequences alone make lines of any length too.
    if b"\r" in line or (len(line) > max_line_bytes and (b"\x1b" in line or b"\b" in line)):
        line = redraw(line.decode(errors="replace")).encode()
    shown = line
    if len(line) > max_line_bytes:
        shown = _whole_escapes(whole_characters(line[:max_line_bytes]))
    left_out_bytes += len(line) - len(shown)
    text = shown.decode(errors="replace")
    if left_out_bytes:
        text += f" … [{left_out_bytes:,} bytes left out; the raw log has them]"
    return text.encode()


def whole_characters(data: bytes) -> bytes:
    """`data` without the beginning of a character (of 4 bytes at most) that it ends with."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-4:])
    pending, _ = decoder.getstate()
    return data[: len(data) - len(pending)]


_CUT_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07]*|[PX^_].*)?", re.DOTALL)


def _whole_escapes(data: bytes) -> bytes:
    """`data` without the beginning of an escape sequence, which would take in what follows."""
    for _ in range(2):  # the ST that ends an OSC begins with an ESC too
        escape = data.rfind(b"\x1b")
        if escape >= 0 and _CUT_ESCAPE.fullmatch(data, escape):
            data = data[:escape]
    return data
