r"""The style of text, as SGR sequences (ECMA-48, 8.3.117) and links (OSC 8) set it. Pure.

>>> style_after(b"a \x1b[1;31mred \x1b[39mbold")
'\x1b[1m'
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_SGR = re.compile(rb"\x1b\[([0-9;:]*)m|\x1bc")  # the second is a terminal's full reset
_RESET = re.compile(rb"\x1b\[0*[;m]|\x1bc")


class Style(NamedTuple):
    """What SGR and OSC 8 have set; what they haven't is as it was before."""

    is_reset: bool = False
    codes: tuple[tuple[str, str], ...] = ()  # what is set, and the SGR code that sets it
    link: str | None = None  # the last OSC 8


BLANK = Style(is_reset=True)
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
# Those of them that set something back to its default.
_ENDS = {"22", "23", "24", "25", "27", "28", "29", "39", "49", "55", "59", "4:0"}


@lru_cache(maxsize=4096)
def with_sgr(style: Style, args: str) -> Style:
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
    return Style(is_reset, tuple(codes.items()), style.link)


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
def transition(before: Style, after: Style) -> str:
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


def last_reset(data: bytes) -> int:
    """Where the last sequence begins that puts all back to the default; -1 if there is none."""
    end = len(data)
    while (start := data.rfind(b"\x1b", 0, end)) >= 0:
        if _RESET.match(data, start):
            return start
        end = start
    return -1


def style_after(data: bytes) -> str:
    """What is in force after `data`, which begins in the default, as one SGR sequence.

    "" for the default. A sequence that is cut at the end of `data` has no effect. Without links.
    """
    style = BLANK
    for match in _SGR.finditer(data):
        style = BLANK if match[1] is None else with_sgr(style, match[1].decode())
    codes = [code for _, code in style.codes if code not in _ENDS]
    return f"\x1b[{';'.join(codes)}m" if codes else ""
