"""A disk that fails at each call of a deployment's life, and what is said of it: what is so."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faulty_disk
import pytest
from conftest import Server, wait_for
from faulty_disk import (
    FORK,
    OPEN_TO_READ,
    OPEN_TO_WRITE,
    ROOM,
    SHORT,
    SYNC,
    WRITE,
    WRITES,
    FaultyDisk,
)

from tornado_logs.deployment import Record, State, read_record, write_record

LINES = b"".join(b"line %d\n" % number for number in range(1, 4))
COMMAND = "touch {0}; for n in 1 2 3; do echo line $n; sleep 0.004; done; touch {0}.end; exit 7"
FAULTS = {
    "no-room": (errno.ENOSPC, WRITES),
    "error": (errno.EIO, WRITES | SYNC),
    "too-many-files": (errno.EMFILE, OPEN_TO_WRITE | OPEN_TO_READ),
    "no-memory": (errno.ENOMEM, WRITES | OPEN_TO_READ),
    "in-part": (SHORT, WRITE),
}
LASTING = {"no-room": (errno.ENOSPC, WRITES), "error": (errno.EIO, WRITES | SYNC)}


class FaultyServer(Server):
    """A server whose data folder is on a disk that fails when it is told to."""

    def __init__(self, folder: Path, library: Path, config: str) -> None:
        folder.mkdir()
        super().__init__(folder, "min_free_bytes = 0\n" + config)
        self.disk = FaultyDisk(folder, library, str(self.data_dir))
        self.environment = self.disk.environment
        self._runs = 0

    def post(self, command: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        """Ask for a deployment: the answer's status, and what it says."""
        fields |= {"command": command, "tty": False}
        answer = self.http.post("/deployments", json=fields)
        return answer.status_code, answer.json()

    def names(self) -> set[str]:
        """What is in its data folder, but for what runs there may still give back."""
        names = os.listdir(self.data_dir)
        return {name for name in names if not name.endswith((".access", ".queue", ".spare"))}

    def start_one(self) -> tuple[Path, dict[str, Any] | None]:
        """Start COMMAND: what it touches, and its record; None if it was refused, with a word."""
        self._runs += 1
        touched = self.folder / f"ran{self._runs}"
        before = self.names()
        status, answer = self.post(COMMAND.format(touched))
        if status == 201:
            return touched, answer
        self.disk.mend()
        assert status in (500, 503, 507), answer
        assert answer["error"].startswith("cannot "), answer
        assert not touched.exists()
        assert self.names() == before
        return touched, None

    def on_disk(self, deployment_id: str) -> dict[str, Any]:
        """The record, as the disk has it."""
        record: dict[str, Any] = json.loads((self.data_dir / f"{deployment_id}.json").read_text())
        return record

    def wait_for_last_word(self, deployment_id: str) -> dict[str, Any]:
        """The record once nobody writes it any more, and the server has heard of that.

        The end is told before all of it is put through to the disk, and if that fails, that too.
        """
        pid = self.wait_for_end(deployment_id)["capture_pid"]
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its capture process to be gone")
        record: dict[str, Any] = wait_for(
            lambda: (
                (now := self.record(deployment_id))["error"] == self.on_disk(deployment_id)["error"]
                and now
            ),
            "the server to have heard of its last word",
        )
        return record


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty_disk.build(tmp_path_factory.mktemp("faulty_disk"))


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[FaultyServer]:
    """A server whose output waits for room as long as a test may take."""
    server = FaultyServer(
        tmp_path_factory.mktemp("patient") / "server", library, "disk_full_seconds = 60"
    )
    server.start()
    yield server
    server.disk.mend()
    server.close()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[FaultyServer]:
    """A server whose output waits for nothing."""
    server = FaultyServer(
        tmp_path_factory.mktemp("hasty") / "server", library, "disk_full_seconds = 0"
    )
    server.start()
    yield server
    server.disk.mend()
    server.close()


def check_end(server: FaultyServer, record: dict[str, Any], touched: Path) -> None:
    """What is said of the end of COMMAND is so, and its log is what readers get."""
    data = server.log(record["id"])
    assert LINES.startswith(data)
    if record["state"] == "lost":
        assert "never ran" in record["note"]
        assert not touched.exists()
        return
    assert record["log_bytes"] == len(data)
    if "cannot start" in record["error"]:
        assert record["state"] == "failed"
        assert not touched.exists()
        return
    assert touched.exists()
    assert (record["state"], record["exit_status"]) == ("failed", 7), record
    if record["unwritten_from"] is None:
        assert data == LINES
    else:
        assert record["unwritten_from"] == len(data)
        assert record["unwritten_bytes"] == len(LINES) - len(data) > 0
        assert f"from byte {len(data)} on" in record["error"]
    check_readers(server, record, data)


