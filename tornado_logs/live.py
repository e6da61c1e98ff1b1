"""The fast path: viewers at the live edge get what is new straight to their sockets.

A viewer whose connection can be taken from its handler (HTTP/1.1 without TLS) is a `Viewer`: a
position and an IOStream, without request, handler or task. It catches up block by block, in turn
with others. Once it has everything, it joins a group of viewers at the log's live edge
and waits there at no cost. When the log grows, each group in its turn encodes and frames what is
new once, and passes it to each socket with a plain `send`: some 10 µs for a viewer, most of
them the kernel's. A socket that doesn't take all of it has fallen behind: the rest goes by its
IOStream, and the viewer catches up again from its own offset. Whoever can't be a Viewer is served
by `handlers.streaming` alone.

Batching outweighs everything else, so turns are paced: as long as little is to be sent, all of it
goes at once; under load turns keep a distance in proportion to what such a turn takes at best, so
that lines that come meanwhile travel together and other work goes on. A group reads the log when
its turn comes: the last one of ten thousand viewers gets lines as fresh as the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from itertools import chain

from tornado.iostream import IOStream, StreamClosedError

from tornado_logs import sse
from tornado_logs.follower import Chunk, Follower, Framing, Position
from tornado_logs.journal import BLOCK_BYTES, DroppedError, LineTooLongError
from tornado_logs.reading_turns import ReadingTurns
from tornado_logs.zero_copy import PIECE_BYTES, send_file

_GROUP_VIEWERS = 512
"""How many viewers get a block before others have their turn on the event loop: some 5 ms."""

_SPACING = 3.2
"""Under load, the time from turn to turn, as a multiple of what such a turn takes at best."""

_FORGET = 1.005
"""How fast the best time is forgotten, with each turn, as what is sent becomes more."""

_BURST_SECONDS = 0.1
"""So much time in which there was nothing to send pays for turns that then follow at once."""

Send = Callable[[bytes], int]
"""A socket's own `send`."""

LAST_CHUNK = b"0\r\n\r\n"

logger = logging.getLogger("tornado_logs")


def frame(buffers: sse.Buffers) -> sse.Buffers:
    """These bytes as a chunk of HTTP/1.1's chunked coding (RFC 9112, 7.1)."""
    return b"%x\r\n" % sum(map(len, buffers)), *buffers, b"\r\n"


