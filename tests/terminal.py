"""A reference terminal: pyte, with what it does to halves of wide characters set right."""

from __future__ import annotations

from typing import Any

import pyte
from pyte.screens import Char
from wcwidth import wcwidth


class _Screen(pyte.Screen):
    """A screen on which half of a wide character is none, as on any terminal that is in use."""

    def draw(self, data: str) -> None:
        """Draw characters one by one, and blank what they cut in half."""
        for char in data:
            super().draw(char)
            self._blank_halves(max(0, self.cursor.x - 3), self.cursor.x + 2)

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        """Erase, and blank what was cut in half."""
        super().erase_in_line(how, private)
        self._blank_halves(0, self.columns)

    def erase_characters(self, count: int | None = None) -> None:
        """Erase, and blank what was cut in half."""
        super().erase_characters(count)
        self._blank_halves(0, self.columns)

    def _blank_halves(self, start: int, end: int) -> None:
        row = self.buffer[self.cursor.y]
        for x in range(start, end):
            is_wide = _width(row[x]) == 2
            lacks_right = is_wide and row[x + 1].data != ""
            lacks_left = row[x].data == "" and (x == 0 or _width(row[x - 1]) != 2)
            if lacks_right or lacks_left:
                row[x] = row[x]._replace(data=" ")


def _width(char: Char) -> int:
    return wcwidth(char.data[0]) if char.data else 0


class Terminal:
    """What a terminal shows of a text in which LF alone begins a new line."""

    def __init__(self, columns: int = 200, rows: int = 40) -> None:
        self.screen = _Screen(columns, rows)
        self.screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self.screen)

    def feed(self, text: str) -> Terminal:
        """Write `text` to it."""
        self._stream.feed(text)
        return self

    @property
    def text(self) -> list[str]:
        """The rows without blanks at their ends, down to the last that isn't blank."""
        rows = ["".join(cell.data for cell in self._row(y)).rstrip() for y in self._rows()]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def styles(self) -> list[list[Any]]:
        """How each character that isn't blank is shown, row by row."""
        return [
            [cell._replace(data="") for cell in self._row(y) if cell.data.strip()]
            for y in self._rows()
        ]

    @property
    def row(self) -> int:
        """The number of the row that the cursor is in."""
        return int(self.screen.cursor.y)

    def _rows(self) -> range:
        return range(max(self.screen.buffer, default=-1) + 1)

    def _row(self, y: int) -> list[Char]:
        row = self.screen.buffer[y]
        return [row[x] for x in range(max(row, default=-1) + 1)]
