"""A deployment that isn't one: lines as of a real one, for a demo, a test or a first look.

    [sources.demo]
    type = "mock"
    interval_seconds = 0.5

Every line is the time in UTC, ISO 8601 with microseconds and no zone, then `: ` and a text, part
of which may be coloured (ANSI SGR); the time itself never is:

    2026-11-22T10:30:15.123456: [web] Compiled 12 modules in 1.04 s
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from tornado_logs.source import Control, Ending, LogSource, Option, SourceError

PIECE_LINES = 512
"""Lines per piece where nothing is to be waited for."""

COLOURS = {
    name: f"\x1b[{code}m"
    for name, code in {
        "plain": "0",
        "dim": "2",
        "red": "31",
        "green": "32",
        "yellow": "33",
        "cyan": "36",
        "error": "1;31",
        "heading": "1;34",
    }.items()
}

SERVICES = ("web", "api", "worker", "search", "billing")

STEPS = (
    "{heading}==> Deploying {service} {version}{plain}",
    "{cyan}[{service}]{plain} Fetching origin/main",
    "{cyan}[{service}]{plain} HEAD is now at {yellow}{commit}{plain} Merge branch 'release'",
    "{cyan}[{service}]{plain} Restored {count} packages from the cache {dim}({seconds} s){plain}",
    "{cyan}[{service}]{plain} Compiled {count} modules in {seconds} s",
    "{cyan}[{service}]{plain} {green}{count} passed{plain}, 0 failed {dim}({seconds} s){plain}",
    "{cyan}[{service}]{plain} Built image {service}:{version} {dim}({count}.4 MB){plain}",
    "{cyan}[{service}]{plain} Pushed layer sha256:{commit} {bar}",
    "{cyan}[{service}]{plain} Applied migration {count}_{service}_indexes",
    "{cyan}[{service}]{plain} Started replica {replica} of 3",
    "{cyan}[{service}]{plain} Health check /healthz {green}200 OK{plain} {dim}{count} ms{plain}",
    "{green}✔{plain} {service} {version} is live {dim}({seconds} s){plain}",
)

ERRORS = (
    "Health check /healthz returned 503, trying again",
    "Connection to the image store timed out after {seconds} s",
    "Replica {replica} of 3 exited with status 137",
    "Migration {count} is locked by another session",
    "Layer sha256:{commit} was refused: digest mismatch",
)


class MockSource(LogSource):
    """Tells of deployments that nobody asked for, line by line."""

    options = (
        Option("lines", int, 100, "How many lines; 0: without end.", request=True, minimum=0),
        Option(
            "interval_seconds",
            float,
            0.5,
            "The time from line to line; 0: as fast as they are read.",
            request=True,
            minimum=0,
        ),
        Option(
            "error_share",
            float,
            0.1,
            "The share of lines that are errors, from 0 to 1.",
            request=True,
            minimum=0,
        ),
    )

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        share = settings["error_share"]
        if not 0 <= share <= 1:
            raise SourceError(f"`error_share` is {share}, but has to be from 0 to 1")

    def title(self) -> str:
        """How many lines there will be."""
        lines = self.settings["lines"]
        return f"demo of {lines} line{'s'[: lines != 1]}" if lines else "demo without end"

    def run(self, control: Control) -> Generator[bytes, None, Ending]:
        """Yield whole lines at their times; late ones follow at once, so that the rate is kept."""
        interval = self.settings["interval_seconds"]
        began, number = monotonic(), 0
        while count := self._count_from(number):
            yield b"".join(self._line(n) for n in range(number, number + count))
            number += count
            if self._count_from(number):
                control.wait(max(0.0, began + number * interval - monotonic()))
            if control.stopping:
                return Ending()
        return Ending(exit_status=0)

    def _count_from(self, number: int) -> int:
        """How many lines the next piece has; 0 when all are told."""
        most = 1 if self.settings["interval_seconds"] else PIECE_LINES
        lines = self.settings["lines"]
        return min(most, lines - number) if lines else most

    def _line(self, number: int) -> bytes:
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{now}: {_text(number, self.settings['error_share'])}\n".encode()


def _text(number: int, error_share: float) -> str:
    """The text of line `number` (from 0), always the same; errors are spread evenly."""
    errors = int(number * error_share)
    if int((number + 1) * error_share) > errors:
        wrong = ERRORS[errors % len(ERRORS)]
        step = f"{{error}}ERROR{{plain}} [{{service}}] {{red}}{wrong}{{plain}}"
    else:
        step = STEPS[number % len(STEPS)]
    scattered = number * 2654435761 % 2**32  # Knuth's multiplicative hash: it looks like chance
    done = number * 7 % 20 + 1
    return step.format(
        **COLOURS,
        service=SERVICES[number // len(STEPS) % len(SERVICES)],
        version=f"v2.{number // 60}.{number // len(STEPS) % 5}",
        commit=f"{scattered:08x}"[:7],
        count=scattered % 90 + 10,
        seconds=f"{scattered % 1900 / 100 + 0.31:.2f}",
        replica=number % 3 + 1,
        bar=f"{'█' * done}{'░' * (20 - done)} {done * 5}%",
    )
