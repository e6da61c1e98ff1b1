r"""What a line leaves of itself on a terminal, once all its redraws are done. Pure.

    >>> redraw("10 %\r20 %")
    '20 %'

Nearly all lines that redraw themselves are progress bars of plain characters, which take a short
way. The others are drawn on rows of cells, as ECMA-48 says: cursor moves, erasing, colours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from tornado_logs.style import BLANK, Style, transition, with_sgr

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
        self.styles: list[Style] = []
        self.is_erased = False  # all to the right of `chars`
        self.erases_below = False
        self.is_uneven = False

    def pad(self, length: int) -> None:
        """Make it `length` columns long at least."""
        missing = length - len(self.chars)
        if missing > 0:
            self.chars.extend([" " if self.is_erased else None] * missing)
            self.styles.extend([BLANK] * missing)

    def write(self, column: int, chars: Sequence[str | None], style: Style) -> None:
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
        self.style = Style()
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
            row.write(self.column, ["\t", *[""] * (width - 1)], BLANK)
        self.column += width

    def _control_sequence(self, final: str, args: str, between: str) -> None:
        if final == "m" and not between:
            if len(args) <= _MAX_SGR_CHARS and re.fullmatch("[0-9;:]*", args):
                self.style = with_sgr(self.style, args)
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
        self._here().write(start, [" "] * (end - start), BLANK)

    def _erase_below(self) -> None:
        row = self._here()
        row.erase_from(self.column)
        row.erases_below = True
        for number in [number for number in self.rows if number > self.row]:
            del self.rows[number]

    def text(self) -> str:
        """The text that does the same."""
        parts: list[str] = []
        style = Style()
        at = 0
        for number in sorted(self.rows):
            parts.append(_vertical(number - at))
            style = _draw(self.rows[number], style, parts)
            at = number
        parts.append(_vertical(self.row - at))
        parts.append(transition(style, self.style))
        return "".join(parts) + self.rest


def _vertical(rows: int) -> str:
    """To the first column of another row."""
    return f"\x1b[{abs(rows)}{'F' if rows < 0 else 'E'}" if rows else ""


def _draw(row: _Row, style: Style, parts: list[str]) -> Style:
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
                parts.append(transition(style, char_style))
                style = char_style
            parts.append(char)
    if row.is_erased:
        if skipped:
            parts.append(f"\x1b[{skipped}C")
        parts.append("\x1b[J" if row.erases_below else "\x1b[K")
    return style
