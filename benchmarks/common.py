"""What the benchmarks share: a server of their own, a viewer on a raw socket, and percentiles.

with Server() as server:
    record = server.deploy("echo hi")
    with Viewer(server.port, f"/logs/{record['id']}") as viewer:
        for piece in viewer.pieces():
            ...
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.system import SERVER_CPU

START_SECONDS = 20.0
END_SECONDS = 300.0
MB = 1_000_000
LINE_BYTES = 100

_POLL_SECONDS = 0.05
_FINAL = {"succeeded", "failed", "stopped", "timed_out", "lost", "finished"}


class BenchmarkError(Exception):
    """What was to be measured did not happen as it should."""


class Server:
    """A server process with a data folder of its own; both are gone afterwards.

    The folder is made where `TMPDIR` says. With `alone` the server and what it starts keep to a
    processor of their own. A `data_dir` that was filled before is kept afterwards. `arguments` are
    those of `tornado-logs serve`.
    """

    def __init__(self, *arguments: str, alone: bool = False, data_dir: Path | None = None) -> None:
        self._arguments = arguments
        self._cpus = {SERVER_CPU} if alone else None
        self._folder = tempfile.TemporaryDirectory(prefix="tornado-logs-benchmark-")
        self.folder = Path(self._folder.name)
        self.data_dir = data_dir or self.folder / "data"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._running: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self.data_dir.mkdir(exist_ok=True)
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tornado_logs.cli", "serve"]
        command += ["--port", "0", "--data-dir", str(self.data_dir), *self._arguments]
        # In the folder, so that no config file is found.
        self._process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, text=True, preexec_fn=self._keep_alone
        )
        assert self._process.stdout is not None
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not (port := re.search(r":(\d+)\s*$", line)):
            raise BenchmarkError(f"the server did not start; it said {line!r}")
        self.port = int(port[1])

    def _keep_alone(self) -> None:
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)

    def close(self) -> None:
        """Stop what was deployed and has not ended, then the server; remove the folder."""
        for deployment_id in tuple(self._running):
            with contextlib.suppress(OSError, BenchmarkError):
                self._call("POST", f"/deployments/{deployment_id}/stop", {})
                self.wait_for_end(deployment_id, 15.0)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def deploy(self, command: str | list[str], **fields: Any) -> dict[str, Any]:
        """Start a deployment; its record."""
        record = self._call("POST", "/deployments", {"command": command, **fields})
        self._running.add(record["id"])
        return record

    def record(self, deployment_id: str) -> dict[str, Any]:
        """The record as the server tells it."""
        return self._call("GET", f"/deployments/{deployment_id}")

    def wait_for_end(self, deployment_id: str, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Poll until the deployment has ended; its record."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = self.record(deployment_id)
            if record["state"] in _FINAL:
                self._running.discard(deployment_id)
                return record
            time.sleep(_POLL_SECONDS)
        raise BenchmarkError(f"{deployment_id} has not ended within {seconds:g} s")

    def log_path(self, deployment_id: str) -> Path:
        """Where a deployment's log is."""
        return self.data_dir / f"{deployment_id}.log"

    def deploy_fifo(self, name: str = "fifo") -> tuple[str, Path]:
        """A deployment that prints what is written to a FIFO: its id, and the FIFO."""
        fifo = self.folder / name
        os.mkfifo(fifo)
        return self.deploy(["cat", str(fifo)], tty=False)["id"], fifo

    def bare_log(self, name: str = "bare") -> tuple[str, Path]:
        """An empty log without a capture process, to be written: its id, and its path."""
        path = self.log_path(name)
        path.touch()
        return name, path

    def put_log(self, name: str, log_bytes: int, *, redrawn: bool = False) -> Path:
        """A bare log that nobody writes any more, of numbered lines; its path."""
        new = self.folder / "new.log"
        write_lines(new, log_bytes, redrawn=redrawn)
        return self.adopt_log(name, new)

    def adopt_log(self, name: str, new: Path) -> Path:
        """Make a file a bare log that nobody writes any more; its path."""
        # Not under its name before it is whole and old, or it would count as being written.
        os.utime(new, (0, 0))
        return new.rename(self.log_path(name))

    def put_captured_log(self, log_bytes: int) -> str:
        """The same as the output of a command that has ended; its id."""
        path = self.folder / "output"
        write_lines(path, log_bytes)
        deployment_id = str(self.deploy(["cat", str(path)], tty=False)["id"])
        self.wait_for_end(deployment_id)
        path.unlink()
        return deployment_id

    def remove(self, deployment_id: str) -> None:
        """Remove the files of a deployment that has ended."""
        for suffix in (".log", ".idx", ".json"):
            (self.data_dir / f"{deployment_id}{suffix}").unlink(missing_ok=True)

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Accept": "application/json", "Content-Type": "application/json"}
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise BenchmarkError(f"{method} {path}: {response.status} {answer!r}")
        return dict(json.loads(answer))


class Viewer:
    """A client that reads a stream of events on a raw socket, as fast as it is asked to."""

    def __init__(self, port: int, path: str, body: Any = None, timeout: float = 60.0) -> None:
        """Connects; `send` then makes the request: a POST if there is a body, else a GET."""
        data = b"" if body is None else json.dumps(body).encode()
        self._request = (
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        ).encode() + data
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self) -> Self:
        """Make the request."""
        self._socket.sendall(self._request)
        return self

    def pieces(self) -> Iterator[bytes]:
        """The body in the pieces in which the server sent it: whole events, one at least."""
        status = self._file.readline()
        if b" 200 " not in status:
            raise BenchmarkError(f"the server answered {status!r}")
        while self._file.readline() not in (b"\r\n", b""):
            pass
        while size := int(self._file.readline() or b"0", 16):
            yield self._file.read(size)
            self._file.readline()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that `percent` of them don't exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def seconds_between(started_at: str, ended_at: str) -> float:
    """The time between two timestamps of a record."""
    return (datetime.fromisoformat(ended_at) - datetime.fromisoformat(started_at)).total_seconds()


def memory_bytes(pid: int, name: str) -> int:
    """`VmRSS` or `VmHWM` (its peak) of a process, from Linux's /proc; 0 once it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def write_lines(
    path: Path, size_bytes: int, line_bytes: int = LINE_BYTES, *, redrawn: bool = False
) -> None:
    """A file of numbered lines of equal length, `size_bytes` of them or a little less.

    `redrawn`: each line has another text first, which it draws over, as a progress bar does.
    """
    template = ("%012d " + "x" * (line_bytes - 14) + "\n").encode()
    if redrawn:
        template = b"waiting\r" + template[: -len(b"waiting\r") - 1] + b"\n"
    count, block = size_bytes // line_bytes, 10_000
    with path.open("wb") as file:
        for first in range(0, count, block):
            numbers = tuple(range(first, min(first + block, count)))
            file.write(template * len(numbers) % numbers)


def file_hash(path: Path) -> bytes:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def shared_memory_dir() -> str | None:
    """A folder in memory, so that reading from it costs least; None where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
