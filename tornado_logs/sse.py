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
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from typing import Any, NamedTuple

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


# Characters of one column each, none of which does anything: nearly all that bars are drawn with.
_EVEN = re.compile(
    "[\r -~\xa0-\xac\xae-\u02ff\u2010-\u2027\u2030-\u205e"
    "\u2190-\u2319\u2500-\u25fc\u2800-\u28ff\ufffd]*"
)


_SECTION = re.compile(r"(section_(?:start|end):[0-9]+:[^\s\x00-\x1f]+)\r")


def redraw(text: str) -> str:
    """The shortest text without CR that does to a terminal what the line `text` does.

    What the line has drawn over itself is gone. What it does to the rows above and below it (cursor
    up and down, erase below) is kept, and what it leaves alone stays alone: it may be drawn over
    an older row. Marks of sections that GitLab's runners let themselves erase are kept out of
    sight, as APC strings.
    """
    if not _EVEN.fullmatch(text):
        marks = _SECTION.findall(text) if "section_" in text else []
        return "".join(f"\x1b_{mark}\x1b\\" for mark in marks) + _Redraw(text).text()
    shown = ""
    for drawn in text.split("\r"):
        shown = drawn + shown[len(drawn) :]
    return shown


@lru_cache(maxsize=4096)
def char_width(char: str) -> int:
    """How many columns of a terminal a character takes: 0, 1 or 2."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc") or "\u1160" <= char <= "\u11ff":
        return 1 if char == "\xad" else 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


class _Style(NamedTuple):
    """What SGR and OSC 8 have set since the line began; what they haven't is as it was before."""

    is_reset: bool = False
    codes: tuple[tuple[str, str], ...] = ()  # what is set, and the SGR code that sets it, sorted
    link: str | None = None  # the last OSC 8


_BLANK = _Style(is_reset=True)
_CLOSE_LINK = "\x1b]8;;\x1b\\"
_SETS = {
    **dict.fromkeys((1, 2, 22), "weight"),
    **dict.fromkeys((3, 23), "italic"),
    **dict.fromkeys((4, 21, 24), "underline"),
    **dict.fromkeys((5, 6, 25), "blink"),
    **dict.fromkeys((7, 27), "inverse"),
    **dict.fromkeys((8, 28), "conceal"),
    **dict.fromkeys((9, 29), "strike"),
    **dict.fromkeys((*range(30, 40), *range(90, 98)), "colour"),
    **dict.fromkeys((*range(40, 50), *range(100, 108)), "ground"),
    **dict.fromkeys((53, 55), "overline"),
    **dict.fromkeys((58, 59), "underline colour"),
}


@lru_cache(maxsize=4096)
def _with_sgr(style: _Style, args: str) -> _Style:
    """The style after `CSI args m`."""
    is_reset, codes = style.is_reset, dict(style.codes)
    for code in _sgr_codes(args):
        number = int(re.split("[;:]", code[:20])[0])
        what = _SETS.get(number)
        if number == 0:
            is_reset, codes = True, {}
        elif what == "weight" and number != 22:  # bold and faint go together
            before = codes.get(what, "").split(";")
            codes[what] = ";".join([*(part for part in before if part not in ("", code)), code])
        elif what:
            codes[what] = code
    return _Style(is_reset, tuple(sorted(codes.items())), style.link)


def _sgr_codes(args: str) -> Iterable[str]:
    """`1;38;5;9` as `1` and `38;5;9`. Those with colons (ITU T.416) are one already."""
    parts = [part.lstrip("0") or "0" for part in args.split(";")]
    while parts:
        length = 1
        if parts[0] in ("38", "48", "58") and len(parts) > 1:
            length = {"5": 3, "2": 5}.get(parts[1], 2)
        yield ";".join(parts[:length])
        del parts[:length]


@lru_cache(maxsize=4096)
def _transition(before: _Style, after: _Style) -> str:
    """The escape sequences that lead from one style to another."""
    old, new = dict(before.codes), dict(after.codes)
    goes_on = (
        before.is_reset >= after.is_reset
        and old.keys() <= new.keys()
        and old.get("weight") in (None, new.get("weight"))
    )
    changed = [code for what, code in after.codes if not goes_on or old.get(what) != code]
    if not goes_on:
        changed.insert(0, "0")
    sgr = f"\x1b[{';'.join(changed)}m" if changed else ""
    return sgr + ((after.link or _CLOSE_LINK) if before.link != after.link else "")


