"""How long from POST /deployments to the first line of output: `python -m benchmarks.first_line`.

The request asks for the events of the deployment that it starts (`echo hi`), so this is what one
curl waits for: a capture process, the command, its output, an event.
"""

from __future__ import annotations

import time

from benchmarks.common import BenchmarkError, Server, Viewer, percentile
from benchmarks.results import Report, parser

TARGET_MS = 100.0


def measure(server: Server, *, tty: bool) -> float:
    """The milliseconds of one run, on a connection that is open already."""
    request = {"command": "echo hi", "tty": tty}
    first_at = None
    with Viewer(server.port, "/deployments", request) as viewer:
        sent_at = time.monotonic()
        viewer.send()
        for piece in viewer.pieces():  # to the end, so that the next run finds the machine idle
            if first_at is None and b"data: hi\n" in piece:
                first_at = time.monotonic()
    if first_at is None:
        raise BenchmarkError("the line did not come")
    return (first_at - sent_at) * 1000


def main() -> None:
    """Print the figures of all runs."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=50)
    options.add_argument("--tty", choices=("off", "on"), default="on")
    args = options.parse_args()
    runs = 10 if args.quick else args.runs
    with Server() as server:
        cold = measure(server, tty=args.tty == "on")  # while the fork server still starts up
        taken = [measure(server, tty=args.tty == "on") for _ in range(runs)]
    p50, p99 = percentile(taken, 50), percentile(taken, 99)
    report = Report("first line", args.json)
    report.add(
        f"from POST to the first line, {runs} runs",
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; {cold:.0f} ms right after the server's start",
        f"{TARGET_MS:g} ms",
        met=max(p99, cold) < TARGET_MS,
    )
    report.finish()


if __name__ == "__main__":
    main()
