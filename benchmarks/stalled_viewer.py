"""What a viewer that stops reading costs the server: `python -m benchmarks.stalled_viewer`.

A viewer reads the first part of a log of 1 GB, reads nothing for a minute and then goes on to the
end. Nothing may be missing, and the server must not have grown: no line waits in its memory.
With `--live` the log is written while the viewer stalls.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.common import (
    MB,
    BenchmarkError,
    Server,
    Viewer,
    file_hash,
    memory_bytes,
    write_lines,
)
from benchmarks.results import Report, parser
from tornado_logs.sse import CELL_BYTES

TARGET_GROWTH_MB = 5.0
_LOG_BYTES = 1000 * MB
_FIRST_BYTES = 8 * MB
_SAMPLE_SECONDS = 0.1
_EVENT = re.compile(rb"id: [0-9a-f]{8}-([0-9]+:[0-9]+)\ndata: ([^\n]*)\n\n")
_EVENT_EXTRA_BYTES = len("id: 01234567-\ndata: \n\n")


class MemoryWatch:
    """Samples how much memory a process has, in a thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before_bytes = memory_bytes(pid, "VmRSS")
        self.most_bytes = self.before_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.most_bytes = max(self.most_bytes, memory_bytes(self._pid, "VmRSS"))

    @property
    def growth_bytes(self) -> int:
        """How far the process has grown at most."""
        return self.most_bytes - self.before_bytes


class Received:
    """Checks what has come: every line once, in order, each with its number in its cell."""

    def __init__(self) -> None:
        self.lines = 0
        self.offset = 0
        self._cell = 0  # its offset
        self._number = 0
        self.ended = False
        self.hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Take one piece of the stream."""
        if not piece.startswith(b"id: "):
            self.ended = piece.startswith(b"event: end\n")
            return
        wire_bytes = 0
        lines = []
        for place, line in _EVENT.findall(piece):
            if place != self._next_place():
                raise BenchmarkError(f"the id says {place!r} at byte {self.offset} of the log")
            self.offset += len(line) + 1
            wire_bytes += len(place) + len(line)
            lines.append(line)
        if wire_bytes + len(lines) * _EVENT_EXTRA_BYTES != len(piece):
            raise BenchmarkError("the stream holds what is no event of a line")
        self.lines += len(lines)
        self.hash.update(b"\n".join(lines) + b"\n")

    def _next_place(self) -> bytes:
        cell = self.offset // CELL_BYTES
        self._number = self._number + 1 if cell == self._cell else 1
        self._cell = cell
        return b"%d:%d" % (cell, self._number)


def measure(server: Server, deployment_id: str, stall_seconds: float) -> tuple[Received, int, int]:
    """View the log with a stall; what came, and the server's growth in the stall and in all."""
    received = Received()
    with (
        MemoryWatch(server.pid) as overall,
        Viewer(server.port, f"/logs/{deployment_id}").send() as viewer,
    ):
        pieces = viewer.pieces()
        while received.offset < _FIRST_BYTES:
            received.add(next(pieces))
        with MemoryWatch(server.pid) as in_stall:
            time.sleep(stall_seconds)
        for piece in pieces:
            received.add(piece)
    return received, in_stall.growth_bytes, overall.growth_bytes


def _check(received: Received, source: Path) -> None:
    if not received.ended or received.hash.digest() != file_hash(source):
        raise BenchmarkError(f"the log came incomplete, to byte {received.offset}")


def main() -> None:
    """Print what came and the server's growth."""
    options = parser(__doc__)
    options.add_argument("seconds", nargs="?", type=float, default=60.0, help="how long it stalls")
    options.add_argument("--live", action="store_true", help="the log is written meanwhile")
    args = options.parse_args()
    stall_seconds = 5.0 if args.quick else args.seconds
    with Server() as server:
        if args.live:
            source = server.folder / "source.log"
            write_lines(source, _LOG_BYTES)
            command = f"head -c {2 * _FIRST_BYTES} {shlex.quote(str(source))}; sleep 1; "
            command += f"tail -c +{2 * _FIRST_BYTES + 1} {shlex.quote(str(source))}"
            deployment_id = server.deploy(command, tty=False)["id"]
        else:
            deployment_id = "finished"
            source = server.put_log(deployment_id, _LOG_BYTES)
        received, in_stall, overall = measure(server, deployment_id, stall_seconds)
        _check(received, source)
    report = Report("stalled viewer", args.json)
    report.add(
        f"a viewer that stalls for {stall_seconds:g} s in {received.offset / MB:.0f} MB",
        f"all {received.lines:,} lines came; the server grew by {in_stall / MB:.1f} MB in the "
        f"stall, by {overall / MB:.1f} MB in all",
        f"all lines, {TARGET_GROWTH_MB:g} MB",
        met=overall / MB < TARGET_GROWTH_MB,
    )
    report.finish()


if __name__ == "__main__":
    main()
