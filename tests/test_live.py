"""Viewers whose connections were taken from their handlers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sse_client import lines_of, parse, unchunked
from tornado.iostream import IOStream

from tornado_logs import live, reading_turns
from tornado_logs.config import Config
from tornado_logs.deployment import Record, State
from tornado_logs.follower import Follower, Framing, Position
from tornado_logs.journal import BLOCK_BYTES
from tornado_logs.live import Live, Viewer
from tornado_logs.zero_copy import PIECE_BYTES


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[Follower, Live]]:
    """The log of a deployment that runs, and the live edges at which it is viewed."""
    follower = Follower(str(path), Record(id="x", state=State.RUNNING), Record.to_json, Config())
    viewers = Live(15.0)
    yield follower, viewers
    viewers.close()
    await asyncio.sleep(0)  # until they have gone
    follower.close()


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


def test_a_log_that_is_cut_after_a_chunk_was_promised_ends_the_connection_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"a line\n" * PIECE_BYTES)

    begun = b"%x\r\n" % PIECE_BYTES + b"a line\n" * 10

    def send_some(sock: socket.socket, *_: Any) -> int:
        """The socket takes a little; before it takes more, somebody cuts the log."""
        os.truncate(path, 7)
        return sock.send(begun)

    monkeypatch.setattr(live, "send_file", send_some)
    gone: list[bool] = []

    async def watch() -> bytes:
        ours, theirs = socket.socketpair()
        record = Record(id="x", state=State.SUCCEEDED, request={})
        follower = Follower(str(path), record, Record.to_json, Config())
        position = follower.begin(0, Framing.RAW)
        Live(15.0).take(IOStream(theirs), follower, position, lambda: gone.append(True))
        with ours:
            ours.setblocking(False)
            came = b""
            async with asyncio.timeout(20):
                while piece := await asyncio.get_running_loop().sock_recv(ours, 65536):
                    came += piece
        follower.close()
        return came

    assert asyncio.run(watch()) == begun
    assert gone == [True]


def test_turns_with_nothing_to_send_tell_nothing_of_what_sending_takes() -> None:
    """Else those that follow would come too fast, for seconds."""
    turns = live._Turns()
    turns._pay(1.0, 0.01, 1000)
    best_seconds = turns._best_seconds
    for number in range(1000):
        turns._pay(1.0 + number, 1e-7, 0)
    assert turns._best_seconds == best_seconds > 0


def test_a_log_that_is_cut_while_one_catches_up_with_others_holds_nobody_up(tmp_path: Path) -> None:
    """What they have had isn't there for the second, and nobody has heard of the cut yet."""
    path = tmp_path / "x.log"
    path.write_bytes(b"one\ntwo\n")

    async def rounds(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def receive(sock: socket.socket, wanted: bytes) -> None:
        came = b""
        async with asyncio.timeout(20):
            while wanted not in came:
                came += await asyncio.get_running_loop().sock_recv(sock, 65536)

    async def watch() -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        async with running(path) as (follower, viewers):
            for ours, theirs in pairs:
                ours.setblocking(False)
                position = follower.begin(0, Framing.EVENTS)
                viewers.take(IOStream(theirs), follower, position, lambda: None)
                if ours is pairs[0][0]:
                    await receive(ours, b"data: two")
                    await rounds(100)
                    assert viewers._groups, "there is nobody to catch up with"
                    os.truncate(path, 0)
            await rounds(100)  # the second is where there is nothing to read
            follower.look()
            await receive(pairs[1][0], b"event: reset")
        for ours, _ in pairs:
            ours.close()

    asyncio.run(watch())


class Bottomless(socket.socket):
    """A socket that takes all that it is given."""

    def __init__(self) -> None:
        self._other, this = socket.socketpair()
        super().__init__(fileno=this.detach())

    def close(self) -> None:
        """Close the other end too."""
        self._other.close()
        super().close()

    def sendmsg(self, buffers: Sequence[Any], *_: Any) -> int:  # type: ignore[override]
        """All of it, at once."""
        return sum(map(len, buffers))

    def send(self, data: Any, *_: Any) -> int:
        """All of it, at once."""
        return len(data)


async def at_live_edge(viewers: Live, follower: Follower, framing: Framing) -> Viewer:
    """One more viewer, from the log's beginning, once it has come to its group."""
    stream = IOStream(Bottomless())
    viewers.take(stream, follower, follower.begin(0, framing), lambda: None)
    (viewer,) = (viewer for viewer in viewers._viewers if viewer.stream is stream)
    assert viewer._task is not None
    await asyncio.wait_for(viewer._task, 20)
    return viewer


@pytest.mark.parametrize("framing", [Framing.EVENTS, Framing.BATCHES])
def test_nobody_goes_further_by_itself_than_a_group_that_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: Framing
) -> None:
    """Nor by a block that goes along with another: the turns to read are long."""
    monkeypatch.setattr(reading_turns, "_TURN_SECONDS", 60.0)
    lines = b"".join(b"%011d\n" % number for number in range(BLOCK_BYTES // 8))
    path = tmp_path / "x.log"
    path.write_bytes(lines)

    async def watch() -> None:
        async with running(path) as (follower, viewers):
            first = await at_live_edge(viewers, follower, framing)
            assert first.group is not None
            assert first.group.offset == len(lines)
            monkeypatch.setattr(viewers._turns, "ask", lambda _: None)  # its turn doesn't come
            with path.open("ab") as log:
                log.write(lines)
            follower.look()
            second = await at_live_edge(viewers, follower, framing)
            assert second.group is first.group
            assert second.position.offset == len(lines)

    asyncio.run(watch())


@pytest.mark.parametrize("framing", Framing)
def test_little_that_is_new_goes_in_one_turn_though_a_cell_ends_in_it(
    tmp_path: Path, framing: Framing
) -> None:
    path = tmp_path / "x.log"
    before = b"a line\n" * (BLOCK_BYTES // 7 - 10)
    path.write_bytes(before)

    async def watch() -> None:
        async with running(path) as (follower, viewers):
            group = (await at_live_edge(viewers, follower, framing)).group
            assert group is not None
            assert group.offset == len(before)
            with path.open("ab") as log:
                log.write(b"another line\n" * 20)
            follower.look()
            group.take_turn()
            assert group.offset == follower.size > BLOCK_BYTES

    asyncio.run(watch())


class Grudging(socket.socket):
    """A socket that takes some of what it is given, each time another part."""

    chance = random.Random(7)
    most_buffers = 0

    def sendmsg(self, buffers: Sequence[Any], *_: Any) -> int:  # type: ignore[override]
        """All of it, or a beginning."""
        Grudging.most_buffers = max(self.most_buffers, len(buffers))
        data = b"".join(buffers)
        some = self.chance.choice((0, 1, 1000, 300_000, 350_000, len(data) - 1))
        return self.send(data[: self.chance.choice((some, len(data)))])


@pytest.mark.parametrize("framing", Framing)
def test_whatever_a_socket_takes_at_once_each_line_goes_over_the_wire_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: Framing
) -> None:
    """The sockets are wide and the turns long, so that blocks go together."""
    monkeypatch.setattr(reading_turns, "_TURN_SECONDS", 60.0)
    lines = [b"%07d" % number for number in range(500_000)]
    path = tmp_path / "x.log"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    monkeypatch.setattr(Grudging, "most_buffers", 0)

    async def watch() -> bytes:
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        # Not captured: else bare bytes would go from the file to the socket.
        record = Record(id="x", state=State.SUCCEEDED)
        follower = Follower(str(path), record, Record.to_json, Config())
        position = follower.begin(0, framing)
        stream = IOStream(Grudging(fileno=theirs.detach()))
        Live(15.0).take(stream, follower, position, lambda: None)
        with ours:
            ours.setblocking(False)
            came = bytearray()
            async with asyncio.timeout(30):
                while piece := await asyncio.get_running_loop().sock_recv(ours, 1 << 20):
                    came += piece
        follower.close()
        return bytes(came)

    wire = asyncio.run(watch())
    assert wire.endswith(live.LAST_CHUNK)
    assert Grudging.most_buffers >= 6, "two chunks never went together"
    body = unchunked(wire)
    if framing is Framing.RAW:
        assert body == path.read_bytes()
    else:
        assert lines_of(parse(body)) == [line.decode() for line in lines]
