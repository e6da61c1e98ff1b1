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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from conftest import Server
from returning_viewer import Viewer

EXIT_STATUS = 7
SIZES = ((1, 1), (300, 300), (400, 20), (300, 50), (3000, 3000))
RAN_FILE = "ran"

_COMMAND = """echo {token} >> {folder}/{ran}
i=0
while [ $i -lt {lines} ]; do
i=$((i+1)); echo {token} $i
if [ $((i % {burst})) = 0 ]; then sleep 0.02; fi
done
exit {status}"""


@dataclass
class Request:
    """A deployment that was asked for, and what came of that."""

    token: str
    lines: int
    burst: int  # lines, after each of which it rests
    tty: bool
    folder: Path
    deployment_id: str | None = None  # None: it got no answer
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
        )
        return {"command": command, "tty": self.tty}

    @property
    def text(self) -> list[str]:
        """The lines that it prints."""
        return [f"{self.token} {number}" for number in range(1, self.lines + 1)]

    @property
    def log(self) -> bytes:
        """The log that it leaves."""
        return "".join(f"{line}\n" for line in self.text).encode()


class Poster(threading.Thread):
    """Starts one after the other, whatever happens to the server, and never one twice."""

    def __init__(
        self,
        server: Server,
        seed: int,
        rest_seconds: float = 0.1,
        sizes: Sequence[tuple[int, int]] = SIZES,
    ) -> None:
        super().__init__()
        self._sizes = sizes
        self.requests: list[Request] = []
        self.viewers: list[Viewer | RawViewer] = []
        self.refusals: list[str] = []
        self._server = server
        self._chance = random.Random(seed)
        self._rest_seconds = rest_seconds
        self._ended = threading.Event()

    def run(self) -> None:
        """Until it is told to stop."""
        while not self._ended.wait(self._rest_seconds):
            request = Request.random(self._chance, self._server.folder, self._sizes)
            self.requests.append(request)
            try:
                url = f"{self._server.url}/deployments"
                answer = httpx.post(url, json=request.body, timeout=30, verify=False)
            except httpx.TransportError:
                continue
            if answer.status_code != 201:
                self.refusals.append(answer.text)
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
    unanswered: int = 0
    never_ran: int = 0
    viewers: int = 0


def check(server: Server, posters: Sequence[Poster]) -> Outcome:
    """Hold all that was asked, run and read against each other, once all has ended."""
    requests = [request for poster in posters for request in poster.requests]
    viewers = [viewer for poster in posters for viewer in poster.viewers]
    outcome = check_requests(server, requests, viewers)
    outcome.faults += [f"refused: {text}" for poster in posters for text in poster.refusals]
    return outcome


def check_requests(
    server: Server, requests: Sequence[Request], viewers: Sequence[Viewer | RawViewer]
) -> Outcome:
    """The same for these requests, which have ended, and the viewers of their logs."""
    ran_file = server.folder / RAN_FILE
    ran = Counter(ran_file.read_text().split() if ran_file.exists() else [])
    records = _records_by_token(server, {request.token for request in requests})
    outcome = Outcome(viewers=len(viewers))
    for request in requests:
        found = records.get(request.token, [])
        outcome.deployments += len(found)
        outcome.unanswered += request.deployment_id is None
        faults = _faults_of(server, request, found, ran[request.token], outcome)
        outcome.faults += [f"{request.token} ({request.deployment_id}): {f}" for f in faults]
    by_id = {request.deployment_id: request for request in requests}
    for viewer in viewers:
        request = by_id[viewer.deployment_id]
        text = request.text
        if request.was_killed:
            text = server.log(viewer.deployment_id).decode().splitlines()
        if viewer.gave_up or viewer.resets or viewer.lines != text:
            outcome.faults.append(
                f"{type(viewer).__name__} of {request.deployment_id}: {len(viewer.lines)} lines"
                f" of {len(text)}, resets: {viewer.resets}, gave up: {viewer.gave_up}"
            )
    return outcome


def _records_by_token(server: Server, tokens: set[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in server.data_dir.glob("*.json"):
        record = json.loads(path.read_text())
        token = record["request"]["command"].split()[1]
        if token in tokens:
            found.setdefault(token, []).append(record)
    return found


def _faults_of(
    server: Server, request: Request, records: list[dict[str, Any]], ran: int, outcome: Outcome
) -> list[str]:
    """What isn't as it has to be with one request."""
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
        return [] if request.log.startswith(log) else ["its log is no beginning of what it wrote"]
    faults = []
    if (record["state"], record["exit_status"]) != ("failed", EXIT_STATUS):
        faults.append(f"state {record['state']}, exit status {record['exit_status']}")
    if not ran:
        faults.append("it has ended and never ran")
    if log != request.log:
        faults.append(f"its log has {len(log)} bytes, and not the {len(request.log)} it wrote")
    return faults
