"""Starts the sources whose section says `autostart`, and what their globs come to match later."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tornado_logs.catalog import Catalog, Job, RequestError
from tornado_logs.deployment import Record, State, is_held, timestamp
from tornado_logs.launcher import LaunchError
from tornado_logs.source import SourceError
from tornado_logs.store import Deployments

LOCK_FILE = ".autostart.lock"

logger = logging.getLogger("tornado_logs")


class Autostart:
    """Looks again and again which deployments the config stands for, and starts the missing."""

    def __init__(
        self,
        catalog: Catalog,
        deployments: Deployments,
        launch: Callable[[Record, Job], None],
        rescan_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._deployments = deployments
        self._launch = launch
        self._rescan_seconds = rescan_seconds
        self._started: dict[str, str] = {}  # what a change stands for -> the deployment's id
        # What could not be launched: whether it was there at first, and why it could not.
        self._waiting: dict[str, tuple[bool, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, since: str | None = None) -> None:
        """Begin, if there is anything to start.

        `since`: since when the server runs, for a process that isn't the first to look: what came
        to be since then is taken from its beginning, and what has ended isn't started again.
        """
        if self._catalog.autostarted():
            self._task = asyncio.create_task(self._run(since))

    def close(self) -> None:
        """Start nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, since: str | None) -> None:
        loop = asyncio.get_running_loop()
        await self._deployments.wait_until_read()  # one that runs already isn't started again
        is_first = since is None
        while True:
            # Another server may have started it, and it may have ended, since we last looked.
            before = self._deployments.created_since(since) if since else []
            since = timestamp()
            is_done = True
            for section in self._catalog.autostarted():
                try:
                    changes = await loop.run_in_executor(None, self._catalog.expand, section.name)
                except (OSError, SourceError) as error:  # the others are looked at all the same
                    reason = self._catalog.masked(str(error))
                    logger.error("cannot look for what %s stands for: %s", section.name, reason)
                    continue
                missing = [c for c in changes if not self._is_known(section.name, c, before)]
                if missing:
                    is_done &= await self._start_alone(
                        section.name, missing, before, is_first=is_first
                    )
            is_first = is_first and not is_done
            await asyncio.sleep(self._rescan_seconds)

    async def _start_alone(
        self,
        name: str,
        missing: Sequence[Mapping[str, Any]],
        before: Sequence[Record],
        *,
        is_first: bool,
    ) -> bool:
        """Start these, but for what another server of this folder has started by now.

        False if that one is at it: the next round sees what it has started.
        """
        with self._lock() as is_locked:
            if is_locked:
                await self._deployments.find_new()
                for change in missing:
                    if not self._is_known(name, change, before):
                        self._start(name, change, is_first=is_first)
        return is_locked

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """What one server of a folder holds while it looks and starts: whether we have it."""
        path = os.path.join(self._deployments.data_dir, LOCK_FILE)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            logger.error("cannot start anything by itself: %s: %s", path, error.strerror)
            yield False
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(fd)

    def _is_known(self, name: str, change: Mapping[str, Any], before: Sequence[Record]) -> bool:
        """Whether it runs, or was started already: by this process or as one of `before`.

        What somebody stops is not started again before the server is; what was lost, is.
        """
        key = _key(name, change)
        if self._is_done(key) or self._is_in_data_dir(change):
            return True
        if known := self._find(name, change, before):
            self._started[key] = known.id
        return known is not None

    def _start(self, name: str, change: Mapping[str, Any], *, is_first: bool) -> None:
        key = _key(name, change)
        self._started[key] = ""
        is_first, told = self._waiting.pop(key, (is_first, ""))
        request = dict(change) if is_first else self._catalog.discovered(name, change)
        try:
            record, job = self._catalog.make(name, request, request)
            self._launch(record, job)
        except RequestError as error:
            logger.error("cannot start %s: %s", name, error)
            return
        except LaunchError as error:  # a full disk, say: tried again, and told once
            self._waiting[key] = is_first, str(error)
            del self._started[key]
            if not told:
                logger.error("cannot start %s: %s; it is tried again", name, error)
            return
        self._started[key] = record.id
        self._deployments.add(record)

    def _is_done(self, key: str) -> bool:
        if key not in self._started:
            return False
        record = self._deployments.get(self._started[key])
        return record is None or record.state is not State.LOST

    def _is_in_data_dir(self, change: Mapping[str, Any]) -> bool:
        """Whether it stands for a file of ours: following our own logs would never end."""
        folder = os.path.realpath(self._deployments.data_dir)
        return any(
            isinstance(value, str) and os.path.dirname(os.path.realpath(value)) == folder
            for value in change.values()
        )

    def _find(
        self, name: str, change: Mapping[str, Any], before: Sequence[Record]
    ) -> Record | None:
        """What runs of it already, or what of it is among `before`."""
        change = self._catalog.masked(dict(change))
        found = (
            record
            for record in (*self._deployments.running(), *before)
            if record.source == name
            and all(record.settings.get(key) == value for key, value in change.items())
            # Its record may say so still, after the machine went down with all of them.
            and (record.state.is_final or is_held(self._deployments.log_path(record.id)))
            and record.state is not State.LOST
        )
        return next(found, None)


def _key(name: str, change: Mapping[str, Any]) -> str:
    return f"{name} {sorted(change.items())}"