# ECMA-48: CSI with parameters, intermediates and a final byte; OSC, DCS and other strings up to BEL
# or ST, or else to where the line is drawn anew; escapes of two or three bytes.
_TOKEN = re.compile(
    r"(?P<run>[^\x1b\r\b\t]+)"
    r"|\x1b\[(?P<args>[0-?]*)(?P<between>[ -/]*)(?P<csi>[@-~])"
    r"|(?P<cut>\x1b(?:\[[0-?]*[ -/]*)?\Z)"
    r"|(?P<osc>\x1b\][^\x07\x1b]*(?:\x07|\x1b\\))"
    r"|\x1b\][^\x07\x1b\r]*"
    r"|\x1b[PX^_][^\x1b]*\x1b\\"
    r"|\x1b[PX^_][^\x1b\r]*"
    r"|\x1b\[[0-?]*[ -/]*"
    r"|\x1b(?P<escape>[ -/]*[0-~])"
    r"|(?P<control>[\r\b\t])"
    r"|\x1b"
)
# What nobody means, and anybody may write: no terminal has more columns or rows.
_MAX_JUMP_COLUMN = 1000
_MAX_ROWS_AWAY = 99
_MAX_SGR_CHARS = 512
_MAX_CELL_CHARS = 32  # a character with its marks
_TAB_COLUMNS = 8


class _Row:
    """A row of a terminal, as far as one line has to do with it: a character for each column.

    A character is None where the line has left alone what was there, and "" in the further
    columns of a character (or a tab) that takes several.
    """

    __slots__ = ("chars", "erases_below", "is_erased", "is_uneven", "styles")

    def __init__(self) -> None:
        self.chars: list[str | None] = []
        self.styles: list[_Style] = []
        self.is_erased = False  # all to the right of `chars`
        self.erases_below = False
        self.is_uneven = False

    def pad(self, length: int) -> None:
        """Make it `length` columns long at least."""
        missing = length - len(self.chars)
        if missing > 0:
            self.chars.extend([" " if self.is_erased else None] * missing)
            self.styles.extend([_BLANK] * missing)

    def write(self, column: int, chars: Sequence[str | None], style: _Style) -> None:
        """Write over the columns from `column` on."""
        end = column + len(chars)
        self.pad(column)
        self._part(column)
        self._part(end)
        self.chars[column:end] = chars
        self.styles[column:end] = [style] * len(chars)

    def erase_from(self, column: int) -> None:
        """Erase all from `column` on."""
        self.pad(column)
        self._part(column)
        del self.chars[column:], self.styles[column:]
        self.is_erased = True

    def _part(self, column: int) -> None:
        """Half of a wide character is none: blank both where `column` parts them."""
        if not self.is_uneven or column >= len(self.chars) or self.chars[column] != "":
            return
        start = column
        while self.chars[start] == "":
            start -= 1
        blank = None if self.chars[start] == "\t" else " "
        self.chars[start] = blank
        for at in range(start + 1, len(self.chars)):
            if self.chars[at] != "":
                break
            self.chars[at] = blank


def _append_mark(chars: list[str | None], mark: str, column: int) -> None:
    """Join `mark`, of no width, to the character before `column`."""
    at = column - 1
    while chars[at] == "":
        at -= 1
    char = chars[at] or ""
    if len(char) < _MAX_CELL_CHARS:
        chars[at] = char + mark


def _joins(before: str, char: str) -> bool:
    """Whether the two make one emoji: after a zero-width joiner, or with a skin colour."""
    return before.endswith("\u200d") or "\U0001f3fb" <= char <= "\U0001f3ff"


