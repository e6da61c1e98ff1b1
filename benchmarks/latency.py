"""How long a line takes from the command's write() to a viewer: `python -m benchmarks.latency`.

One viewer: the command stamps each line with the monotonic clock, which all processes share, right
before it writes it; the viewer looks at the same clock once it has read the line's event. With 10
and 100 viewers a writer stamps the lines, and the deployment's command is `cat` of its FIFO.
"""

from __future__ import annotations

import re
import sys
import time
from statistics import median

from benchmarks.common import BenchmarkError, Server, Viewer, percentile
from benchmarks.load import Load, LoadResult
from benchmarks.results import Report, parser

TARGET_P50_MS = {1: 10.0, 10: 1.0, 100: 2.0}
TARGET_P99_MS = 50.0
_WRITER = """
import os, sys, time
lines, interval = int(sys.argv[1]), float(sys.argv[2])
start = time.monotonic() + 0.5  # by then the viewer is there
for number in range(lines):
    time.sleep(max(0.0, start + number * interval - time.monotonic()))
    os.write(1, b"written at %d\\n" % time.monotonic_ns())
"""
_WRITTEN = re.compile(rb"^data: written at (\d+)$", re.MULTILINE)


def measure(lines: int, interval_seconds: float, *, tty: bool) -> list[float]:
    """The milliseconds that each line took, with one viewer."""
    command = [sys.executable, "-c", _WRITER, str(lines), str(interval_seconds)]
    taken: list[float] = []
    with Server() as server:
        record = server.deploy(command, tty=tty)
        with Viewer(server.port, f"/logs/{record['id']}").send() as viewer:
            for piece in viewer.pieces():
                now = time.monotonic_ns()
                taken += [(now - int(written)) / 1e6 for written in _WRITTEN.findall(piece)]
        server.wait_for_end(record["id"])
    if len(taken) != lines:
        raise BenchmarkError(f"{len(taken)} of {lines} lines came")
    return taken


def measure_many(viewers: int, rate: float, seconds: float) -> LoadResult:
    """The same for several viewers, by pipe; the server has a processor of its own."""
    with Server(alone=True) as server:
        deployment_id, fifo = server.deploy_fifo()
        result = Load(
            server.port, [f"/logs/{deployment_id}"], [str(fifo)], viewers, 0, rate, seconds
        ).run()
    if result.complete < viewers:
        raise BenchmarkError(f"{viewers - result.complete} of {viewers} viewers miss lines")
    return result


def _report_one(report: Report, name: str, taken: list[float], each: str) -> None:
    p50, p99 = percentile(taken, 50), percentile(taken, 99)
    report.add(
        f"a line by {name}, {each}",
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(taken):.1f} ms",
        f"p50 {TARGET_P50_MS[1]:g} ms, p99 {TARGET_P99_MS:g} ms",
        met=p50 <= TARGET_P50_MS[1] and p99 <= TARGET_P99_MS,
    )


def _report_many(report: Report, viewers: int, results: list[LoadResult], rate: float) -> None:
    p50 = median(result.p50_ms for result in results)
    p99 = median(result.p99_ms for result in results)
    report.add(
        f"{viewers} viewers, {rate:g} lines/s",
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
        f"p50 {TARGET_P50_MS[viewers]:g} ms",
        met=p50 < TARGET_P50_MS[viewers],
    )


def main() -> None:
    """Print the figures by pipe and by terminal, and those of more viewers."""
    options = parser(__doc__)
    options.add_argument("--tty", choices=("off", "on", "both"), default="both")
    options.add_argument("--lines", type=int, default=1000)
    options.add_argument("--interval-ms", type=float, default=10.0)
    options.add_argument("--runs", type=int, default=3, help="with many viewers")
    args = options.parse_args()
    lines, runs = (200, 1) if args.quick else (args.lines, args.runs)
    interval_seconds = args.interval_ms / 1000
    report = Report("latency", args.json)
    for name, tty in (("pipe", False), ("terminal", True)):
        if args.tty in ("both", "on" if tty else "off"):
            taken = measure(lines, interval_seconds, tty=tty)
            _report_one(report, name, taken, f"one each {args.interval_ms:g} ms")
    rate = 1 / interval_seconds
    for viewers in (10, 100):
        results = [measure_many(viewers, rate, lines * interval_seconds / 2) for _ in range(runs)]
        _report_many(report, viewers, results, rate)
    report.finish()


if __name__ == "__main__":
    main()