def check_readers(server: FaultyServer, record: dict[str, Any], data: bytes) -> None:
    """By whatever way, they get the log as it is; and the disk has what the server says."""
    deployment = record["id"]
    on_disk = server.on_disk(deployment)
    assert {name: on_disk[name] for name in ("state", "error", "note")} == {
        name: record[name] for name in ("state", "error", "note")
    }
    assert server.http.get(f"/logs/{deployment}/raw").content == data
    window = server.http.get(f"/logs/{deployment}/lines?from=1&count=10").json()
    assert window["lines"] == data.decode().splitlines()
    assert server.http.get(f"/logs/{deployment}").text.count("data: line") == data.count(b"\n")
    wait_for(
        lambda: not list(server.data_dir.glob(".*.*")),
        "the room that was set aside to be given back",
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_call_of_its_life_fails_a_deployment_is_what_it_is_said_to_be(
    patient: FaultyServer, fault: str
) -> None:
    error, kinds = FAULTS[fault]
    for number in range(1, 200):
        patient.disk.fail(error, kinds, first=number, last=number)
        touched, record = patient.start_one()
        if record is not None:
            record = patient.wait_for_last_word(record["id"])
            hits = patient.disk.hits
            patient.disk.mend()
            check_end(patient, record, touched)
            if not hits:  # all calls of a life have had their turn
                break
    assert number > 10


@pytest.mark.parametrize("fault", LASTING)
def test_from_whichever_call_on_the_disk_fails_the_command_runs_on_and_is_told_of(
    hasty: FaultyServer, fault: str
) -> None:
    error, kinds = LASTING[fault]
    for number in range(1, 200):
        hasty.disk.fail(error, kinds, first=number)
        touched, record = hasty.start_one()
        if record is not None:
            wait_for(lambda: Path(f"{touched}.end").exists(), "the command's end")  # noqa: B023
            hits = hasty.disk.hits
            hasty.disk.mend()
            check_end(hasty, hasty.wait_for_last_word(record["id"]), touched)
            if not hits:
                break
    assert number > 10


def test_on_a_full_disk_output_waits_and_nothing_is_lost(patient: FaultyServer) -> None:
    go = patient.folder / "go"
    _, record = patient.post(f"echo one; until [ -e {go} ]; do sleep 0.01; done; echo two; exit 7")
    wait_for(lambda: patient.log(record["id"]) == b"one\n", "output")
    wait_for(lambda: list(patient.data_dir.glob(".*.spare")), "the room that is set aside")
    patient.disk.fail(errno.ENOSPC, WRITE | ROOM)
    go.touch()
    waiting = wait_for(
        lambda: (now := patient.record(record["id"]))["note"] and now, "the record to say so"
    )
    assert waiting["state"] == "running"
    assert "The disk is full (No space left on device)" in waiting["note"]
    patient.disk.mend()
    ended = patient.wait_for_end(record["id"])
    assert (ended["state"], ended["exit_status"], ended["note"]) == ("failed", 7, "")
    assert ended["unwritten_from"] is None
    assert patient.log(record["id"]) == b"one\ntwo\n"


def test_a_stop_ends_the_waiting_on_a_full_disk(patient: FaultyServer) -> None:
    _, record = patient.post("while true; do echo a line; sleep 0.01; done")
    wait_for(lambda: patient.log(record["id"]), "output")
    wait_for(lambda: list(patient.data_dir.glob(".*.spare")), "the room that is set aside")
    patient.disk.fail(errno.ENOSPC, WRITE | ROOM)
    wait_for(lambda: patient.record(record["id"])["note"], "the output to wait")
    assert patient.http.post(f"/deployments/{record['id']}/stop").status_code == 202
    # Its end is told though the disk is full; who asked for it could not be written.
    ended = patient.wait_for_end(record["id"])
    patient.disk.mend()
    assert ended["state"] == "stopped"
    assert ended["unwritten_from"] == len(patient.log(record["id"]))
    assert ended["unwritten_bytes"] > 0


def test_what_no_room_was_found_for_is_counted_and_the_command_keeps_its_state(
    hasty: FaultyServer,
) -> None:
    go, size = hasty.folder / "go", 3_000_000
    _, record = hasty.post(
        f"echo one; until [ -e {go} ]; do sleep 0.01; done; yes | head -c {size}", name="long"
    )
    wait_for(lambda: hasty.log(record["id"]) == b"one\n", "output")
    hasty.disk.fail(errno.ENOSPC, WRITE, first=2, match=".log")
    go.touch()
    ended = hasty.wait_for_end(record["id"])
    hasty.disk.mend()
    data = hasty.log(record["id"])
    assert len(data) > 4
    assert (b"one\n" + b"y\n" * size).startswith(data)
    assert (ended["state"], ended["exit_status"]) == ("succeeded", 0)
    assert ended["unwritten_from"] == len(data)
    assert ended["unwritten_bytes"] == 4 + size - len(data)
    assert ended["error"] == (
        f"The log is not complete: from byte {len(data):,} on, {4 + size - len(data):,} bytes "
        "could not be written (No space left on device)."
    )


@pytest.mark.parametrize("error", [errno.ENOSPC, SHORT])
def test_where_output_is_cut_no_part_of_a_secret_shows(hasty: FaultyServer, error: int) -> None:
    secret = "correct-horse-battery-staple"
    go = hasty.folder / f"go{error}"
    _, record = hasty.post(
        f"echo one; until [ -e {go} ]; do sleep 0.01; done; echo $S; echo $S; printf %s $S$S",
        secrets={"S": secret},
    )
    wait_for(lambda: hasty.log(record["id"]) == b"one\n", "output")
    hasty.disk.fail(error, WRITE, match=".log")
    go.touch()
    ended = hasty.wait_for_end(record["id"])
    hasty.disk.mend()
    data = hasty.log(record["id"])
    masked = b"one\n***\n***\n******"
    assert masked.startswith(data)
    assert len(data) + ended["unwritten_bytes"] == len(masked)
    assert (data == masked) == (error == SHORT)


def test_what_the_disk_took_and_could_not_keep_is_told(hasty: FaultyServer) -> None:
    hasty.disk.fail(errno.EIO, SYNC, match=".log")
    _, record = hasty.post("echo one")
    ended = wait_for(
        lambda: (now := hasty.record(record["id"]))["error"] and now, "the record to say so"
    )
    hasty.disk.mend()
    assert ended["state"] == "succeeded"
    assert (
        "The disk says that it could not keep all of the log: Input/output error"
        in (ended["error"])
    )


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM])
def test_where_no_process_can_be_forked_the_request_is_refused_and_nothing_is_left(
    patient: FaultyServer, error: int
) -> None:
    before = patient.names()
    fork_server = fork_server_of(patient)
    patient.disk.fail(error, FORK)
    status, answer = patient.post("echo one")
    patient.disk.mend()
    assert status == 503
    assert answer["error"].startswith(f"cannot start a deployment: {os.strerror(error)}")
    assert patient.names() == before
    record = patient.deploy("echo one", tty=False)
    assert patient.wait_for_end(record["id"])["state"] == "succeeded"
    assert fork_server_of(patient) == fork_server


