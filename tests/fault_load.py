"""Load whose outcome can be checked to the byte: commands that count, and viewers of each kind.

All of it is plain HTTP; `verify=False` is there because the making of an unused TLS context would
cost more than everything else.

Each command notes that it ran, prints numbered lines, and exits with 7:

    request = Request.random(random.Random(1), folder)
    server.deploy(request.command)
    ...
    request.log == server.log(id)
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from conftest import Server
from returning_viewer import Viewer

EXIT_STATUS = 7
SIZES = ((1, 1), (300, 300), (400, 20), (300, 50), (3000, 3000))
RAN_FILE = "ran"
LEAST_KEPT_BYTES = 1024 * 1024 // 2  # of a log of a MiB, at most: it drops an eighth, and a cell

_COMMAND = """echo {token} >> {folder}/{ran}
{hold}i=0
while [ $i -lt {lines} ]; do
i=$((i+1)); echo {token} $i
if [ $((i % {burst})) = 0 ]; then sleep 0.02; fi
done
exit {status}"""
# It says so if another of its name runs.
_HOLD = "exec 9>>{folder}/{exclusive}; flock --nonblock 9 || echo not alone\n"


@dataclass
class Request:
    """A deployment that was asked for, and what came of that."""

    token: str
    lines: int
    burst: int  # lines, after each of which it rests
    tty: bool
    folder: Path
    source: str = ""
    exclusive: str = ""  # of those with this name one runs at a time
    may_wait: bool = True  # for its name; else it is refused while another has it
    may_find_queue_full: bool = False
    drops_oldest: bool = False  # its log, once that is full
    deployment_id: str | None = None  # None: it got no answer
    refusal: str = ""
    was_killed: bool = False  # its capture process; it may have ended before

    @classmethod
    def random(
        cls, chance: random.Random, folder: Path, sizes: Sequence[tuple[int, int]] = SIZES
    ) -> Request:
        """One of these sizes: so many lines, with a rest after each so many."""
        token = f"t{chance.getrandbits(48):012x}"
        lines, burst = chance.choice(sizes)
        return cls(token, lines, burst, chance.random() < 0.5, folder)

    @property
    def body(self) -> dict[str, Any]:
        """What to POST."""
        command = _COMMAND.format(
            token=self.token,
            folder=self.folder,
            ran=RAN_FILE,
            lines=self.lines,
            burst=self.burst,
            status=EXIT_STATUS,
            hold=_HOLD.format(folder=self.folder, exclusive=self.exclusive) * bool(self.exclusive),
        )
        body = {"command": command, "tty": self.tty}
        if self.source:
            body["source"] = self.source
        if self.exclusive:
            body |= {"exclusive": self.exclusive, "if_busy": "wait" if self.may_wait else "refuse"}
        return body

    @property
    def text(self) -> list[str]:
        """The lines that it prints."""
        return [f"{self.token} {number}" for number in range(1, self.lines + 1)]

    def number_of(self, line: str) -> int:
        """Which of its lines this is, the first is 1; 0 if it is none."""
        number = line.removeprefix(f"{self.token} ")
        return int(number) if number != line and number.isdecimal() else 0

    @property
    def may_be_refused(self) -> bool:
        """Whether it was refused for a reason that there may be."""
        if self.refusal.startswith("409 "):
            return not self.may_wait
        is_full = self.refusal.startswith("503 ") and "the queue is full" in self.refusal
        return is_full and self.may_find_queue_full

    @property
    def log(self) -> bytes:
        """All that it writes."""
        return "".join(f"{line}\n" for line in self.text).encode()


class Poster(threading.Thread):
    """Starts one after the other, whatever happens to the server, and never one twice."""

    def __init__(
        self,
        server: Server,
        seed: int,
        rest_seconds: float = 0.1,
        next_request: Callable[[random.Random, Path], Request] = Request.random,
    ) -> None:
        super().__init__()
        self._next_request = next_request
        self.requests: list[Request] = []
        self.viewers: list[Viewer | RawViewer] = []
        self._server = server
        self._chance = random.Random(seed)
        self._rest_seconds = rest_seconds
        self._ended = threading.Event()

    def run(self) -> None:
        """Until it is told to stop."""
        while not self._ended.wait(self._rest_seconds):
            request = self._next_request(self._chance, self._server.folder)
            self.requests.append(request)
            try:
                url = f"{self._server.url}/deployments"
                answer = httpx.post(url, json=request.body, timeout=30, verify=False)
            except httpx.TransportError:
                continue
            if answer.status_code != 201:
                request.refusal = f"{answer.status_code} {answer.text.strip()}"
                continue
            request.deployment_id = answer.json()["id"]
            if self._chance.random() < 0.4:
                self._watch(request.deployment_id)

    def _watch(self, deployment_id: str) -> None:
        viewer = any_viewer(self._server, deployment_id, self._chance)
        self.viewers.append(viewer)
        viewer.start()

    def stop(self) -> None:
        """Ask for nothing more; wait for the last answer and for the viewers."""
        self._ended.set()
        self.join()
        for viewer in self.viewers:
            viewer.join()


def any_viewer(server: Server, deployment_id: str, chance: random.Random) -> Viewer | RawViewer:
    """A viewer of one kind or another."""
    query = chance.choice(["", "batch=1", "partial=1", "raw"])
    if query == "raw":
        return RawViewer(server, deployment_id)
    return Viewer(server, deployment_id, query)


class RawViewer(threading.Thread):
    """Reads a log as text. Bare bytes have no cursor: when it is cut off, it reads it all again."""

    def __init__(self, server: Server, deployment_id: str, seconds: float = 60) -> None:
        super().__init__()
        self.deployment_id = deployment_id
        self.seconds = seconds
        self.gave_up = False
        self.resets = 0
        self.gaps_after: list[int] = []  # it isn't told of any
        self._server = server
        self._text = b""

    @property
    def lines(self) -> list[str]:
        """What it has read, the last time."""
        return self._text.decode().splitlines()

    def run(self) -> None:
        """Until it has read a text to the end."""
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            text = bytearray()
            url = f"{self._server.url}/logs/{self.deployment_id}/raw"
            try:
                with httpx.stream("GET", url, timeout=10, verify=False) as answer:
                    for piece in answer.iter_raw():
                        text += piece
                    self._text = bytes(text)
                if answer.status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)  # as a person would, but faster
        self.gave_up = True


@dataclass
class Outcome:
    """What a load has left in a data folder."""

    faults: list[str] = field(default_factory=list)
    deployments: int = 0
    refused: int = 0
    unanswered: int = 0
    never_ran: int = 0
    viewers: int = 0


def check(server: Server, posters: Sequence[Poster]) -> Outcome:
    """Hold all that was asked, run and read against each other, once all has ended."""
    requests = [request for poster in posters for request in poster.requests]
    viewers = [viewer for poster in posters for viewer in poster.viewers]
    return check_requests(server, requests, viewers)


def check_requests(
    server: Server, requests: Sequence[Request], viewers: Sequence[Viewer | RawViewer]
) -> Outcome:
    """The same for these requests, which have ended, and the viewers of their logs."""
    ran_file = server.folder / RAN_FILE
    ran = Counter(ran_file.read_text().split() if ran_file.exists() else [])
    records = records_by_token(server, {request.token for request in requests})
    outcome = Outcome(viewers=len(viewers))
    for request in requests:
        found = records.get(request.token, [])
        outcome.deployments += len(found)
        outcome.refused += bool(request.refusal)
        outcome.unanswered += request.deployment_id is None and not request.refusal
        faults = _faults_of(server, request, found, ran[request.token], outcome)
        outcome.faults += [f"{request.token} ({request.deployment_id}): {f}" for f in faults]
    by_id = {request.deployment_id: request for request in requests}
    for viewer in viewers:
        request = by_id[viewer.deployment_id]
        text = request.text
        if request.was_killed:
            length = len(server.log(viewer.deployment_id))
            text = request.log[:length].decode().splitlines()
        if viewer.gave_up or viewer.resets or not _saw_all(viewer, text, request):
            outcome.faults.append(
                f"{type(viewer).__name__} of {request.deployment_id}: {len(viewer.lines)} lines"
                f" of {len(text)}, gaps: {viewer.gaps_after}, resets: {viewer.resets},"
                f" gave up: {viewer.gave_up}"
            )
    return outcome


def _saw_all(viewer: Viewer | RawViewer, text: Sequence[str], request: Request) -> bool:
    """Whether it has each line once, but for those that were dropped, of which it was told."""
    if not request.drops_oldest:
        return viewer.lines == text
    seen = 0
    for place, line in enumerate(viewer.lines):
        if seen < len(text) and line == text[seen]:
            seen += 1
        elif isinstance(viewer, RawViewer) and seen < len(text) and text[seen].startswith(line):
            continue  # the rest of it was dropped
        elif isinstance(viewer, RawViewer) or place in viewer.gaps_after:
            number = request.number_of(line)
            if not seen < number <= len(text):
                return False
            seen = number
        else:
            return False
    return seen == len(text)


def records_by_token(server: Server, tokens: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The records that the server has of requests with these tokens."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in server.data_dir.glob("*.json"):
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:  # the server has removed it since, as it does with old ones
            continue
        token = record["request"]["command"].split()[1]
        if token in tokens:
            found.setdefault(token, []).append(record)
    return found


def _faults_of(
    server: Server, request: Request, records: list[dict[str, Any]], ran: int, outcome: Outcome
) -> list[str]:
    """What isn't as it has to be with one request."""
    if request.refusal:
        is_right = request.may_be_refused and not (records or ran)
        return [] if is_right else [f"refused: {request.refusal}; run {ran} times"]
    if not records:
        if request.deployment_id:
            return ["it got an answer, and nobody knows it"]
        return ["it ran without a trace"] if ran else []
    if len(records) > 1 or ran > 1:
        return [f"one request, {len(records)} records, run {ran} times"]
    (record,) = records
    log = server.log(record["id"])
    if record["state"] == "lost" and "never ran" in record["note"] and not request.deployment_id:
        outcome.never_ran += 1
        return ["it never ran, and yet it did"] if ran or log else []
    if request.was_killed and record["state"] == "lost":
        is_right = _is_left_of(request.log[: len(log)], log, request)
        return [] if is_right else ["its log is no beginning of what it wrote"]
    faults = []
    if (record["state"], record["exit_status"]) != ("failed", EXIT_STATUS):
        faults.append(f"state {record['state']}, exit status {record['exit_status']}")
    if not ran:
        faults.append("it has ended and never ran")
    if not _is_left_of(request.log, log, request):
        faults.append(f"its log has {len(log)} bytes, and not the {len(request.log)} it wrote")
    return faults


def _is_left_of(whole: bytes, log: bytes, request: Request) -> bool:
    """Whether a log is what was written, or of one that drops its oldest part the rest."""
    kept = log.lstrip(b"\0") if request.drops_oldest else log
    is_enough = len(kept) >= min(len(whole), LEAST_KEPT_BYTES)
    return len(log) == len(whole) and whole.endswith(kept) and is_enough