class Live:
    """The live edges of all logs."""

    def __init__(self, ping_seconds: float) -> None:
        self._ping_seconds = ping_seconds
        self._turns = _Turns()
        self.reading = ReadingTurns()
        self._groups: dict[_Kind, list[_Group]] = {}
        self._viewers: set[Viewer] = set()

    def take(
        self, stream: IOStream, follower: Follower, position: Position, on_gone: Callable[[], None]
    ) -> None:
        """Serve this viewer, whose headers were sent; `on_gone` is called when that is over."""
        if stream.closed():  # it has gone since
            on_gone()
            return
        viewer = Viewer(self, stream, follower, position, on_gone)
        self._viewers.add(viewer)
        if follower.shutting_down:
            viewer.close()
        else:
            viewer.catch_up(follower.preamble(position))

    def group_for(self, viewer: Viewer) -> _Group | None:
        """The group that the viewer is to join, if there is one with room for it."""
        groups = self._groups.get(_kind(viewer), ())
        return next((group for group in groups if group.has_room_for(viewer)), None)

    def join(self, viewer: Viewer) -> None:
        """The viewer is where its group is; without a group, it has all that there is."""
        group = self.group_for(viewer)
        if group is None:
            kind = _kind(viewer)
            groups = self._groups.setdefault(kind, [])
            group = _Group(viewer, self._turns, self._ping_seconds, partial(self._drop, kind))
            groups.append(group)
        group.join(viewer)

    def _drop(self, kind: _Kind, group: _Group) -> None:
        groups = self._groups[kind]
        groups.remove(group)
        if not groups:
            del self._groups[kind]

    def forget(self, viewer: Viewer) -> None:
        """The viewer has gone."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """Close all connections, without an end: whoever wants more comes back."""
        for viewer in tuple(self._viewers):
            viewer.close()


_Kind = tuple[int, Framing, bool]
"""Which viewers can be in one group: by follower, framing, and whether they want partial lines."""


def _kind(viewer: Viewer) -> _Kind:
    position = viewer.position
    return id(viewer.follower), position.framing, position.partials is not None


class _Turns:
    """Gives groups that have something to send their turns, one after the other, at a distance."""

    def __init__(self) -> None:
        self._waiting: deque[_Group] = deque()
        self._planned = False
        self._paid_until = 0.0  # each turn has its cost in time; idle time pays for it
        self._best_seconds = 1e-5  # for each send

    def ask(self, group: _Group) -> None:
        """A turn for this group; it must not be waiting for one already."""
        self._waiting.append(group)
        if not self._planned:
            self._plan()

    def _plan(self) -> None:
        self._planned = True
        loop = asyncio.get_running_loop()
        if self._paid_until <= loop.time():
            loop.call_soon(self._turn)  # after what else there is to do
        else:
            loop.call_at(self._paid_until, self._turn)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        group = self._waiting.popleft()
        try:
            group.take_turn()
        finally:
            now = loop.time()
            self._pay(now, now - began, group.sent_to)
            self._planned = False
            if self._waiting:
                self._plan()

    def _pay(self, now: float, spent_seconds: float, sent_to: int) -> None:
        if sent_to:  # a turn that had nothing to send tells nothing of what sending takes
            self._best_seconds = min(self._best_seconds * _FORGET, spent_seconds / sent_to)
        # A turn that something else has held up must not hold up the next as well.
        cost_seconds = max(spent_seconds, _SPACING * self._best_seconds * sent_to)
        self._paid_until = max(self._paid_until, now - _BURST_SECONDS) + cost_seconds


class Viewer:
    """A connection that was taken from its handler, and where it is in its log."""

    __slots__ = (
        "_framed",
        "_is_slow",
        "_live",
        "_on_gone",
        "_task",
        "follower",
        "group",
        "position",
        "send",
        "stream",
    )

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
        self._framed: bytes | memoryview = b""  # the rest of a chunk, which is to be sent first
        self._is_slow = False  # its socket didn't take all, the last time
        self.group: _Group | None = None
        self.follower = follower
        self.position = position
        self.stream = stream
        self.send = stream.socket.send
        stream.set_nodelay(True)
        stream.set_close_callback(self._on_close)

    def catch_up(self, chunk: Chunk | None = None, framed: bytes | memoryview = b"") -> None:
        """Go on from the viewer's own offset, after what is `framed` already, and this chunk."""
        self._framed = framed
        self._task = asyncio.create_task(self._catch_up(chunk))

    async def _catch_up(self, chunk: Chunk | None) -> None:
        try:
            if self._framed:
                written = self.stream.write(self._framed)
                self._framed = b""  # who is slow with it, and with what follows, keeps it no longer
                await written
            while True:
                if chunk is not None and chunk.buffers:
                    rest = self._send_now((chunk, *self._another()))
                    chunk = None  # who stops here may do so for long: it keeps the rest alone
                    if rest:
                        await self._write_rest(*rest)
                        rest = None
                    await self._live.reading.ask(self)
                while not self.position.has_events and await self._pass_piece():
                    await self._live.reading.ask(self, bare=True)
                chunk = await self._next()
                if chunk is None:
                    break
            if self.position.done:
                await self.stream.write(LAST_CHUNK)
                self.stream.close()
            else:
                self._live.join(self)
        except StreamClosedError:
            pass  # _on_close says so to whom it concerns
        except Exception:  # whatever it is: nobody shall wait for ever for what doesn't come
            logger.exception("cannot go on reading %s", self.follower.record.id)
            self.stream.close()
        finally:
            self._task = None

    async def _pass_piece(self) -> bool:
        """Send a piece of bare bytes from the file itself; whether there was one."""
        offset, limit = self.position.offset, self._limit()
        end = offset + PIECE_BYTES
        fd = self.follower.file_of(self.position, end)
        is_beyond = limit is not None and end > limit
        if fd is None or is_beyond or self.stream.closed():
            return False
        self.position.offset = end  # whether in a line, matters only for what may be dropped
        head, tail = b"%x\r\n" % PIECE_BYTES, b"\r\n"
        sent_bytes = send_file(self.stream.socket, fd, offset, PIECE_BYTES, head, tail)
        if sent_bytes < len(head) + PIECE_BYTES + len(tail):
            chunk = self.follower.chunk_now(offset, Framing.RAW, end)
            if chunk is None or chunk.end < end:  # cut just now: what was begun has no end
                self.stream.close()
            else:
                await self._write_rest((head, chunk.data, tail), sent_bytes)
        return True

    def _another(self) -> tuple[Chunk, ...]:
        """One more to go along, for who catches up alone and fast: each send wakes its reader."""
        position, limit = self.position, self._limit()
        is_out = position.done or position.cuts != self.follower.cuts
        is_there = limit is not None and limit <= position.offset
        if is_out or is_there or self._is_slow or not self._live.reading.may_go_on(self):
            return ()
        try:
            chunk = self.follower.chunk_now(position.offset, position.framing, limit)
        except (LineTooLongError, DroppedError, OSError):  # `_next` meets it too
            return ()
        if chunk is None:
            return ()
        position.advance(chunk)
        return (chunk,)

    def _limit(self) -> int | None:
        """How far the viewer may go by itself.

        Not beyond the group, whose turn may take a moment to come: whoever is ahead of it may find
        itself within the block that it sends next.
        """
        group = self._live.group_for(self)
        return None if group is None else group.offset

    def _send_now(self, chunks: Sequence[Chunk]) -> tuple[sse.Buffers, int] | None:
        """Send what the socket takes of these, from where they are.

        If that isn't all: the parts of the first that it didn't take whole, and how many bytes of
        them it took. The viewer goes on behind that one.
        """
        framed = [frame(chunk.buffers) for chunk in chunks]
        sent_bytes = 0
        if not self.stream.closed() and not self.stream.writing():
            with contextlib.suppress(OSError):  # the stream finds out for itself
                sent_bytes = self.stream.socket.sendmsg(list(chain.from_iterable(framed)))
        for chunk, buffers in zip(chunks, framed, strict=True):
            size = sum(map(len, buffers))
            if sent_bytes < size:
                self._is_slow = True
                self.position.advance(chunk)
                return (buffers[0], chunk.data, buffers[-1]), sent_bytes
            sent_bytes -= size
        self._is_slow = False
        return None

    async def _write_rest(self, parts: sse.Buffers, sent_bytes: int) -> None:
        # No copy: all who fall behind in a block, and may stay there for long, share its bytes.
        for part in parts:
            if sent_bytes < len(part):
                written = self.stream.write(memoryview(part)[sent_bytes:])
            sent_bytes = max(0, sent_bytes - len(part))
        await written

    async def _next(self) -> Chunk | None:
        """What to send next; None where the viewer can join a group, and after the end."""
        while not self.position.done:
            limit = self._limit()
            is_there = limit is not None and limit <= self.position.offset
            if is_there and self.position.cuts == self.follower.cuts:
                chunk = self.follower.partial_chunk(self.position)  # the others have seen it
            else:
                chunk = await self.follower.next(self.position, limit)
            if chunk is not None:
                return chunk
            partials = self.position.partials
            if partials is not None and partials.seconds_to_wait() is not None:
                await self.follower.wait(self.position)
            elif is_there or self._limit() is None:
                return None  # to join it, or as the first here
            elif limit is not None:
                # What the group has had isn't there: the log was cut, and we are to hear of it.
                await self.follower.wait(self.position)
        return None

    def close(self) -> None:
        """Close the connection where it stands, with no end of the log: who wants more comes back.

        Of events the body ends as HTTP/1.1 has it, so that no proxy and no client takes it for a
        fault. Bare bytes lack their last chunk: nobody shall take a part of a log for the whole.
        One who is in the middle of a chunk has it cut: the event in it doesn't count.
        """
        is_between_chunks = not self._framed and not self.stream.writing()
        if self.position.has_events and is_between_chunks and not self.stream.closed():
            self.stream.write(LAST_CHUNK)
        self.stream.close()

    def _on_close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self.group is not None:
            self.group.leave(self)
        self._live.forget(self)
        self._on_gone()


