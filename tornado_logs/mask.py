r"""Puts `***` in place of secrets, in a stream of bytes and in texts; pure.

    masker = Masker(["hunter22"])
    masker.feed(b"password: hun")     # b"password: ": what may become a secret is held back
    masker.feed(b"ter22\n")            # b"***\n"
    masker.text("cannot log in with 'hunter22'")

A secret is found as it stands, and as JSON, URLs, shells and Python write it; one of several lines
also line by line (those of 8 characters or more). Where secrets overlap, all that any of them
covers is one `***`. However a stream is cut into pieces, what comes out is the same.

The output may declare a secret itself, from there on, as it can on GitHub: `::add-mask::VALUE` at
the beginning of a line, where %25, %0D and %0A stand for a percent sign, CR and LF.
"""

from __future__ import annotations

import copy
import ctypes
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
MIN_SECRET_CHARS = 4
"""A shorter secret would hide half the log."""

MAX_COMMAND_BYTES = 64 * 1024
"""Of the value in an `::add-mask::`, no more is kept; what goes beyond is hidden all the same."""

_MASK = MASK.encode()
_MIN_LINE_CHARS = 8
_MARKER = b"::add-mask::"
_BEGUN_MARKERS = tuple(_MARKER[:count] for count in range(len(_MARKER) - 1, 0, -1))
_HEAD_BYTES = 256
_MEMMEM_BYTES = 4096
_LINE_END = re.compile(rb"[\r\n]")
_NOTHING_SHOWN = re.compile(rb"(?:[ \t]|\x1b\[[0-9;:]*m)*")
_COLOURS_AT_END = re.compile(rb"(?:\x1b\[[0-9;:]*m)+\Z")
_COLOURS_AT_START = re.compile(rb"(?:\x1b\[[0-9;:]*m)+")
_ANY_BYTES = "surrogateescape"  # what the output declares needn't be UTF-8
_ESCAPED = re.compile(rb"%(?:25|0[Dd]|0[Aa])")


