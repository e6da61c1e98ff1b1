r"""Lines to Server-Sent Events, and cursors. Pure: no I/O.

    >>> encode_lines(visible_lines(b"one\ntwo\n", 100), line_ends(b"one\ntwo\n", 0), "a1b2c3d4")
    b'id: a1b2c3d4-4\ndata: one\n\nid: a1b2c3d4-8\ndata: two\n\n'

The standard is WHATWG HTML, section 9.2. A line of the stream ends at CR, LF or CRLF and at nothing
else (U+2028, NUL and their like are text), so what `visible_lines` returns can break no framing
and inject no field: it holds no LF, and no CR.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

HEARTBEAT = b": ping\n\n"
_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})(-end)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in one log: what an event id says.

    `mark`: eight hex digits that tell this log from another that once had its name.
    `offset`: how many bytes of the log stand before the position.
    `ended`: `event: end` was delivered too, so whoever comes back with this wants nothing more.
    """

    mark: str
    offset: int
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.mark}-{self.offset}{'-end' if self.ended else ''}"


def parse_cursor(text: str) -> Cursor | None:
    """The cursor that `text` stands for, None where it stands for none."""
    match = _CURSOR.fullmatch(text)
    return Cursor(match[1], int(match[2]), bool(match[3])) if match else None


def visible_lines(block: bytes, max_line_bytes: int) -> list[bytes]:
    """The lines of a block as a terminal would leave them: UTF-8, without line ends.

    `block` is whole lines; the last may lack its LF. Invalid UTF-8 becomes U+FFFD, a CR within a
    line is a redraw, and what exceeds `max_line_bytes` is cut, with a mark.
    """
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    is_plain = b"\r" not in block and is_utf8(block)
    if lines and (not is_plain or max(map(len, lines)) > max_line_bytes):
        lines = [visible_line(line, max_line_bytes) for line in lines]
    return lines


def line_ends(block: bytes, offset: int) -> list[int]:
    """The offset after each line of `block`, which begins at `offset`."""
    lines = block.split(b"\n")
    last = lines.pop()
    ends = list(accumulate((len(line) + 1 for line in lines), initial=offset))[1:]
    return [*ends, offset + len(block)] if last else ends


def is_plain(block: bytes, max_line_bytes: int) -> bool:
    """Whether the lines of a block can go over the wire as they stand: nearly always."""
    if b"\r" in block or not block.endswith(b"\n") or not is_utf8(block):
        return False
    start = 0
    while len(block) - start > max_line_bytes:
        line_end = block.rfind(b"\n", start, start + max_line_bytes + 1)
        if line_end < 0:
            return False
        start = line_end + 1
    return True


def encode_plain_lines(block: bytes, offset: int, mark: str) -> bytes:
    """`encode_lines` of a plain block that begins at `offset`: what replay is bound by."""
    lines = block.splitlines(keepends=True)  # it has no CR, so these are LFs alone
    values: list[int | bytes] = [0] * (2 * len(lines))
    values[0::2] = islice(accumulate(map(len, lines), initial=offset), 1, None)
    values[1::2] = lines
    # One large format is several times faster than one per line.
    return ((b"id: %b-%%d\ndata: %%b\n" % mark.encode()) * len(lines)) % tuple(values)


def encode_plain_batch(block: bytes, end: int, mark: str) -> bytes:
    """`encode_batch` of a plain block that ends at offset `end`."""
    # Its last LF is replaced too: that is cut off again without one more copy of the block.
    lines = memoryview(block.replace(b"\n", b"\ndata: "))[: -len(b"\ndata: ")]
    return b"".join((b"id: %b-%d\ndata: " % (mark.encode(), end), lines, b"\n\n"))


def encode_lines(lines: Sequence[bytes], ends: Sequence[int], mark: str) -> bytes:
    """One event per line, each with the cursor after it."""
    head = b"id: %b-%%d\ndata: %%b\n\n" % mark.encode()
    return b"".join(head % event for event in zip(ends, lines, strict=True))


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
    if b"\r" in line:
        line = redraw(line.decode(errors="replace")).encode()
    shown = line if len(line) <= max_line_bytes else whole_characters(line[:max_line_bytes])
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


def redraw(text: str) -> str:
    """What a terminal shows of a line after its carriage returns."""
    if "\x1b" in text or "\b" in text:
        return _Redraw(text).text()
    shown = ""
    for drawn in text.split("\r"):
        shown = drawn + shown[len(drawn) :]
    return shown


# ECMA-48: CSI with parameters, intermediates and a final byte; OSC up to BEL or ST; other escapes.
_TOKEN = re.compile(
    r"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<csi>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-~]?"
    r"|(?P<control>[\r\b])"
    r"|(?P<run>[^\x1b\r\b]+)"
)
_RESET = "\x1b[0m"
_MAX_COLUMN = 65536  # a column from an escape sequence is a number that anybody may write


class _Redraw:
    """One line of a terminal: characters with their styles, and a column."""

    def __init__(self, text: str) -> None:
        self.chars: list[str] = []
        self.styles: list[str] = []
        self.column = 0
        self.style = ""  # the SGR sequences in force; "" is what held before the line
        for match in _TOKEN.finditer(text):
            if run := match["run"]:
                self._put(run)
            elif final := match["csi"]:
                self._control_sequence(final, match["args"], match[0])
            elif control := match["control"]:
                self.column = 0 if control == "\r" else max(0, self.column - 1)

    def _put(self, run: str) -> None:
        self._pad(self.column)
        end = self.column + len(run)
        self.chars[self.column : end] = run
        self.styles[self.column : end] = [self.style] * len(run)
        self.column = end

    def _pad(self, length: int) -> None:
        missing = length - len(self.chars)
        self.chars.extend(" " * missing)
        self.styles.extend([_RESET] * missing)

    def _control_sequence(self, final: str, args: str, sequence: str) -> None:
        count = int(args) if args.isdecimal() else 0
        if final == "m":
            reset = args.split(";")[0] in ("", "0")
            self.style = sequence if reset else self.style + sequence
        elif final == "K":
            self._erase(count)
        elif final == "C":
            self.column = min(self.column + max(1, count), _MAX_COLUMN)
        elif final == "D":
            self.column = max(0, self.column - max(1, count))
        elif final == "G":
            self.column = min(max(1, count) - 1, _MAX_COLUMN)

    def _erase(self, which: int) -> None:
        if which == 0:
            del self.chars[self.column :], self.styles[self.column :]
        elif which == 2:
            self.chars.clear()
            self.styles.clear()
        elif which == 1:
            end = min(self.column + 1, len(self.chars))
            self.chars[:end] = " " * end
            self.styles[:end] = [_RESET] * end

    def text(self) -> str:
        parts: list[str] = []
        now = ""
        for char, style in zip(self.chars, self.styles, strict=True):
            if style != now:
                parts.append(style if style.startswith(_RESET) or not now else _RESET + style)
                now = style
            parts.append(char)
        if self.style != now:
            parts.append(self.style if self.style else _RESET)
        return "".join(parts)
