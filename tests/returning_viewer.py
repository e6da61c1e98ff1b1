"""A viewer that is cut off and comes back, as an EventSource does, until it has had the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
from conftest import Server


class Viewer(threading.Thread):
    """Reads a log like an EventSource: on any error it comes back with the last id it has."""

    def __init__(
        self, server: Server, deployment_id: str, query: str = "", seconds: float = 60
    ) -> None:
        super().__init__()
        self.deployment_id = deployment_id
        self.seconds = seconds
        self.url = f"{server.url}/logs/{deployment_id}?{query}"
        self.lines: list[str] = []
        self.ids: list[str] = []
        self.gaps_after: list[int] = []  # how many lines it had when it was told of each
        self.resets = 0
        self.connections = 0
        self.has_ended = False
        self.gave_up = False
        self._last_id = ""

    def run(self) -> None:
        """Read to the end, through whatever happens to the server."""
        deadline = time.monotonic() + self.seconds
        while not self.has_ended and time.monotonic() < deadline:
            try:
                self._connect()
            except httpx.HTTPError:
                time.sleep(0.02)  # as an EventSource waits before it comes back
        self.gave_up = not self.has_ended

    def _connect(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        with httpx.stream("GET", self.url, headers=headers, timeout=10, verify=False) as answer:
            self.connections += 1
            event: dict[str, list[str]] = {}
            for line in split_lines(answer):
                if line:
                    name, _, value = line.partition(": ")
                    event.setdefault(name, []).append(value)
                else:
                    self._dispatch(event)
                    event = {}
            if answer.status_code == 204:
                self.has_ended = True
            elif answer.status_code != 200:
                time.sleep(0.05)  # it was refused, and tries again

    def _dispatch(self, event: dict[str, list[str]]) -> None:
        """Only whole events count: one that was cut off has no blank line after it."""
        if "id" in event:
            self._last_id = event["id"][0]
        kind = event.get("event", ["message"])[0]
        if kind == "message" and "data" in event:
            self.lines += event["data"]
            self.ids += event["id"]
        if kind == "gap":
            self.gaps_after.append(len(self.lines))
        self.resets += kind == "reset"
        self.has_ended = self.has_ended or kind == "end"


def split_lines(answer: httpx.Response) -> Iterator[str]:
    """The whole lines of a stream, as they come; httpx's own would split at more than LF."""
    rest = b""
    for chunk in answer.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()
