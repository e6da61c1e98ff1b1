"""Which deployments may run: so many at once, one at a time of each exclusive name, in their order.

    queue = RunQueue("data")
    entry_fd = queue.enter(deployment_id, exclusive="prod")       # in the server
    queue.has_turn(deployment_id)                                 # in the capture process
    queue.leave(deployment_id)                                    # there too, once it has ended

Who waits is a capture process that waits: the queue is nobody's memory, and outlives any server. In
`data/.queue` each deployment has an empty-handed file, `<id>.waiting` or `<id>.running`, with its
exclusive name in it. Its capture process holds the file's lock for life, so one that dies gives its
place up by that. Whoever enters, leaves or looks passes turns on, one at a time, by renaming files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tornado_logs import processes
from tornado_logs.deployment import process_start, read_record
from tornado_logs.disk import write_atomically
from tornado_logs.source import DEPLOYMENT_VARIABLE

QUEUE_FOLDER = ".queue"

WAKE_SIGNAL = signal.SIGURG
"""Tells a capture process that its turn may have come. One that reaches another is ignored."""

_WAITING, _RUNNING = ".waiting", ".running"
_LOCK_SECONDS = 1.0
_LOCK_RETRY_SECONDS = 0.002
_LOOK_SECONDS = 1.0
_MOST_LOOK_SECONDS = 30.0


class QueueError(Exception):
    """A deployment can't be queued."""


class QueueFullError(QueueError):
    """As many wait as may. `waiting`: how many."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


class HeldError(QueueError):
    """An exclusive name is another's. `deployment_id`: who has it, or waits for it first."""

    def __init__(self, deployment_id: str) -> None:
        super().__init__(deployment_id)
        self.deployment_id = deployment_id


@dataclass(frozen=True, slots=True)
class Entry:
    """A deployment that waits or runs."""

    id: str
    is_running: bool
    exclusive: str = ""


def next_to_run(entries: Iterable[Entry], max_running: int) -> list[Entry]:
    """Those who wait and may run now, in their order (ids sort by time).

    Who waits for a name lets those behind pass who don't want it.
    """
    entries = sorted(entries, key=lambda entry: entry.id)
    room = max_running - sum(entry.is_running for entry in entries)
    taken = {entry.exclusive for entry in entries if entry.is_running} - {""}
    found: list[Entry] = []
    for entry in entries:
        if room <= len(found):
            break
        if not entry.is_running and entry.exclusive not in taken:
            found.append(entry)
            taken |= {entry.exclusive} - {""}
    return found


