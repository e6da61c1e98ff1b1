"""Faults that must lose nothing, each of them caused: kills, stops, clocks, and folders that move.

What each of them promises is in docs/promises.md.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, wait_for
from fault_load import EXIT_STATUS, RAN_FILE, Poster, RawViewer, Request, check
from returning_viewer import Viewer
from sse_client import lines_of, open_stream, read_events

from tornado_logs import launcher
from tornado_logs.capture import READY, CaptureRequest
from tornado_logs.deployment import new_id, process_start
from tornado_logs.launcher import Launcher
from tornado_logs.processes import command_of

KILLS = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("SEED", str(random.randrange(1 << 32))))
COUNT = "for i in $(seq 1 150); do echo line $i; sleep 0.005; done; exit 7"
LINES = [f"line {number}" for number in range(1, 151)]


def children(pid: int) -> list[int]:
    """The pids of its children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def server_pid(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def fork_server(server: Server) -> int:
    """The pid of its fork server, once there is one that says so."""

    def find() -> int | None:
        pids = children(server_pid(server))
        return next((pid for pid in pids if "fork server" in command_of(pid)), None)

    return int(wait_for(find, "the fork server"))


def size(server: Server, deployment: str) -> int:
    return (server.data_dir / f"{deployment}.log").stat().st_size


def wait_for_growth(server: Server, deployment: str) -> None:
    """Until its log has more than now."""
    before = size(server, deployment)
    wait_for(lambda: size(server, deployment) > before, "the log to grow")


def watch(server: Server, deployment: str, seconds: float = 60) -> list[Viewer | RawViewer]:
    """A viewer of each kind, reading."""
    viewers: list[Viewer | RawViewer] = [
        Viewer(server, deployment, query, seconds) for query in ("", "batch=1", "partial=1")
    ]
    viewers.append(RawViewer(server, deployment, seconds))
    for viewer in viewers:
        viewer.start()
    return viewers


def assert_all_saw(viewers: list[Viewer | RawViewer], lines: list[str]) -> None:
    for viewer in viewers:
        viewer.join()
        assert not viewer.gave_up
        assert viewer.lines == lines
        assert viewer.resets == 0


# --- kill -9


def test_servers_killed_at_random_moments_under_load_lose_nothing(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled() if "KILLS" in os.environ else nullcontext():
        print(f"SEED={SEED} KILLS={KILLS}", flush=True)  # else it is shown of a test that fails
    moments = random.Random(SEED)
    gate = server.folder / "gate"
    through = f"i=0; until [ -e {gate} ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 7"
    lasting = server.deploy(f"{through} # lasting")["id"]
    watching = watch(server, lasting, 60 + KILLS * 5)
    posters = [Poster(server, moments.getrandbits(32)) for _ in range(2)]
    for poster in posters:
        poster.start()
    for _ in range(KILLS):
        time.sleep(moments.uniform(0, 0.4))  # the moment of the kill is what is tried here
        server.kill()
        server.start()
        answered = {r.deployment_id for p in posters for r in p.requests if r.deployment_id}
        listed = server.http.get("/deployments?limit=1000").json()["deployments"]
        assert len(listed) == 1000 or answered <= {record["id"] for record in listed}
    for poster in posters:
        poster.stop()
    gate.touch()
    wait_until_all_have_ended(server)
    outcome = check(server, posters)
    assert outcome.faults == []
    assert outcome.deployments > KILLS
    assert outcome.viewers > 0
    assert server.record(lasting)["exit_status"] == EXIT_STATUS
    lines = server.log(lasting).decode().splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert_all_saw(watching, lines)
    assert "Traceback" not in capfd.readouterr().err


def wait_until_all_have_ended(server: Server) -> None:
    def running() -> list[str]:
        records = (json.loads(path.read_text()) for path in server.data_dir.glob("*.json"))
        return [r["id"] for r in records if r["state"] in ("queued", "running")]

    wait_for(lambda: not running(), "all deployments to end", 60)


def test_the_log_of_a_killed_capture_process_goes_as_far_as_it_was_written(server: Server) -> None:
    deployment = server.deploy("i=0; while :; do i=$((i+1)); echo line $i; done")["id"]
    viewers = watch(server, deployment)
    wait_for(lambda: size(server, deployment) > 200_000, "a flood")
    os.kill(server.record(deployment)["capture_pid"], signal.SIGKILL)
    server.wait_for_state(deployment, "lost")
    log = server.log(deployment).decode()
    whole = log.splitlines()
    expected = [f"line {number}" for number in range(1, len(whole) + 1)]
    assert whole[:-1] == expected[:-1]
    assert expected[-1].startswith(whole[-1])
    assert_all_saw(viewers, whole)


def test_viewers_of_workers_whose_supervisor_is_killed_go_on_at_the_next_server(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("workers = 2")
    deployment = server.deploy(COUNT)["id"]
    viewers = watch(server, deployment)
    wait_for(lambda: size(server, deployment), "output")
    workers = [(pid, process_start(pid)) for pid in children(server_pid(server))]
    server.kill()
    wait_for(lambda: all(process_start(p) != began for p, began in workers), "the workers to end")
    server.start()
    assert server.wait_for_end(deployment)["exit_status"] == EXIT_STATUS
    assert_all_saw(viewers, LINES)


# --- STOP and CONT


@pytest.mark.parametrize("stopped", ["server", "worker", "fork server", "capture", "command"])
def test_whatever_is_stopped_for_a_while_goes_on_with_nothing_lost(
    make_server: Callable[..., Server], stopped: str
) -> None:
    server = make_server("workers = 2" if stopped == "worker" else "")
    deployment = server.deploy(COUNT)["id"]
    viewers = watch(server, deployment)
    record = wait_for(
        lambda: (found := server.record(deployment))["pid"] and found, "the command to run"
    )
    wait_for(lambda: size(server, deployment), "output")
    find: dict[str, Callable[[], int]] = {
        "server": lambda: server_pid(server),
        "worker": lambda: children(server_pid(server))[0],
        "fork server": lambda: fork_server(server),
        "capture": lambda: record["capture_pid"],
        "command": lambda: record["pid"],
    }
    pid = find[stopped]()
    poster = Poster(server, SEED, rest_seconds=0.05)
    os.kill(pid, signal.SIGSTOP)
    try:
        poster.start()
        if stopped in ("server", "worker", "fork server"):
            wait_for_growth(server, deployment)
        time.sleep(0.3)  # long enough to be asked meanwhile, shorter than anybody's patience
    finally:
        os.kill(pid, signal.SIGCONT)
    poster.stop()
    assert server.wait_for_end(deployment)["exit_status"] == EXIT_STATUS
    assert server.log(deployment).decode().splitlines() == LINES
    assert_all_saw(viewers, LINES)
    wait_until_all_have_ended(server)
    assert check(server, [poster]).faults == []
    assert all(request.deployment_id for request in poster.requests)


def test_a_stop_is_heard_by_a_capture_process_once_it_goes_on(server: Server) -> None:
    deployment = server.deploy("echo begun; exec sleep 1000")["id"]
    pid = server.wait_for_state(deployment, "running")["capture_pid"]
    os.kill(pid, signal.SIGSTOP)
    assert server.http.post(f"/deployments/{deployment}/stop").status_code == 202
    assert server.record(deployment)["state"] == "running"
    os.kill(pid, signal.SIGCONT)
    assert server.wait_for_end(deployment)["state"] == "stopped"


def test_a_fork_server_that_does_not_answer_is_replaced_and_starts_nothing_any_more(
    server: Server,
) -> None:
    pid = fork_server(server)
    began = process_start(pid)
    os.kill(pid, signal.SIGSTOP)
    request = Request("once", 10, 10, tty=False, folder=server.folder)
    deployment = server.deploy(**request.body)["id"]
    assert process_start(pid) != began
    assert server.wait_for_end(deployment)["exit_status"] == EXIT_STATUS
    assert server.log(deployment) == request.log
    assert (server.folder / RAN_FILE).read_text() == "once\n"


def test_a_fork_server_that_answers_at_the_last_moment_is_not_asked_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    late = LateSocket(fileno=ours.detach())
    starting = Launcher(str(tmp_path))
    monkeypatch.setattr(starting, "_socket", late)
    monkeypatch.setattr(starting, "_is_ready", True)
    monkeypatch.setattr(launcher, "_FORK_SERVER_SECONDS", 0.05)
    monkeypatch.setattr(starting, "start", lambda: pytest.fail("another fork server is asked"))
    with late, theirs, (tmp_path / "x.log").open("wb") as log:
        theirs.sendall(READY)
        starting._request(CaptureRequest(str(tmp_path), "x", "a:B", {}, []), [log.fileno()])
        with pytest.raises(OSError, match="pipe"):
            theirs.sendall(READY)


class LateSocket(socket.socket):
    """What has come is there a moment after the patience with it has ended."""

    _is_late = True

    def recv(self, count: int, flags: int = 0) -> bytes:
        """As the real one, but for the first time."""
        if self._is_late:
            self._is_late = False
            raise TimeoutError
        return super().recv(count, flags)


# --- two servers on one folder


def test_viewers_of_a_server_that_dies_go_on_at_another_of_its_folder(
    server: Server, make_server: Callable[..., Server]
) -> None:
    other = make_server(f'data_dir = "{server.data_dir}"')
    gate = server.folder / "gate"
    command = f"echo one; until [ -e {gate} ]; do sleep 0.01; done; echo two; exit 7"
    deployment = server.deploy(command)["id"]
    with open_stream(server.http, f"/logs/{deployment}") as stream:
        stream.wait_for_lines(1)
        cursor = stream.events[-1].last_event_id
        server.kill()
    gate.touch()
    events = read_events(other.http, f"/logs/{deployment}", last_event_id=cursor)
    assert lines_of(events) == ["two"]
    assert events[-1].json()["exit_status"] == EXIT_STATUS
    started = other.deploy("echo alone")["id"]
    other.wait_for_end(started)
    server.start()
    assert server.record(started)["state"] == "succeeded"
    assert server.log(deployment) == b"one\ntwo\n"


def test_two_servers_of_one_folder_follow_each_file_once(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    folder = tmp_path / "followed"
    folder.mkdir()
    config = (
        f'data_dir = "{tmp_path}/shared"\nrescan_seconds = 0.1\n[sources.app]\n'
        f'type = "file_tail"\nautostart = true\npath = "{folder}/*.log"\nlines = 1\n'
    )
    servers = [make_server(config) for _ in range(2)]
    for number in range(30):
        (folder / f"{number}.log").write_text(f"first\nlog {number}\n")

    def names() -> list[str]:
        records = servers[0].http.get("/deployments?limit=1000").json()["deployments"]
        return sorted(Path(record["name"]).stem for record in records)

    wait_for(lambda: len(names()) >= 30, "all files to be followed")
    (folder / "last.log").write_text("last\n")  # a round of both later
    wait_for(lambda: "last" in names(), "the last to be followed")
    assert names() == sorted([*map(str, range(30)), "last"])
    for path in (tmp_path / "shared").glob("*.json"):
        for server in servers:
            server.data_dir = tmp_path / "shared"
        record = servers[1].wait_for_state(path.stem, "running")
        last = Path(record["name"]).read_bytes().splitlines()[-1] + b"\n"
        wait_for(lambda: servers[0].log(path.stem).endswith(last), "its last line")  # noqa: B023


# --- the data folder


def test_a_data_folder_that_is_moved_away_and_back_loses_nothing(server: Server) -> None:
    gate, elsewhere = server.folder / "gate", server.folder / "elsewhere"
    command = f"echo one; until [ -e {gate} ]; do sleep 0.01; done; echo two; exit 7"
    ending, lasting = server.deploy(command)["id"], server.deploy("echo x; exec sleep 1000")["id"]
    server.wait_for_state(lasting, "running")
    with open_stream(server.http, f"/logs/{ending}") as stream:
        stream.wait_for_lines(1)
        server.data_dir.rename(elsewhere)
        gate.touch()
        record = elsewhere / f"{ending}.json"
        wait_for(lambda: json.loads(record.read_text())["state"] == "failed", "the end, on disk")
        refusal = server.http.post("/deployments", json={"command": "echo x"})
        assert refusal.status_code == 500
        assert "No such file or directory" in refusal.json()["error"]
        assert server.http.get("/deployments").status_code == 200
        elsewhere.rename(server.data_dir)
        assert stream.wait_for_lines(2) == ["one", "two"]
        assert stream.read_to_end()[-1].json()["exit_status"] == EXIT_STATUS
    assert server.record(lasting)["state"] == "running"
    listed = server.http.get("/deployments").json()["deployments"]
    assert {record["id"] for record in listed} == {ending, lasting}
    server.wait_for_end(server.deploy("echo more")["id"])


def test_another_folder_in_the_place_of_the_data_folder_is_taken_for_what_it_is(
    server: Server,
) -> None:
    kept, dropped = (server.deploy(f"echo {name}")["id"] for name in ("kept", "dropped"))
    for deployment in (kept, dropped):
        server.wait_for_end(deployment)
    server.data_dir.rename(server.folder / "old")
    shutil.copytree(
        server.folder / "old", server.data_dir, ignore=shutil.ignore_patterns(f"{dropped}*")
    )
    wait_for(lambda: server.http.get(f"/deployments/{dropped}").status_code == 404, "the change")
    assert server.record(kept)["state"] == "succeeded"
    gate = server.folder / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.01; done"
    deployment = server.deploy(f"echo one; {wait}; echo two")["id"]
    with open_stream(server.http, f"/logs/{deployment}") as stream:
        stream.wait_for_lines(1)
        gate.touch()
        assert lines_of(stream.read_to_end()) == ["one", "two"]


def test_an_index_and_a_record_that_are_deleted_under_readers_cost_no_line(server: Server) -> None:
    gate = server.folder / "gate"
    command = f"echo one; until [ -e {gate} ]; do sleep 0.01; done; echo two; exit 7"
    deployment = server.deploy(command)["id"]
    with open_stream(server.http, f"/logs/{deployment}") as stream:
        stream.wait_for_lines(1)
        for suffix in ("idx", "json"):
            (server.data_dir / f"{deployment}.{suffix}").unlink()
        wait_for(lambda: server.record(deployment)["source"] == "", "the loss to be seen")
        gate.touch()
        events = stream.read_to_end()
    assert lines_of(events) == ["one", "two"]
    # The capture process knows it all, and writes it when it ends.
    record = server.wait_for_state(deployment, "failed")
    assert record["exit_status"] == EXIT_STATUS
    assert server.http.get(f"/logs/{deployment}/lines").json()["lines"] == ["one", "two"]


# --- what the system refuses to watch

REFUSALS = {
    "no instance": f"""
def refuse(*args, **options):
    raise OSError({errno.EMFILE}, "Too many open files")
inotify_simple.INotify = refuse
""",
    "no watch": f"""
class Refusing(inotify_simple.INotify):
    def add_watch(self, path, mask):
        raise OSError({errno.ENOSPC}, "No space left on device")
inotify_simple.INotify = Refusing
""",
    "one watch": f"""
class Refusing(inotify_simple.INotify):
    def add_watch(self, path, mask):
        if str(path).endswith(".log"):
            raise OSError({errno.ENOSPC}, "No space left on device")
        return super().add_watch(path, mask)
inotify_simple.INotify = Refusing
""",
}


def patch_server(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Have the servers and capture processes that are started from now on run this code first."""
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_may_not_watch_files_looks_at_them(
    make_server: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    refusal: str,
) -> None:
    patch_server(monkeypatch, tmp_path, f"import inotify_simple\n{REFUSALS[refusal]}")
    server = make_server()
    deployment = server.deploy(COUNT)["id"]
    viewers = watch(server, deployment)
    bare = server.data_dir / "bare.log"
    with bare.open("wb", buffering=0) as log:
        server.wait_for_state("bare", "running")
        with open_stream(server.http, "/logs/bare") as stream:
            for number in range(1, 4):
                log.write(b"line %d\n" % number)
                stream.wait_for_lines(number)
            log.close()
            assert lines_of(stream.read_to_end()) == LINES[:3]
    assert server.wait_for_end(deployment)["exit_status"] == EXIT_STATUS
    assert_all_saw(viewers, LINES)


# --- the clock

CLOCK = """
import time
real = time.time
def shifted():
    with open({path!r}) as file:
        return real() + float(file.read() or 0)
time.time = shifted
"""


def test_a_clock_that_is_set_back_and_forward_loses_nothing(
    make_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    set_clock(offset, 0)
    patch_server(monkeypatch, tmp_path, CLOCK.format(path=str(offset)))
    server = make_server()
    long = server.deploy(COUNT)["id"]
    viewers = watch(server, long)
    deployments = []
    for seconds in (-3600, -3600, 86_400, -86_400, 0):
        wait_for_growth(server, long)
        set_clock(offset, seconds)
        deployments.append(server.deploy(f"echo {seconds}; exit 7")["id"])
    stopped = server.deploy("exec sleep 1000")["id"]
    server.wait_for_state(stopped, "running")
    set_clock(offset, -7200)
    server.http.post(f"/deployments/{stopped}/stop").raise_for_status()
    for deployment in (*deployments, long, stopped):
        record = server.wait_for_end(deployment)
        assert record["state"] == ("stopped" if deployment == stopped else "failed")
    assert_all_saw(viewers, LINES)
    listed = server.http.get("/deployments").json()["deployments"]
    assert [r["id"] for r in listed] == sorted([*deployments, long, stopped], reverse=True)
    assert_times_are_sane(server.http, long)
    server.kill()
    server.start()
    assert server.http.get("/deployments").json()["deployments"] == listed


def set_clock(path: Path, seconds: float) -> None:
    """At once for all who read it meanwhile."""
    new = path.with_suffix(".new")
    new.write_text(str(seconds))
    new.rename(path)


def assert_times_are_sane(http: httpx.Client, deployment: str) -> None:
    """Each line has a time, and any time leads somewhere in the log."""
    window: dict[str, Any] = http.get(f"/logs/{deployment}/lines?times=1").json()
    assert window["lines"] == LINES
    assert len(window["times"]) == 150
    assert any(later < earlier for earlier, later in pairwise(window["times"]))
    for moment in window["times"]:
        answer = http.get(f"/logs/{deployment}/lines?time={moment}&count=1")
        assert answer.status_code == 200
        assert 1 <= answer.json()["from"] <= 151


def test_ids_that_are_made_while_the_clock_goes_back_are_all_different(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([1_000_000_000.0 - number % 10 for number in range(10_000)])
    monkeypatch.setattr(time, "time", lambda: next(times))
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_log_that_was_written_in_the_future_is_not_taken_for_running(server: Server) -> None:
    path = server.folder / "future.log"
    path.write_text("a line\n")
    os.utime(path, (time.time() + 3600,) * 2)
    path.rename(server.data_dir / path.name)
    assert server.wait_for_end("future")["state"] == "finished"
