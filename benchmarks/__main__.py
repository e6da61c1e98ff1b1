"""Runs all benchmarks, one after the other: `python -m benchmarks`.

Each prints its line; at the end come the table and the picture. `--write` puts them where the
documents show them: see `benchmarks.report`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.load import ROOT

NAMES = (
    "latency",
    "first_line",
    "fan_out",
    "mixed",
    "idle",
    "replay",
    "line_kinds",
    "capture",
    "stalled_viewer",
    "workers",
    "many",
    "growth",
    "search",
    "log_view",
)


def run(names: list[str], *, quick: bool) -> tuple[dict[str, Any], bool]:
    """Run each in a process of its own; what they found, and whether all could measure."""
    found: dict[str, Any] = {"machine": report.machine(), "benchmarks": {}}
    complete = True
    with tempfile.TemporaryDirectory(prefix="tornado-logs-results-") as folder:
        for name in names:
            path = Path(folder, f"{name}.json")
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path)]
            status = subprocess.run(command + ["--quick"] * quick, cwd=ROOT).returncode
            complete = complete and status == 0
            if path.exists():
                found["benchmarks"][name] = json.loads(path.read_text())
    return found, complete


def main() -> int:
    """Run all, then show what they found; 0 if all of them could measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a short run: rough figures")
    report.add_options(parser)
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if platform.system() != "Linux":
        sys.exit("the benchmarks read /proc and use epoll: run them on Linux")
    found, complete = run(args.names or list(NAMES), quick=args.quick)
    report.show(found, args.results, write=args.write)
    return int(not complete)


if __name__ == "__main__":
    sys.exit(main())
