"""Runs all benchmarks, one after the other: `python -m benchmarks`."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("latency", "first_line", "capture", "stalled_viewer")


def main() -> int:
    """Run each in a process of its own; 0 if all of them could measure."""
    runs = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]) for name in NAMES]
    return int(any(run.returncode for run in runs))


if __name__ == "__main__":
    sys.exit(main())
