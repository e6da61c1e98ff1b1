"""All deployments of a data folder: found, listed, and kept up to date as their files change.

Files are the database: what is kept in memory is a copy of the records, made anew from the files
whenever the server starts. A `*.log` without a record is a deployment too (a bare log).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from tornado_logs.deployment import (
    Record,
    State,
    created_at_of,
    is_being_written,
    is_id,
    read_record,
    summary,
    timestamp,
)
from tornado_logs.disk import EXHAUSTED
from tornado_logs.journal import LogFile
from tornado_logs.launcher import Launcher
from tornado_logs.ticks import Ticks
from tornado_logs.watch import Changes, FolderWatch
from tornado_logs.window import last_line

_RECHECK_SECONDS = 2.1  # a little more than what counts as "just written"
_LOCK_RELEASE_SECONDS = 0.05
_POLL_ALIVE_SECONDS = 2.0
_RECHECK_ALIVE_SECONDS = 5.0
_TURN_RECORDS = 200
_QUEUE_SECONDS = 0.1
_QUEUE_NEWS_SECONDS = 0.25
_QUEUE_NEWS_SECONDS_EACH = 0.002

Age = tuple[str, str]
"""When a deployment was created, and its id: the order of the list."""

BARE_SOURCE = "file"
"""What stands for the source of a bare log."""

Listener = Callable[[str, Record | None], None]
"""Called with an id and its record, new or changed; with None once it is gone."""

logger = logging.getLogger("tornado_logs")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deployments somebody wants to see; what is empty leaves all of them in.

    `text` stands in the name, whatever its case, or is the whole id. `since` and `until` are times
    as records have them: created at the first or later, and before the second.
    """

    state: str = ""
    source: str = ""
    text: str = ""
    since: str = ""
    until: str = ""

    def matches(self, record: Record) -> bool:
        """Whether this deployment is wanted."""
        return (
            (not self.state or record.state == self.state)
            and (not self.source or (record.source or BARE_SOURCE) == self.source)
            and record.created_at >= self.since
            and (not self.until or record.created_at < self.until)
            and (self.text in record.name.casefold() or self.text == record.id.casefold())
        )


