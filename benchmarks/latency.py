"""How long a line takes from the command's write() to a viewer: `python -m benchmarks.latency`.

The command stamps each line with the monotonic clock, which all processes share, right before it
writes it; the viewer looks at the same clock once it has read the line's event.
"""

from __future__ import annotations

import argparse
import re
import sys
import time

from benchmarks.common import Server, Viewer, percentile

TARGET = "target: p50 10 ms, p99 50 ms"
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
    assert len(taken) == lines, f"{len(taken)} of {lines} lines came"
    return taken


def main() -> None:
    """Print the figures by pipe and by terminal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tty", choices=("off", "on", "both"), default="both")
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--interval-ms", type=float, default=10.0)
    args = parser.parse_args()
    parts = []
    for name, tty in (("pipe", False), ("terminal", True)):
        if args.tty in ("both", "on" if tty else "off"):
            taken = measure(args.lines, args.interval_ms / 1000, tty=tty)
            p50, p99 = percentile(taken, 50), percentile(taken, 99)
            parts.append(f"by {name} p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(taken):.1f} ms")
    each = f"{args.lines} lines each, one every {args.interval_ms:g} ms"
    print(f"latency: {'; '.join(parts)} ({each}; {TARGET})")


if __name__ == "__main__":
    main()
