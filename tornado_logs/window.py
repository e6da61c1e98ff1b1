"""Windows of a log's lines, by number or by time, as `GET /logs/<id>/lines` answers with them.

    read_window(log, Wanted(first=-100, count=100), ended=True, max_line_bytes=65536)

All of it may read much, and so isn't for the event loop.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any

from tornado_logs import sse
from tornado_logs.journal import (
    BLOCK_BYTES,
    DroppedError,
    LogFile,
    Place,
    block_lines,
)
from tornado_logs.log_index import NoTimesError
from tornado_logs.style import last_reset, style_after

MAX_WINDOW_BYTES = 16 * 1024 * 1024
STYLE_BYTES = 1024 * 1024
"""How far before a window its style is looked for."""

_ATTEMPTS = 8  # at a part that is being dropped
_OVERLAP_BYTES = 32  # a sequence may stand across two blocks
_TAIL_BYTES = 4096
_MAX_LAST_LINE_CHARS = 200
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|\Z)?|[ -/]*[0-~]?)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_GROUP_MARK = re.compile(r"(::|##\[)endgroup(::|\])|section_end:\d+:")  # says nothing
_UTF8_TAIL = bytes(range(0x80, 0xC0))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: `count` of them from line `first` (1 is the first, -1 the last).

    Or from `time_us` on (microseconds since 1970): from the first line that was whole at that time
    or later. Times are known to some 10 ms, see `LogFile.line_times`.
    """

    first: int
    count: int
    time_us: int | None = None
    times: bool = False


def read_window(
    log: LogFile, wanted: Wanted, *, ended: bool, max_line_bytes: int
) -> dict[str, Any]:
    """The window as JSON: fewer lines at the log's end, or where they exceed 16 MiB.

    Beyond the last line it is empty, and one can follow the log from its cursor. Lines that were
    dropped are passed over: `kept_from` is the number of the first that is there. Raises
    NoTimesError if a time is wanted of a log that has no index.
    """
    for attempt in range(_ATTEMPTS + 1):
        with contextlib.suppress(DroppedError):
            return _read_window(log, wanted, attempt / _ATTEMPTS, ended, max_line_bytes)
    raise DroppedError("the log drops its oldest part faster than it can be read")


def _read_window(
    log: LogFile, wanted: Wanted, hurry: float, ended: bool, max_line_bytes: int
) -> dict[str, Any]:
    """`hurry`: the share of what is there that is passed over, as it may soon be dropped.

    Raises DroppedError if it was, while it was being read.
    """
    size = log.size()
    whole = log.count_lines(size)
    has_rest = ended and size > 0 and log.read(size - 1, 1) != b"\n"
    total = whole + has_rest
    kept = log.first_place()
    first = kept.lines + int((total - kept.lines) * hurry)
    number = max(first, _first_number(log, wanted, total))
    place = log.find_line(number) if number < total else None
    if place is None:
        offset = size if has_rest else log.line_start(whole) or 0
        place = Place(offset, total)
    style = style_at(log, place.offset)
    most = min(wanted.count, total - place.lines)
    lines, end = _read_lines(log, place.offset, size, most, max_line_bytes)
    if lines and not log.is_there(place.offset):
        raise DroppedError(place.offset)
    window = {
        "from": place.lines + 1,
        "lines": lines,
        "style": style,
        "total_lines": total,
        "kept_from": kept.lines + 1,
        "cursor": str(log.cursor(end)),
        "ended": ended,
    }
    return window | (_times(log, place.lines, len(lines)) if wanted.times else {})


def _first_number(log: LogFile, wanted: Wanted, total: int) -> int:
    if wanted.time_us is not None:
        number = log.line_at_time(wanted.time_us)
        return total if number is None else min(number, total)
    return max(0, total + wanted.first if wanted.first < 0 else wanted.first - 1)


def _read_lines(
    log: LogFile, offset: int, size: int, count: int, max_line_bytes: int
) -> tuple[list[str], int]:
    """The lines, and the offset after them."""
    lines: list[bytes] = []
    room = MAX_WINDOW_BYTES
    while len(lines) < count and room > 0 and (block := log.block_now(offset, size)):
        found, ends = block_lines(block, max_line_bytes)
        found = found[: count - len(lines)]
        lines += found
        offset = ends[len(found) - 1]
        room -= sum(map(len, found))
    return [line.decode() for line in lines], offset


def _times(log: LogFile, number: int, count: int) -> dict[str, Any]:
    """Milliseconds since 1970, of each line and of the first of the log; null if not known."""
    try:
        times = log.line_times(number, count)
        started = log.started_at() if log.size() else None
    except NoTimesError:
        return {"times": [None] * count, "started_ms": None}
    return {
        "times": [time // 1000 for time in times],
        "started_ms": None if started is None else started // 1000,
    }


def style_at(log: LogFile, offset: int) -> str:
    """The style in force at `offset`, as the escape sequence that brings it about; "" for none.

    From the last full reset on; if there is none in the last MiB, from there on. Links (OSC 8)
    aren't part of it: they end with their line.
    """
    first = max(0, offset - STYLE_BYTES)
    start, pieces = offset, [b""]
    while start > first:
        begin = max(first, start - BLOCK_BYTES)
        piece = log.read(begin, start - begin)
        # With the beginning of what comes after it: a sequence may stand across both.
        reset = last_reset(piece + pieces[-1][:_OVERLAP_BYTES])
        if reset >= 0:
            pieces.append(piece[reset:])
            break
        pieces.append(piece)
        start = begin
    return style_after(b"".join(reversed(pieces)))


def last_line(log_path: str) -> str:
    """The last line of a log that says something, as plain text, short enough for a list.

    It is looked for in the log's last 4 KiB alone: one that begins before them begins with an
    ellipsis here. Empty if nothing is there, or the log can't be read.
    """
    try:
        with open(log_path, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
            file.seek(start)
            lines = file.read(_TAIL_BYTES).split(b"\n")
    except OSError:
        return ""
    for number in reversed(range(len(lines))):
        if lines[number].strip():
            is_cut = start > 0 and number == 0
            text = _plain_text(lines[number].lstrip(_UTF8_TAIL) if is_cut else lines[number])
            if text and not _GROUP_MARK.match(text):
                text = f"…{text}" if is_cut else text
                is_long = len(text) > _MAX_LAST_LINE_CHARS
                return f"{text[: _MAX_LAST_LINE_CHARS - 1]}…" if is_long else text
    return ""


def _plain_text(line: bytes) -> str:
    shown = sse.visible_line(line, _TAIL_BYTES).decode()
    return " ".join(_CONTROL.sub(" ", _ESCAPE.sub("", shown)).split())
