"""How many viewers there are: in all, of each address and of each deployment; and when it's enough.

    seat = viewers.admit("10.0.0.1", "20261122-104159-k3f9qd")     # raises TooManyViewersError
    try:
        ...                                                        # the stream
    finally:
        seat.release()

A viewer is whoever holds a stream open. Each costs a descriptor and some KB, so there is an end to
how many there may be. They are counted in the memory of this process: each worker counts its own.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from tornado_logs.attempts import client_network
from tornado_logs.config import Config

RETRY_AFTER_SECONDS = 5
"""When whoever was refused may try again."""

_AGAIN = f"try again in {RETRY_AFTER_SECONDS} seconds"
_SILENT_SECONDS = 60.0

logger = logging.getLogger("tornado_logs")


class TooManyViewersError(Exception):
    """One more would be too many. The message says of what, how many there are, and what to do.

    `of_address`: it is the client's own address that has too many.
    """

    def __init__(self, sentence: str, *, of_address: bool = False) -> None:
        super().__init__(sentence)
        self.of_address = of_address


class Viewers:
    """The viewers of one process. Each comes and goes at the cost of a few look-ups."""

    def __init__(self, config: Config, has_room: Callable[[], bool]) -> None:
        """`has_room`: whether the system still gives what a viewer takes (see `descriptors`)."""
        self._max = config.max_viewers
        self._max_per_address = config.max_viewers_per_address
        self._max_per_deployment = config.max_viewers_per_deployment
        self._has_room = has_room
        self._silent_until = 0.0
        self.count = 0
        self.by_address: dict[str, int] = {}
        self.by_deployment: dict[str, int] = {}

    def admit(self, address: str, deployment_id: str = "") -> Seat:
        """One more viewer, until its seat is released. Raises TooManyViewersError.

        Without a deployment's id it is one of the list, or of a deployment that is yet to start.
        """
        if self.count >= self._max:
            raise self._refusal(
                f"the server has {self.count:,} viewers, as many as it may (max_viewers); {_AGAIN}"
            )
        network = client_network(address)
        if self.by_address.get(network, 0) >= self._max_per_address:
            raise self._refusal(
                f"{self._max_per_address:,} streams are open to your address {address}, as many as "
                f"one may have (max_viewers_per_address); close some, or {_AGAIN}",
                of_address=True,
            )
        if self.by_deployment.get(deployment_id, 0) >= self._max_per_deployment:
            raise self._refusal(
                f"{deployment_id} has {self._max_per_deployment:,} viewers, as many as one "
                f"deployment may have (max_viewers_per_deployment); {_AGAIN}, or read it with "
                f"GET /logs/{deployment_id}/lines"
            )
        if not self._has_room():
            raise self._refusal(
                f"the server has as many files and connections open as the system lets it; {_AGAIN}"
            )
        self.count += 1
        _add(self.by_address, network, 1)
        seat = Seat(self, sys.intern(network))
        seat.watch(deployment_id)
        return seat

    def _refusal(self, sentence: str, *, of_address: bool = False) -> TooManyViewersError:
        """Said in the server's log too, once in a while: it comes with each viewer."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
            logger.warning("viewers are refused: %s", sentence)
        return TooManyViewersError(sentence, of_address=of_address)


class Seat:
    """What one viewer takes up. Kept for as long as its stream is open, so it is small."""

    __slots__ = ("_address", "_deployment_id", "_viewers")

    def __init__(self, viewers: Viewers, address: str) -> None:
        self._viewers: Viewers | None = viewers
        self._address = address
        self._deployment_id = ""

    def watch(self, deployment_id: str) -> None:
        """It is a viewer of this deployment, which has only just been started."""
        if self._viewers is not None and deployment_id:
            self._deployment_id = deployment_id
            _add(self._viewers.by_deployment, deployment_id, 1)

    def release(self) -> None:
        """The viewer has gone. A second time says nothing new."""
        viewers, self._viewers = self._viewers, None
        if viewers is None:
            return
        viewers.count -= 1
        _add(viewers.by_address, self._address, -1)
        if self._deployment_id:
            _add(viewers.by_deployment, self._deployment_id, -1)


def _add(counts: dict[str, int], key: str, change: int) -> None:
    """Change a count; what is at 0 takes no memory."""
    count = counts.get(key, 0) + change
    if count:
        counts[key] = count
    else:
        del counts[key]
