"""Searches a log for lines, as `grep` does, and goes on while the log grows.

    search = Search(follower, path, query, from_line=1, slots=slots, ping_seconds=15.0)
    await search.run(send)               # `send` takes encoded events; see README

A `grep` reads the log from the offset that was reached, by a descriptor of its own: no byte of the
log passes through this process. When it is done, the offset is moved behind the last whole line,
and the next one waits until the log has grown. As the descriptor's position is shared with us, it
tells how far the running one has come. What a log drops of its oldest part is passed over; should
that overtake a grep, what it has found since the last look counts for nothing, and the next one
begins with the first line that is there.

Most logs that begin without colours have none. A text is searched for in such a log as if that were
so, which is several times faster, while a second `grep` looks whether it is; if it isn't, the
search starts over.

The lines reported are at most 50,000, since `grep` prints each of them whole; beyond that `grep -c`
counts alone. Cancelling `run` kills the process. All on the event loop; what may read a large part
of the log to count lines runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tornado_logs import sse
from tornado_logs.follower import Follower
from tornado_logs.grep import Grep, SearchError, reason
from tornado_logs.journal import BLOCK_BYTES, DroppedError, LogFile, Place
from tornado_logs.query import Query, compile_query

MAX_REPORTED_LINES = 50_000
SEARCHES_AT_A_TIME = 4
"""How many greps run at a time; the other searches wait for their turn."""

# What `levels.js` marks as an error, word for word (tests compare them).
_SERIOUS = "error|eror|err|critical|crit|fatal|panic|dpanic|alert|emergency|emerg|severe"
_ERRORS = (
    r"\b(ERROR|ERR|FATAL|CRITICAL|CRIT|ALERT|EMERGENCY|EMERG|SEVERE|PANIC)\b",  # a word
    rf"\[([a-z_]+:)?({_SERIOUS})\]",  # nginx, httpd
    # "error: no such file", but not "error: 0", nor none, null, nil
    r"\b([Ee]rror|[Ff]atal|panic)(\[\w+\])?:(\s*$|\s+([^0n\s]|n[^iou\s]|no[^n]|non[^e]))",
    r"\w(Error|Exception)(:|$)",  # Python, JavaScript, Java
    r"^(Caused by: |Traceback \(most recent call last\)|E: |npm error |error [A-Z])",
    r"\berror [A-Z]+\d+:",  # TypeScript, .NET
    r"^\s*\d+:\d+\s+error\s",  # ESLint
    rf"""(^|\s)(level|lvl|severity)="?({_SERIOUS})\b""",  # logfmt
    rf""""(level|lvl|severity|log\.level|@l|levelname)"\s*:\s*"({_SERIOUS}|Error|Fatal)\"""",
    r""""level"\s*:\s*[56]0\s*[,}]""",  # pino, bunyan
    r"(^|\s)[EF]\d{4} \d\d:\d\d:\d\d\.\d",  # klog
    r"\bpanicked at |^Segmentation fault|^make(\[\d+\])?: \*\*\* ",
    r"^::error[: ]|##\[error\]",  # workflow commands
)
ERRORS = compile_query("|".join(_ERRORS), regex=True, case=True)

# What `levels.js` folds: GROUP and SECTION there.
STRUCTURE = compile_query(
    r"^\s*(\d{4}-\d\d-\d\dT[\d:.]+Z\s+)?(::|##\[)(end)?group(::|\])"
    r"|section_(start|end):\d+:[\w.:/-]",
    regex=True,
    case=True,
)

_GROWTH_SECONDS = 0.2  # between the greps of a log that grows
_PROBED_BYTES = 16 * 1024 * 1024  # what is less is searched fast enough
_STEP_BYTES = 256 * 1024 * 1024
_NUMBER_BYTES = 24  # longer than any line number

_T = TypeVar("_T")

LAST = b"id: end\n"
"""Begins the last event: an EventSource that comes back with this id wants nothing more."""

Send = Callable[[bytes], Awaitable[None]]
"""Writes encoded events to the client; returns once there is room for more."""


