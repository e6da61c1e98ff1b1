"""How fast a command's output is taken, and in how much memory: `python -m benchmarks.capture`.

A command prints by pipe: once captured as a deployment (timed by its record), once without us into
a file of the same file system, in turns. With `fold` the command itself is the slowest part and
writes that file by itself; `cat` of a file in memory shows what the capture can take, and is
compared with another `cat` at the pipe's other end. Both ways must give the same bytes.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.common import (
    MB,
    BenchmarkError,
    Server,
    file_hash,
    memory_bytes,
    seconds_between,
    shared_memory_dir,
    write_lines,
)

TARGET = "target: 500 MB/s in under 30 MB"
_FOLD = "head -c 1G /dev/zero | tr '\\0' x | fold -w 99"
_CAT_BYTES = 1000 * MB
_SETTLE_SECONDS = 1.0


@dataclass(slots=True)
class Figures:
    """MB/s of each run, and the most memory that a capture process had."""

    captured: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def __str__(self) -> str:
        captured, direct = median(self.captured), median(self.direct)
        return f"{captured:.0f} MB/s, {captured / direct:.2f} of the {direct:.0f} MB/s without us"


def measure(server: Server, command: str, direct: str, runs: int, *, tty: bool) -> Figures:
    """Run the command in both ways, in turns, and compare what it printed."""
    figures = Figures()
    for _ in range(runs):
        expected = _directly(direct, server.folder / "direct.log", figures)
        _captured(server, command, expected, figures, tty=tty)
    return figures


def _directly(command: str, path: Path, figures: Figures) -> bytes:
    time.sleep(_SETTLE_SECONDS)
    started = time.monotonic()
    with path.open("wb") as file:
        subprocess.run(["/bin/sh", "-c", command], stdout=file, check=True)
    figures.direct.append(path.stat().st_size / (time.monotonic() - started) / MB)
    digest = file_hash(path)
    path.unlink()  # or the system would be busy writing it to the disk during the next run
    return digest


def _captured(
    server: Server, command: str, expected: bytes, figures: Figures, *, tty: bool
) -> None:
    time.sleep(_SETTLE_SECONDS)
    deployment_id = server.deploy(command, tty=tty)["id"]
    while (record := server.record(deployment_id))["state"] in ("queued", "running"):
        if record["capture_pid"]:
            peak = memory_bytes(record["capture_pid"], "VmHWM")
            figures.peak_bytes = max(figures.peak_bytes, peak)
        time.sleep(0.05)
    record = server.wait_for_end(deployment_id)
    log = server.log_path(deployment_id)
    if record["state"] != "succeeded" or file_hash(log) != expected:
        raise BenchmarkError(f"the log is not what was printed: {record}")
    seconds = seconds_between(record["started_at"], record["ended_at"])
    figures.captured.append(log.stat().st_size / seconds / MB)
    server.remove(deployment_id)


def main() -> None:
    """Print the figures of both commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--producer", choices=("fold", "cat", "both"), default="both")
    parser.add_argument("--tty", action="store_true", help="by terminal; the target is for a pipe")
    args = parser.parse_args()
    parts, peak_bytes = [], 0
    with Server() as server, tempfile.TemporaryDirectory(dir=shared_memory_dir()) as folder:
        source = Path(folder, "source.log")
        cat = f"cat {shlex.quote(str(source))}"
        for name, command, direct in (("cat", cat, f"{cat} | cat"), ("fold", _FOLD, _FOLD)):
            if args.producer not in ("both", name):
                continue
            if name == "cat":
                write_lines(source, _CAT_BYTES)
            figures = measure(server, command, direct, args.runs, tty=args.tty)
            source.unlink(missing_ok=True)
            parts.append(f"{name} {figures}")
            peak_bytes = max(peak_bytes, figures.peak_bytes)
    way = "by terminal" if args.tty else "by pipe"
    print(
        f"capture {way}: {'; '.join(parts)}; peak memory {peak_bytes / MB:.1f} MB "
        f"(medians of {args.runs}; {TARGET})"
    )


if __name__ == "__main__":
    main()
