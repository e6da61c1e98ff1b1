"""What viewers cost while nothing is written: `python -m benchmarks.idle`.

5,000 viewers wait for the next line of a running deployment. How much memory the server has for
each, what processor time it takes while nothing comes, and when the last of them has the next line.
"""

from __future__ import annotations

from statistics import median

from benchmarks.common import Server
from benchmarks.load import Load, LoadResult
from benchmarks.results import Report, parser
from benchmarks.system import descriptor_limit

TARGET_KB = 8.0
TARGET_CPU_SHARE = 0.001
TARGET_LAST_MS = 80.0
_VIEWERS = 5000
_SPARE_DESCRIPTORS = 200


def measure(viewers: int, seconds: float) -> LoadResult:
    """Idle viewers on a server of their own."""
    with Server(alone=True) as server:
        deployment_id, fifo = server.deploy_fifo()
        path = f"/logs/{deployment_id}"
        return Load(
            server.port, [path], [str(fifo)], viewers, 0, 0.0, seconds, server=[server.pid]
        ).run()


def main() -> None:
    """Print the medians."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=8.0, help="below `ping_seconds`")
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    runs, seconds = (1, 3.0) if args.quick else (args.runs, args.seconds)
    viewers = min(_VIEWERS, descriptor_limit() - _SPARE_DESCRIPTORS)
    results = [measure(viewers, seconds) for _ in range(runs)]
    kb = median(result.kb_per_viewer for result in results)
    cpu = median(result.idle_cpu_seconds for result in results)
    last_ms = median(result.max_ms for result in results)
    report = Report("idle", args.json)
    report.add(
        f"memory of each of {viewers:,} idle viewers",
        f"{kb:.1f} KB",
        f"{TARGET_KB:g} KB",
        met=kb <= TARGET_KB,
    )
    report.add(
        f"processor time in {seconds:g} s without a line",
        f"{cpu * 1000:.1f} ms",
        f"{TARGET_CPU_SHARE:.1%}",
        met=cpu <= TARGET_CPU_SHARE * seconds,
    )
    report.add(
        f"the last of {viewers:,} viewers has a line",
        f"{last_ms:.0f} ms after its write",
        f"{TARGET_LAST_MS:g} ms",
        met=last_ms <= TARGET_LAST_MS,
    )
    report.finish()


if __name__ == "__main__":
    main()
