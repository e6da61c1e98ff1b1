"""Loads of other shapes than one log for readers who keep up: `python -m benchmarks.mixed`.

- 500 viewers read while 500 more have stopped: against a run in which those don't exist.
- 100 logs with 100 viewers each.
- Lines of 10 bytes, and of 64 KB.

The logs are bare ones: what is measured is the server alone.
"""

from __future__ import annotations

from statistics import median

from benchmarks.common import Server
from benchmarks.load import Load, LoadResult
from benchmarks.results import Report, parser

TARGET_RATIO = 0.9
TARGET_P99_RATIO = 1.5
TARGET_GROWTH_MB = 5.0
_READING = 500
_STALLED = 500
_STALLED_RATE = 1000.0
_LOGS = 100
_VIEWERS_OF_EACH = 100
_LOGS_RATE = 10.0


def measure(
    seconds: float,
    *,
    viewers: int,
    rate: float,
    logs: int = 1,
    stalled: int = 0,
    line_bytes: int = 100,
) -> LoadResult:
    """One load on a server of its own."""
    with Server(alone=True) as server:
        bare = [server.bare_log(f"bare-{number}") for number in range(logs)]
        return Load(
            server.port,
            [f"/logs/{deployment_id}" for deployment_id, _ in bare],
            [str(path) for _, path in bare],
            viewers,
            stalled,
            rate,
            seconds,
            line_bytes,
            server=[server.pid],
        ).run()


def _report_stalled(report: Report, seconds: float, runs: int) -> None:
    alone, beside = [], []
    for _ in range(runs):
        alone.append(measure(seconds, viewers=_READING, rate=_STALLED_RATE))
        beside.append(measure(seconds, viewers=_READING, rate=_STALLED_RATE, stalled=_STALLED))
    p99 = [median(result.p99_ms for result in results) for results in (beside, alone)]
    work = [
        median(result.lines_per_cpu_second for result in results) for results in (beside, alone)
    ]
    growth_mb = max(result.server_growth_mb for result in beside)
    complete = all(result.complete == _READING for result in beside)
    report.add(
        f"{_READING} that read, {_STALLED} that stopped, {_STALLED_RATE:,.0f} lines/s",
        f"{'all' if complete else 'NOT ALL'} delivered, {work[0] / work[1]:.2f} of the lines per "
        f"CPU-second without them, p99 {p99[0]:.0f} ms, {p99[0] / p99[1]:.2f} times, "
        f"memory {growth_mb:+.1f} MB",
        f"{TARGET_RATIO}, p99 {TARGET_P99_RATIO} times, {TARGET_GROWTH_MB:g} MB",
        met=complete
        and work[0] / work[1] >= TARGET_RATIO
        and p99[0] / p99[1] <= TARGET_P99_RATIO
        and growth_mb <= TARGET_GROWTH_MB,
    )


def _report_load(report: Report, measured: str, result: LoadResult) -> None:
    complete = result.complete == result.viewers
    report.add(
        measured,
        f"{'all' if complete else f'{result.share:.4f}'} delivered, p50 {result.p50_ms:.0f} ms, "
        f"p99 {result.p99_ms:.0f} ms, "
        f"{result.lines_per_cpu_second / 1e3:,.0f}k lines per CPU-second",
        "all delivered",
        met=complete,
    )


def main() -> None:
    """Print what each load came to."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    runs, seconds = (1, 2.0) if args.quick else (args.runs, args.seconds)
    report = Report("mixed", args.json)
    _report_stalled(report, seconds, runs)
    viewers = _LOGS * _VIEWERS_OF_EACH
    _report_load(
        report,
        f"{_LOGS} logs with {_VIEWERS_OF_EACH} viewers each, {_LOGS_RATE:g} lines/s each",
        measure(seconds, viewers=viewers, rate=_LOGS_RATE, logs=_LOGS),
    )
    for viewers, rate, line_bytes, name in (
        (1000, 5000, 10, "10 bytes"),
        (100, 20, 65536, "64 KB"),
    ):
        _report_load(
            report,
            f"lines of {name}, {viewers:,} viewers, {rate:,} lines/s",
            measure(seconds, viewers=viewers, rate=rate, line_bytes=line_bytes),
        )
    report.finish()


if __name__ == "__main__":
    main()
