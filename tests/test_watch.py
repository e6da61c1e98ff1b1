"""What is told of the files of a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

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
