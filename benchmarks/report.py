"""The table and the picture of what was found: `python -m benchmarks.report [--write]`.

`python -m benchmarks` keeps its figures in a JSON file; this draws them again. With `--write` they
go into the repository: the JSON to `benchmarks/results.json`, the tables between the markers in
`benchmarks/README.md` and `docs/performance.md`, the picture to `docs/performance.svg`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
DOCUMENTS = (ROOT / "benchmarks" / "README.md", ROOT / "docs" / "performance.md")
PICTURE = ROOT / "docs" / "performance.svg"


def machine() -> str:
    """Where it was measured, as far as it matters."""
    cpus = len(os.sched_getaffinity(0))
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{cpus} processors, Linux {kernel}, Python {platform.python_version()}"


def table(rows: Iterable[Sequence[str]], *head: str) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def figures(found: dict[str, Any]) -> str:
    """All figures with their targets."""
    verdicts = {True: "yes", False: "**no**", None: ""}
    rows = [
        (figure["measured"], figure["target"], figure["found"], verdicts[figure["met"]])
        for name, result in found["benchmarks"].items()
        if name != "growth"
        for figure in result["figures"]
    ]
    return (
        table(rows, "measured", "target", "found", "met") + f"\nMeasured on {found['machine']}.\n"
    )


def curves(found: dict[str, Any], name: str) -> str:
    """One of the curves of `growth`, a row for each point."""
    points = found["benchmarks"].get("growth", {"curves": {}})["curves"].get(name, [])
    head = list(dict.fromkeys(key for point in points for key in point))
    rows = [[_number(point.get(key)) for key in head] for point in points]
    return table(rows, *(key.replace("_", " ") for key in head))


def fan_out(found: dict[str, Any]) -> str:
    """How one log fans out to 1,000 viewers, a row for each rate and way."""
    rates = found["benchmarks"].get("fan_out", {"curves": {}})["curves"]
    rows = [
        (
            f"{int(rate):,}",
            way,
            f"{values['p50_ms']:.0f} ms",
            f"{values['p99_ms']:.0f} ms",
            f"{values['lines_per_cpu_second']:,.0f}",
        )
        for rate, ways in rates.items()
        for way, values in ways.items()
    ]
    return table(rows, "lines/s", "", "p50", "p99", "lines per CPU-second")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def fill_in(document: str, found: dict[str, Any]) -> str:
    """The document with what stands between its markers made anew."""

    def section(match: re.Match[str]) -> str:
        name = match[1]
        makers = {"figures": figures, "fan out": fan_out}
        text = makers[name](found) if name in makers else curves(found, name)
        return f"<!-- {name}: begin -->\n{text}<!-- {name}: end -->"

    return re.sub(r"<!-- ([\w ]+): begin -->\n.*?<!-- \1: end -->", section, document, flags=re.S)


def draw(found: dict[str, Any], path: Path) -> bool:
    """The picture of how one log fans out; False if it can't be drawn."""
    rates = found["benchmarks"].get("fan_out", {"curves": {}})["curves"]
    if not rates:
        return False
    try:
        from benchmarks import picture
    except ImportError:
        print("there is no picture without matplotlib: pip install -e '.[bench]'", file=sys.stderr)
        return False
    picture.draw(rates, path)
    return True


def show(found: dict[str, Any], results: Path, *, write: bool) -> None:
    """Print the table; keep the figures and draw the picture, with `write` for the documents."""
    print(f"\n{figures(found)}")
    picture = PICTURE if write else results.with_suffix(".svg")
    path = RESULTS if write else results
    path.write_text(json.dumps(found, indent=1) + "\n")
    if write:
        for document in DOCUMENTS:
            document.write_text(fill_in(document.read_text(), found))
    drawn = draw(found, picture)
    print(f"figures: {path}" + (f"; picture: {picture}" if drawn else ""))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the figures go."""
    parser.add_argument("--write", action="store_true", help="update the documents and picture")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        default=Path(tempfile.gettempdir(), "tornado-logs-benchmarks.json"),
        help="where the figures are kept without --write (default: %(default)s)",
    )


def main() -> None:
    """Show what an earlier run has found: without a file, what the documents show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("found", nargs="?", type=Path, default=RESULTS, help="of an earlier run")
    add_options(parser)
    args = parser.parse_args()
    show(json.loads(args.found.read_text()), args.results, write=args.write)


if __name__ == "__main__":
    main()
