"""How fast a finished log of 1 GB is replayed, beside nginx: `python -m benchmarks.replay`.

One viewer reads it with an event and an id per line, with many lines in one event, as text, and by
its raw URL; the same file is served by nginx in turns (one worker, sendfile). Then fifty at once
read a log of 100 MB. Both servers have a processor of their own; rates are of log bytes. Each
answer is checked: its size, and that it ends as it should. At last, what 100 viewers of another log
notice of such replays.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from statistics import median

from benchmarks import nginx
from benchmarks.common import LINE_BYTES, MB, BenchmarkError, Server
from benchmarks.drain import Drained, Request, drain, seconds_to
from benchmarks.load import Load, LoadResult
from benchmarks.results import Report, parser
from benchmarks.system import LOAD_CPU, pin
from tornado_logs.sse import CELL_BYTES

TARGET_FIRST_BYTE_MS = 10.0
TARGET_OTHERS_P99_MS = 100.0
_LOG_BYTES = 1000 * MB
_FIFTY_LOG_BYTES = 100 * MB
_FIFTY = 50
_FIRST_BYTE_RUNS = 20
_OTHERS = 100
_OTHERS_RATE = 100.0
_MOST_FRAMING = 1.001  # chunk heads, of each 128 KiB or more


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read a log, and how fast it is to be: as a share of nginx's rate."""

    name: str
    path: str
    target: float
    accept: str = "text/event-stream"

    def request(self, name: str) -> Request:
        """The request for the log of this name."""
        return Request(self.path.format(name), self.accept)

    def check(self, drained: Drained, log_bytes: int) -> None:
        """Raises BenchmarkError if an answer isn't the whole log."""
        for body_bytes, tail in zip(drained.body_bytes, drained.tails, strict=True):
            self.check_one(body_bytes, tail, log_bytes)

    def check_one(self, body_bytes: int, tail: bytes, log_bytes: int) -> None:
        """The same for one answer: its size, and its last bytes."""
        least = self._least_bytes(log_bytes)
        if not least <= body_bytes <= least * _MOST_FRAMING + 10_000:
            raise BenchmarkError(f"{self.name}: {body_bytes} bytes came, not {least}")
        last_line = b"%012d x" % (log_bytes // LINE_BYTES - 1)
        if last_line not in tail or (self._is_events and b"event: end\n" not in tail):
            raise BenchmarkError(f"{self.name}: the end is missing: {tail[-300:]!r}")

    @property
    def _is_events(self) -> bool:
        return self.accept == "text/event-stream"

    def _least_bytes(self, log_bytes: int) -> int:
        """What the log takes on the wire without the framing of HTTP."""
        lines = log_bytes // LINE_BYTES
        if not self._is_events:
            return log_bytes
        if "batch" in self.path:
            return log_bytes + lines * len("data: ")
        return log_bytes + lines * len("id: 01234567-:\ndata: \n") + _digits(lines * LINE_BYTES)


def _digits(log_bytes: int) -> int:
    """How many digits the ids of all lines have: those of their cells and of their numbers."""
    total = line = 0
    for cell in range(-(-log_bytes // CELL_BYTES)):
        count = -(-min((cell + 1) * CELL_BYTES, log_bytes) // LINE_BYTES) - line
        line += count
        total += count * len(str(cell)) + sum(len(str(number)) for number in range(1, count + 1))
    return total


WAYS = (
    Way("an id per line", "/logs/{}", 0.35),
    Way("?batch=1", "/logs/{}?batch=1", 0.6),
    Way("as text", "/logs/{}", 0.8, "text/plain"),
    Way("/raw", "/logs/{}/raw", 0.8, "*/*"),
)
STATIC = Way("nginx", "/{}.log", 1.0, "*/*")


def rate(port: int, way: Way, name: str, log_bytes: int, viewers: int = 1) -> float:
    """The MB of log that all viewers get in a second."""
    drained = drain(port, way.request(name), viewers)
    way.check(drained, log_bytes)
    return viewers * log_bytes / MB / drained.seconds


def compare(
    server: Server, static_port: int | None, log_bytes: int, viewers: int, runs: int
) -> dict[str, float]:
    """The median rates of all ways, run in turns; nginx's too if it is there."""
    name = server.put_captured_log(log_bytes)
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for way in (STATIC, *WAYS):
            port = static_port if way is STATIC else server.port
            if port is not None:
                found.setdefault(way.name, []).append(rate(port, way, name, log_bytes, viewers))
    server.remove(name)
    return {name: median(rates) for name, rates in found.items()}


def _report_rates(report: Report, who: str, found: dict[str, float]) -> None:
    static = found.get(STATIC.name)
    report.curves[who] = found
    for way in WAYS:
        text = f"{found[way.name]:,.0f} MB/s"
        if static is None:
            report.add(f"{who}, {way.name}", f"{text}; {nginx.MISSING}", f"{way.target} of nginx")
            continue
        ratio = found[way.name] / static
        report.add(
            f"{who}, {way.name}",
            f"{text}, {ratio:.2f} of nginx",
            f"{way.target} of nginx",
            met=ratio >= way.target,
        )


def first_byte_ms(server: Server, name: str) -> list[float]:
    """From the request on a new connection to the first line's event."""
    request = WAYS[0].request(name)
    return [seconds_to(server.port, request, b"data: ") * 1000 for _ in range(_FIRST_BYTE_RUNS)]


def others(server: Server, name: str, log_bytes: int, seconds: float) -> LoadResult:
    """What viewers of another log get while this one is replayed, time and again."""
    other_id, path = server.bare_log("other")
    load = Load(server.port, [f"/logs/{other_id}"], [str(path)], _OTHERS, 0, _OTHERS_RATE, seconds)
    return load.run_beside(lambda: [rate(server.port, way, name, log_bytes) for way in WAYS])


def _report_others(report: Report, result: LoadResult) -> None:
    complete = result.complete == _OTHERS
    report.add(
        f"{_OTHERS} viewers of another log meanwhile",
        f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.0f} ms, "
        f"{'all' if complete else 'NOT ALL'} delivered",
        f"p99 {TARGET_OTHERS_P99_MS:g} ms",
        met=complete and result.p99_ms < TARGET_OTHERS_P99_MS,
    )


def _report_first_byte(report: Report, taken_ms: list[float]) -> None:
    report.add(
        "time to the first line's event",
        f"p50 {median(taken_ms):.1f} ms, max {max(taken_ms):.1f} ms",
        f"{TARGET_FIRST_BYTE_MS:g} ms",
        met=max(taken_ms) < TARGET_FIRST_BYTE_MS,
    )


def main() -> None:
    """Print the rates, the time to the first byte, and what others notice."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--others-seconds", type=float, default=10.0)
    args = options.parse_args()
    pin(LOAD_CPU)
    runs, log_bytes, fifty_bytes = args.runs, _LOG_BYTES, _FIFTY_LOG_BYTES
    others_seconds = args.others_seconds
    if args.quick:
        runs, log_bytes, fifty_bytes, others_seconds = 1, log_bytes // 5, fifty_bytes // 10, 3.0
    report = Report("replay", args.json)
    with Server(alone=True) as server, contextlib.ExitStack() as stack:
        static_port = None
        if nginx.is_installed():
            static_port = stack.enter_context(nginx.Nginx(server.data_dir)).port
        _report_rates(report, "1 viewer", compare(server, static_port, log_bytes, 1, runs))
        found = compare(server, static_port, fifty_bytes, _FIFTY, 1)
        _report_rates(report, f"{_FIFTY} viewers in sum", found)
        name = "replay-others"
        server.put_log(name, log_bytes)
        _report_first_byte(report, first_byte_ms(server, name))
        _report_others(report, others(server, name, log_bytes, others_seconds))
    report.finish()


if __name__ == "__main__":
    main()
