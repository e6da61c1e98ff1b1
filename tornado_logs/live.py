"""The fast path: viewers at the live edge get what is new straight to their sockets.

A viewer whose connection can be taken from its handler (HTTP/1.1 without TLS) is a `Viewer`: a
position and an IOStream, without request, handler or task. It catches up block by block, by
`await stream.write()`. Once it has everything, it joins the log's live edge and waits there at no
cost. When the log grows, the edge encodes and frames what is new once, and passes it to each
socket with a plain `send`: some 14 µs for a viewer, nearly all of them the kernel's. A socket that
doesn't take all of it has fallen behind: the rest goes by its IOStream, and the viewer catches up
again from its own offset. Whoever can't be a Viewer is served by `handlers.streaming` alone.

Batching outweighs everything else. One push may follow the other at once while there are few
viewers; with many, a push is followed by a pause in proportion to what it took, so that other work
has its turn, and lines that come meanwhile travel together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tornado.iostream import IOStream, StreamClosedError

from tornado_logs import sse
from tornado_logs.follower import Follower, Framing, Position
from tornado_logs.journal import LineTooLongError

_SLICE = 256
"""How many viewers get a piece before others have their turn on the event loop: some 4 ms."""

_PAUSE = 0.8
"""The pause between two pushes, as a part of the time that a push took."""

Send = Callable[[bytes], int]
"""A socket's own `send`."""

LAST_CHUNK = b"0\r\n\r\n"

logger = logging.getLogger("tornado_logs")


def frame(data: bytes) -> bytes:
    """`data` as a chunk of HTTP/1.1's chunked coding (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Live:
    """The live edges of all logs."""

    def __init__(self, ping_seconds: float) -> None:
        self._ping_seconds = ping_seconds
        self._edges: dict[tuple[int, Framing, bool], _Edge] = {}
        self._viewers: set[Viewer] = set()

    def take(
        self, stream: IOStream, follower: Follower, position: Position, on_gone: Callable[[], None]
    ) -> None:
        """Serve this viewer, whose headers were sent; `on_gone` is called when that is over."""
        viewer = Viewer(self, stream, follower, position, on_gone)
        self._viewers.add(viewer)
        viewer.catch_up(follower.preamble(position))

    def edge_of(self, viewer: Viewer) -> _Edge | None:
        """The edge that the viewer is to join, if there is one yet."""
        return self._edges.get(_edge_key(viewer))

    def join(self, viewer: Viewer) -> None:
        """The viewer is where the edge is; without an edge, it has all that there is."""
        key = _edge_key(viewer)
        edge = self._edges.get(key)
        if edge is None:
            on_empty = partial(self._edges.pop, key, None)
            edge = _Edge(viewer.follower, viewer.position, self._ping_seconds, on_empty)
            self._edges[key] = edge
        edge.join(viewer)

    def forget(self, viewer: Viewer) -> None:
        """The viewer has gone."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """Close all connections, without an end: whoever wants more comes back."""
        for viewer in tuple(self._viewers):
            viewer.stream.close()


def _edge_key(viewer: Viewer) -> tuple[int, Framing, bool]:
    position = viewer.position
    return id(viewer.follower), position.framing, position.partials is not None


class Viewer:
    """A connection that was taken from its handler, and where it is in its log."""

    __slots__ = ("_live", "_on_gone", "_task", "edge", "follower", "position", "send", "stream")

    def __init__(
        self,
        live: Live,
        stream: IOStream,
        follower: Follower,
        position: Position,
        on_gone: Callable[[], None],
    ) -> None:
        self._live = live
        self._on_gone = on_gone
        self._task: asyncio.Task[None] | None = None
        self.edge: _Edge | None = None
        self.follower = follower
        self.position = position
        self.stream = stream
        self.send = stream.socket.send
        stream.set_nodelay(True)
        stream.set_close_callback(self._on_close)
        if stream.closed():  # before it had the callback, which it won't call any more
            asyncio.get_running_loop().call_soon(self._on_close)

    def catch_up(self, data: bytes | memoryview = b"", *, framed: bool = False) -> None:
        """Go on from the viewer's own offset, after `data`."""
        self._task = asyncio.create_task(self._catch_up(data, framed=framed))

    async def _catch_up(self, data: bytes | memoryview | None, *, framed: bool) -> None:
        try:
            while data is not None:
                if data:
                    await self.stream.write(data if framed else frame(bytes(data)))
                    await asyncio.sleep(0)  # a socket that takes all would leave no turn to others
                framed = False
                data = await self._next()
            if self.position.done:
                await self.stream.write(LAST_CHUNK)
                self.stream.close()
            else:
                self._live.join(self)
        except StreamClosedError:
            pass  # _on_close says so to whom it concerns
        except OSError:
            logger.exception("cannot go on reading %s", self.follower.record.id)
            self.stream.close()
        finally:
            self._task = None

    async def _next(self) -> bytes | None:
        """What to send next; None where the viewer can join the edge, and after the end."""
        while not self.position.done:
            edge = self._live.edge_of(self)
            if edge is not None and edge.is_at(self.position):
                return None
            # Not beyond the edge, which may hold back what is new for a moment: whoever is ahead of
            # it may find itself within the next push.
            limit = edge.limit(self.position) if edge is not None else None
            data = await self.follower.next(self.position, limit)
            partials = self.position.partials
            if data is not None or partials is None or partials.seconds_to_wait() is None:
                return data
            await self.follower.wait(self.position)
        return None

    def _on_close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self.edge is not None:
            self.edge.leave(self)
        self._live.forget(self)
        self._on_gone()