class _Group:
    """Viewers of one log and framing that have everything up to `offset`.

    While a viewer is a member, `offset` is its position, and its `send` all that a turn touches.
    """

    def __init__(
        self,
        viewer: Viewer,
        turns: _Turns,
        ping_seconds: float,
        on_empty: Callable[[_Group], None],
    ) -> None:
        """A group for this viewer, which joins it next, and others like it."""
        self._follower = viewer.follower
        self._framing = viewer.position.framing
        self._cuts = viewer.position.cuts
        self._partials = copy(viewer.position.partials)  # who leaves goes on with its own
        self.offset = viewer.position.offset
        self._in_line = viewer.position.in_line
        self._members: dict[Send, Viewer] = {}
        self._sends: tuple[Send, ...] | None = None  # of all members, until they change
        self.sent_to = 0  # how many viewers, in the last turn
        self._ahead: set[Viewer] = set()  # they came with more than was sent, and wait for it
        self._turns = turns
        self._is_waiting = False
        self._loop = asyncio.get_running_loop()
        self._partial_timer: asyncio.TimerHandle | None = None
        self._ping_seconds = ping_seconds
        self._ping = self._loop.call_later(ping_seconds, self._on_ping)
        self._ping_due = False
        self._sent_at = self._loop.time()
        self._unlisten = self._follower.listen(self.wake)
        self._on_empty = on_empty

    def has_room_for(self, viewer: Viewer) -> bool:
        """Whether one more viewer may join, once it is here."""
        is_full = len(self._members) + len(self._ahead) >= _GROUP_VIEWERS
        return not is_full and viewer.position.cuts == self._cuts

    def join(self, viewer: Viewer) -> None:
        """A viewer that has all that the group has, or more."""
        viewer.group = self
        if viewer.position.offset == self.offset:
            self._add(viewer)
        else:
            self._ahead.add(viewer)

    def _add(self, viewer: Viewer) -> None:
        self._members[viewer.send] = viewer
        self._sends = None

    def leave(self, viewer: Viewer) -> None:
        """The viewer has gone, or catches up by itself."""
        viewer.group = None
        self._sends = None
        if self._members.pop(viewer.send, None) is None:
            self._ahead.discard(viewer)
        if self._is_empty:
            self._unlisten()
            self._ping.cancel()
            if self._partial_timer is not None:
                self._partial_timer.cancel()
            self._on_empty(self)

    @property
    def _is_empty(self) -> bool:
        return not self._members and not self._ahead

    def wake(self) -> None:
        """Something may have happened: it is seen to when the group's turn comes."""
        if not self._is_waiting:
            self._is_waiting = True
            self._turns.ask(self)

    def take_turn(self) -> None:
        """Send the next block to all; what can't be sent to all, each viewer finds by itself."""
        self._is_waiting = False
        self.sent_to = 0
        if self._is_empty:
            return
        if self._cuts != self._follower.cuts:
            self._dissolve()
            return
        try:
            chunk = self._next()
        except (LineTooLongError, DroppedError, OSError):
            self._dissolve()
            return
        if chunk is not None:
            self._in_line = chunk.in_line
            self._advance(chunk)
        elif self._follower.has_ended:
            self._dissolve()
        else:
            self._send_partial()
            self._send_ping()

    def _next(self) -> Chunk | None:
        """What is new: some of it, if it is much."""
        follower, size = self._follower, self._follower.size
        if self.offset >= size:
            return None
        chunk = follower.chunk_now(self.offset, self._framing)
        if chunk is None or not sse.cell_end(self.offset) <= chunk.end < size:
            return chunk
        if size > self.offset + BLOCK_BYTES:
            return chunk
        # A cell has ended within the little that there is: what follows needn't wait for a turn.
        more = follower.chunk_now(chunk.end, self._framing)
        if more is None:
            return chunk
        return Chunk((*chunk.buffers, *more.buffers), more.end, more.in_line)

    def _advance(self, chunk: Chunk) -> None:
        self.offset = chunk.end
        self._send(chunk.buffers)
        for viewer in tuple(self._ahead):
            if viewer.position.offset == self.offset:
                self._ahead.discard(viewer)
                self._add(viewer)
            elif viewer.position.offset < self.offset:  # within the block: it reads the rest itself
                self._set_free(viewer)
        if not self._is_empty and (self.offset < self._follower.size or self._follower.has_ended):
            self.wake()

    def _send(self, buffers: sse.Buffers) -> None:
        """Send one chunk, after which they are at `offset`, to all members."""
        self._sent_at = self._loop.time()
        self._ping_due = False
        data = b"".join(frame(buffers))
        length = len(data)
        if self._sends is None:
            self._sends = tuple(self._members)
        self.sent_to += len(self._sends)
        for send in self._sends:
            # Little but the system call: this is where a busy server's time goes.
            try:
                sent_bytes = send(data)
            except BlockingIOError:
                sent_bytes = 0
            except OSError:
                self._members[send].stream.close()
                continue
            if sent_bytes != length:
                self._fall_behind(self._members[send], memoryview(data)[sent_bytes:])

    def _fall_behind(self, viewer: Viewer, rest: memoryview) -> None:
        self._leave_here(viewer)
        viewer.catch_up(framed=rest)

    def _leave_here(self, viewer: Viewer) -> None:
        viewer.position.offset, viewer.position.in_line = self.offset, self._in_line
        self.leave(viewer)

    def _set_free(self, viewer: Viewer) -> None:
        self.leave(viewer)
        viewer.catch_up()

    def _dissolve(self) -> None:
        for viewer in tuple(self._members.values()):
            self._leave_here(viewer)
            viewer.catch_up()
        for viewer in tuple(self._ahead):
            self._set_free(viewer)

    def _send_partial(self) -> None:
        if self._partials is None:
            return
        if data := self._follower.partial(self.offset, self._partials):
            self._send((data,))
        seconds = self._partials.seconds_to_wait()
        if seconds is not None and self._partial_timer is None:
            self._partial_timer = self._loop.call_later(seconds, self._on_partial_due)

    def _on_partial_due(self) -> None:
        self._partial_timer = None
        self.wake()

    def _send_ping(self) -> None:
        if self._ping_due:
            self._send((sse.HEARTBEAT,))

    def _on_ping(self) -> None:
        due_at = self._sent_at + self._ping_seconds
        if due_at <= self._loop.time():
            due_at = self._loop.time() + self._ping_seconds
            if self._framing is not Framing.RAW:
                self._ping_due = True
                self.wake()
        self._ping = self._loop.call_at(due_at, self._on_ping)