@pytest.fixture(autouse=True)
def mended(patient: FaultyServer, hasty: FaultyServer) -> Iterator[None]:
    """Whatever a test has found, the next one begins with disks that are sound."""
    yield
    patient.disk.mend()
    hasty.disk.mend()


def fork_server_of(server: Server) -> int:
    """The server's only child."""
    assert server.process is not None
    pid = server.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_full_disk_refuses_new_deployments_in_a_sentence(patient: FaultyServer) -> None:
    patient.disk.fail(errno.ENOSPC)
    status, answer = patient.post("echo one")
    patient.disk.mend()
    assert status == 507
    assert answer["error"] == (
        f"cannot create a log in {patient.data_dir}: No space left on device; make room there, "
        "and start it again"
    )


def test_a_start_is_answered_and_logged_where_the_audit_file_cannot_be_written(
    patient: FaultyServer,
) -> None:
    patient.disk.fail(errno.ENOSPC, OPEN_TO_WRITE | WRITE, match="audit.jsonl")
    status, record = patient.post("echo one")
    assert patient.disk.hits == 1
    patient.disk.fail(SHORT, WRITE, match="audit.jsonl")
    patient.post("echo two")
    patient.disk.mend()
    assert status == 201
    assert patient.wait_for_end(record["id"])["state"] == "succeeded"
    _, third = patient.post("echo three")
    # What was cut stands alone on its line: the next entry is whole.
    newest, *older = patient.http.get("/audit").json()["entries"]
    assert newest["deployment"] == third["id"]
    assert record["id"] not in {entry["deployment"] for entry in older}