class _Redraw:
    """What one line does to a terminal: to the row where it begins, and to others from there."""

    def __init__(self, text: str) -> None:
        self.rows: dict[int, _Row] = {}
        self.row = 0
        self.column = 0
        self.style = _Style()
        self.saved: tuple[int, int] | None = None
        self.is_away = False  # at an absolute place of the screen: no row of the log's
        self.rest = ""  # the beginning of an escape sequence, which the next line may end
        for match in _TOKEN.finditer(text):
            if run := match["run"]:
                self._put(run)
            elif final := match["csi"]:
                self._control_sequence(final, match["args"], match["between"])
            elif control := match["control"]:
                self._control(control)
            elif osc := match["osc"]:
                if osc.startswith("\x1b]8;"):
                    self.style = self.style._replace(link=osc)
            elif escape := match["escape"]:
                self._escape(escape)
            else:
                self.rest = match["cut"] or ""

    def _here(self) -> _Row:
        row = self.rows.get(self.row)
        if row is None:
            row = self.rows[self.row] = _Row()
        return row

    def _put(self, text: str) -> None:
        if self.is_away:
            return
        if _EVEN.fullmatch(text):
            self._here().write(self.column, list(text), self.style)
            self.column += len(text)
            return
        row, before = self._here(), self._before()
        row.is_uneven = True
        cells: list[str | None] = []
        lead = ""  # marks with nothing to stand on precede the next character
        for char in text:
            width = char_width(char)
            if width == 0 or (width == 2 and before and _joins(before, char)):
                if before:
                    _append_mark(cells or row.chars, char, len(cells) or self.column)
                    before = char
                else:
                    lead += char
            else:
                cells.append(lead + char)
                if width == 2:
                    cells.append("")
                before, lead = char, ""
        row.write(self.column, cells, self.style)
        self.column += len(cells)

    def _before(self) -> str:
        """The character before the cursor, "" if none is known to be there."""
        row = self._here()
        at = self.column - 1
        while 0 <= at < len(row.chars) and row.chars[at] == "":
            at -= 1
        char = row.chars[at] if 0 <= at < len(row.chars) else None
        return "" if char is None or char == "\t" else char

    def _control(self, control: str) -> None:
        if self.is_away:
            return
        if control == "\r":
            self.column = 0
        elif control == "\b":
            self.column = max(0, self.column - 1)
        else:
            self._tab()

    def _tab(self) -> None:
        row = self._here()
        width = _TAB_COLUMNS - self.column % _TAB_COLUMNS
        if self.column >= len(row.chars) and not row.is_erased:
            row.is_uneven = True
            row.write(self.column, ["\t", *[""] * (width - 1)], _BLANK)
        self.column += width

    def _control_sequence(self, final: str, args: str, between: str) -> None:
        if final == "m" and not between:
            if len(args) <= _MAX_SGR_CHARS and re.fullmatch("[0-9;:]*", args):
                self.style = _with_sgr(self.style, args)
        elif final in "Hfd":
            self.is_away = self.saved is not None
        elif final in "su" and not args:
            self._escape("7" if final == "s" else "8")
        elif not between and not self.is_away and (not args or args.isdecimal()):
            self._move_or_erase(final, int(args[:9] or "0"))

    def _move_or_erase(self, final: str, count: int) -> None:
        if final == "K":
            self._erase(count)
        elif final == "J" and count == 0:
            self._erase_below()
        elif final == "X":
            self._blank(self.column, self._jump(self.column + max(1, count)))
        elif final in "Ca":
            self.column = self._jump(self.column + max(1, count))
        elif final == "D":
            self.column = max(0, self.column - max(1, count))
        elif final in "G`":
            self.column = self._jump(max(1, count) - 1)
        elif final in "ABEFe":
            self._move(-max(1, count) if final in "AF" else max(1, count))
            self.column = 0 if final in "EF" else self.column

    def _escape(self, escape: str) -> None:
        if escape == "7":
            self.saved = (self.row, self.column)
        elif escape == "8" and self.saved:
            (self.row, self.column), self.is_away = self.saved, False
        elif escape in ("M", "D", "E") and not self.is_away:
            self._move(-1 if escape == "M" else 1)
            self.column = 0 if escape == "E" else self.column

    def _move(self, count: int) -> None:
        self.row = max(-_MAX_ROWS_AWAY, min(self.row + count, _MAX_ROWS_AWAY))

    def _jump(self, column: int) -> int:
        row = self.rows.get(self.row)
        return min(column, max(_MAX_JUMP_COLUMN, self.column, len(row.chars) if row else 0))

    def _erase(self, which: int) -> None:
        if which == 0:
            self._here().erase_from(self.column)
        elif which == 1:
            self._blank(0, self.column + 1)
        elif which == 2:
            self._here().erase_from(0)

    def _blank(self, start: int, end: int) -> None:
        self._here().write(start, [" "] * (end - start), _BLANK)

    def _erase_below(self) -> None:
        row = self._here()
        row.erase_from(self.column)
        row.erases_below = True
        for number in [number for number in self.rows if number > self.row]:
            del self.rows[number]

    def text(self) -> str:
        """The text that does the same."""
        parts: list[str] = []
        style = _Style()
        at = 0
        for number in sorted(self.rows):
            parts.append(_vertical(number - at))
            style = _draw(self.rows[number], style, parts)
            at = number
        parts.append(_vertical(self.row - at))
        parts.append(_transition(style, self.style))
        return "".join(parts) + self.rest


def _vertical(rows: int) -> str:
    """To the first column of another row."""
    return f"\x1b[{abs(rows)}{'F' if rows < 0 else 'E'}" if rows else ""


def _draw(row: _Row, style: _Style, parts: list[str]) -> _Style:
    """Append what draws a row, beginning in `style`; the style after it."""
    skipped = 0
    for char, char_style in zip(row.chars, row.styles, strict=True):
        if char is None:
            skipped += 1
        elif char:
            if skipped:
                parts.append(f"\x1b[{skipped}C")
                skipped = 0
            if char_style is not style and char != "\t":
                parts.append(_transition(style, char_style))
                style = char_style
            parts.append(char)
    if row.is_erased:
        if skipped:
            parts.append(f"\x1b[{skipped}C")
        parts.append("\x1b[J" if row.erases_below else "\x1b[K")
    return style
