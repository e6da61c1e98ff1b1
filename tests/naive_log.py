r"""What a reader is to see of a log, by the plainest rules there are: all its bytes at once.

    >>> NaiveLog(b"one\n10%\r20%\ntor", limits).lines(ended=True)
    [NaiveLine(end=4, text='one'), NaiveLine(end=12, text='20%'), NaiveLine(end=15, text='tor')]

Nothing of the product's is used here: it is what the product is compared with.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

_PLAIN = re.compile("[ -~\ufffd]*")
# The beginning of a character of several bytes: RFC 3629's table, each row cut short. That of a
# surrogate is taken for one.
_PART_OF_CHARACTER = re.compile(
    rb"(?:[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xef][\x80-\xbf]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?|[\xf1-\xf3][\x80-\xbf]{0,2}"
    rb"|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?)\Z"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """`block_bytes`: how long a line may be to be held; `line_bytes`: to be shown whole."""

    block_bytes: int
    line_bytes: int


@dataclass(frozen=True, slots=True)
class NaiveLine:
    """The offset after a line, and the text that stands for it on the wire.

    None stands for any text: what a line of redraws by escape sequences leaves is a terminal's
    matter, see `test_sse.py`.
    """

    end: int
    text: str | None

    def is_shown_as(self, text: str) -> bool:
        """Whether this is what a reader may get."""
        return self.text is None or self.text == text


class NaiveLog:
    """All bytes of a log at one moment."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.data = data
        self._limits = limits

    @cached_property
    def whole_end(self) -> int:
        """The offset after the last LF."""
        return self.data.rfind(b"\n") + 1

    @cached_property
    def starts(self) -> list[int]:
        """Where each line begins that has an LF, and the one after the last of them."""
        return [0] + [at + 1 for at, byte in enumerate(self.data) if byte == 10]

    def end(self, *, ended: bool) -> int:
        """The offset after all that a reader of lines may have by now."""
        return len(self.data) if ended else self.whole_end

    def lines(self, *, ended: bool) -> list[NaiveLine]:
        """All lines; the last without its LF only once the log has ended."""
        return self._ended_lines if ended else self._whole_lines

    @cached_property
    def _ended_lines(self) -> list[NaiveLine]:
        rest = self.data[self.whole_end :]
        last = [NaiveLine(len(self.data), self._shown(rest))] if rest else []
        return self._whole_lines + last

    @cached_property
    def _whole_lines(self) -> list[NaiveLine]:
        *whole, _ = self.data.split(b"\n")
        lines, end = [], 0
        for line in whole:
            end += len(line) + 1
            lines.append(NaiveLine(end, self._shown(line)))
        return lines

    def lines_between(self, start: int, end: int, *, ended: bool) -> list[NaiveLine]:
        """Those that end after `start`, and at `end` or before."""
        lines = self.lines(ended=ended)
        first = bisect_right(lines, start, key=lambda line: line.end)
        return lines[first : bisect_right(lines, end, key=lambda line: line.end)]

    def place(self, offset: int, count: int) -> int:
        """The offset after `count` of the lines that begin at `offset` or later; -1 for none."""
        if not count:
            return offset
        at = bisect_left(self.starts, offset) + count
        return self.starts[at] if at < len(self.starts) else -1

    def tail_start(self, count: int, *, ended: bool) -> int:
        """Where the last `count` lines begin."""
        ends = [0] + [line.end for line in self.lines(ended=ended)]
        return ends[max(0, len(ends) - 1 - count)]

    def partial(self) -> str | None:
        """How the line is shown that is still being written."""
        line, most = self.data[self.whole_end :], self._limits.line_bytes
        if len(line) <= most:
            return self._drawn(_whole_characters(line))
        _, redraw, drawn = line[-most:].partition(b"\r")
        if redraw:
            return self._drawn(_whole_characters(drawn))
        return self._drawn(_whole_characters(line[:most]), len(line) - most)

    def _shown(self, line: bytes) -> str | None:
        block = self._limits.block_bytes
        if len(line) < block:
            return self._drawn(line)
        # Too long to be held: the last redraw is shown, or as much of it as can be held.
        before_last = line.rstrip(b"\r").rfind(b"\r") + 1
        if len(line) - before_last >= block:
            held = line[before_last : before_last + block]
            return self._drawn(held, len(line) - before_last - block)
        return self._drawn(line[-block:].partition(b"\r")[2])

    def _drawn(self, line: bytes, left_out_bytes: int = 0) -> str | None:
        """A line as a terminal leaves it, cut where it is too long for the wire."""
        most = self._limits.line_bytes
        line = line.rstrip(b"\r")
        if b"\r" in line:
            row = ""
            for drawn in line.decode(errors="replace").split("\r"):
                if not _PLAIN.fullmatch(drawn):
                    return None
                row = drawn + row[len(drawn) :]
            line = row.encode()
        if len(line) > most:
            if b"\x1b" in line or b"\b" in line:
                return None
            shown = _whole_characters(line[:most])
            left_out_bytes += len(line) - len(shown)
            line = shown
        text = line.decode(errors="replace")
        if left_out_bytes:
            text += f" … [{left_out_bytes:,} bytes left out; the raw log has them]"
        return text


def _whole_characters(data: bytes) -> bytes:
    return _PART_OF_CHARACTER.sub(b"", data)