class _StartOver(Exception):  # noqa: N818 - a turn of events, and no error
    """What was found isn't right any more. The message says why."""


_CUT = "the log was cut or replaced: the search starts over"
_COLOURED = "the log has colours further on: the search starts over, to see none of them as text"


class Search:
    """One search of one log, for one client."""

    def __init__(
        self,
        follower: Follower,
        path: str,
        query: Query,
        *,
        from_line: int,
        slots: asyncio.Semaphore,
        ping_seconds: float,
    ) -> None:
        """`slots` bounds how many greps run at a time, those of all searches together."""
        self._follower = follower
        self._path = path
        self._query = query
        self._from_line = from_line
        self._slots = slots
        self._ping_seconds = ping_seconds
        self._news = asyncio.Event()
        self._grep: Grep | None = None
        self._reach: _Reach
        self._has_escapes = False
        self._begin()

    def _begin(self) -> None:
        self._cuts = self._follower.cuts
        self._offset = 0  # all before it was searched; a line begins there
        self._lines = 0  # before that offset
        self._matches = 0
        self._reported = 0
        self._probe: _Probe | None = None
        self._probed_to = 0  # no escape sequence begins before
        self._unfinished_to = 0  # no line ends between the offset and here

    async def run(self, send: Send) -> None:
        """Search until the log has ended, or the server does. Raises what `send` raises."""
        unlisten = self._follower.listen(self._on_news)
        try:
            while reason := await self._search_from_start(send):
                self._begin()
                await send(sse.encode_json("reset", {"reason": reason}))
        except SearchError as error:
            await send(LAST + sse.encode_json("error", {"error": str(error)}))
        finally:
            unlisten()

    async def _search_from_start(self, send: Send) -> str:
        """Why it has to start over; "" where it came to its end."""
        try:
            log = LogFile(self._path, self._follower.record.dropped_bytes)
        except FileNotFoundError:
            raise SearchError("the log was deleted while it was being searched") from None
        try:
            await self._search(log, send)
        except _StartOver as error:
            return "" if self._follower.shutting_down else str(error)
        finally:
            if self._probe is not None:
                await self._probe.close()
            log.close()
        return ""

    def _on_news(self) -> None:
        self._news.set()
        if self._was_cut or self._follower.shutting_down:
            self._stop_grep()

    def _stop_grep(self) -> None:
        if self._grep is not None:
            self._grep.kill()

    @property
    def _was_cut(self) -> bool:
        return self._cuts != self._follower.cuts

    async def _search(self, log: LogFile, send: Send) -> None:
        await self._skip(log)
        while not self._follower.shutting_down:
            self._news.clear()
            ended = self._follower.has_ended
            try:
                if await self._has_more(log, ended=ended):
                    await self._search_more(log, send, ended=ended)
                    continue
            except DroppedError:
                continue
            await self._check_plain(log)
            if ended:
                self._check_deleted(log)
                await send(LAST + sse.encode_json("end", self._state(self._lines, done=True)))
                return
            await self._tell(send, self._lines, done=True)
            await self._wait_for_growth(send)

    async def _skip(self, log: LogFile) -> None:
        """Begin at the line that was asked for; at the end, if there is none of this number."""
        place = await _in_thread(log.find_line, self._from_line - 1)
        if place is None:
            place = await _in_thread(_last_place, log)
        self._offset, self._lines = place.offset, place.lines

    async def _pass_dropped(self, log: LogFile, *, ended: bool) -> bool:
        """Go on with the first line that is there, if what we were at was dropped.

        Whether there is one, or may be one.
        """
        if log.is_there(self._offset):
            return True
        place = await _in_thread(log.first_place)
        if place.has_line:
            self._offset, self._lines = place.offset, place.lines
        elif ended:
            self._offset, self._lines = log.size(), place.lines + 1
        self._unfinished_to = self._offset
        return place.has_line

    async def _move(self, log: LogFile, offset: int) -> None:
        """Have everything before `offset` searched."""
        self._lines = await _lines_before(log, offset, self._offset)
        self._offset = offset

    async def _has_more(self, log: LogFile, *, ended: bool) -> bool:
        size = log.size()
        if self._was_cut or size < self._offset:
            raise _StartOver(_CUT)
        if not await self._pass_dropped(log, ended=ended):
            return False
        if ended or size == self._offset:
            return size > self._offset
        # A line that is still being written is none yet.
        start = max(self._offset, self._unfinished_to)
        self._unfinished_to = await _in_thread(_line_end, log, start, size)
        return self._unfinished_to < size

    async def _check_plain(self, log: LogFile) -> None:
        """Raises _StartOver if a log that was searched as if it had no colours has some."""
        if self._probe is None:
            return
        self._probed_to = max(await self._probe.end(), log.first_byte())
        self._has_escapes = self._probe.has_found or await _in_thread(
            _has_escapes, log, self._probed_to, self._offset
        )
        self._probe, self._probed_to = None, max(self._probed_to, self._offset)
        if self._has_escapes:
            raise _StartOver(_COLOURED)

    def _check_deleted(self, log: LogFile) -> None:
        self._follower.look()
        if self._was_cut:
            raise _StartOver(_CUT)
        if not log.is_at_path():
            raise SearchError("the log was deleted while it was being searched")

    async def _wait_for_growth(self, send: Send) -> None:
        """Wait for news, and so long that a log that grows all the time costs little."""
        await asyncio.sleep(0 if self._follower.has_ended else _GROWTH_SECONDS)
        while not self._news.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ping_seconds):
                    await self._news.wait()
                    return
            await send(sse.HEARTBEAT)

    async def _search_more(self, log: LogFile, send: Send, *, ended: bool) -> None:
        """One grep, from the offset that was reached to where it finds the end."""
        if self._slots.locked():
            await self._tell(send, self._lines, waiting=True)
        async with self._slots:
            room = MAX_REPORTED_LINES - self._reported
            options = [b"-n", b"--line-buffered", b"-m", b"%d" % room] if room else [b"-c"]
            self._grep = await Grep.start(log, self._offset, options + self._pattern(log))
            self._reach = _Reach(log, self._offset)
            counting = _Counting(log, self._offset)
            try:
                if room:
                    await self._report(self._grep, counting, room, send, ended=ended)
                else:
                    await self._count(self._grep, counting, send, ended=ended)
            finally:
                grep, self._grep = self._grep, None
                await grep.close()
                await counting.close()

    def _pattern(self, log: LogFile) -> list[bytes]:
        # The first block tells: colours nearly always begin at once.
        self._has_escapes |= b"\x1b" in log.read(self._offset, BLOCK_BYTES)
        query = self._query
        if self._has_escapes:
            return [b"-E", b"-e", query.exact]
        if query.plain is None or log.size() - self._offset < _PROBED_BYTES:
            return [b"-E", b"-e", query.loose]
        if self._probe is None:
            self._probe = _Probe(self._path, max(self._offset, self._probed_to), self._stop_grep)
        return [b"-F", *([] if query.case else [b"-i"]), b"-e", query.plain]

    async def _report(
        self, grep: Grep, counting: _Counting, room: int, send: Send, *, ended: bool
    ) -> None:
        """Send the numbers of the lines as they are found."""
        numbers = _Numbers(self._lines)
        found: list[int] = []
        last = 0  # of all that were found, those too that were sent meanwhile
        while (data := await grep.read()) is not None:
            found += numbers.feed(data)
            last = found[-1] if found else last
            if grep.is_time_to_tell():
                searched = await self._tell_counted(grep, counting, send)
                # The last may be a line that is still being written, which is none yet.
                is_known = found and (ended or found[-1] <= searched)
                held = [] if is_known else found[-1:]
                await self._send_matches(found[: len(found) - len(held)], send)
                found = held
        await self._check_grep(grep)
        if self._reported + len(found) == MAX_REPORTED_LINES:
            place = await _in_thread(grep.log.find_line, last)
        else:
            place = None
        if place is None:
            await self._advance(grep, ended=ended)
        else:
            self._offset, self._lines = place.offset, place.lines
        self._unfinished_to = self._offset
        await self._send_matches([number for number in found if number <= self._lines], send)

    async def _count(self, grep: Grep, counting: _Counting, send: Send, *, ended: bool) -> None:
        """Count what is beyond the lines that are reported."""
        output = b""
        while (data := await grep.read()) is not None:
            output += data
            if grep.is_time_to_tell():
                await self._tell_counted(grep, counting, send)
        await self._check_grep(grep)
        end = grep.position()
        await self._advance(grep, ended=ended)
        self._matches += int(output)
        if self._offset < end:  # the line that is still being written was counted, if it matches
            self._matches -= await self._matching(grep.log, self._offset, end)

    async def _check_grep(self, grep: Grep) -> None:
        """Raises _StartOver (also where the server ends) or SearchError."""
        status, message = await grep.finish()
        self._reach.check(grep.position())
        if self._was_cut or self._follower.shutting_down or grep.log.size() < self._offset:
            raise _StartOver(_CUT)
        if self._probe is not None and self._probe.has_found:
            await self._check_plain(grep.log)
        if status not in (0, 1):
            line = await _lines_before(grep.log, grep.position(), self._offset) + 1
            raise SearchError(reason(status, message, line))

    async def _advance(self, grep: Grep, *, ended: bool) -> None:
        """Move behind the last line that was searched whole."""
        end = grep.position()
        if not ended:
            await self._move(
                grep.log, await _in_thread(_last_line_end, grep.log, end, self._offset)
            )
            return
        await self._move(grep.log, end)
        self._lines += end > 0 and grep.log.read(end - 1, 1) != b"\n"

    async def _matching(self, log: LogFile, start: int, end: int) -> int:
        """Whether the text from `start` to `end`, a part of a line, matches: 1 or 0."""
        text = await _in_thread(log.read, start, end - start)
        arguments = [b"-c", b"-E", b"-e", self._query.exact]
        grep = await Grep.start(log, start, arguments, stdin=PIPE)
        try:
            return int(await grep.answer(text) or 0)
        finally:
            await grep.close()

    async def _send_matches(self, lines: list[int], send: Send) -> None:
        self._matches += len(lines)
        self._reported += len(lines)
        if lines:
            await send(sse.encode_json("matches", {"lines": lines}))

    async def _tell_counted(self, grep: Grep, counting: _Counting, send: Send) -> int:
        """How many lines were searched for sure; 0 if that isn't known just now.

        Raises DroppedError if what was searched since the last time may have been dropped by then.
        """
        self._reach.check(grep.position())
        counts = counting.take(grep.position())
        if counts is None:
            return 0
        searched, total = counts
        await send(sse.encode_json("progress", self._state(total, searched=searched)))
        return searched

    async def _tell(
        self, send: Send, total: int, *, done: bool = False, waiting: bool = False
    ) -> None:
        await send(sse.encode_json("progress", self._state(total, done=done, waiting=waiting)))

    def _state(
        self,
        total: int,
        *,
        searched: int | None = None,
        done: bool = False,
        waiting: bool = False,
    ) -> dict[str, object]:
        return {
            "lines_searched": self._lines if searched is None else searched,
            "lines_total": total,
            "matches": self._matches,
            "done": done,
            "truncated": self._matches > self._reported,
            "waiting": waiting,
        }


