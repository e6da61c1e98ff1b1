"""How fast 1 GB is searched: `python -m benchmarks.search`.

A log of 100-byte lines, captured as a deployment, is searched for a text that few lines have, for
one that all have, and by a regular expression: by us, from the request to `event: end`, and by
`grep -c` of the same file, in turns. Both must count the same lines. The file is in the system's
cache, so that the disk isn't what is measured.
"""

from __future__ import annotations

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
from benchmarks.results import Report, parser

TARGET_RATIO = 1.3
_BYTES = 1000 * MB
_QUERIES = {
    "a text of few lines": "00001234567",
    "a text of every line": "xxxx",
    "by regex": "foo.*bar|0001[0-9]{3}99 x",
}


@dataclass(slots=True)
class Figures:
    """Seconds of each run, and after how many the first lines were told."""

    ours: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    grep: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Our time as a part of grep's."""
        return median(self.ours) / median(self.grep)

    def __str__(self) -> str:
        return (
            f"{median(self.ours):.2f} s, {self.ratio:.2f} of the {median(self.grep):.2f} s of "
            f"grep -c (first lines after {median(self.first):.2f} s)"
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
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=5)
    args = options.parse_args()
    runs = 2 if args.quick else args.runs
    report = Report("search", args.json)
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.log")
        write_lines(source, _BYTES)
        record = server.deploy(["cat", str(source)], tty=False)
        server.wait_for_end(record["id"])
        source.unlink()
        for name, query in _QUERIES.items():
            found = measure(server, record["id"], query, runs, regex=name == "by regex")
            met = found.ratio <= TARGET_RATIO
            report.add(f"1 GB, {name}", str(found), "about what grep -c takes", met=met)
    report.finish()


if __name__ == "__main__":
    main()