def test_below_min_free_bytes_nothing_new_is_started_and_what_runs_goes_on(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("min_free_bytes = 0")
    running = server.deploy("echo one; sleep 0.2; echo two", tty=False)["id"]
    server.terminate()
    (server.folder / "tornado_logs.toml").write_text("min_free_bytes = 4_000_000_000_000_000")
    server.start()
    answer = server.http.post("/deployments", json={"command": "true"})
    assert answer.status_code == 507
    assert re.fullmatch(
        rf"the disk is almost full: {server.data_dir} has [\d,]+ bytes free, and "
        r"4,000,000,000,000,000 are kept for what runs already; remove logs that nobody needs, "
        "or set min_free_bytes lower",
        answer.json()["error"],
    )
    assert server.wait_for_end(running)["state"] == "succeeded"
    assert server.log(running) == b"one\ntwo\n"
    assert [path.stem for path in server.data_dir.glob("*.log")] == [running]


def test_what_is_autostarted_waits_for_a_disk_with_room(tmp_path: Path, library: Path) -> None:
    config = """
        rescan_seconds = 0.1
        [sources.demo]
        type = "mock"
        lines = 3
        interval_seconds = 0
        autostart = true
    """
    server = FaultyServer(tmp_path / "server", library, config)
    server.data_dir.mkdir()
    server.disk.fail(errno.ENOSPC, match=".log.new")
    server.start()
    try:
        wait_for(lambda: server.disk.hits > 2, "it to be tried again")
        server.disk.mend()
        wait_for(
            lambda: (
                [
                    record["state"]
                    for record in server.http.get("/deployments").json()["deployments"]
                ]
                == ["succeeded"]
            ),
            "it to be started, once",
        )
    finally:
        server.close()


def test_what_signs_and_who_may_is_refused_in_words_while_the_disk_is_full(
    tmp_path: Path, library: Path
) -> None:
    server = FaultyServer(tmp_path / "server", library, "")
    command = [sys.executable, "-m", "tornado_logs.cli", "token", "create", "a", "--role", "admin"]
    token = subprocess.run(
        command, cwd=server.folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    server.start()
    try:
        headers = {"Authorization": f"Bearer {token}"}
        fields = {"command": "true", "tty": False}
        record = server.http.post("/deployments", json=fields, headers=headers).json()
        server.disk.fail(errno.ENOSPC)
        for method, path in (
            ("POST", f"/deployments/{record['id']}/share"),
            ("POST", "/logout"),
            ("GET", "/deployments"),
        ):
            known = headers if path != "/deployments" else {}
            answer = server.http.request(method, path, headers=known)
            assert answer.status_code == 503, path
            assert "its log says more" in answer.json()["error"]
        refused = subprocess.run(
            [*command[:-3], "b", *command[-2:]],
            cwd=server.folder,
            env=os.environ | server.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 111
        assert "tokens.json: No space left on device" in refused.stderr
        server.disk.mend()
        # What was there is there.
        url = f"/deployments/{record['id']}/share"
        assert server.http.post(url, headers=headers).status_code == 201
        folder = server.data_dir / ".access"
        assert {path.name for path in folder.iterdir()} == {
            "audit.jsonl",
            "signing_key",
            "tokens.json",
        }
    finally:
        server.disk.mend()
        server.close()


LIMITED = """
import json, os, resource, sys
from tornado_logs.capture import CaptureRequest, capture, load_class
from tornado_logs.deployment import hold
folder, limit = sys.argv[1:3]
name = "tornado_logs.sources.subprocess:SubprocessSource"
settings = {option.name: option.default for option in load_class(name).options}
for deployment, (command, amount) in json.loads(sys.argv[3]).items():
    pid = os.fork()
    if pid == 0:
        settings |= {"command": command, "tty": False}
        request = CaptureRequest(folder, deployment, name, settings, [])
        log_fd = os.open(request.path(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        hold(log_fd)
        if limit == "AS":
            pages = int(open("/proc/self/statm").read().split()[0])
            amount = pages * resource.getpagesize() + amount * 65536
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (amount, amount))
        try:
            capture(request, log_fd)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(("limit", "amounts"), [("NOFILE", range(4, 16)), ("AS", range(0, 48, 3))])
def test_a_capture_process_with_too_little_of_all_is_told_to_have_ended_as_it_did(
    tmp_path: Path, limit: str, amounts: range
) -> None:
    runs = {}
    for amount in amounts:  # descriptors, or so many 64 KiB more than it has
        deployment = f"20261122-104159-{limit.lower()}{amount}"
        write_record(
            str(tmp_path / f"{deployment}.json"), Record(deployment, type="subprocess", request={})
        )
        runs[deployment] = (COMMAND.format(tmp_path / deployment), amount)
    subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), limit, json.dumps(runs)],
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    ended = 0
    for deployment in runs:
        record = read_record(str(tmp_path / f"{deployment}.json"))
        data = (tmp_path / f"{deployment}.log").read_bytes()
        assert LINES.startswith(data)
        if record.state is State.QUEUED:  # it died; of this the server says that it never ran
            assert not (tmp_path / deployment).exists()
        elif record.exit_status == 7:
            ended += 1
            assert data == LINES or record.unwritten_from == len(data)
        else:
            assert record.state is State.FAILED
            assert record.error or record.note
    assert ended > 0
