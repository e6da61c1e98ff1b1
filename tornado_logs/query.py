r"""What a reader searches for, as a pattern for `grep -E` in the C locale. Pure: no I/O.

    query = compile_query("time.*out", regex=True)     # grep -a -E -e query.exact

A regular expression has the syntax that JavaScript, Python and POSIX agree on, so that the page
highlights what grep finds: `. [] () (?:) | * + ? {n,m} ^ $ \d \w \s \b \t \xhh \uhhhh`. There are
no back-references and no look-around: what is left is an automaton, which reads each byte once and
can't be made to hang; only the size of what repetitions spell out has to be bounded.

The pattern matches bytes, whatever they are, so invalid UTF-8 hides nothing; characters beyond
ASCII are spelt out as their UTF-8. Between any two characters it lets escape sequences (colours,
links) pass, so that "error: x" is found where "error" is red. What a redraw (CR) has overwritten is
found too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_QUERY_CHARS = 1000
_MAX_ATOMS = 5000  # after the repetitions are spelt out: 30 MB and some 50 ms of grep
_MAX_PATTERN_BYTES = 120_000  # an argument of a process takes 128 KiB (Linux)
_MAX_FOLDED_CHARS = 2000

# ECMA-48: a control sequence, a system command up to BEL or ST, any other escape.
_ESCAPE = b"\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[^][])"
_ESCAPES = b"(" + _ESCAPE + b")*"
_HIGH = b"[\xc2-\xf4][\x80-\xbf]{1,3}|[\x80-\xff]"  # any character beyond ASCII, or a stray byte
_LAST = 0x10FFFF

_REPEAT = re.compile(r"[*+?]|\{(\d{1,6})(?:,(\d{0,6}))?\}", re.ASCII)
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})")

Ranges = list[tuple[int, int]]
"""Code points, from and to, both included."""

_CLASSES: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [(0x09, 0x09), (0x0B, 0x0D), (0x20, 0x20)],
}
_CONTROLS = {"t": 0x09, "v": 0x0B, "f": 0x0C, "r": 0x0D}


class QueryError(Exception):
    """A query that can't be searched for. The message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Query:
    """Patterns for `grep -E`, to be given with LC_ALL=C and `-a`.

    `exact` never matches within an escape sequence, but has to look at every byte: some four times
    slower. `loose` may ("31" is in ESC[31m): right for a log without any. `plain`, which not every
    query has, is for `grep -F` (with `-i` unless `case`): several times faster than `loose`, but
    hidden by any escape sequence.
    """

    exact: bytes
    loose: bytes
    plain: bytes | None
    case: bool


def compile_query(text: str, *, regex: bool = False, case: bool = False) -> Query:
    """Raises QueryError. Without `case`, upper and lower case are the same."""
    if not text:
        raise QueryError("there is nothing to search for: q is empty")
    if len(text) > MAX_QUERY_CHARS:
        raise QueryError(f"q takes {MAX_QUERY_CHARS:,} characters at most, found {len(text):,}")
    if "\n" in text or "\0" in text:
        raise QueryError("q is searched for in each line by itself; it can hold no line end or NUL")
    translator = _Translator(text, ignore_case=not case)
    body = translator.regex() if regex else translator.literal()
    if len(body) > _MAX_PATTERN_BYTES:
        raise QueryError("the query is too large once its classes of characters are spelt out")
    # grep's own folding is of ASCII alone, in the C locale.
    plain = None if regex or not (case or text.isascii()) else text.encode()
    return Query(b"^(" + _ESCAPE + b"|[^\x1b])*(" + body + b")", body, plain, case)


