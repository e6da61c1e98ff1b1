"""What a benchmark has found: printed as one line, and kept as JSON for the table and the picture.

args = parser(__doc__).parse_args()
report = Report("idle", args.json)
report.add("memory per idle viewer", f"{found_kb:.1f} KB", "8 KB", met=found_kb <= 8)
report.finish()
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Figure:
    """One row of the table. `met` is None where there is no target."""

    measured: str
    target: str
    found: str
    met: bool | None

    def __str__(self) -> str:
        missed = ": MISSED" if self.met is False else ""
        target = f" (target {self.target}{missed})" if self.target else ""
        return f"{self.measured}: {self.found}{target}"


@dataclass(slots=True)
class Report:
    """All figures of one benchmark, and the curves behind them."""

    name: str
    path: Path | None = None
    figures: list[Figure] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)

    def add(self, measured: str, found: str, target: str = "", *, met: bool | None = None) -> None:
        """Note a figure."""
        self.figures.append(Figure(measured, target, found, met))

    def finish(self) -> None:
        """Print the line, and write the JSON where it was asked for."""
        print(f"{self.name} - {'; '.join(map(str, self.figures))}", flush=True)
        if self.path is not None:
            found = {"figures": [asdict(figure) for figure in self.figures], "curves": self.curves}
            self.path.write_text(json.dumps(found, indent=1) + "\n")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a short run: rough figures")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    return options
