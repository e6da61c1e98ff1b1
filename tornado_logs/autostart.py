"""Starts the sources whose section says `autostart`, and what their globs come to match later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from tornado_logs.catalog import Catalog, RequestError
from tornado_logs.deployment import Record
from tornado_logs.launcher import LaunchError
from tornado_logs.store import Deployments

logger = logging.getLogger("tornado_logs")


class Autostart:
    """Looks again and again which deployments the config stands for, and starts the missing."""

    def __init__(
        self,
        catalog: Catalog,
        deployments: Deployments,
        launch: Callable[[Record, str], None],
        rescan_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._deployments = deployments
        self._launch = launch
        self._rescan_seconds = rescan_seconds
        self._started: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if there is anything to start."""
        if self._catalog.autostarted():
            self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """Start nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        await self._deployments.wait_until_read()  # one that runs already isn't started again
        first = True
        while True:
            for section in self._catalog.autostarted():
                changes = await loop.run_in_executor(None, self._catalog.expand, section.name)
                for change in changes:
                    self._start(section.name, change, first=first)
            first = False
            await asyncio.sleep(self._rescan_seconds)

    def _start(self, name: str, change: Mapping[str, Any], *, first: bool) -> None:
        """Start it unless it was started already, by this server or by the one before.

        What somebody stops is not started again before the server is.
        """
        key = f"{name} {sorted(change.items())}"
        if key in self._started:
            return
        self._started.add(key)
        if self._is_running(name, change):
            return
        request = dict(change) if first else self._catalog.discovered(name, change)
        try:
            record, class_name = self._catalog.make(name, request, request)
            self._launch(record, class_name)
        except (RequestError, LaunchError) as error:
            logger.error("cannot start %s: %s", name, error)
            return
        self._deployments.add(record)

    def _is_running(self, name: str, change: Mapping[str, Any]) -> bool:
        return any(
            record.source == name
            and all(record.settings.get(key) == value for key, value in change.items())
            for record in self._deployments.running()
        )
