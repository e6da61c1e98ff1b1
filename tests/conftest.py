"""A real server process for the tests that need one, and what they talk to it with."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import multiprocessing
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tornado_logs.cli import main
from tornado_logs.deployment import process_start
from tornado_logs.processes import with_variable
from tornado_logs.source import DEPLOYMENT_VARIABLE

START_SECONDS = 20.0
WAIT_SECONDS = 20.0
OLD = time.time() - 3600  # long enough ago to count as finished


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Poll until `condition()` is true and return it; fail with `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)  # between two looks: what is waited for tells nobody
    return value


def tcp_row(port: int, peer_port: int) -> list[str]:
    """What proc(5) says in /proc/net/tcp of this end of an established connection; [] if none is.

    A reading may leave out a row while other connections come and go: it is looked for again.
    """
    ends = re.compile(rf":{port:04X} \w+:{peer_port:04X} 01 ")
    for _ in range(5):
        for row in Path("/proc/net/tcp").read_text().splitlines():
            if ends.search(row):
                return row.split()
        time.sleep(0.01)  # between two looks: what is waited for tells nobody
    return []


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def run_cli(folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this folder to its end, in a process of its own.

    Forked, not started: to import all that it needs takes a third of a second.
    """
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        fds = (stdout.fileno(), stderr.fileno())
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_be_cli, args=(folder, args, environ, fds))
        process.start()
        process.join(WAIT_SECONDS)
        if process.exitcode is None:
            process.kill()
            pytest.fail(f"waited {WAIT_SECONDS:g} s for the end of tornado-logs {args}")
        stdout.seek(0)
        stderr.seek(0)
        said = stdout.read(), stderr.read()
    return subprocess.CompletedProcess(args, process.exitcode, *said)


def _be_cli(
    folder: Path, args: Sequence[str], environ: dict[str, str], fds: tuple[int, int]
) -> None:
    os.chdir(folder)
    os.environ.update(environ)
    for number, fd in enumerate(fds, 1):
        os.dup2(fd, number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.exit(main(args))


def drop_log(server: Server, deployment_id: str, data: bytes) -> str:
    """Put a bare log that somebody finished an hour ago into the data folder; its id."""
    path = server.folder / f"{deployment_id}.log"
    path.write_bytes(data)
    os.utime(path, (OLD, OLD))
    path.rename(server.data_dir / path.name)
    server.wait_for_state(deployment_id, "finished")
    return deployment_id


def slow_connection(server: Server) -> http.client.HTTPConnection:
    """One that takes little at a time: most of an answer waits at the server."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000)
    return connection


class Server:
    """A server process on a port and a data folder that outlast it."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}
        """What its environment has beside ours."""
        self.http = httpx.Client(base_url=self.url, timeout=WAIT_SECONDS)
        (folder / "tornado_logs.toml").write_text(config)

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=None,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert f":{self.port}" in line, f"the server said {line!r}"

    def kill(self) -> None:
        """`kill -9`, as a crash."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """TERM; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        status = self.process.wait(WAIT_SECONDS)
        self.process.stdout.close()
        self.process = None
        return status

    def deploy(self, command: str | list[str] | None = None, **fields: Any) -> dict[str, Any]:
        """Start a deployment; its record."""
        if command is not None:
            fields["command"] = command
        answer = self.http.post("/deployments", json=fields)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def record(self, deployment_id: str) -> dict[str, Any]:
        """The record as the server tells it."""
        return dict(self.http.get(f"/deployments/{deployment_id}").json())

    def wait_for_state(self, deployment_id: str, *states: str) -> dict[str, Any]:
        """Wait until the deployment is in one of the states; its record."""
        return dict(
            wait_for(
                lambda: (record := self.record(deployment_id))["state"] in states and record,
                f"{deployment_id} to be {' or '.join(states)}",
            )
        )

    def wait_for_end(self, deployment_id: str) -> dict[str, Any]:
        """Wait until the deployment has ended; its record."""
        final = ("succeeded", "failed", "stopped", "timed_out", "lost", "finished")
        return self.wait_for_state(deployment_id, *final)

    def log(self, deployment_id: str) -> bytes:
        """The log's bytes, from the disk."""
        return (self.data_dir / f"{deployment_id}.log").read_bytes()

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the data folder, and what is in it."""
        for path in self.data_dir.rglob("*"):
            # One may be renamed, or be another's spare, in the meantime.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield str(path), path.read_bytes()

    def close(self) -> None:
        """End the server and every command that a test left running."""
        if self.process is not None:
            self.terminate()
        for path in self.data_dir.glob("*.json"):
            record = json.loads(path.read_text())
            if not record["capture_pid"]:  # one that a test made up left nothing running
                continue
            if process_start(record["capture_pid"]) == record["capture_started"]:
                os.kill(record["capture_pid"], signal.SIGKILL)
            for pid in with_variable(DEPLOYMENT_VARIABLE, record["id"]):
                with contextlib.suppress(ProcessLookupError):  # it may end at any moment
                    os.kill(pid, signal.SIGKILL)
        self.http.close()


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """For each client httpx would read all those of this machine: 35 ms, a thousand times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers, each with a folder and a config (TOML) of its own; they end with the test."""
    servers: list[Server] = []

    def make(config: str = "") -> Server:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, config))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server with the default sources."""
    return make_server()


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the default sources for all tests of a module that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def known_id(lasting_server: Server) -> str:
    """A deployment of `lasting_server` that has ended."""
    deployment_id = str(lasting_server.deploy("echo a")["id"])
    lasting_server.wait_for_end(deployment_id)
    return deployment_id