class Masker:
    """Masks one stream, by `feed` and `finish`, and any number of texts beside it."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """`values`: the secrets. Those under `MIN_SECRET_CHARS` are not masked."""
        self._commands = _Commands()
        self._stream = _Stream()
        for value in values:
            self._stream.add(value)

    def __bool__(self) -> bool:
        """Whether any secret is known by now."""
        return bool(self._stream.needles)

    def feed(self, piece: bytes) -> bytes:
        """What can be shown of the stream, now that `piece` has come; b"" for nothing yet."""
        if not self._stream.needles and self._commands.pass_by(piece):
            return piece
        return b"".join(self._masked(self._commands.feed(piece)))

    def finish(self) -> bytes:
        """What was held back, now that nothing follows.

        The beginning of a secret is masked too: what was to write the rest may have been killed.
        """
        return b"".join(self._masked(self._commands.finish())) + self._stream.finish()

    def text(self, text: str) -> str:
        """`text` without the secrets. Only then may it be shortened: half a secret is not found."""
        if not self._stream.needles:
            return text
        data = text.encode(errors="surrogatepass")
        masked = self._stream.whole(data)
        return text if masked == data else masked.decode(errors="replace")

    def value(self, value: Any) -> Any:
        """What JSON can hold, with each of its texts masked, the names in it too."""
        if not self._stream.needles:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(name): self.value(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value

    def _masked(self, found: Iterable[tuple[bytes, str | None]]) -> Iterator[bytes]:
        for text, declared in found:
            yield self._stream.feed(text)
            if declared is not None:
                self._stream.add(declared)


def spellings(value: str) -> set[bytes]:
    """The bytes that a secret is looked for as. None are shorter than `MIN_SECRET_CHARS`."""
    value = value.strip()  # a line end around it is no secret, and isn't always printed
    lines = [line.strip() for line in value.splitlines()]
    texts = {value, "\n".join(lines), "\r\n".join(lines), " ".join(value.split())}
    texts.update(line for line in lines if len(line) >= _MIN_LINE_CHARS)
    for text in tuple(texts):
        texts |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
        texts |= {quote(text, safe, errors=_ANY_BYTES) for safe in ("/", "")}
        texts |= {quote_plus(text, errors=_ANY_BYTES), repr(text)[1:-1]}
        texts |= {text.replace("'", "'\\''"), text.replace("'", "'\"'\"'")}
    return {text.encode(errors=_ANY_BYTES) for text in texts if len(text) >= MIN_SECRET_CHARS}


class _Commands:
    """Finds each `::add-mask::VALUE` of a stream, and hides its value."""

    def __init__(self) -> None:
        self._before = b""  # the stream's last bytes, what is held not among them
        self._held = b""  # the beginning of a marker
        self._value: bytearray | None = None  # that of a command whose line isn't at its end

    def pass_by(self, piece: bytes) -> bool:
        """Whether `piece` has nothing for us and goes on as it is: the case that has to be fast."""
        if self._held or self._value is not None:
            return False
        if piece.endswith(_BEGUN_MARKERS) or _holds(piece, _MARKER):
            return False
        self._remember(piece)
        return True

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, str | None]]:
        """Yield the stream's text bit by bit, each with the secret that is declared after it."""
        data, self._held = self._held + piece, b""
        start = 0
        while start < len(data):
            if self._value is not None:
                start, declared = self._take_value(data, start)
                yield declared
                continue
            found = self._find(data, start)
            if found < 0:
                break
            yield data[start:found] + _MARKER + _MASK, None
            start, self._value = found + len(_MARKER), bytearray()
        end = len(data) - self._begun_marker(data, start)
        text, self._held = data[start:end], data[end:]
        self._remember(data[:end])
        if text:
            yield text, None

    def finish(self) -> Iterator[tuple[bytes, str | None]]:
        """What was held back."""
        yield self._held, None
        self._held = b""

    def _take_value(self, data: bytes, start: int) -> tuple[int, tuple[bytes, str | None]]:
        """Where the value or `data` ends; what is shown of it, and the value once it is whole."""
        assert self._value is not None
        line_end = _LINE_END.search(data, start)
        end = line_end.start() if line_end else len(data)
        self._value += data[start : min(end, start + MAX_COMMAND_BYTES - len(self._value))]
        if line_end is None:
            return end, (b"", None)
        colours = _COLOURS_AT_END.search(self._value)
        value = bytes(self._value[: colours.start() if colours else None])
        self._value = None
        return end, (colours[0] if colours else b"", _unescaped(value))

    def _find(self, data: bytes, start: int) -> int:
        found = data.find(_MARKER, start)
        while found >= 0 and not self._begins_line(data, found):
            found = data.find(_MARKER, found + 1)
        return found

    def _begun_marker(self, data: bytes, start: int) -> int:
        """How many bytes at the end may be the beginning of a command."""
        for begun in _BEGUN_MARKERS:
            at = len(data) - len(begun)
            if at >= start and data.endswith(begun) and self._begins_line(data, at):
                return len(begun)
        return 0

    def _begins_line(self, data: bytes, at: int) -> bool:
        """Whether nothing but space and colours stands before `at` in its line."""
        head = (self._before + data[max(0, at - _HEAD_BYTES) : at])[-_HEAD_BYTES:]
        breaks = max(head.rfind(b"\n"), head.rfind(b"\r"))
        if breaks < 0 and len(head) == _HEAD_BYTES:  # the line begins further back
            return False
        return _NOTHING_SHOWN.fullmatch(head, breaks + 1) is not None

    def _remember(self, data: bytes) -> None:
        if len(data) < _HEAD_BYTES:
            data = self._before + data
        self._before = data[-_HEAD_BYTES:]


def _unescaped(value: bytes) -> str:
    """The value of a command as it was meant, without the colours before it."""
    if colours := _COLOURS_AT_START.match(value):
        value = value[colours.end() :]
    return _ESCAPED.sub(lambda found: bytes([int(found[0][1:], 16)]), value).decode(
        errors=_ANY_BYTES
    )