class _Reach:
    """Tells whether a grep may have read zeros where lines had been dropped."""

    def __init__(self, log: LogFile, start: int) -> None:
        self._log = log
        self._reached = start

    def check(self, position: int) -> None:
        """What was read up to `position` is what stood there. Raises DroppedError if not for sure.

        What was read since the last check lies behind what that had reached: if all of this is
        still there, none of it was gone when it was read.
        """
        if not self._log.is_there(self._reached):
            raise DroppedError(self._reached)
        self._reached = position


class _Probe:
    """Looks for escape sequences from an offset on, while a grep searches as if there were none."""

    def __init__(self, path: str, offset: int, on_found: Callable[[], None]) -> None:
        self.has_found = False
        self._on_found = on_found
        self._task = asyncio.create_task(self._run(path, offset))

    async def _run(self, path: str, offset: int) -> int:
        try:
            log = LogFile(path)
        except FileNotFoundError:
            return offset
        try:
            grep = await Grep.start(log, offset, [b"-q", b"-F", b"-e", b"\x1b"])
            try:
                while await grep.read() is not None:
                    pass
                status, _ = await grep.finish()
                end = grep.position() if status == 1 else offset
            finally:
                await grep.close()
        finally:
            log.close()
        if status != 1:  # also where it doesn't know
            self.has_found = True
            self._on_found()
        return end

    async def end(self) -> int:
        """The offset up to which there is none, once that is known. Raises SearchError."""
        return await self._task

    async def close(self) -> None:
        """Look no further."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class _Numbers:
    """What `grep -n` prints, in pieces cut anywhere, as line numbers."""

    def __init__(self, lines_before: int) -> None:
        self._lines_before = lines_before
        self._rest = b""

    def feed(self, data: bytes) -> list[int]:
        """The numbers of the lines that are complete with `data`."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_NUMBER_BYTES]  # the text of a line may be long, and isn't wanted
        return [self._lines_before + int(line[:_NUMBER_BYTES].partition(b":")[0]) for line in lines]


