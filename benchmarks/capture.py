"""How fast a command's output is taken, and in how much memory: `python -m benchmarks.capture`.

A command prints by pipe: once captured as a deployment (timed by its record), once without us into
a file of the same file system, in turns. With `fold` the command itself is the slowest part and
writes that file by itself; `cat` of a file in memory shows what the capture can take, and is
compared with another `cat` at the pipe's other end. By terminal, it is compared with `script` of
util-linux. Both ways must give the same bytes. A log that drops its oldest part all the time is
compared with one that doesn't. At last, 1,000 deployments at once.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import BinaryIO

from benchmarks.common import (
    MB,
    BenchmarkError,
    Server,
    memory_bytes,
    seconds_between,
    shared_memory_dir,
    write_lines,
)
from benchmarks.results import Report, parser
from benchmarks.system import cpu_seconds, program, proportional_bytes, resident_bytes

TARGET_RATIO = 0.8
TARGET_PEAK_MB = 30.0
TARGET_DROPPING_RATIO = 0.8
_KEPT_BYTES = 100 * MB
_SOURCES = """
[sources.whole]
type = "subprocess"
tty = false
[sources.dropping]
type = "subprocess"
tty = false
max_log_bytes = {kept}
when_log_full = "drop_oldest"
"""
_FOLD = "head -c 1G /dev/zero | tr '\\0' x | fold -w 99"
_CAT_BYTES = 1000 * MB
_TTY_BYTES = 100 * MB
_SETTLE_SECONDS = 1.0
_AT_ONCE = 1000
_END_SECONDS = 60.0
_PRINTER = "n=0; while [ ! -e {end} ]; do echo line $n; n=$((n + 1)); sleep 1; done; echo $n lines"


@dataclass(frozen=True, slots=True)
class Subject:
    """A command, and the shell's way to have its output in the file `$OUT` without us."""

    name: str
    command: str
    direct: str
    tty: bool = False


@dataclass(slots=True)
class Figures:
    """MB/s of each run, and the most memory that a capture process had."""

    captured: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def ratio(self) -> float:
        """How fast the capture is, as a share of the way without us."""
        return median(self.captured) / median(self.direct)

    def __str__(self) -> str:
        return f"{median(self.captured):.0f} MB/s, {self.ratio:.2f} of the rate without us"


def measure(server: Server, subject: Subject, runs: int) -> Figures:
    """Run the command in both ways, in turns, and compare what it printed."""
    figures = Figures()
    for _ in range(runs):
        expected = _directly(subject, server.folder / "direct.log", figures)
        _captured(server, subject, expected, figures)
    return figures


