"""What readers of one log are given, and when they share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tornado_logs.config import Config
from tornado_logs.deployment import Record
from tornado_logs.follower import Follower, Framing
from tornado_logs.journal import BLOCK_BYTES


def follow(path: Path, look: Callable[[Follower], None]) -> None:
    async def run() -> None:
        follower = Follower(str(path), Record(id="x"), Record.to_json, Config())
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
        follower.viewers = 2
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
