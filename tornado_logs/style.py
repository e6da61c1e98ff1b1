r"""The style of text, as SGR sequences (ECMA-48, 8.3.117) build it up from piece to piece. Pure.

>>> style = Style()
>>> style.apply(b"a \x1b[1;31mred \x1b[39mbold")
>>> str(style)
'\x1b[1m'
"""

from __future__ import annotations

import re

_SGR = re.compile(rb"\x1b\[([0-9;:]*)m|\x1bc")
_RESET = re.compile(rb"\x1b\[0*[;m]|\x1bc")

# A parameter, what it sets, and for the latter what ends it.
_KINDS = {
    **dict.fromkeys(("1", "2"), "weight"),
    "3": "italic",
    **dict.fromkeys(("4", "21"), "underline"),
    **dict.fromkeys(("5", "6"), "blink"),
    "7": "inverse",
    "8": "hidden",
    "9": "strike",
    "53": "overline",
    "58": "underline colour",
    **dict.fromkeys([*map(str, range(30, 39)), *map(str, range(90, 98))], "foreground"),
    **dict.fromkeys([*map(str, range(40, 49)), *map(str, range(100, 108))], "background"),
}
_ENDS = {
    "22": "weight",
    "23": "italic",
    "24": "underline",
    "25": "blink",
    "27": "inverse",
    "28": "hidden",
    "29": "strike",
    "39": "foreground",
    "49": "background",
    "55": "overline",
    "59": "underline colour",
}
_COLOURS = ("38", "48", "58")
_COLOUR_PARAMETERS = {"5": 2, "2": 4}  # after 38, 48 or 58: an index, or red, green and blue


def last_reset(data: bytes) -> int:
    """Where the last sequence begins that puts all back to the default; -1 if there is none."""
    end = len(data)
    while (start := data.rfind(b"\x1b", 0, end)) >= 0:
        if _RESET.match(data, start):
            return start
        end = start
    return -1


class Style:
    """What is in force: nothing at first."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def apply(self, data: bytes) -> None:
        """Let the sequences in `data` have their effect; one that is cut at its end has none."""
        for match in _SGR.finditer(data):
            if match[1] is None:
                self._parts.clear()  # a terminal's full reset
            else:
                self._apply(match[1].decode().split(";"))

    def _apply(self, parameters: list[str]) -> None:
        at = 0
        while at < len(parameters):
            count = 1
            if parameters[at] in _COLOURS:
                kind = parameters[at + 1] if at + 1 < len(parameters) else ""
                count += _COLOUR_PARAMETERS.get(kind, 0)
            self._set(parameters[at : at + count])
            at += count

    def _set(self, parameters: list[str]) -> None:
        first, _, sub = parameters[0].partition(":")
        code = first.lstrip("0") or "0"
        if code == "0":
            self._parts.clear()
        elif code in _ENDS or (code, sub) == ("4", "0"):
            self._parts.pop(_ENDS.get(code, "underline"), None)
        elif kind := _KINDS.get(code):
            # Bold and faint add up.
            faint_too = kind == "weight" and self._parts.get(kind, code) != code
            self._parts[kind] = "1;2" if faint_too else ";".join(parameters)

    def __str__(self) -> str:
        """One sequence that brings it about from the default; "" for that."""
        return f"\x1b[{';'.join(self._parts.values())}m" if self._parts else ""