def _directly(subject: Subject, path: Path, figures: Figures) -> bytes:
    time.sleep(_SETTLE_SECONDS)
    started = time.monotonic()
    subprocess.run(
        ["/bin/sh", "-c", subject.direct],
        env={"OUT": str(path), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.monotonic() - started
    figures.direct.append(path.stat().st_size / seconds / MB)
    digest = _digest(path)
    path.unlink()  # or the system would be busy writing it to the disk during the next run
    return digest


def _captured(server: Server, subject: Subject, expected: bytes, figures: Figures) -> None:
    time.sleep(_SETTLE_SECONDS)
    deployment_id = server.deploy(subject.command, tty=subject.tty)["id"]
    while (record := server.record(deployment_id))["state"] in ("queued", "running"):
        if record["capture_pid"]:
            peak = memory_bytes(record["capture_pid"], "VmHWM")
            figures.peak_bytes = max(figures.peak_bytes, peak)
        time.sleep(0.05)
    record = server.wait_for_end(deployment_id)
    log = server.log_path(deployment_id)
    if record["state"] != "succeeded" or _digest(log) != expected:
        raise BenchmarkError(f"the log is not what was printed: {record}")
    seconds = seconds_between(record["started_at"], record["ended_at"])
    figures.captured.append(log.stat().st_size / seconds / MB)
    server.remove(deployment_id)


def _digest(path: Path) -> bytes:
    """Of what was printed: without the terminal's CRs, and the lines that `script` adds."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = _without_script(file)
        while piece := file.read(min(MB, left)):
            left -= len(piece)
            digest.update(piece.replace(b"\r", b""))
    return digest.digest()


def _without_script(file: BinaryIO) -> int:
    """Put the file behind what `script` writes first; the bytes from there to what it adds."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 500))
    tail = file.read()
    if (footer := tail.rfind(b"\nScript done on ")) >= 0:
        end -= len(tail) - footer
    file.seek(0)
    if not file.readline(500).startswith(b"Script started on "):
        file.seek(0)
    return end - file.tell()


@dataclass(slots=True)
class Dropping:
    """MB/s of each run of a log that is kept, and of one that isn't; what that takes on disk."""

    whole: list[float] = field(default_factory=list)
    dropping: list[float] = field(default_factory=list)
    most_bytes: int = 0

    @property
    def ratio(self) -> float:
        """How fast the one that drops is, as a share of the other."""
        return median(self.dropping) / median(self.whole)


def measure_dropping(folder: Path, runs: int, *, quick: bool) -> Dropping:
    """`cat` by pipe into logs of both kinds, in turns."""
    large, config = folder / "large", folder / "dropping.toml"
    write_lines(large, _CAT_BYTES // (2 if quick else 1))
    config.write_text(_SOURCES.format(kept=_KEPT_BYTES))
    found = Dropping()
    with Server("--config", str(config)) as server:
        for _ in range(runs):
            found.whole.append(_cat(server, large, "whole")[0])
            rate, most_bytes = _cat(server, large, "dropping")
            found.dropping.append(rate)
            found.most_bytes = max(found.most_bytes, most_bytes)
    return found


def _cat(server: Server, path: Path, source: str) -> tuple[float, int]:
    """MB/s, and the most that the log took on disk."""
    time.sleep(_SETTLE_SECONDS)
    deployment_id = server.deploy(["cat", str(path)], source=source)["id"]
    log = server.log_path(deployment_id)
    most_bytes = 0
    while server.record(deployment_id)["state"] in ("queued", "running"):
        most_bytes = max(most_bytes, log.stat().st_blocks * 512)
        time.sleep(0.01)
    record = server.wait_for_end(deployment_id)
    if record["state"] != "succeeded" or log.stat().st_size != path.stat().st_size:
        raise BenchmarkError(f"the log is not what was printed: {record}")
    seconds = seconds_between(record["started_at"], record["ended_at"])
    server.remove(deployment_id)
    return path.stat().st_size / seconds / MB, most_bytes


def _report_dropping(report: Report, found: Dropping) -> None:
    report.add(
        f"capture of cat by pipe, kept within {_KEPT_BYTES // MB} MB",
        f"{median(found.dropping):.0f} MB/s, {found.ratio:.2f} of the rate without a limit, "
        f"at most {found.most_bytes / MB:.0f} MB on disk",
        f"{TARGET_DROPPING_RATIO} of it",
        met=found.ratio >= TARGET_DROPPING_RATIO,
    )


@dataclass(slots=True)
class Crowd:
    """What many deployments at once have needed."""

    start_seconds: float
    capture_pss_bytes: int
    capture_rss_bytes: int
    server_rss_bytes: int
    cpu_share: float  # of one processor: the server and all capture processes
    lost_lines: int


def measure_at_once(server: Server, count: int, seconds: float) -> Crowd:
    """So many deployments, all printing a line a second, looked at while all of them run."""
    end = server.folder / "end"
    command = _PRINTER.format(end=shlex.quote(str(end)))
    began = time.monotonic()
    ids = [server.deploy(command, tty=False)["id"] for _ in range(count)]
    start_seconds = time.monotonic() - began
    pids = [_capture_pid(server, deployment_id) for deployment_id in ids]
    before = cpu_seconds([server.pid, *pids])
    time.sleep(seconds)
    cpu_share = (cpu_seconds([server.pid, *pids]) - before) / seconds
    pss, rss = proportional_bytes(pids), resident_bytes(pids)
    server_rss = resident_bytes([server.pid])
    end.touch()
    lost = sum(_lost_lines(server, deployment_id) for deployment_id in ids)
    return Crowd(start_seconds, pss, rss, server_rss, cpu_share, lost)


def _capture_pid(server: Server, deployment_id: str) -> int:
    """The capture process's, once it has said so in the record."""
    while (pid := server.record(deployment_id)["capture_pid"]) is None:
        time.sleep(0.01)
    return int(pid)


def _lost_lines(server: Server, deployment_id: str) -> int:
    """How many of the lines aren't in the log, once the deployment has ended."""
    if server.wait_for_end(deployment_id, _END_SECONDS)["state"] != "succeeded":
        raise BenchmarkError(f"{deployment_id} failed")
    *lines, last = server.log_path(deployment_id).read_bytes().splitlines()
    printed = int(last.split()[0])
    return len({b"line %d" % number for number in range(printed)} - set(lines))


def _subjects(folder: Path, *, quick: bool) -> list[Subject]:
    """The commands, with the files that they read."""
    large, small = folder / "large", folder / "small"
    share = 5 if quick else 1
    write_lines(large, _CAT_BYTES // share)
    write_lines(small, _TTY_BYTES // share)
    cat = f"cat {shlex.quote(str(large))}"
    typed = f"cat {shlex.quote(str(small))}"
    subjects = [Subject("cat by pipe", cat, f'{cat} | cat > "$OUT"')]
    if not quick:
        subjects.append(Subject("fold by pipe", _FOLD, f'{{ {_FOLD}; }} > "$OUT"'))
    if program("script"):
        direct = f'script -q -c {shlex.quote(typed)} "$OUT"'
        subjects.append(Subject("cat by terminal", typed, direct, tty=True))
    return subjects


def _report_subject(report: Report, name: str, figures: Figures) -> None:
    than = {"cat by pipe": "cat | cat", "cat by terminal": "script"}.get(name, "the same")
    report.add(
        f"capture of {name}",
        f"{figures}, peak memory {figures.peak_bytes / MB:.0f} MB",
        f"{TARGET_RATIO} of {than} into a file, {TARGET_PEAK_MB:g} MB",
        met=figures.ratio >= TARGET_RATIO and figures.peak_bytes / MB < TARGET_PEAK_MB,
    )


def _report_crowd(report: Report, count: int, crowd: Crowd) -> None:
    report.add(
        f"{count:,} deployments at once, a line a second each",
        f"{f'{crowd.lost_lines} LINES LOST' if crowd.lost_lines else 'all captured'}; "
        f"started in {crowd.start_seconds:.1f} s; "
        f"capture processes {crowd.capture_pss_bytes / MB:.0f} MB "
        f"({crowd.capture_rss_bytes / MB:,.0f} MB with what they share counted for each), "
        f"server {crowd.server_rss_bytes / MB:.0f} MB, "
        f"{crowd.cpu_share * 100:.0f} % of a processor",
        "all captured",
        met=not crowd.lost_lines,
    )


def main() -> None:
    """Print the figures of all commands, and of many at once."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--at-once", type=int, default=_AT_ONCE, help="how many deployments")
    options.add_argument("--seconds", type=float, default=10.0, help="how long they are watched")
    _measure_all(options.parse_args())


def _measure_all(args: argparse.Namespace) -> None:
    runs, at_once, seconds = args.runs, args.at_once, args.seconds
    if args.quick:
        runs, at_once, seconds = 1, min(at_once, 200), 3.0
    report = Report("capture", args.json)
    with Server() as server, tempfile.TemporaryDirectory(dir=shared_memory_dir()) as folder:
        for subject in _subjects(Path(folder), quick=args.quick):
            _report_subject(report, subject.name, measure(server, subject, runs))
    with tempfile.TemporaryDirectory(dir=shared_memory_dir()) as folder:
        _report_dropping(report, measure_dropping(Path(folder), runs, quick=args.quick))
    with Server() as server:
        _report_crowd(report, at_once, measure_at_once(server, at_once, seconds))
    report.finish()


if __name__ == "__main__":
    main()
