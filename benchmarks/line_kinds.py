"""What a log's lines cost that aren't usual ones: `python -m benchmarks.line_kinds`.

A log of each kind is replayed to one viewer with an event and an id per line: ended by CRLF, in
another encoding than UTF-8, very short, or drawn anew as progress bars are. Meanwhile 100 viewers
of another log get a line every 10 ms: how late those come tells how long the server was held up.
"""

from __future__ import annotations

from statistics import median

from benchmarks.common import MB, BenchmarkError, Server
from benchmarks.drain import Request, drain
from benchmarks.load import Load, LoadResult
from benchmarks.results import Report, parser
from benchmarks.system import LOAD_CPU, pin

TARGET_OTHERS_P99_MS = 100.0
_LOG_BYTES = 40 * MB
_OTHERS = 100
_OTHERS_RATE = 100.0

_TEXT = b"2026-09-28 12:00:00 INFO request served, status 200, 1834 bytes, 12 ms, client 10.0.0.17 "
KINDS = {
    "100 bytes": _TEXT + b"id=0000000\n",
    "100 bytes, CRLF": _TEXT + b"id=000000\r\n",
    "100 bytes, Latin-1": _TEXT + b"d\xe9j\xe0 vu!!!\n",
    "10 bytes": b"line 0000\n",
    "10 bytes, CRLF": b"line 000\r\n",
    "2 bytes (`yes`)": b"y\n",
    "1 byte (empty)": b"\n",
    "100 bytes, drawn anew once": _TEXT[:50] + b"\r" + _TEXT[:48] + b"\n",
    "10 bytes, drawn anew once": b"1 %\r100 %\n",
    "1 KB, a bar drawn 20 times": b"".join(
        b"\x1b[2K%3d %% %-42s\r" % (5 * step, b"#" * 2 * step) for step in range(1, 21)
    )
    + b"\n",
}


def put_log(server: Server, name: str, line: bytes, log_bytes: int) -> int:
    """A bare log of such lines that has ended; how many they are."""
    count = log_bytes // len(line)
    path = server.folder / "new.log"
    path.write_bytes(line * count)
    server.adopt_log(name, path)
    return count


def replay(server: Server, name: str, count: int) -> float:
    """How many seconds it takes; the end has to be there, and bytes enough for all events."""
    drained = drain(server.port, Request(f"/logs/{name}"))
    if b"event: end\n" not in drained.tails[0] or drained.body_bytes[0] < count * len("id: \n\n"):
        raise BenchmarkError(f"the end is missing: {drained.tails[0][-300:]!r}")
    return drained.seconds


def measure(
    server: Server, name: str, count: int, seconds: float
) -> tuple[list[float], LoadResult]:
    """How long each replay takes, and what the viewers of another log get meanwhile."""
    other_id, path = server.bare_log(f"other-{name}")
    load = Load(server.port, [f"/logs/{other_id}"], [str(path)], _OTHERS, 0, _OTHERS_RATE, seconds)
    taken: list[float] = []
    return taken, load.run_beside(lambda: taken.append(replay(server, name, count)))


def _report(
    report: Report, kind: str, megabytes: float, taken: list[float], others: LoadResult
) -> None:
    rate, complete = megabytes / median(taken), others.complete == _OTHERS
    report.curves[kind] = {"megabytes_per_second": rate, "others_p99_ms": others.p99_ms}
    report.add(
        f"lines of {kind}",
        f"{rate:,.0f} MB/s; {_OTHERS} others p99 {others.p99_ms:.0f} ms, "
        f"{'all' if complete else 'NOT ALL'} delivered",
        f"others p99 {TARGET_OTHERS_P99_MS:g} ms",
        met=complete and others.p99_ms < TARGET_OTHERS_P99_MS,
    )


def main() -> None:
    """Print the rate of each kind, and what others notice."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=5.0, help="for each kind")
    args = options.parse_args()
    seconds = 2.0 if args.quick else args.seconds
    pin(LOAD_CPU)
    report = Report("line_kinds", args.json)
    with Server(alone=True) as server:
        for number, (kind, line) in enumerate(KINDS.items()):
            name = f"kind-{number}"
            count = put_log(server, name, line, _LOG_BYTES)
            taken, others = measure(server, name, count, seconds)
            _report(report, kind, count * len(line) / MB, taken, others)
            server.remove(name)
    report.finish()


if __name__ == "__main__":
    main()
