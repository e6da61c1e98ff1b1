"""Removes deployments that have ended: by age, by number, by the size of all logs.

    retention = Retention(deployments, Keep(days=30, deployments=None, log_bytes=None))
    retention.start()

Never one that runs, one whose command still does, or a bare log, which isn't ours. A deployment's
log goes first, so that, whatever ends us in between, what is left is no deployment; it goes later.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial

from tornado_logs.deployment import Record, created_at_of, read_record, timestamp
from tornado_logs.processes import has_ended
from tornado_logs.store import Deployments

_LOOK_SECONDS = 60.0
_TIDY_SECONDS = 3600.0
_DAY_SECONDS = 86400.0
_SUFFIXES = (".log", ".idx", ".json", ".stop")

logger = logging.getLogger("tornado_logs")


@dataclass(frozen=True, slots=True)
class Keep:
    """What of the ended deployments is kept; None: all. `log_bytes` are of all logs, on disk."""

    days: float | None = None
    deployments: int | None = None
    log_bytes: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is ever removed."""
        return (self.days, self.deployments, self.log_bytes) == (None, None, None)


class Retention:
    """Looks every minute for what is to be removed, in a thread."""

    def __init__(self, deployments: Deployments, keep: Keep) -> None:
        self._deployments = deployments
        self._data_dir = deployments.data_dir
        self._keep = keep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a first look, once it is known what there is."""
        self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """Remove nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        await self._deployments.wait_until_read()
        tidy_at = loop.time()
        while True:
            if loop.time() >= tidy_at:
                await loop.run_in_executor(None, self._work, self.tidy)
                tidy_at = loop.time() + _TIDY_SECONDS
            if not self._keep.is_all:
                look = partial(self.look, self._deployments.ids_oldest_first())
                await loop.run_in_executor(None, self._work, look)
            await asyncio.sleep(_LOOK_SECONDS)

    def _work(self, work: Callable[[], Sequence[str]]) -> None:
        try:
            removed = work()
        except OSError as error:  # the next look may fare better
            logger.error("cannot remove old deployments: %s", error)
            return
        if removed:
            logger.info("removed %d: %s …", len(removed), ", ".join(removed[:3]))

    def look(self, oldest_first: Sequence[str]) -> list[str]:
        """Remove what isn't to be kept of these; their ids. May read much."""
        with_record = {name for name in os.listdir(self._data_dir) if name.endswith(".json")}
        ours = [one for one in oldest_first if f"{one}.json" in with_record]
        removed = list(self._remove_by_age(ours))
        left = [one for one in ours if one not in set(removed)]
        removed += self._remove_by_number(left)
        left = [one for one in left if one not in set(removed)]
        return removed + list(self._remove_by_size(left))

    def _remove_by_age(self, ids: Iterable[str]) -> Iterator[str]:
        if self._keep.days is None:
            return
        oldest = timestamp(max(0.0, time.time() - self._keep.days * _DAY_SECONDS))
        for deployment_id in ids:
            if (created_at_of(deployment_id) or "") > oldest:
                return  # this and what follows has ended later still
            record = self._record(deployment_id)
            if record and (record.ended_at or "") < oldest and self._remove(deployment_id):
                yield deployment_id

    def _remove_by_number(self, ids: Sequence[str]) -> Iterator[str]:
        if self._keep.deployments is None:
            return
        ended = [one for one in ids if not self._deployments.is_running(one)]
        for deployment_id in ended[: max(0, len(ended) - self._keep.deployments)]:
            if self._remove(deployment_id):
                yield deployment_id

    def _remove_by_size(self, ids: Sequence[str]) -> Iterator[str]:
        if self._keep.log_bytes is None:
            return
        sizes = {one: self._disk_bytes(one) for one in ids}
        excess = sum(sizes.values()) - self._keep.log_bytes
        for deployment_id in ids:
            if excess <= 0:
                return
            if sizes[deployment_id] and self._remove(deployment_id):
                excess -= sizes[deployment_id]
                yield deployment_id

    def _disk_bytes(self, deployment_id: str) -> int:
        try:
            return os.stat(self._path(deployment_id, ".log")).st_blocks * 512
        except FileNotFoundError:
            return 0

    def _record(self, deployment_id: str) -> Record | None:
        try:
            return read_record(self._path(deployment_id, ".json"))
        except (OSError, ValueError):  # what can't be understood isn't ours to remove
            return None

    def _remove(self, deployment_id: str) -> bool:
        """Remove it if it has ended; whether it has."""
        try:
            fd = os.open(self._path(deployment_id, ".log"), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            record = self._record(deployment_id)
            if record is None or not record.state.is_final or _still_runs(record):
                return False
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(deployment_id, suffix))
            return True
        except BlockingIOError:  # it is being captured
            return False
        finally:
            os.close(fd)

    def tidy(self) -> list[str]:
        """Remove files of an hour ago that something has left when it was killed; their names."""
        names = set(os.listdir(self._data_dir))
        return [name for name in sorted(names) if _is_left(name, names) and self._remove_old(name)]

    def _remove_old(self, name: str) -> bool:
        path = os.path.join(self._data_dir, name)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_mtime < time.time() - _TIDY_SECONDS:
                os.unlink(path)
                return True
        return False

    def _path(self, deployment_id: str, suffix: str) -> str:
        return os.path.join(self._data_dir, deployment_id + suffix)


def _still_runs(record: Record) -> bool:
    return any(not has_ended(process["pid"]) for process in record.left_running)


def _is_left(name: str, names: Set[str]) -> bool:
    """Whether this is a file of ours that belongs to nothing."""
    if name.startswith("."):
        return name.endswith(".tmp") and ".json." in name
    stem, suffix = os.path.splitext(name)
    if created_at_of(name) is None or suffix not in (".json", ".idx", ".stop", ".new"):
        return False
    return suffix == ".new" or not (f"{stem}.log" in names or f"{stem}.log.new" in names)
