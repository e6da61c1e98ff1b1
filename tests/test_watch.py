"""What is told of the files of a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest import WAIT_SECONDS

from tornado_logs import watch as watch_module
from tornado_logs.watch import Changes, FolderWatch


def test_whoever_lets_go_of_a_file_after_the_watch_was_closed_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "x.log").touch()

    async def close_first() -> None:
        told: list[Changes] = []
        watch = FolderWatch(str(tmp_path), told.append)
        watch.follow("x.log")
        watch.close()
        watch.unfollow("x.log")
        watch.follow("x.log")

    asyncio.run(close_first())


def test_of_writes_in_quick_succession_each_is_told_and_few_wake_us(tmp_path: Path) -> None:
    """Also the first one after a while in which nothing was written."""
    path = tmp_path / "x.log"
    path.touch()
    told: list[Changes] = []

    async def write() -> None:
        news = asyncio.Event()
        seen_bytes = 0

        def note(changes: Changes) -> None:
            nonlocal seen_bytes
            told.append(changes)
            seen_bytes = path.stat().st_size
            news.set()

        watch = FolderWatch(str(tmp_path), note)
        watch.follow("x.log")
        for written_bytes in range(1, 301):
            with path.open("ab", buffering=0) as log:
                log.write(b"x")
            await asyncio.sleep(0)
            while written_bytes % 100 == 0 and seen_bytes < written_bytes:
                news.clear()
                await asyncio.wait_for(news.wait(), WAIT_SECONDS)
            if written_bytes % 100 == 99:  # long enough for nothing to have come meanwhile
                await asyncio.sleep(20 * watch_module._REST_SECONDS)
        watch.close()

    asyncio.run(write())
    assert all("x.log" in changes.written | changes.changed for changes in told)
    assert len(told) < 150