class RunQueue:
    """The queue of one data folder. Its methods take some 0.1 ms, `enter` more with many names."""

    def __init__(self, data_dir: str) -> None:
        """Touches no file."""
        self._data_dir = data_dir
        self._folder = os.path.join(data_dir, QUEUE_FOLDER)
        self._limit_path = os.path.join(self._folder, "max_running")

    def open(self, max_running: int) -> None:
        """Say how many may run, to those too who wait already. Raises OSError."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        write_atomically(self._limit_path, b"%d\n" % max_running)
        self.pass_on()

    def enter(
        self, deployment_id: str, exclusive: str = "", *, may_wait: bool = True, max_queued: int
    ) -> int:
        """Put a deployment at the queue's end; the descriptor that keeps it there as long as open.

        Raises HeldError if it may not wait for its name, QueueFullError, OSError.
        """
        with self._locked(_LOCK_SECONDS) as is_locked:
            if not is_locked:
                raise OSError(0, "the queue of deployments is locked by a process that is stopped")
            names = self._names()
            running, waiting = _ids(names, _RUNNING), _ids(names, _WAITING)
            is_short = not waiting and len(running) < self._max_running()
            if is_short and not exclusive:
                return self._add(deployment_id, _RUNNING, exclusive)
            entries = self._living(names)
            if not may_wait and (holder := _holder(entries, exclusive)):
                raise HeldError(holder)
            new = Entry(deployment_id, is_running=False, exclusive=exclusive)
            may_run = new in next_to_run([*entries, new], self._max_running())
            if not may_run and len(waiting) >= max_queued:
                raise QueueFullError(len(waiting))
            return self._add(deployment_id, _RUNNING if may_run else _WAITING, exclusive)

    def has_turn(self, deployment_id: str) -> bool:
        """Whether this deployment waits no longer."""
        return not os.path.exists(self._path(deployment_id, _WAITING))

    def waiting(self) -> list[str]:
        """The ids of all that wait, in their order."""
        return _ids(self._names(), _WAITING)

    def look_again_seconds(self, deployment_id: str) -> float:
        """After how long one who waits is to `pass_on`, in case that somebody died in his turn."""
        place = sum(other <= deployment_id for other in self.waiting())
        return min(_LOOK_SECONDS * max(1, place), _MOST_LOOK_SECONDS)

    def pass_on(self) -> None:
        """Let those run whose turn it is. What fails now, who waits will try again."""
        with contextlib.suppress(OSError), self._locked(0.0) as is_locked:
            if is_locked:  # else whoever has the lock does this
                self._let_run()

    def leave(self, deployment_id: str) -> None:
        """A deployment has ended, or waits no longer: let the next run."""
        with contextlib.suppress(OSError), self._locked(_LOCK_SECONDS) as is_locked:
            for suffix in (_WAITING, _RUNNING):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(deployment_id, suffix))
            if is_locked:  # else who waits finds out, a moment later
                self._let_run()

    def _let_run(self) -> None:
        names = self._names()
        if not _ids(names, _WAITING):
            return
        for entry in next_to_run(self._living(names), self._max_running()):
            os.rename(self._path(entry.id, _WAITING), self._path(entry.id, _RUNNING))
            self._wake(entry.id)

    def _wake(self, deployment_id: str) -> None:
        # Where its record isn't whole or has no process yet, that one looks for itself.
        with contextlib.suppress(OSError, ValueError):
            record = read_record(os.path.join(self._data_dir, f"{deployment_id}.json"))
            pid = record.capture_pid
            if pid is not None and process_start(pid) == record.capture_started:
                os.kill(pid, WAKE_SIGNAL)

    def _add(self, deployment_id: str, suffix: str, exclusive: str) -> int:
        path = self._path(deployment_id, suffix)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, exclusive.encode())
        except OSError:
            os.close(fd)
            os.unlink(path)
            raise
        return fd

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []

    def _living(self, names: Iterable[str]) -> list[Entry]:
        """The entries whose processes live. What the others left behind is removed."""
        found = []
        for name in names:
            deployment_id, suffix = os.path.splitext(name)
            if suffix in (_WAITING, _RUNNING):
                with contextlib.suppress(FileNotFoundError):
                    entry, is_alive = self._look(deployment_id, suffix)
                    if is_alive:
                        found.append(entry)
                    else:
                        os.unlink(self._path(deployment_id, suffix))
        return found

    def _look(self, deployment_id: str, suffix: str) -> tuple[Entry, bool]:
        fd = os.open(self._path(deployment_id, suffix), os.O_RDONLY)
        try:
            exclusive = os.pread(fd, 4096, 0).decode(errors="replace")
            entry = Entry(deployment_id, suffix == _RUNNING, exclusive)
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return entry, True
        finally:
            os.close(fd)
        return entry, entry.is_running and exclusive != "" and self._has_left_its_command(entry.id)

    def _has_left_its_command(self, deployment_id: str) -> bool:
        """Whether the command outlives its capture process: a name stays taken as long."""
        # No record, or one that can't be right: then there is nothing to go by.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            record = read_record(os.path.join(self._data_dir, f"{deployment_id}.json"))
            if record.pid is not None and record.pid_started is not None:
                return process_start(record.pid) == record.pid_started
            # It may have died between the command's start and the word of that. A server, which
            # looks through all processes as it finds the deployment lost, tells what is left of it.
            return not record.state.is_final or any(
                processes.has_variable(left["pid"], DEPLOYMENT_VARIABLE, deployment_id)
                for left in record.left_running
            )
        return False

    def _max_running(self) -> int:
        with open(self._limit_path, "rb") as file:
            return int(file.read())

    @contextlib.contextmanager
    def _locked(self, seconds: float) -> Iterator[bool]:
        """Have the queue to ourselves, if that comes to be within `seconds`: whether it has."""
        fd = os.open(os.path.join(self._folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield _try_lock(fd, seconds)
        finally:
            os.close(fd)

    def _path(self, deployment_id: str, suffix: str) -> str:
        return os.path.join(self._folder, deployment_id + suffix)


def _try_lock(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(_LOCK_RETRY_SECONDS)


def _ids(names: Iterable[str], suffix: str) -> list[str]:
    return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))


def _holder(entries: Sequence[Entry], exclusive: str) -> str | None:
    """Who runs under this name, or waits for it first."""
    same = (entry for entry in entries if exclusive and entry.exclusive == exclusive)
    return next((e.id for e in sorted(same, key=lambda e: (not e.is_running, e.id))), None)
