"""Counts what an address does in a minute, in a bounded memory; pure.

refused = Attempts()
attempt = refused.add("10.0.0.1")
if attempt.number > 10:
    ...                               # again in `attempt.seconds_left`
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS = 60.0
_MAX_ADDRESSES = 4096
_IPV6_PREFIX = 64
"""How much of an IPv6 address is the client's network: the rest it can choose as it likes."""


@dataclass(slots=True)
class Attempt:
    """What was counted, each from 1 on, and how many seconds are left of the minute."""

    number: int
    number_in_all: int
    seconds_left: float


class Attempts:
    """Of the newest few thousand addresses; who is forgotten counts from 1 again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._in_all = (-_SECONDS, 0)

    def __len__(self) -> int:
        """How many addresses are kept."""
        return len(self._counts)

    def add(self, address: str) -> Attempt:
        """One more of this address."""
        key, now = client_network(address), self._clock()
        began, number = _next(self._counts.pop(key, (now, 0)), now)
        self._counts[key] = began, number
        if len(self._counts) > _MAX_ADDRESSES:
            self._counts.popitem(last=False)
        self._in_all = _next(self._in_all, now)
        return Attempt(number, self._in_all[1], began + _SECONDS - now)


def _next(count: tuple[float, int], now: float) -> tuple[float, int]:
    began, number = count
    return (began, number + 1) if now < began + _SECONDS else (now, 1)


def client_network(address: str) -> str:
    """What one client has: an IPv4 address, or the network (/64) of an IPv6 one."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    except ValueError:
        return address