class _Counting:
    """Counts lines while a grep runs. Without an index, that means reading them once more."""

    def __init__(self, log: LogFile, start: int) -> None:
        self._log = log
        self._start = start
        self._task: asyncio.Task[tuple[int, int]] | None = None

    def take(self, position: int) -> tuple[int, int] | None:
        """What was counted since the last time: (lines searched, lines in all), if it is ready."""
        counts = None
        if self._task is not None and self._task.done():
            counts, self._task = self._task.result(), None
        if self._task is None:
            self._task = asyncio.create_task(self._count(position))
        return counts

    async def _count(self, position: int) -> tuple[int, int]:
        lines, size = await _lines_before(self._log, position, self._start), self._log.size()
        if await _in_thread(lambda: self._log.has_index):
            return lines, await _in_thread(self._log.count_lines, size)
        return lines, max(lines, int(lines * size / max(1, position)))

    async def close(self) -> None:
        """Stop counting: the log may be closed afterwards."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _has_escapes(log: LogFile, start: int, end: int) -> bool:
    while start < end:
        data = log.read(start, min(BLOCK_BYTES, end - start))
        if b"\x1b" in data:
            return True
        if not data:  # cut meanwhile
            break
        start += len(data)
    return False


def _last_place(log: LogFile) -> Place:
    """Where the last line begins, which may be empty as yet."""
    first = log.first_place()
    offset = _last_line_end(log, log.size(), first.offset)
    return first if offset == first.offset else Place(offset, log.count_lines(offset))


def _last_line_end(log: LogFile, position: int, first: int) -> int:
    """The offset after the last LF before `position`; `first` if there is none from there on."""
    end = position
    while end > first:
        start = max(first, end - BLOCK_BYTES)
        line_end = log.read(start, end - start).rfind(b"\n")
        if line_end >= 0:
            return start + line_end + 1
        end = start
    return first


def _line_end(log: LogFile, start: int, size: int) -> int:
    """The offset of the first LF from `start` on; `size` if there is none."""
    while start < size:
        data = log.read(start, min(BLOCK_BYTES, size - start))
        line_end = data.find(b"\n")
        if line_end >= 0:
            return start + line_end
        if not data:  # cut meanwhile
            break
        start += len(data)
    return size


async def _lines_before(log: LogFile, end: int, start: int) -> int:
    """How many LFs there are before `end`; `start` is a place up to which that was asked."""
    if not await _in_thread(lambda: log.has_index):
        # In steps, so that a search that isn't wanted any more holds no thread for long.
        for step in range(start + _STEP_BYTES, end, _STEP_BYTES):
            await _in_thread(log.count_lines, step)
    return await _in_thread(log.count_lines, end)


async def _in_thread(function: Callable[..., _T], *arguments: object) -> _T:
    """For what may read much. If cancelled, waits for it: the log may be closed afterwards."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
