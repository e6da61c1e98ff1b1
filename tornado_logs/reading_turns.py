"""Who catches up with a log reads in turns, each for a moment: nobody else waits for long.

    await turns.ask(viewer)               # before each block
    if turns.may_go_on(viewer): ...       # another one in the same turn

However many there are, one reads in each turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

_TURN_SECONDS = 0.0005
"""How long a turn is while nobody else waits for one: some blocks."""

_SHARED_TURN_SECONDS = 0.0002
"""The same while others wait, for bare bytes."""


class ReadingTurns:
    """Those who wait for their turn, and whose it is."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._reader = 0  # by its id: nobody is kept who has gone
        self._until = 0.0

    def ask(self, reader: object, *, bare: bool = False) -> asyncio.Future[None]:
        """Done once `reader` has the turn: at once, if it may keep it (see `may_go_on`).

        It has to be awaited by who reads, not by way of a task: the turn is the loop's next round.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self.may_go_on(reader, bare=bare):
            future.set_result(None)
            return future
        self._waiting.append((id(reader), future))
        if len(self._waiting) == 1:
            loop.call_soon(self._let_read)
        return future

    def may_go_on(self, reader: object, *, bare: bool = False) -> bool:
        """Whether `reader` has the turn and may keep it.

        While others wait a turn is one block, so that all share it once it is encoded: the last few
        are kept. Of `bare` bytes, which cost each the same, it is as many as there is time for.
        """
        is_its = id(reader) == self._reader and (bare or not self._waiting)
        return is_its and asyncio.get_running_loop().time() < self._until

    def _let_read(self) -> None:
        loop = asyncio.get_running_loop()
        self._reader, future = self._waiting.popleft()
        self._until = loop.time() + (_SHARED_TURN_SECONDS if self._waiting else _TURN_SECONDS)
        if not future.done():  # it is, where the viewer has gone
            future.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_read)
