"""Calls something time and again on the event loop, at little cost.

    ticks = Ticks(look, 1.0)
    ticks.start()

Tornado's PeriodicCallback makes a task of each call, which takes the loop three rounds: a server
that waits for something to happen took twice the time with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Ticks:
    """Calls `callback` every `seconds`, from `start` to `stop`. What it raises, the loop logs."""

    def __init__(self, callback: Callable[[], None], seconds: float) -> None:
        self._callback = callback
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call it for the first time once the seconds have passed."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def stop(self) -> None:
        """Call it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self.start()
        self._callback()
