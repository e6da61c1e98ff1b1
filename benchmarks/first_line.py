"""How long from POST /deployments to the first line of output: `python -m benchmarks.first_line`.

The request asks for the events of the deployment that it starts (`echo hi`), so this is what one
curl waits for: a capture process, the command, its output, an event.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.common import Server, Viewer, percentile

TARGET = "target: 150 ms"


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
    assert first_at is not None, "the line did not come"
    return (first_at - sent_at) * 1000


def main() -> None:
    """Print the figures of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--tty", choices=("off", "on"), default="on")
    args = parser.parse_args()
    with Server() as server:
        cold = measure(server, tty=args.tty == "on")  # while the fork server still starts up
        taken = [measure(server, tty=args.tty == "on") for _ in range(args.runs)]
    p50, p99 = percentile(taken, 50), percentile(taken, 99)
    print(
        f"first line: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(taken):.1f} ms "
        f"({args.runs} runs of echo hi; {cold:.0f} ms right after the server's start; {TARGET})"
    )


if __name__ == "__main__":
    main()
