"""How cost grows with each dimension: `python -m benchmarks.growth`.

- Viewers of one log, at 10 lines/s.
- Lines a second, for 100 viewers.
- The size of a log: how long `?tail=10` and `/lines?from=-10` take, with the index that a capture
  process writes and, for a bare log, without. Large logs are sparse files: a first line, a hole,
  and real lines at the end, which is where the requests look.
- Finished deployments in the data folder.

`docs/performance.md` says which law each follows.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import many
from benchmarks.common import LINE_BYTES, MB, Server, write_lines
from benchmarks.drain import Request, seconds_to
from benchmarks.fan_out import bare_log
from benchmarks.load import LoadResult
from benchmarks.results import Report, parser
from benchmarks.system import descriptor_limit
from tornado_logs.deployment import Record, State

VIEWERS = (1, 10, 100, 1000, 10_000)
VIEWERS_RATE = 10.0
RATES = (10, 100, 1000, 10_000, 50_000)
RATES_VIEWERS = 100
LOG_BYTES: tuple[int, ...] = (1 * MB, 10 * MB, 100 * MB, 1000 * MB, 10_000 * MB, 100_000 * MB)
MOST_BARE_BYTES = 1000 * MB
COUNTS: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)

_MIB = 1024 * 1024
_TAIL_BYTES = 2 * _MIB  # of real lines, at the end of a sparse log
_SPARE_DESCRIPTORS = 200

Point = dict[str, float]


def by_viewers(seconds: float) -> list[Point]:
    """The cost of a line for each number of viewers."""
    most = descriptor_limit() - _SPARE_DESCRIPTORS
    points = []
    for viewers in VIEWERS:
        result = bare_log(min(viewers, most), VIEWERS_RATE, seconds)
        points.append({"viewers": result.viewers} | _costs(result))
    return points


def by_rate(seconds: float) -> list[Point]:
    """The cost of a line for each rate."""
    return [
        {"lines_per_second": rate} | _costs(bare_log(RATES_VIEWERS, rate, seconds))
        for rate in RATES
    ]


def _costs(result: LoadResult) -> Point:
    return {
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "cpu_share": result.cpu_seconds / result.seconds,
        "cpu_us_per_delivery": result.cpu_seconds / result.delivered * 1e6,
    }


def by_log_size(sizes: tuple[int, ...]) -> list[Point]:
    """How long the end of a log takes to come, for each size."""
    points = []
    with Server() as server:
        for log_bytes in sizes:
            point: Point = {"log_bytes": log_bytes}
            for kind in ("indexed", "bare"):
                if kind == "indexed" or log_bytes <= MOST_BARE_BYTES:
                    name = f"{kind}-{log_bytes}"
                    put_sparse_log(server, name, log_bytes, indexed=kind == "indexed")
                    point |= {f"{kind}_{key}": ms for key, ms in _end_ms(server, name).items()}
                    server.remove(name)
            points.append(point)
    return points


def _end_ms(server: Server, name: str) -> Point:
    """The times of the first and the second request for the end of the log."""
    tail = Request(f"/logs/{name}?tail=10")
    lines = Request(f"/logs/{name}/lines?from=-10&count=10", "application/json")
    return {
        "tail_first_ms": seconds_to(server.port, tail, b"data: ") * 1000,
        "tail_ms": seconds_to(server.port, tail, b"data: ") * 1000,
        "lines_first_ms": seconds_to(server.port, lines, b"}") * 1000,
        "lines_ms": seconds_to(server.port, lines, b"}") * 1000,
    }


def put_sparse_log(server: Server, name: str, log_bytes: int, *, indexed: bool) -> None:
    """A finished log of this size, which takes next to nothing of the disk."""
    new = server.folder / "sparse.log"
    write_lines(new, min(log_bytes, _TAIL_BYTES))
    lines = new.read_bytes()
    with new.open("wb") as file:
        file.write(lines[:LINE_BYTES])
        file.seek(max(0, log_bytes - len(lines)))
        file.write(lines)
        size = file.tell()
    os.utime(new, (0, 0))
    if indexed:
        _write_index(server.log_path(name).with_suffix(".idx"), size, size - len(lines))
        record = Record(name, state=State.SUCCEEDED, request={"command": "true"}, exit_status=0)
        text = json.dumps(record.to_json())
        server.log_path(name).with_suffix(".json").write_text(text)
    new.rename(server.log_path(name))


def _write_index(path: Path, log_bytes: int, tail_start: int) -> None:
    """A checkpoint each MiB, as a capture process leaves them; the hole is part of a long line."""
    ends = [*range(_MIB, log_bytes, _MIB), log_bytes]
    first = int(tail_start > 0)
    lines = (first + max(0, end - tail_start) // LINE_BYTES for end in ends)
    points = (struct.pack("<QQQ", 0, *point) for point in zip(ends, lines, strict=True))
    path.write_bytes(struct.pack("<8s8sQ", b"TLOGIDX1", b"01234567", 0) + b"".join(points))


def by_deployments(counts: tuple[int, ...]) -> list[Point]:
    """What the server needs for each number of finished deployments."""
    points = []
    with tempfile.TemporaryDirectory(prefix="tornado-logs-growth-") as folder:
        have = 0
        for count in counts:
            many.fill(Path(folder), have, count)
            have = count
            time.sleep(0.5)  # the file system has its own work with so many new files
            points.append(asdict(many.measure(Path(folder), count)))
    return points


def _report(report: Report, what: str, points: list[Point], size: str, *costs: str) -> None:
    """A figure from the first and the last point of a curve; the rest is in the JSON."""
    report.curves[what] = points
    first, last = points[0], points[-1]
    found = ", ".join(
        f"{cost} {first[cost]:.4g} → {last[cost]:.4g}" for cost in costs if cost in last
    )
    report.add(f"{what}: {size} {first[size]:,.0f} → {last[size]:,.0f}", found)


def main() -> None:
    """Print how each curve begins and ends."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=3.0, help="for each point")
    args = options.parse_args()
    seconds, sizes, counts = args.seconds, LOG_BYTES, COUNTS
    if args.quick:
        seconds, sizes, counts = 1.0, LOG_BYTES[:4], COUNTS[:4]
    report = Report("growth", args.json)
    costs = ("cpu_us_per_delivery", "p99_ms")
    _report(report, "viewers", by_viewers(seconds), "viewers", *costs)
    _report(report, "lines", by_rate(seconds), "lines_per_second", *costs)
    times = ("indexed_tail_first_ms", "indexed_lines_first_ms")
    _report(report, "log size", by_log_size(sizes), "log_bytes", *times)
    starts = ("ready_seconds", "first_list_ms", "resident_mb")
    _report(report, "deployments", by_deployments(counts), "count", *starts)
    report.finish()


if __name__ == "__main__":
    main()
