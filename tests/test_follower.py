"""What readers of one log are given, and when they share it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tornado_logs.config import Config
from tornado_logs.deployment import Record, State
from tornado_logs.follower import Follower, Framing
from tornado_logs.journal import BLOCK_BYTES, DroppedError, JournalWriter, LogLimit
from tornado_logs.sse import CELL_BYTES, Cursor


def follow(path: Path, look: Callable[[Follower], None], record: Record | None = None) -> None:
    """Have `look` look at the log as two viewers do, who share what they get."""

    async def run() -> None:
        follower = Follower(str(path), record or Record(id="x"), Record.to_json, Config())
        follower.viewers = 2
        look(follower)
        follower.close()

    asyncio.run(run())


@pytest.mark.parametrize("framing", Framing)
def test_who_comes_later_to_the_same_place_is_given_what_came_since(
    tmp_path: Path, framing: Framing
) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"one\n")

    def look(follower: Follower) -> None:
        first = follower.chunk_now(0, framing)
        with path.open("ab") as log:
            log.write(b"two\n")
        follower.look()
        second = follower.chunk_now(0, framing)
        assert first is not None
        assert second is not None
        assert (first.end, second.end) == (4, 8)
        assert b"two" in second.data

    follow(path, look)


@pytest.mark.parametrize("framing", Framing)
def test_a_full_block_is_encoded_once_however_the_log_grows(
    tmp_path: Path, framing: Framing
) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"a line\n" * BLOCK_BYTES)

    def look(follower: Follower) -> None:
        first = follower.chunk_now(0, framing)
        with path.open("ab") as log:
            log.write(b"another\n")
        follower.look()
        assert first is not None
        assert follower.chunk_now(0, framing) is first

    follow(path, look)


def test_a_chunk_is_put_together_once_for_all_who_want_it_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"a line\n" * BLOCK_BYTES)

    def look(follower: Follower) -> None:
        chunk = follower.chunk_now(0, Framing.EVENTS)
        assert chunk is not None
        assert len(chunk.buffers) > 1
        whole = b"".join(chunk.buffers)
        assert chunk.data == whole
        assert chunk.data is chunk.data

    follow(path, look)


def test_what_others_got_of_a_cell_that_was_dropped_is_not_given_to_who_comes_back_to_it(
    tmp_path: Path,
) -> None:
    """It had some of it, and nobody knows how much: it would have lines twice."""
    path = tmp_path / "x.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = JournalWriter(fd, str(tmp_path / "x.idx"), limit=LogLimit(1024 * 1024, True))
    line = b"%031d\n" % 0
    writer.append(line * 30_000)

    def look(follower: Follower) -> None:
        second = CELL_BYTES  # where a line begins
        for offset in (0, second):
            assert follower.chunk_now(offset, Framing.EVENTS) is not None
        writer.append(line * 40_000)
        follower.look()
        for offset in (0, second):
            cursor = Cursor(follower.mark(), offset, 100)
            assert follower.offset_of(cursor) == offset
            with pytest.raises(DroppedError):
                follower.chunk_now(offset, Framing.EVENTS)

    follow(path, look, Record(id="x", state=State.RUNNING, request={}, dropped_bytes=0))
    writer.close()
    os.close(fd)


def test_the_last_line_of_an_ended_log_that_grows_after_all_is_given_anew(tmp_path: Path) -> None:
    """It lacked its LF, and went far on in the next cell."""
    path = tmp_path / "x.log"
    before = b"a line\n" * ((BLOCK_BYTES - 70_000) // 7)
    path.write_bytes(before + b"x" * 200_000)

    def look(follower: Follower) -> None:
        first = follower.chunk_now(len(before), Framing.EVENTS)
        with path.open("ab") as log:
            log.write(b"yy\n")
        follower.look()
        second = follower.chunk_now(len(before), Framing.EVENTS)
        assert first is not None
        assert second is not None
        assert second.end == first.end + 3 == follower.size

    follow(path, look, Record(id="x", state=State.FINISHED))
