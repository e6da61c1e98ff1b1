"""What a second worker brings: `python -m benchmarks.workers`.

Thirty-two viewers read logs with an id per line, each a log of its own, time and again: what the
server does for one of them it can't share with another, so its processors are the limit. Fewer
would now and then leave a worker with too little to do, as the kernel deals the connections out by
chance. The load shares the two processors with the workers, so they can't have twice of what one
alone has: it throws away what comes, and copies but the end of each answer. That takes a tenth of a
processor. With lines that were redrawn, which the server has more work with, it takes nearly
nothing; the processor time for a line tells, in both, what two workers lose to each other.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.common import LINE_BYTES, MB, BenchmarkError, Server
from benchmarks.drain import Reader, Request, drain
from benchmarks.replay import WAYS
from benchmarks.results import Report, parser
from benchmarks.system import cpu_seconds, tree

TARGET_RATIO = 1.7
_VIEWERS = 32
_LOG_BYTES = 20 * MB
_WARM_SECONDS = 0.5
_FRAMING_BYTES = 1000
_REST_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Throughput:
    """What came in the measured time."""

    mb_per_second: float  # of log
    ns_per_line: float  # of the server's processor time
    load_share: float  # of a processor


def measure(workers: int, seconds: float, *, redrawn: bool) -> Throughput:
    """Keep so many workers busy for a while."""
    with Server("--workers", str(workers)) as server:
        requests = [WAYS[0].request(f"replay-{number}") for number in range(_VIEWERS)]
        for number in range(_VIEWERS):
            server.put_log(f"replay-{number}", _LOG_BYTES, redrawn=redrawn)
        answer_bytes = _whole_answer_bytes(server.port, requests[0])
        with contextlib.closing(Reader(server.port, _REST_SECONDS, answer_bytes)) as reader:
            for request in requests:
                reader.ask(request)
            _read(reader, _WARM_SECONDS, answer_bytes)
            pids = tree([server.pid])
            cpu, own, before = cpu_seconds(pids), time.process_time(), reader.total_bytes
            taken = _read(reader, seconds, answer_bytes)
            cpu, own = cpu_seconds(pids) - cpu, time.process_time() - own
            lines = (reader.total_bytes - before) / answer_bytes * _LOG_BYTES / LINE_BYTES
    return Throughput(lines * LINE_BYTES / MB / taken, cpu / lines * 1e9, own / taken)


def _whole_answer_bytes(port: int, request: Request) -> int:
    drained = drain(port, request)
    if b"event: end\n" not in drained.tails[0]:
        raise BenchmarkError(f"the end is missing: {drained.tails[0][-300:]!r}")
    return drained.body_bytes[0]


def _read(reader: Reader, seconds: float, answer_bytes: int) -> float:
    """Read for a while, each log again once it has ended; how long that was."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        ended: list[Request] = []
        for request, body_bytes, tail in reader.read():
            if abs(body_bytes - answer_bytes) > _FRAMING_BYTES or b"event: end\n" not in tail:
                raise BenchmarkError(f"{body_bytes} bytes came, not {answer_bytes}")
            ended.append(request)
        for request in ended:
            reader.ask(request)
    return time.monotonic() - began


def has_workers() -> bool:
    """Whether this version has the option."""
    command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--help"]
    return "--workers" in subprocess.run(command, capture_output=True, text=True).stdout


def main() -> None:
    """Print the ratio of two workers to one."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--runs", type=int, default=7)
    args = options.parse_args()
    runs, seconds = (1, 2.0) if args.quick else (args.runs, args.seconds)
    if not has_workers():
        sys.exit("workers: this version of tornado-logs has no `serve --workers`")
    report = Report("workers", args.json)
    for redrawn in (False, True):
        one: list[Throughput] = []
        two: list[Throughput] = []
        for _ in range(runs):
            one.append(measure(1, seconds, redrawn=redrawn))
            two.append(measure(2, seconds, redrawn=redrawn))
        _report(report, "redrawn lines" if redrawn else "plain lines", one, two)
    report.finish()


def _report(report: Report, lines: str, one: list[Throughput], two: list[Throughput]) -> None:
    rates = [median(item.mb_per_second for item in results) for results in (one, two)]
    costs = [median(item.ns_per_line for item in results) for results in (one, two)]
    report.add(
        f"two workers beside one, {_VIEWERS} replays at once, {lines}",
        f"{rates[1] / rates[0]:.2f} times the throughput ({rates[0]:.0f} and {rates[1]:.0f} MB/s); "
        f"{costs[0]:.0f} and {costs[1]:.0f} ns of processor time for a line; the load itself took "
        f"{median(item.load_share for item in two):.2f} of a processor",
        f"{TARGET_RATIO} times",
        met=rates[1] / rates[0] >= TARGET_RATIO,
    )


if __name__ == "__main__":
    main()
