"""How one log fans out to many viewers, beside a bare C program: `python -m benchmarks.fan_out`.

1,000 viewers follow one log of 100-byte lines, one event per line with its id. The server has one
processor, the load another. In turns: the limit (`limit.c`), a deployment (`cat` of a FIFO, whose
capture process shares the server's processor and counts), and a bare log that the server only
follows, as the limit does. Then 10,000 viewers.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from benchmarks.common import BenchmarkError, Server
from benchmarks.limit import Limit
from benchmarks.load import Load, LoadResult
from benchmarks.results import Report, parser
from benchmarks.system import descriptor_limit

TARGET_RATIO = 0.8
TARGET_P99_RATIO = 1.5
TARGET_MANY_P99_MS = 1000.0
VIEWERS = 1000
MANY_VIEWERS = 10_000
_MANY_RATES = (10, 100)
_SPARE_DESCRIPTORS = 200

Way = Callable[[int, float, float], LoadResult]


def limit(viewers: int, rate: float, seconds: float) -> LoadResult:
    """The bare C program."""
    with Limit() as server:
        return Load(
            server.port, ["/"], [str(server.path)], viewers, 0, rate, seconds, server=[server.pid]
        ).run()


def deployment(viewers: int, rate: float, seconds: float) -> LoadResult:
    """Ours: what a command prints."""
    with Server(alone=True) as server:
        deployment_id, fifo = server.deploy_fifo()
        return _load(server, deployment_id, str(fifo), viewers, rate, seconds)


def bare_log(viewers: int, rate: float, seconds: float) -> LoadResult:
    """Ours: a file that somebody else writes."""
    with Server(alone=True) as server:
        deployment_id, path = server.bare_log()
        return _load(server, deployment_id, str(path), viewers, rate, seconds)


def _load(
    server: Server, deployment_id: str, file: str, viewers: int, rate: float, seconds: float
) -> LoadResult:
    path = f"/logs/{deployment_id}"
    result = Load(server.port, [path], [file], viewers, 0, rate, seconds, server=[server.pid]).run()
    if result.complete < viewers:
        raise BenchmarkError(f"{viewers - result.complete} of {viewers} viewers miss lines")
    return result


WAYS: dict[str, Way] = {"limit": limit, "deployment": deployment, "bare log": bare_log}


def compare(rate: float, seconds: float, runs: int) -> dict[str, dict[str, float]]:
    """The medians of each way, run in turns."""
    found: dict[str, list[LoadResult]] = {name: [] for name in WAYS}
    for _ in range(runs):
        for name, way in WAYS.items():
            found[name].append(way(VIEWERS, rate, seconds))
    return {
        name: {
            "lines_per_cpu_second": median(result.lines_per_cpu_second for result in results),
            "p50_ms": median(result.p50_ms for result in results),
            "p99_ms": median(result.p99_ms for result in results),
            "share": min(result.share for result in results),
            "load_cpu_share": max(result.load_cpu_share for result in results),
        }
        for name, results in found.items()
    }


def _report(report: Report, rate: int, found: dict[str, dict[str, float]]) -> None:
    bare = found["limit"]
    for name in ("deployment", "bare log"):
        ours = found[name]
        ratio = ours["lines_per_cpu_second"] / bare["lines_per_cpu_second"]
        p99_ratio = ours["p99_ms"] / bare["p99_ms"]
        report.add(
            f"{VIEWERS:,} viewers, {rate:,} lines/s, {name}",
            f"{ratio:.2f} of its {bare['lines_per_cpu_second'] / 1e3:,.0f}k lines per CPU-second, "
            f"p99 {ours['p99_ms']:.0f} ms, {p99_ratio:.2f} times its",
            f"{TARGET_RATIO} of C, p99 {TARGET_P99_RATIO} times",
            met=ratio >= TARGET_RATIO and p99_ratio <= TARGET_P99_RATIO,
        )


def main() -> None:
    """Print the ratios to the limit, and what 10,000 viewers get."""
    options = parser(__doc__)
    options.add_argument("--rates", type=int, nargs="*", default=[10, 100, 1000, 5000])
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    runs, seconds = (1, 2.0) if args.quick else (args.runs, args.seconds)
    report = Report("fan out", args.json)
    for rate in args.rates:
        report.curves[str(rate)] = found = compare(rate, seconds, runs)
        _report(report, rate, found)
    many = min(MANY_VIEWERS, descriptor_limit() - _SPARE_DESCRIPTORS)
    for rate in _MANY_RATES:
        result = deployment(many, rate, 2 * seconds)
        report.add(
            f"{many:,} viewers, {rate} lines/s",
            f"all delivered, p50 {result.p50_ms:.0f} ms, p99 {result.p99_ms:.0f} ms",
            f"p99 {TARGET_MANY_P99_MS / 1000:g} s",
            met=result.p99_ms < TARGET_MANY_P99_MS,
        )
    report.finish()


if __name__ == "__main__":
    main()
