"""What a folder full of finished deployments costs: `python -m benchmarks.many`.

100,000 deployments that have ended lie in the data folder, each with its log, index and record.
How long the server takes to be ready, how fast the first page of the list comes, and whether one
more deployment costs more than it would in an empty folder.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.common import BenchmarkError, Server
from benchmarks.results import Report, parser
from benchmarks.system import cpu_seconds, resident_bytes, tree
from tornado_logs.deployment import Record, State, timestamp

TARGET_READY_SECONDS = 1.0
TARGET_PAGE_MS = 50.0
TARGET_MORE_RATIO = 1.5
_COUNT = 100_000
_QUICK_COUNT = 10_000
_FIRST_AT = 1_700_000_000  # seconds since 1970
_LINES = b"one\ntwo\nthree\n"
_INDEX = b"TLOGIDX101234567" + bytes(8)
_PAGE_RUNS = 20
_MORE_RUNS = 30
_SETTLE_SECONDS = 0.5
_IDLE_CPU_SECONDS = 0.02
_MOST_SETTLE_SECONDS = 120.0


@dataclass(slots=True)
class Figures:
    """What so many deployments have cost."""

    count: int
    ready_seconds: float
    first_list_ms: float  # the very first request to the server
    list_ms: float
    page_ms: float
    settle_seconds: float  # until the server was idle after its start
    more_ms: float  # from POST to the end of one more deployment
    more_cpu_ms: float  # of the server
    resident_mb: float


def fill(data_dir: Path, first: int, count: int) -> None:
    """Deployments `first` to `count` - 1, as they would have been left by the server."""
    for number in range(first, count):
        at = _FIRST_AT + number
        moment = timestamp(at)
        deployment_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(at)) + "22k3f9qd"
        record = Record(
            id=deployment_id,
            name=f"make deploy-{number}",
            source="shell",
            type="subprocess",
            state=State.SUCCEEDED,
            created_at=moment,
            started_at=moment,
            ended_at=moment,
            request={"command": f"make deploy-{number}"},
            exit_status=0,
        )
        data = json.dumps(record.to_json(), indent=1).encode() + b"\n"
        for suffix, content in ((".log", _LINES), (".idx", _INDEX), (".json", data)):
            fd = os.open(f"{data_dir}/{deployment_id}{suffix}", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(fd, content)
            os.close(fd)


def measure(data_dir: Path, count: int) -> Figures:
    """Start a server on a folder that was filled, and measure what it does."""
    began = time.monotonic()
    with Server(data_dir=data_dir) as server:
        ready_seconds = time.monotonic() - began
        first_list_ms = get_ms(server, "application/json")
        settle_seconds = _settle(server)
        list_ms = median(get_ms(server, "application/json") for _ in range(_PAGE_RUNS))
        page_ms = median(get_ms(server, "text/html") for _ in range(_PAGE_RUNS))
        more_ms, more_cpu_ms = _more(server)
        resident_mb = resident_bytes([server.pid]) / 1e6
    return Figures(
        count,
        ready_seconds,
        first_list_ms,
        list_ms,
        page_ms,
        settle_seconds,
        more_ms,
        more_cpu_ms,
        resident_mb,
    )


def get_ms(server: Server, accept: str) -> float:
    """How long the first page of the list takes: the page with it, for who accepts HTML."""
    path = "/" if accept == "text/html" else "/deployments"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    started = time.monotonic()
    connection.request("GET", path, headers={"Accept": accept})
    response = connection.getresponse()
    body = response.read()
    taken_ms = (time.monotonic() - started) * 1000
    connection.close()
    if response.status != 200 or not body:
        raise BenchmarkError(f"GET {path}: {response.status} {body[:100]!r}")
    return taken_ms


def _settle(server: Server) -> float:
    """Wait until the server has nothing more to do; how long that was."""
    began = time.monotonic()
    while time.monotonic() - began < _MOST_SETTLE_SECONDS:
        before = cpu_seconds([server.pid])
        time.sleep(_SETTLE_SECONDS)
        if cpu_seconds([server.pid]) - before <= _IDLE_CPU_SECONDS:
            return time.monotonic() - began - _SETTLE_SECONDS
    raise BenchmarkError("the server doesn't come to rest")


def _more(server: Server) -> tuple[float, float]:
    """One more deployment, from POST to its end: the median time, and the server's mean CPU."""
    server.wait_for_end(server.deploy("true", tty=False)["id"])
    before = cpu_seconds(tree([server.pid]))
    taken = []
    for _ in range(_MORE_RUNS):
        began = time.monotonic()
        deployment_id = server.deploy("true", tty=False)["id"]
        while not (record := server.record(deployment_id))["ended_at"]:
            time.sleep(0.001)
        taken.append((time.monotonic() - began) * 1000)
        if record["state"] != "succeeded":
            raise BenchmarkError(f"true failed: {record}")
        server.wait_for_end(deployment_id)
    cpu = cpu_seconds(tree([server.pid])) - before
    return median(taken), cpu / _MORE_RUNS * 1000


def _report(report: Report, empty: Figures, full: Figures) -> None:
    who = f"{full.count:,} deployments"
    ratio = full.more_ms / empty.more_ms
    report.add(
        f"{who}, server ready",
        f"{full.ready_seconds:.2f} s ({empty.ready_seconds:.2f} s with none)",
        f"{TARGET_READY_SECONDS:g} s",
        met=full.ready_seconds < TARGET_READY_SECONDS,
    )
    report.add(
        f"{who}, first page of the list",
        f"JSON {full.list_ms:.0f} ms, HTML {full.page_ms:.0f} ms; "
        f"{full.first_list_ms:.0f} ms for the first request of all",
        f"{TARGET_PAGE_MS:g} ms",
        met=max(full.list_ms, full.page_ms, full.first_list_ms) < TARGET_PAGE_MS,
    )
    report.add(
        f"{who}, one more from POST to its end",
        f"{full.more_ms:.0f} ms and {full.more_cpu_ms:.1f} ms of the server's CPU "
        f"({empty.more_ms:.0f} ms and {empty.more_cpu_ms:.1f} ms with none)",
        "no scan of the others",
        met=ratio < TARGET_MORE_RATIO,
    )
    report.add(
        f"{who}, resident memory",
        f"{full.resident_mb:.0f} MB ({empty.resident_mb:.0f} MB with none); "
        f"all records read {full.settle_seconds:.0f} s after the start",
    )


def main() -> None:
    """Print the figures of a full folder, beside those of an empty one."""
    options = parser(__doc__)
    options.add_argument("--count", type=int, default=_COUNT)
    args = options.parse_args()
    count = min(args.count, _QUICK_COUNT) if args.quick else args.count
    report = Report("many", args.json)
    with tempfile.TemporaryDirectory(prefix="tornado-logs-many-") as folder:
        empty = measure(Path(folder), 0)
        fill(Path(folder), 0, count)
        _report(report, empty, measure(Path(folder), count))
    report.finish()


if __name__ == "__main__":
    main()