class _Stream:
    """Masks what its needles cover, holding back what may be the beginning of one."""

    def __init__(self) -> None:
        self.needles: dict[bytes, int] = {}
        """Each with the least distance at which it can begin anew, overlapping itself."""
        self._begin = re.compile(rb"(?!)")  # where a needle may begin; matches nothing
        self._longest = 0
        self._held = b""
        self._covered = 0  # how many of the held bytes are behind a mask that was given out

    def add(self, value: str) -> None:
        """Mask this one too, from here on."""
        new = spellings(value) - self.needles.keys()
        if new:
            self.needles |= {needle: _period(needle) for needle in new}
            self._begin = _beginnings(self.needles)
            self._longest = max(map(len, self.needles))

    def feed(self, text: bytes) -> bytes:
        """See `Masker.feed`."""
        data = self._held + text if self._held else text
        end = len(data) - self._begun(data)
        shown, reached = self._shown(data, end, self._spans(data))
        self._held, self._covered = data[end:], max(0, reached - end)
        return shown

    def finish(self) -> bytes:
        """See `Masker.finish`."""
        held, self._held = self._held, b""
        spans = [(0, len(held))] if len(held) >= MIN_SECRET_CHARS else []
        return self._shown(held, len(held), spans)[0]

    def whole(self, data: bytes) -> bytes:
        """`data` masked by itself, apart from the stream."""
        apart = copy.copy(self)
        apart._held, apart._covered = b"", 0
        return apart._shown(data, len(data), apart._spans(data))[0]

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where needles stand, in any order."""
        spans = []
        for needle, step in self.needles.items():
            at = data.find(needle) if _holds(data, needle) else -1
            while at >= 0:
                spans.append((at, at + len(needle)))
                at = data.find(needle, at + step)
        return spans

    def _shown(self, data: bytes, end: int, spans: list[tuple[int, int]]) -> tuple[bytes, int]:
        """`data` up to `end`, masked, and how far that reaches: a run of spans may go beyond."""
        shown = []
        reached = self._covered  # all before it is shown or masked; it may go on as one run
        is_run = reached > 0
        for start, stop in sorted(spans):
            if is_run and start < reached:
                reached = max(reached, stop)
            elif start < end:
                shown += [data[reached:start], _MASK]
                reached, is_run = stop, True
        shown.append(data[reached:end])
        return b"".join(shown), reached

    def _begun(self, data: bytes) -> int:
        """The length of the longest end of `data` that is the beginning of a needle."""
        tail = data[max(0, len(data) - self._longest + 1) :]
        found = self._begin.search(tail)
        while found:
            rest = tail[found.start() :]
            if any(len(rest) < len(needle) and needle.startswith(rest) for needle in self.needles):
                return len(rest)
            found = self._begin.search(tail, found.start() + 1)
        return 0


def _beginnings(needles: Iterable[bytes]) -> re.Pattern[bytes]:
    """Matches where one of the needles may begin, also where the end cuts it: never too little.

    Four bytes are enough to be all but sure, and lead `re` quickly to the few that matter.
    """
    begun = {needle[:MIN_SECRET_CHARS] for needle in needles}
    cut = {needle[:count] for needle in begun for count in range(1, MIN_SECRET_CHARS)}
    patterns = [re.escape(text) for text in begun] + [re.escape(text) + rb"\Z" for text in cut]
    return re.compile(b"|".join(sorted(patterns)))


def _memmem() -> Any:
    """memmem(3) of the C library; None where there is none."""
    function = getattr(ctypes.CDLL(None), "memmem", None)
    if function is not None:
        function.restype = ctypes.c_void_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    return function


_MEMMEM = _memmem()


def _holds(data: bytes, needle: bytes) -> bool:
    """Whether `needle` stands in `data`. All output is searched so, and most of it in vain.

    glibc's search is 3 to 6 times as fast as Python's; the call pays from some thousand bytes on.
    """
    if _MEMMEM is None or len(data) < _MEMMEM_BYTES:
        return needle in data
    return _MEMMEM(data, len(data), needle, len(needle)) is not None


def _period(needle: bytes) -> int:
    """The least distance at which `needle` can overlap itself; its length if it can't."""
    shift = needle.find(needle[:1], 1)
    while shift >= 0 and not needle.startswith(needle[shift:]):
        shift = needle.find(needle[:1], shift + 1)
    return shift if shift >= 0 else len(needle)
