"""How fast 1 GB is searched: `python -m benchmarks.search`.

A log of 100-byte lines, captured as a deployment, is searched for a text that few lines have, for
one that all have, and by a regular expression: by us, from the request to `event: end`, and by
`grep -c` of the same file, in turns. Both must count the same lines. The file is in the system's
cache, so that the disk isn't what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import quote

from benchmarks.common import MB, BenchmarkError, Server, Viewer, write_lines

TARGET = "target: about what grep -c takes"
_BYTES = 1000 * MB
_TEXT_OF_FEW, _TEXT_OF_ALL = "00001234567", "xxxx"
_REGEX = "foo.*bar|0001[0-9]{3}99 x"


@dataclass(slots=True)
class Figures:
    """Seconds of each run, and after how many the first lines were told."""

    ours: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    grep: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ours, grep = median(self.ours), median(self.grep)
        return (
            f"{ours:.2f} s, {ours / grep:.2f} of the {grep:.2f} s of grep -c "
            f"(first lines after {median(self.first):.2f} s)"
        )


def measure(server: Server, deployment_id: str, query: str, runs: int, *, regex: bool) -> Figures:
    """Search in both ways, in turns, and compare what was counted."""
    figures = Figures()
    path = server.log_path(deployment_id)
    url = f"/logs/{deployment_id}/search?case=1&q={quote(query)}{'&regex=1' if regex else ''}"
    for _ in range(runs):
        expected = _by_grep(path, query, figures, regex=regex)
        if (counted := _by_us(server, url, figures)) != expected:
            raise BenchmarkError(f"{counted} lines were found for {query!r}, not {expected}")
    return figures


def _by_grep(path: Path, query: str, figures: Figures, *, regex: bool) -> int:
    command = ["grep", "-c", "-E" if regex else "-F", "-e", query, str(path)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C"})
    figures.grep.append(time.monotonic() - started)
    return int(done.stdout)


def _by_us(server: Server, url: str, figures: Figures) -> int:
    first = None
    started = time.monotonic()
    with Viewer(server.port, url, timeout=300.0) as viewer:
        for piece in viewer.send().pieces():
            if first is None and b"event: matches" in piece:
                first = time.monotonic() - started
            if b"event: end" in piece:
                figures.ours.append(time.monotonic() - started)
                figures.first.append(first or figures.ours[-1])
                data = piece.rpartition(b"data: ")[2]
                return int(json.loads(data)["matches"])
    raise BenchmarkError("the search came to no end")


def main() -> None:
    """Print the figures of all searches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.log")
        write_lines(source, _BYTES)
        record = server.deploy(["cat", str(source)], tty=False)
        server.wait_for_end(record["id"])
        source.unlink()
        found = {
            name: measure(server, record["id"], query, args.runs, regex=name == "by regex")
            for name, query in (
                ("few lines", _TEXT_OF_FEW),
                ("every line", _TEXT_OF_ALL),
                ("by regex", _REGEX),
            )
        }
    parts = "; ".join(f"{name} {figures}" for name, figures in found.items())
    print(f"search of 1 GB: {parts} (medians of {args.runs}; {TARGET})")


if __name__ == "__main__":
    main()
