"""The physical limit to compare with: `limit.c`, compiled and run.

    with Limit() as limit:
        limit.port, limit.pid, limit.path

It follows the file `path` and sends it to whoever asks, as the bare minimum that a program in C can
do. Only a measure; no part of tornado-logs.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.system import SERVER_CPU, program

TICK_MS = 10
_SOURCE = Path(__file__).with_name("limit.c")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """One for the life of this process, with the program in it."""
    compiler = program("cc") or program("gcc")
    if compiler is None:
        sys.exit("there is no C compiler for the limit: install one (on Debian: apt install gcc)")
    folder = tempfile.TemporaryDirectory(prefix="tornado-logs-limit-")
    subprocess.run([compiler, "-O2", "-o", f"{folder.name}/limit", str(_SOURCE)], check=True)
    return folder


class Limit:
    """The limit's process, on the server's processor, with an empty file to follow."""

    def __enter__(self) -> Self:
        folder = Path(_folder().name)
        self.path = folder / "limit.log"
        self.path.write_bytes(b"")
        self._process = subprocess.Popen(
            [folder / "limit", self.path, str(TICK_MS)],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CPU}),
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.pid = self._process.pid
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.path.unlink()
