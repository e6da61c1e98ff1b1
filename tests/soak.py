"""Load and faults for as long as you like, then every byte compared: `make soak`.

    python tests/soak.py --minutes 60 --seed 1

Three acts on one data folder, all under the same load: commands short and long, by pipe and by
terminal, floods, logs that drop their beginning; more than may run at once, some for an exclusive
name; viewers of each kind, more than a deployment may have, slow ones, some that leave; searches,
windows, pages of the list. All the while capture processes and fork servers are killed, whatever
runs is stopped and goes on, indexes are cut, and old deployments removed by the server.

1. One server lives through all of it. Its memory and descriptors have to be flat.
2. Two workers; they and their supervisor are killed, or told to end.
3. One server is killed, or told to end, over and over.

Every command counts: its log has to be, byte for byte, what it wrote, its exit status known, and it
has run once, or never if it is so recorded or was refused, and alone if its name is exclusive; each
viewer has each line once, or was told of those that were dropped. After a capture process was
killed, the log and its viewers have the same beginning of it. The exit status is 1 if anything
is off, with a line for each thing that is.

"Flat": of the first act, without its first third, the median of the second half is at most a tenth
and 8 MB above that of the first (PSS), or a quarter and 10 (descriptors); and once all viewers have
gone, there are at most 10 descriptors more than before they came.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from conftest import WAIT_SECONDS, Server
from fault_load import (
    SIZES,
    Outcome,
    Poster,
    RawViewer,
    Request,
    check_requests,
    records_by_token,
)
from returning_viewer import Viewer

from tornado_logs.processes import command_of, descendants

ACTS = {"one server": 0.5, "two workers": 0.25, "servers that end": 0.25}
_SIZES = (*SIZES, (1000, 10), (20_000, 20_000))
_ROLLING_SIZES = ((120_000, 20_000), (300, 50))  # the first more than twice what its log holds
_REMEMBERED = 100  # some of which the server may have removed
_NAMES = ("north", "south")
_POSTERS = 2
_STROLLERS = 2
# Less than there is a wish for: each limit is to be met.
_CONFIG = """
max_running = 6
max_queued = 12
max_viewers_per_deployment = 3
keep_deployments = 250
[sources.shell]
type = "subprocess"
[sources.rolling]
type = "subprocess"
max_log_bytes = 1048576
when_log_full = "drop_oldest"
"""
_SETTLE_SECONDS = 60.0
_FINAL = {"succeeded", "failed", "stopped", "timed_out", "lost"}


class SoakServer(Server):
    """A server whose stderr is kept; the config can be another for its next life."""

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--port", str(self.port)]
        with open(self.folder / "stderr", "ab") as stderr:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert f":{self.port}" in line, f"the server said {line!r}"

    def configure(self, config: str) -> None:
        """For its next start."""
        (self.folder / "tornado_logs.toml").write_text(config)

    @property
    def pid(self) -> int:
        """Its own, or its supervisor's."""
        assert self.process is not None
        return self.process.pid

    def pids(self, name: str) -> list[int]:
        """Those of its processes that have this in their title."""
        return [p.pid for p in descendants(self.pid) if name in command_of(p.pid)]

    def stderr(self) -> str:
        """All that its lives have said."""
        return (self.folder / "stderr").read_text()


@dataclass
class Sample:
    """What the server took at one moment."""

    pss_bytes: int
    descriptors: int