class _Translator:
    """One pass over the query. Sizes are counted in atoms, repetitions spelt out."""

    def __init__(self, text: str, *, ignore_case: bool) -> None:
        self._text = text
        self._at = 0
        self._ignore_case = ignore_case
        self._out: list[bytes] = []
        self._sizes = [0]  # of each open group
        self._last: int | None = None  # the size of what a repetition would repeat

    def literal(self) -> bytes:
        for char in self._text:
            self._literal(ord(char))
        return b"".join(self._out)

    def regex(self) -> bytes:
        while self._at < len(self._text):
            self._step(self._take())
        if len(self._sizes) > 1:
            raise QueryError("a ( in the regular expression is never closed")
        return b"".join(self._out)

    def _take(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    def _step(self, char: str) -> None:
        repeat = _REPEAT.match(self._text, self._at - 1)
        if repeat:
            self._repeat(repeat)
        elif char == "(":
            self._open()
        elif char == ")":
            self._close()
        elif char == "|":
            self._mark(b"|")
        elif char == "^":
            self._mark(b"^")
        elif char == "$":
            self._mark(b"((" + _ESCAPE + b")|\r)*$")  # the CR of a CRLF is no text
        elif char == ".":
            self._put(b"[^\x1b\r\x80-\xff]|" + _HIGH)
        elif char == "[":
            self._atom(self._bracket())
        elif char == "\\":
            self._escaped(self._take())
        else:
            self._literal(ord(char))

    def _mark(self, pattern: bytes) -> None:
        """What stands between characters."""
        self._out.append(pattern)
        self._last = None

    def _open(self) -> None:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._text.startswith("?", self._at):
            raise QueryError("the regular expression can't look around or name its groups: (?")
        self._mark(b"(")
        self._sizes.append(0)

    def _close(self) -> None:
        if len(self._sizes) == 1:
            raise QueryError("a ) in the regular expression closes nothing")
        self._out.append(b")")
        self._grow(self._sizes.pop())

    def _grow(self, size: int) -> None:
        self._sizes[-1] += size
        self._last = size
        if self._sizes[-1] > _MAX_ATOMS:
            raise QueryError(
                "the regular expression is too large once its repetitions are spelt out"
            )

    def _repeat(self, match: re.Match[str]) -> None:
        if self._last is None:
            raise QueryError(
                f"there is nothing for {match[0]} to repeat; a plain one is \\{match[0]}"
            )
        self._at = match.end()
        if self._text.startswith("?", self._at):  # lazy: no matter for which line matches
            self._at += 1
        least, most = int(match[1] or 0), int(match[2] or match[1] or 0)
        if match[2] and most < least:
            raise QueryError(f"the repetition {match[0]} ends below where it begins")
        size, times = max(self._last, 1), max(least, most, 1)
        self._grow(size * (times - 1))
        self._last = None
        self._out.append(match[0].encode())

    def _escaped(self, char: str) -> None:
        if char == "b":
            # A change of colour hides from grep whether the character before it is a word's.
            self._mark(b"(\\b|" + _ESCAPE + b")")
        elif char == "B":
            self._mark(b"\\B")
        elif char.isascii() and char.isdecimal():
            raise QueryError(f"the regular expression can't refer back to a group: \\{char}")
        elif ranges := _class(char):
            self._atom(ranges)
        else:
            self._literal(self._escaped_code(char))

    def _escaped_code(self, char: str) -> int:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if match := _HEX.match(self._text, self._at - 1):
            self._at = match.end()
            return _searchable(int(match[1] or match[2], 16))
        if not char:
            raise QueryError("the regular expression ends in the middle of an escape: \\")
        if char == "n":
            return _searchable(0x0A)
        if char.isascii() and char.isalnum():
            raise QueryError(f"the regular expression has an escape that is not known: \\{char}")
        return ord(char)

    def _bracket(self) -> Ranges:
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: Ranges = []
        first = True
        while (char := self._take()) != "]" or first:
            first = False
            if not char:
                raise QueryError("a [ in the regular expression is never closed")
            ranges += self._bracket_item(char)
        if self._ignore_case:
            ranges = _both_cases(ranges)
        if negated and not (ranges := _complement(ranges)):
            raise QueryError("a [^...] in the regular expression leaves no character that matches")
        return ranges

    def _bracket_item(self, char: str) -> Ranges:
        if char == "\\":
            char = self._take()
            if ranges := _class(char):
                return ranges
            start = 0x08 if char == "b" else self._escaped_code(char)
        elif char == "[" and self._text[self._at : self._at + 1] in (":", ".", "="):
            raise QueryError(
                "a class in brackets is written \\d, \\w or \\s, not as [: or [. or [="
            )
        else:
            start = ord(char)
        following = self._text[self._at : self._at + 2]
        if len(following) < 2 or following[0] != "-" or following[1] == "]":
            return [(start, start)]
        self._at += 1
        char = self._take()
        end = self._escaped_code(self._take()) if char == "\\" else ord(char)
        if end < start:
            raise QueryError("a range in brackets ends before it begins")
        return [(start, end)]

    def _literal(self, code: int) -> None:
        ranges = [(code, code)]
        self._atom(_both_cases(ranges) if self._ignore_case else ranges)

    def _atom(self, ranges: Ranges) -> None:
        self._put(_byte_pattern(_merge(ranges)))

    def _put(self, pattern: bytes) -> None:
        self._out.append(b"(" + _ESCAPES + b"(" + pattern + b"))")
        self._grow(1 + pattern.count(b"|"))


def _class(char: str) -> Ranges | None:
    ranges = _CLASSES.get(char.lower()) if char.isascii() else None
    return _complement(ranges) if ranges and char.isupper() else ranges


def _searchable(code: int) -> int:
    if code in (0x00, 0x0A):
        raise QueryError("q is searched for in each line by itself; it can hold no line end or NUL")
    if 0xD800 <= code <= 0xDFFF:
        raise QueryError(f"\\u{code:04x} is half a character; write the character itself")
    return code


def _merge(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _complement(ranges: Ranges) -> Ranges:
    """All other characters; escape sequences, line ends and redraws are none."""
    complement: Ranges = []
    start = 1  # an argument can't hold NUL
    for first, last in _merge([*ranges, (0x0A, 0x0A), (0x0D, 0x0D), (0x1B, 0x1B)]):
        if first > start:
            complement.append((start, first - 1))
        start = last + 1
    return [*complement, (start, _LAST)] if start <= _LAST else complement


def _both_cases(ranges: Ranges) -> Ranges:
    """With the other case of each, if that is one character: as in JavaScript."""
    found = list(ranges)
    for start, end in ranges:
        for code in range(start, min(end, start + _MAX_FOLDED_CHARS) + 1):
            for other in (chr(code).lower(), chr(code).upper()):
                # Neither SS for ß nor k for the sign of Kelvin.
                if len(other) == 1 and other.isascii() == chr(code).isascii():
                    found.append((ord(other), ord(other)))
    return found


def _byte_pattern(ranges: Ranges) -> bytes:
    """An ERE for the UTF-8 of these characters, without a group around it."""
    parts: list[bytes] = []
    low = [(start, min(end, 0x7F)) for start, end in ranges if start <= 0x7F]
    if low:
        parts.append(_ascii_pattern(low))
    if ranges[-1][1] == _LAST and ranges[-1][0] <= 0x80:
        parts.append(_HIGH)
    else:
        parts += _high_patterns(ranges)
    return b"|".join(parts)


def _high_patterns(ranges: Ranges) -> list[bytes]:
    parts = []
    # Within each of these, all have UTF-8 of one length.
    for first, last in ((0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, _LAST)):
        for start, end in ranges:
            start, end = max(start, first), min(end, last)
            if start <= end:
                parts += _sequences(chr(start).encode(), chr(end).encode())
    return parts


def _sequences(low: bytes, high: bytes) -> list[bytes]:
    """Patterns for all UTF-8 sequences from `low` to `high`, which are of one length."""
    if len(low) == 1:
        return [_byte_range(low[0], high[0])]
    if low[0] == high[0]:
        return [low[:1] + rest for rest in _sequences(low[1:], high[1:])]
    least, most = b"\x80" * (len(low) - 1), b"\xbf" * (len(low) - 1)
    parts: list[bytes] = []
    first, last = low[0], high[0]
    if low[1:] != least:
        parts += [low[:1] + rest for rest in _sequences(low[1:], most)]
        first += 1
    if high[1:] != most:
        parts += [high[:1] + rest for rest in _sequences(least, high[1:])]
        last -= 1
    if first <= last:
        parts.append(_byte_range(first, last) + b"[\x80-\xbf]" * len(least))
    return parts


def _byte_range(first: int, last: int) -> bytes:
    return bytes([first]) if first == last else b"[%c-%c]" % (first, last)


def _ascii_pattern(ranges: Ranges) -> bytes:
    """A bracket expression of POSIX, in which only its place makes a character plain."""
    codes = {code for start, end in ranges for code in range(max(start, 1), end + 1)}
    if len(codes) == 1:
        char = bytes(codes)
        return char if char.isalnum() or char in b" _-,:;=<>!\"#%&'/@`~" else _quoted(char)
    special = codes & set(b"]^[-")
    plain = _merge([(code, code) for code in codes - special])
    if not plain:
        return b"|".join(_quoted(bytes([code])) for code in sorted(special))
    ends = b"".join(b"%c-%c" % (a, b) if b > a + 1 else bytes(range(a, b + 1)) for a, b in plain)
    place = [b"]" if 0x5D in special else b"", ends]
    place += [bytes([code]) for code in b"^[-" if code in special]
    return b"[" + b"".join(place) + b"]"


def _quoted(char: bytes) -> bytes:
    return b"\\" + char if char in b"\\.[]()*+?{}|^$-" else char