class Deployments:
    """Everything in one data folder. Its methods belong to the event loop's thread.

    At the start only the names are read; the records follow, newest first, between other work, or
    as soon as somebody asks for them.
    """

    def __init__(self, data_dir: str, launcher: Launcher) -> None:
        self.data_dir = data_dir
        self._launcher = launcher
        self._records: dict[str, Record | None] = {}  # None: not read yet
        self._unended: set[str] = set()  # of those that were read
        self._ages: dict[str, Age] = {}
        self._oldest_first: list[Age] = []
        self._listeners: set[Listener] = set()
        self._log_listeners: dict[str, Callable[[], None]] = {}
        self._watch: FolderWatch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._rechecks: dict[tuple[str, Callable[[str], None]], asyncio.TimerHandle] = {}
        self._alive_checks: Ticks | None = None
        self._all_read = asyncio.Event()
        self._unread: set[str] = set()  # there was no descriptor to read them with
        self._unread_timer: asyncio.TimerHandle | None = None
        self._waiting_ids: list[str] = []
        self._waiting_until = 0.0
        self._queue_news: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """See what is there and watch for changes. Raises OSError."""
        self._watch = FolderWatch(self.data_dir, self._on_change)
        for entry in os.scandir(self.data_dir):
            name = entry.name.removesuffix(".log")
            if name != entry.name:
                self._note_name(name)
        self._oldest_first = sorted(self._ages.values())
        # Also where a dying process is told of: once is too few for a promise.
        seconds = _RECHECK_ALIVE_SECONDS if self._watch.tells_closing else _POLL_ALIVE_SECONDS
        self._alive_checks = Ticks(self._check_all_alive, seconds)
        self._alive_checks.start()
        self._run(self._read_all())

    def _note_name(self, deployment_id: str) -> None:
        if is_id(deployment_id):
            self._records[deployment_id] = None
            self._ages[deployment_id] = self._age(deployment_id)
        else:
            logger.warning("%s.log in %s is left out: %s", deployment_id, self.data_dir, _NAME_HINT)

    async def _read_all(self) -> None:
        for _, deployment_id in reversed(self._oldest_first.copy()):
            self.get(deployment_id)
            await asyncio.sleep(0)
        self._all_read.set()

    async def find_new(self) -> None:
        """See now what somebody else has started, and what will be told in a moment."""
        loop = asyncio.get_running_loop()
        for name in await loop.run_in_executor(None, os.listdir, self.data_dir):
            stem = name.removesuffix(".log")
            if stem != name and stem not in self._records and is_id(stem):
                self._refresh(stem)

    async def wait_until_read(self) -> None:
        """Wait until every record was read once."""
        await self._all_read.wait()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()
        if self._alive_checks is not None:
            self._alive_checks.stop()
        for task in self._tasks:
            task.cancel()
        for timer in (*self._rechecks.values(), self._unread_timer):
            if timer is not None:
                timer.cancel()
        if self._queue_news is not None:
            self._queue_news.cancel()

    def log_path(self, deployment_id: str) -> str:
        """Where its log is."""
        return self._path(deployment_id, ".log")

    def get(self, deployment_id: str) -> Record | None:
        """The record as it is now; None if there is no such deployment."""
        record = self._records.get(deployment_id)
        if record is None and is_id(deployment_id):
            self._refresh(deployment_id)
            record = self._records.get(deployment_id)
        return record

    def summary(self, record: Record) -> dict[str, Any]:
        """The record as clients get it."""
        path = self.log_path(record.id)
        try:
            log_bytes = os.stat(path).st_size
            dropped_bytes = None if record.dropped_bytes is None else _first_byte(path, record)
        except FileNotFoundError:
            log_bytes, dropped_bytes = 0, record.dropped_bytes
        return dict(summary(record, log_bytes, dropped_bytes)) | self._queue_place(record)

    def _queue_place(self, record: Record) -> dict[str, Any]:
        """The `queue` of one that waits there: its place (1 is next), and whose name it wants."""
        if record.state is not State.QUEUED:
            return {}
        place = bisect_left(self._waiting(), record.id)
        if record.id not in self._waiting()[place : place + 1]:
            return {}
        return {"queue": {"place": place + 1, "held_by": self._holder(record)}}

    def _holder(self, record: Record) -> dict[str, Any] | None:
        """Who runs under the exclusive name that this one waits for."""
        if not record.exclusive:
            return None
        for other in self.running():
            if other.exclusive == record.exclusive and other.state is State.RUNNING:
                since = other.started_at or other.created_at
                return {"id": other.id, "name": other.name, "since": since}
        return None

    def _waiting(self) -> list[str]:
        """All that wait in the queue, as of a moment ago: a page asks for each of them."""
        now = time.monotonic()
        if now >= self._waiting_until:
            with contextlib.suppress(OSError):  # too many open files: as of a moment before that
                self._waiting_ids = self._launcher.queue.waiting()
            self._waiting_until = now + _QUEUE_SECONDS
        return self._waiting_ids

    def running(self) -> list[Record]:
        """All whose records were read and say that they have not ended."""
        found = (self._records.get(deployment_id) for deployment_id in self._unended)
        return [record for record in found if record is not None]

    def is_running(self, deployment_id: str) -> bool:
        """Whether it hasn't ended, as far as its record was read."""
        return deployment_id in self._unended

    def ids_oldest_first(self) -> list[str]:
        """All that there are."""
        return [deployment_id for _, deployment_id in self._oldest_first]

    def created_since(self, timestamp: str) -> list[Record]:
        """All that were created at or after this time."""
        wanted = Filter(since=timestamp)
        found = (self.get(deployment_id) for _, deployment_id in self._between(None, wanted))
        return [record for record in found if record and wanted.matches(record)]

    async def page(
        self, limit: int, before: str | None, wanted: Filter, seconds: float | None = None
    ) -> tuple[list[Record], str | None]:
        """At most `limit` records older than `before`, newest first, and what to page on with.

        After about `seconds` these are what was found by then: some records may have to be read.
        `before` may have been removed meanwhile. Raises LookupError if it can't ever have been.
        """
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        found: list[Record] = []
        for number, (_, deployment_id) in enumerate(reversed(self._between(before, wanted)), 1):
            record = self.get(deployment_id)
            if record is not None and wanted.matches(record):
                if len(found) == limit:
                    return found, found[-1].id
                found.append(record)
            if number % _TURN_RECORDS == 0:
                if deadline is not None and loop.time() >= deadline:
                    return found, deployment_id
                await asyncio.sleep(0)
        return found, None

    def _between(self, before: str | None, wanted: Filter) -> list[Age]:
        """All older than `before` that their time doesn't rule out; an id tells whole seconds."""
        ages = self._oldest_first
        start = bisect_left(ages, (wanted.since[:19], ""))
        end = bisect_left(ages, (wanted.until, "")) if wanted.until else len(ages)
        if before:
            end = min(end, bisect_left(ages, self._age_of(before)))
        return ages[start:end]

    async def last_lines(self, records: Sequence[Record]) -> list[str]:
        """The last line of the log of each, read in a thread."""
        paths = [self.log_path(record.id) for record in records]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: [last_line(path) for path in paths])

    def _age_of(self, deployment_id: str) -> Age:
        if age := self._ages.get(deployment_id):
            return age
        if created_at := created_at_of(deployment_id):
            return created_at, deployment_id
        raise LookupError(deployment_id)

    def _age(self, deployment_id: str) -> Age:
        """By what it is listed: an id of ours tells, a bare log was written at some time."""
        created_at = created_at_of(deployment_id)
        if created_at is None:
            try:
                created_at = timestamp(os.stat(self.log_path(deployment_id)).st_mtime)
            except OSError:
                created_at = timestamp()
        return created_at, deployment_id

    def add(self, record: Record) -> None:
        """A deployment that has just been created here, or its record changed."""
        self._keep(record)
        if record.state is State.QUEUED:
            self._waiting_until = 0.0  # it may have come to the queue just now
        if record.id not in self._ages:
            self._ages[record.id] = self._age(record.id)
            insort(self._oldest_first, self._ages[record.id])
        self._tell(record.id, record)
        self._tell_of_queue_soon()

    def _keep(self, record: Record) -> None:
        self._records[record.id] = record
        if record.state.is_final:
            self._unended.discard(record.id)
        else:
            self._unended.add(record.id)

    def _tell_of_queue_soon(self) -> None:
        """Somebody's end, or beginning, moves those who wait: tell of their places, by and by."""
        waiting = self._waiting()
        if waiting and self._queue_news is None:
            seconds = max(_QUEUE_NEWS_SECONDS, len(waiting) * _QUEUE_NEWS_SECONDS_EACH)
            loop = asyncio.get_running_loop()
            self._queue_news = loop.call_later(seconds, self._tell_of_queue)

    def _tell_of_queue(self) -> None:
        self._queue_news = None
        for deployment_id in self._waiting():
            record = self._records.get(deployment_id)
            if record is not None and record.state is State.QUEUED:
                self._tell(deployment_id, record)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every change, until the function returned is called."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def listen_to_log(self, deployment_id: str, grew: Callable[[], None] | None) -> None:
        """Have `grew` called when this log may have grown; None ends that."""
        if grew is None:
            del self._log_listeners[deployment_id]
            if not self._is_bare(deployment_id):
                self._unfollow(deployment_id)
        else:
            self._log_listeners[deployment_id] = grew
            self._follow(deployment_id)
            grew()  # nothing was told until now

    def _is_bare(self, deployment_id: str) -> bool:
        record = self._records.get(deployment_id)
        return record is not None and record.request is None

    def _follow(self, deployment_id: str) -> None:
        if self._watch is not None:
            self._watch.follow(f"{deployment_id}.log")

    def _unfollow(self, deployment_id: str) -> None:
        if self._watch is not None:
            self._watch.unfollow(f"{deployment_id}.log")

    def _tell(self, deployment_id: str, record: Record | None) -> None:
        for listener in tuple(self._listeners):
            listener(deployment_id, record)

    def _on_change(self, changes: Changes) -> None:
        written, changed = changes.written, changes.changed
        if changes.overflow:
            names = {f"{known}.json" for known in self._records}
            with contextlib.suppress(OSError):  # too many open files: at least what is known
                names = {entry.name for entry in os.scandir(self.data_dir)}
            written = changed = names | {f"{known}.log" for known in self._records}
        for name in written | changed:
            stem, dot, suffix = name.rpartition(".")
            if not dot or not is_id(stem):
                continue
            if suffix == "json" and name in changed:
                self._refresh(stem)
            elif suffix == "log":
                self._on_log_change(stem, only_written=name not in changed)

    def _on_log_change(self, deployment_id: str, *, only_written: bool) -> None:
        if grew := self._log_listeners.get(deployment_id):
            if not only_written:
                self._follow(deployment_id)  # it may be another file by now
            grew()
        record = self._records.get(deployment_id)
        if record is None or (
            record.request is None and (record.state.is_final or not only_written)
        ):
            self._refresh(deployment_id)
        elif only_written:
            return
        elif not os.path.exists(self.log_path(deployment_id)):
            self._forget(deployment_id)
        elif not record.state.is_final:
            self._check_alive_soon(deployment_id)

    def _check_all_alive(self) -> None:
        for record in self.running():
            if record.request is not None:
                self._check_alive_soon(record.id)

    def _refresh(self, deployment_id: str) -> None:
        """Read the record anew, or look at the bare log anew."""
        try:
            record = self._read(deployment_id)
        except FileNotFoundError:
            self._forget(deployment_id)
            return
        if record.request is not None and not record.state.is_final:
            self._check_alive_soon(deployment_id)
        if deployment_id in self._records and self._records[deployment_id] is None:
            self._keep(record)  # read for the first time: nothing has changed
        elif record != self._records.get(deployment_id):
            self.add(record)

    def _read(self, deployment_id: str) -> Record:
        """Raises FileNotFoundError if there is no log, or it goes while we look."""
        if not os.path.isfile(self.log_path(deployment_id)):
            raise FileNotFoundError(self.log_path(deployment_id))
        try:
            return read_record(self._path(deployment_id, ".json"))
        except FileNotFoundError:
            return self._bare(deployment_id)
        except (OSError, ValueError) as error:
            known = self._records.get(deployment_id)
            if isinstance(error, OSError) and error.errno in EXHAUSTED:
                self._read_later(deployment_id)
                if known is not None:
                    return known
            record = self._bare(deployment_id)
            record.error = f"its record {deployment_id}.json can't be read: {error}"
            return record

    def _read_later(self, deployment_id: str) -> None:
        # Not by `_later`, which knows one thing to do for each: it may be another by now.
        if not self._unread:
            loop = asyncio.get_running_loop()
            self._unread_timer = loop.call_later(_RECHECK_SECONDS, self._read_unread)
        self._unread.add(deployment_id)

    def _read_unread(self) -> None:
        unread, self._unread = self._unread, set()
        for deployment_id in unread:
            self._refresh(deployment_id)

    def _forget(self, deployment_id: str) -> None:
        if self._watch is not None and not os.path.isdir(self.data_dir):
            self._watch.note_absence()  # the whole folder was moved: it may come back
            return
        self._records.pop(deployment_id, None)
        self._unended.discard(deployment_id)
        self._unfollow(deployment_id)
        if age := self._ages.pop(deployment_id, None):
            del self._oldest_first[bisect_left(self._oldest_first, age)]
            self._tell(deployment_id, None)

    def _bare(self, deployment_id: str) -> Record:
        self._follow(deployment_id)  # whoever writes it, we are to notice that it runs again
        path = self.log_path(deployment_id)
        known = self._records.get(deployment_id)
        writing = is_being_written(path)
        written_at = timestamp(os.stat(path).st_mtime)  # asked last: it isn't "finished" but gone
        created_at = known.created_at if known else written_at
        if writing:
            self._later(deployment_id, _RECHECK_SECONDS, self._refresh)
        return Record(
            id=deployment_id,
            name=f"{deployment_id}.log",
            state=State.RUNNING if writing else State.FINISHED,
            created_at=created_at,
            started_at=created_at,
            ended_at=None if writing else written_at,
        )

    def _later(self, deployment_id: str, seconds: float, call: Callable[[str], None]) -> None:
        key = (deployment_id, call)
        if key in self._rechecks:
            return

        def run() -> None:
            del self._rechecks[key]
            call(deployment_id)

        self._rechecks[key] = asyncio.get_running_loop().call_later(seconds, run)

    def _check_alive_soon(self, deployment_id: str) -> None:
        # The kernel tells of the closed log a moment before it lets go of the lock.
        self._later(deployment_id, _LOCK_RELEASE_SECONDS, self._start_check)

    def _start_check(self, deployment_id: str) -> None:
        self._run(self._check_alive(deployment_id))

    async def _check_alive(self, deployment_id: str) -> None:
        loop = asyncio.get_running_loop()
        lost = await loop.run_in_executor(None, self._launcher.find_lost, deployment_id)
        if lost is not None:
            self._add_lost(lost)

    def _add_lost(self, record: Record) -> None:
        # It may have been removed meanwhile, and forgotten: nobody would do that a second time.
        if os.path.isfile(self.log_path(record.id)):
            self.add(record)

    def _path(self, deployment_id: str, suffix: str) -> str:
        return os.path.join(self.data_dir, deployment_id + suffix)


def _first_byte(path: str, record: Record) -> int:
    """See `LogFile.first_byte`. Raises OSError."""
    log = LogFile(path, record.dropped_bytes)
    try:
        return log.first_byte()
    finally:
        log.close()


_NAME_HINT = (
    "a name has letters, digits, '.', '_' and '-' only, and begins with none of the last two"
)