def sample(pid: int) -> Sample:
    """What a process takes now. See proc(5), smaps_rollup."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return Sample(int(pss.split()[1]) * 1024, len(os.listdir(f"/proc/{pid}/fd")))


def judge(samples: Sequence[Sample]) -> list[str]:
    """What isn't flat: see above."""
    samples = samples[len(samples) // 3 :]
    if len(samples) < 2:
        return []
    halves = samples[: len(samples) // 2], samples[len(samples) // 2 :]
    faults = []
    for name, part, room in (("pss_bytes", 1.1, 8_000_000), ("descriptors", 1.25, 10)):
        first, second = (statistics.median(getattr(s, name) for s in half) for half in halves)
        if second > first * part + room:
            faults.append(f"{name} isn't flat: {first:,.0f}, later {second:,.0f}")
    return faults


def comes_true(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    """Whether this is so before the time is over."""
    deadline = time.monotonic() + seconds
    while not (is_so := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)  # between two looks
    return is_so


def any_kind(chance: random.Random, folder: Path) -> Request:
    """A request of any kind."""
    rolls = chance.random() < 0.15
    request = Request.random(chance, folder, _ROLLING_SIZES if rolls else _SIZES)
    request.source, request.drops_oldest = ("rolling" if rolls else "shell"), rolls
    request.exclusive = chance.choice(("", "", *_NAMES))
    request.may_wait = not request.exclusive or chance.random() < 0.7
    request.may_find_queue_full = True
    return request


class Stroller(threading.Thread):
    """Looks at this and that, and leaves; holds what it can to what it knows."""

    def __init__(self, soak: Soak, seed: int) -> None:
        super().__init__()
        self._soak = soak
        self._server = soak.server
        self._chance = random.Random(seed)
        self.looks = 0

    def run(self) -> None:
        """Until the act is over."""
        while not self._soak.ended.wait(0.05):
            request = self._soak.any_request(self._chance)
            if request is None:
                continue
            look = self._chance.choice(
                [self._list, self._window, self._search, self._events, self._slowly, self._leave]
            )
            try:
                look(request)
            except (httpx.TransportError, OSError) as error:
                if self._soak.server_stays:
                    self._soak.faults.append(f"{look.__name__}: {error!r}")
            self.looks += 1

    def _get(self, path: str) -> httpx.Response:
        answer = httpx.get(self._server.url + path, timeout=30, verify=False)
        if answer.status_code not in (200, 404):  # it may have been deleted
            self._soak.faults.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def _list(self, _request: Request) -> None:
        self._get(f"/deployments?limit=50&last_line={self._chance.choice('01')}")

    def _window(self, request: Request) -> None:
        first = self._chance.randint(1, request.lines)
        answer = self._get(f"/logs/{request.deployment_id}/lines?from={first}&count=100")
        if answer.status_code == 200:
            lines, start = answer.json()["lines"], answer.json()["from"]
            # A command that was killed may have left a part of a line.
            if not request.was_killed and lines != request.text[start - 1 :][: len(lines)]:
                self._soak.faults.append(f"a window of {request.deployment_id} from {first}")

    def _search(self, request: Request) -> None:
        self._read(f"/logs/{request.deployment_id}/search?q={request.token}", 20)

    def _events(self, _request: Request) -> None:
        self._read("/events", 10)

    def _read(self, path: str, pieces: int) -> None:
        """So many pieces of a stream at most."""
        with (
            httpx.stream("GET", self._server.url + path, timeout=3, verify=False) as answer,
            contextlib.suppress(httpx.ReadTimeout),  # nothing happens on the list for a while
        ):
            for _ in zip(range(pieces), answer.iter_raw(), strict=False):
                if self._soak.ended.is_set():
                    return

    def _slowly(self, request: Request) -> None:
        with self._connect(f"/logs/{request.deployment_id}") as sock:
            for _ in range(20):
                if not sock.recv(1024) or self._soak.ended.wait(0.05):
                    return

    def _leave(self, request: Request) -> None:
        with self._connect(f"/logs/{request.deployment_id}?batch=1") as sock:
            if self._chance.random() < 0.5:
                sock.recv(self._chance.choice([1, 100, 10_000]))

    def _connect(self, path: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._server.port), timeout=30)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return sock


@dataclass
class Soak:
    """All of it."""

    server: SoakServer
    seconds: float
    seed: int
    faults: list[str] = field(default_factory=list)
    caused: dict[str, int] = field(default_factory=dict)
    total: Outcome = field(default_factory=Outcome)
    looks: int = 0
    peak: Sample = field(default_factory=lambda: Sample(0, 0))
    ended: threading.Event = field(default_factory=threading.Event)
    server_stays: bool = True

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._posters: list[Poster] = []
        self._requests: list[Request] = []  # not checked yet
        self._viewers: list[Viewer | RawViewer] = []
        self._checked: list[str] = []  # the ids of what is left of them on the disk

    def run(self) -> None:
        """The three acts, and what is left to check after each."""
        for act, part in ACTS.items():
            self.server_stays = act == "one server"
            self.server.configure("workers = 2\n" * (act == "two workers") + _CONFIG)
            self.server.start()
            self._act(self.seconds * part)
            self._end_all()
            self.server.terminate()
            print(f"{act}: {self.summary()}", flush=True)
        if "Traceback" in self.server.stderr():
            self.faults.append(f"the server said:\n{self.server.stderr()[-3000:]}")

    def summary(self) -> str:
        """In figures."""
        total, peak = self.total, self.peak
        caused = ", ".join(f"{name} {count}" for name, count in sorted(self.caused.items()))
        return (
            f"{total.deployments} deployments, {total.viewers} viewers, {self.looks} looks, "
            f"{total.unanswered} requests without an answer, {total.never_ran} of them recorded as "
            f"never run, {total.refused} refused; {caused}; at most {peak.pss_bytes / 1e6:.1f} MB "
            f"and {peak.descriptors} descriptors; faults: {len(self.faults)}"
        )

    def any_request(self, chance: random.Random) -> Request | None:
        """One that was answered, if there is any yet."""
        known = [r for p in self._posters for r in tuple(p.requests[-50:]) if r.deployment_id]
        return chance.choice(known) if known else None

    def _act(self, seconds: float) -> None:
        before = sample(self.server.pid)
        self.ended.clear()
        self._posters = [
            Poster(self.server, self.chance.getrandbits(32), 0.3, any_kind) for _ in range(_POSTERS)
        ]
        strollers = [Stroller(self, self.chance.getrandbits(32)) for _ in range(_STROLLERS)]
        for thread in (*self._posters, *strollers):
            thread.start()
        samples = self._cause_faults(time.monotonic() + seconds)
        self.ended.set()
        for poster in self._posters:
            poster.stop()
        for stroller in strollers:
            stroller.join()
            self.looks += stroller.looks
        if self.server_stays:
            self.faults += judge(samples)
            self._check_descriptors(before)

    def _cause_faults(self, deadline: float) -> list[Sample]:
        samples = []
        while time.monotonic() < deadline:
            time.sleep(self.chance.uniform(0.2, 1.0))  # the moments are what is tried here
            name, cause = self.chance.choice(self._causes())
            cause()
            self.caused[name] = self.caused.get(name, 0) + 1
            self._settle()
            samples.append(sample(self.server.pid))
            self.peak.pss_bytes = max(self.peak.pss_bytes, samples[-1].pss_bytes)
            self.peak.descriptors = max(self.peak.descriptors, samples[-1].descriptors)
        return samples

    def _causes(self) -> list[tuple[str, Callable[[], None]]]:
        workers = self.server.pids("tornado-logs worker")
        always: list[tuple[str, Callable[[], None]]] = [
            ("captures killed", lambda: self._kill_capture("running")),
            ("waiting captures killed", lambda: self._kill_capture("queued")),
            ("fork servers killed", lambda: self._signal("fork server", signal.SIGKILL)),
            ("fork servers stopped", lambda: self._pause(self._one_of("fork server"))),
            ("servers stopped", lambda: self._pause(self.server.pid)),
            ("captures stopped", lambda: self._pause(self._running("capture_pid"))),
            ("commands stopped", lambda: self._pause(self._running("pid"))),
            ("indexes cut", self._cut_index),
        ]
        if workers:
            always += [
                ("workers killed", lambda: self._signal("tornado-logs worker", signal.SIGKILL)),
                ("workers ended", lambda: self._signal("tornado-logs worker", signal.SIGTERM)),
                ("workers stopped", lambda: self._pause(self._one_of("tornado-logs worker"))),
            ]
        if not self.server_stays:
            always += [("servers killed", self._kill_server), ("servers ended", self._end_server)]
        return always

    def _one_of(self, name: str) -> int | None:
        pids = self.server.pids(name)
        return self.chance.choice(pids) if pids else None

    def _signal(self, name: str, number: signal.Signals) -> None:
        if pid := self._one_of(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pause(self, pid: int | None) -> None:
        """Stop it for less than the patience of the others."""
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGSTOP)
                time.sleep(self.chance.uniform(0.1, 1.0))
                os.kill(pid, signal.SIGCONT)

    def _record(self, request: Request) -> dict[str, Any] | None:
        """As it stands on the disk."""
        try:
            path = self.server.data_dir / f"{request.deployment_id}.json"
            return dict(json.loads(path.read_text()))
        except FileNotFoundError:
            return None

    def _any(self, state: str) -> tuple[Request, dict[str, Any]] | None:
        for poster in self._posters:
            for request in reversed(poster.requests.copy()):
                record = self._record(request) if request.deployment_id else None
                if record and record["state"] == state and record["capture_pid"]:
                    return request, record
        return None

    def _running(self, name: str) -> int | None:
        found = self._any("running")
        return found[1][name] if found else None

    def _kill_capture(self, state: str) -> None:
        if found := self._any(state):
            request, record = found
            request.was_killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(record["capture_pid"], signal.SIGKILL)
            record = self._record(request) or record  # its turn may have come just now
            if record["pid"]:
                with contextlib.suppress(ProcessLookupError):  # else it would count on and on
                    os.killpg(record["pid"], signal.SIGKILL)

    def _cut_index(self) -> None:
        """Of one that nobody is known to read, but for those who stroll by."""
        if self._checked:
            deployment = self.chance.choice(self._checked)
            with contextlib.suppress(FileNotFoundError):
                path = self.server.data_dir / f"{deployment}.idx"
                os.truncate(path, self.chance.randint(0, path.stat().st_size))

    def _kill_server(self) -> None:
        workers = self.server.pids("tornado-logs worker")
        self.server.kill()
        assert comes_true(
            lambda: not any("tornado-logs worker" in command_of(pid) for pid in workers)
        ), "workers outlive their supervisor"
        self.server.start()

    def _end_server(self) -> None:
        status = self.server.terminate()
        if status:
            self.faults.append(f"a server that was told to end had the exit status {status}")
        self.server.start()

    def _settle(self) -> None:
        """Check what has ended, and forget it: the server removes it some time later."""
        for poster in self._posters:
            for request in poster.requests[:-50]:  # the rest may still be asked about, or for
                viewers = [v for v in poster.viewers if v.deployment_id == request.deployment_id]
                if self._has_ended(request) and not any(v.is_alive() for v in viewers):
                    poster.requests.remove(request)
                    for viewer in viewers:
                        poster.viewers.remove(viewer)
                    self._check([request], viewers)
        self._checked = self._checked[-_REMEMBERED:]

    def _has_ended(self, request: Request) -> bool:
        """Whether nothing more comes of a request that was made a while ago."""
        if request.refusal:
            return True
        if request.deployment_id:
            record = self._record(request)
            return record is not None and record["state"] in _FINAL
        found = records_by_token(self.server, {request.token}).get(request.token, [])
        return all(record["state"] in _FINAL for record in found)

    def _check(self, requests: Sequence[Request], viewers: Sequence[Viewer | RawViewer]) -> None:
        outcome = check_requests(self.server, requests, viewers)
        for name in ("deployments", "unanswered", "never_ran", "refused", "viewers"):
            setattr(self.total, name, getattr(self.total, name) + getattr(outcome, name))
        self.faults += outcome.faults
        self._checked += [r.deployment_id for r in requests if r.deployment_id]

    def _end_all(self) -> None:
        """Wait for what still runs, and check all that is left."""
        if not comes_true(lambda: set(self._states()) <= _FINAL, _SETTLE_SECONDS):
            self.faults.append(f"something still runs after {_SETTLE_SECONDS:g} s")
        for poster in self._posters:
            self._check(poster.requests, poster.viewers)

    def _states(self) -> list[str]:
        states = []
        for path in self.server.data_dir.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # the server has removed it since
                states.append(json.loads(path.read_text())["state"])
        return states

    def _check_descriptors(self, before: Sample) -> None:
        most = before.descriptors + 10
        if not comes_true(lambda: sample(self.server.pid).descriptors <= most):
            now = sample(self.server.pid).descriptors
            self.faults.append(f"{before.descriptors} descriptors before, {now} afterwards")


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    print(f"{args.minutes:g} minutes, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tornado-logs-soak-") as folder:
        server = SoakServer(Path(folder))
        soak = Soak(server, args.minutes * 60, args.seed)
        try:
            soak.run()
        finally:
            server.close()
    for fault in soak.faults:
        print(f"FAULT: {fault}")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
