"""The picture of how one log fans out, by matplotlib (the extra `bench`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_BACKGROUND, _INK, _GRID = "#fbfbfa", "#33383d", "#dcdfe2"
_WAYS = {  # as fan_out names them: label, colour, marker
    "limit": ("bare C program", "#8a9199", "s"),
    "deployment": ("tornado-logs, a command's output", "#0b6fb8", "o"),
    "bare log": ("tornado-logs, a followed file", "#d9822b", "^"),
}
# Text as text, and nothing in the file that differs from run to run.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tornado-logs",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
}

Rates = dict[str, dict[str, dict[str, float]]]
"""Lines a second, way, and figure: the curves of `fan_out`."""


def draw(rates: Rates, path: Path) -> None:
    """An SVG with a background of its own: it reads the same on a light page and a dark one."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 4.2), facecolor=_BACKGROUND, layout="constrained")
        left, right = figure.subplots(1, 2)
        _plot(left, rates, "p99_ms")
        left.set(title="p99 from write to viewer, ms", ylim=(1, 1000))
        _plot(right, rates, "lines_per_cpu_second")
        right.set(title="lines delivered per CPU-second")
        figure.suptitle("1,000 viewers of one log, an event with an id per line")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _plot(axes: Axes, rates: Rates, key: str) -> None:
    numbers = [int(rate) for rate in rates]
    for way, (label, colour, marker) in _WAYS.items():
        values = [found[way][key] for found in rates.values()]
        axes.plot(numbers, values, marker=marker, color=colour, label=label)
    axes.set(xlabel="lines a second", xscale="log", yscale="log")
    axes.set_facecolor(_BACKGROUND)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.minorticks_off()
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
