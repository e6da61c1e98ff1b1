"""Viewers whose connections were taken from their handlers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tornado.iostream import IOStream

from tornado_logs.follower import Framing, Position
from tornado_logs.live import Live


def test_a_viewer_that_has_gone_while_its_headers_were_sent_is_let_go_at_once() -> None:
    gone: list[bool] = []

    async def take_closed() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            stream = IOStream(theirs)
            stream.close()
            follower: Any = None  # nothing is asked of it
            position = Position(0, Framing.EVENTS, 0)
            Live(15.0).take(stream, follower, position, lambda: gone.append(True))

    asyncio.run(take_closed())
    assert gone == [True]