class _Edge:
    """The viewers of one log and framing that have everything up to `offset`.

    While a viewer is a member, `offset` is its position, and its `send` all that a push touches.
    """

    def __init__(
        self,
        follower: Follower,
        position: Position,
        ping_seconds: float,
        on_empty: Callable[[], Any],
    ) -> None:
        self._follower = follower
        self._framing = position.framing
        self._cuts = position.cuts
        self.offset = position.offset
        self._partials = position.partials
        self._members: dict[Send, Viewer] = {}
        self._ahead: set[Viewer] = set()  # they came with more than was pushed, and wait for it
        self._loop = asyncio.get_running_loop()
        self._steps: Iterator[None] | None = None
        self._again = False
        self._spent_seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._partial_timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._ping_seconds = ping_seconds
        self._ping = self._loop.call_later(ping_seconds, self._on_ping)
        self._sent_at = self._loop.time()
        self._unlisten = follower.listen(self.wake)
        self._on_empty = on_empty

    def is_at(self, position: Position) -> bool:
        """Whether a viewer there can join: it has all that has been pushed."""
        return position.offset >= self.offset and position.cuts == self._cuts

    def limit(self, position: Position) -> int | None:
        """Up to where a viewer that isn't there yet reads for itself."""
        return self.offset if position.cuts == self._cuts else None

    def join(self, viewer: Viewer) -> None:
        """A viewer that is at the edge. It has what a push is just handing to others, too."""
        viewer.edge = self
        if viewer.position.offset == self.offset:
            self._members[viewer.send] = viewer
        else:
            self._ahead.add(viewer)

    def leave(self, viewer: Viewer) -> None:
        """The viewer has gone, or catches up by itself."""
        viewer.edge = None
        if self._members.pop(viewer.send, None) is None:
            self._ahead.discard(viewer)
        if self._is_empty:
            self._unlisten()
            self._ping.cancel()
            if self._timer is not None:
                self._timer.cancel()
            self._on_empty()

    @property
    def _is_empty(self) -> bool:
        return not self._members and not self._ahead

    def wake(self) -> None:
        """Something may have happened: push, unless that is under way or planned."""
        if self._steps is not None:
            self._again = True
        elif self._timer is None:
            delay = self._next_at - self._loop.time()
            if delay > 0:
                self._timer = self._loop.call_later(delay, self._begin)
            else:
                self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._again = False
        self._spent_seconds = 0.0
        self._steps = self._push()
        self._step()

    def _step(self) -> None:
        """One slice of a push, then others' turn."""
        assert self._steps is not None
        began = self._loop.time()
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
        now = self._loop.time()
        self._spent_seconds += now - began
        if self._steps is not None:
            self._loop.call_soon(self._step)
            return
        self._next_at = now + self._spent_seconds * _PAUSE
        if self._again and not self._is_empty:
            self.wake()

    def _push(self) -> Iterator[None]:
        """Send what is new to all; what can't be pushed, each viewer finds by itself.

        What is added meanwhile waits for the next push, or there would never be a pause.
        """
        goal = self._follower.size
        while not self._is_empty and self._cuts == self._follower.cuts:
            try:
                is_behind = self.offset < goal
                chunk = self._follower.chunk_now(self.offset, self._framing) if is_behind else None
            except (LineTooLongError, OSError):
                break
            if chunk is not None:
                yield from self._advance(frame(chunk.data), chunk.end)
            elif self._follower.has_ended:
                break
            else:
                yield from self._push_partial()
                return
        for viewer in tuple(self._members.values()):
            viewer.position.offset = self.offset
            self._set_free(viewer)
        for viewer in tuple(self._ahead):
            self._set_free(viewer)

    def _push_partial(self) -> Iterator[None]:
        if self._partials is None:
            return
        if data := self._follower.partial(self.offset, self._partials):
            yield from self._send(frame(data), self.offset)
        seconds = self._partials.seconds_to_wait()
        if seconds is not None and self._partial_timer is None:
            self._partial_timer = self._loop.call_later(seconds, self._on_partial_due)

    def _on_partial_due(self) -> None:
        self._partial_timer = None
        if not self._is_empty:
            self.wake()

    def _advance(self, data: bytes, end: int) -> Iterator[None]:
        """Send the next block, which leads to offset `end`."""
        self.offset = end
        yield from self._send(data, end)
        for viewer in tuple(self._ahead):
            if viewer.position.offset == end:
                self._ahead.discard(viewer)
                self._members[viewer.send] = viewer
            elif viewer.position.offset < end:  # within the block: it reads the rest for itself
                self._set_free(viewer)

    def _send(self, data: bytes, end: int) -> Iterator[None]:
        """Send `data` to all members; whoever has had it is at offset `end`."""
        self._sent_at = self._loop.time()
        length = len(data)
        sends = tuple(self._members)
        for first in range(0, len(sends), _SLICE):
            if first:
                yield
            # Little but the system call: this is where a busy server's time goes.
            for send in sends[first : first + _SLICE]:
                try:
                    sent_bytes = send(data)
                except BlockingIOError:
                    sent_bytes = 0
                except OSError:
                    self._close(send)
                    continue
                if sent_bytes != length:
                    self._fall_behind(send, memoryview(data)[sent_bytes:], end)

    def _close(self, send: Send) -> None:
        if viewer := self._members.get(send):  # else it has gone since
            viewer.stream.close()

    def _fall_behind(self, send: Send, rest: memoryview, end: int) -> None:
        viewer = self._members[send]
        viewer.position.offset = end
        self.leave(viewer)
        viewer.catch_up(rest, framed=True)

    def _set_free(self, viewer: Viewer) -> None:
        self.leave(viewer)
        viewer.catch_up()

    def _on_ping(self) -> None:
        if self._sent_at + self._ping_seconds <= self._loop.time():
            if self._steps is None and self._framing is not Framing.RAW:
                self._spent_seconds = 0.0
                self._steps = self._send(frame(sse.HEARTBEAT), self.offset)
                self._step()
            self._sent_at = self._loop.time()
        if not self._is_empty:
            self._ping = self._loop.call_at(self._sent_at + self._ping_seconds, self._on_ping)
