"""Several workers behind one address: the files are all that they share."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from conftest import Server, free_port, tcp_row, wait_for
from returning_viewer import Viewer
from sse_client import Stream, open_stream, read_events

from tornado_logs.deployment import process_start
from tornado_logs.processes import descendants

FLOOD = "for i in $(seq 1 4000); do echo line $i; test $((i % 20)) = 0 && sleep 0.01; done"


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server("workers = 2")


def worker_pids(server: Server) -> list[int]:
    """The workers that run now."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def wait_for_other_workers(server: Server, killed: int) -> None:
    """Until there are two without the one that was killed."""

    def others() -> bool:
        pids = worker_pids(server)
        return len(pids) == 2 and killed not in pids

    wait_for(others, "a successor")


def sockets_of(pid: int) -> set[str]:
    """The sockets of a process, by inode."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    return found


def worker_of(server: Server, stream: Stream) -> int:
    """The worker that serves this connection: the one that has the socket at its other end."""
    local_port = stream.response.extensions["network_stream"].get_extra_info("client_addr")[1]
    row = tcp_row(server.port, local_port)
    assert row, "nobody has the other end of the connection"
    return next(pid for pid in worker_pids(server) if row[9] in sockets_of(pid))


def streams_of_all_workers(
    server: Server, path: str, stack: ExitStack, last_event_id: str = ""
) -> dict[int, Stream]:
    """A stream of each worker: the kernel deals out connections, so some come twice."""
    found: dict[int, Stream] = {}
    for _ in range(100):
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=20))
        stream = stack.enter_context(open_stream(http, path, last_event_id=last_event_id))
        found.setdefault(worker_of(server, stream), stream)
        if len(found) == len(worker_pids(server)):
            return found
    pytest.fail(f"100 connections, and all of them served by {list(found)}")


def test_every_worker_serves_every_log_with_the_same_cursors(server: Server) -> None:
    deployment = server.deploy("echo one; echo two; sleep 60")["id"]
    with ExitStack() as stack:
        streams = streams_of_all_workers(server, f"/logs/{deployment}", stack)
        for stream in streams.values():
            assert stream.wait_for_lines(2) == ["one", "two"]
        first, second = ([event.last_event_id for event in s.events] for s in streams.values())
        assert first == second
        resumed = streams_of_all_workers(
            server, f"/logs/{deployment}", stack, last_event_id=first[0]
        )
        for stream in resumed.values():
            assert stream.wait_for_lines(1) == ["two"]
        server.http.post(f"/deployments/{deployment}/stop").raise_for_status()
        for stream in (*streams.values(), *resumed.values()):
            assert stream.read_to_end()[-1].json()["state"] == "stopped"


def test_what_one_worker_starts_all_of_them_know_at_once(server: Server) -> None:
    for number in range(20):
        with httpx.Client(base_url=server.url, timeout=20) as http:
            started = http.post("/deployments", json={"command": f"echo {number}"}).json()
        with httpx.Client(base_url=server.url, timeout=20) as http:
            assert http.get(f"/deployments/{started['id']}").status_code == 200
            listed = http.get("/deployments").json()["deployments"]
            assert started["id"] in [record["id"] for record in listed]
            lines = [event.data for event in read_events(http, f"/logs/{started['id']}")]
            assert lines[0] == str(number)


def test_viewers_of_workers_that_are_killed_resume_elsewhere(server: Server) -> None:
    deployment = server.deploy(FLOOD)["id"]
    viewers = [Viewer(server, deployment, query) for query in ("", "", "", "batch=1", "batch=1")]
    for viewer in viewers:
        viewer.start()
    for number in range(6):
        victim = worker_pids(server)[number % 2]
        os.kill(victim, signal.SIGKILL)
        wait_for_other_workers(server, victim)
    for viewer in viewers:
        viewer.join()
        assert not viewer.gave_up
        assert viewer.lines == server.log(deployment).decode().splitlines()
        assert viewer.resets == 0
    assert len(viewers[0].lines) == 4000


def test_one_worker_that_is_killed_disturbs_no_viewer_of_the_other(server: Server) -> None:
    os.mkfifo(server.folder / "gate")
    deployment = server.deploy("echo one; read go < gate; echo two", cwd=str(server.folder))["id"]
    with ExitStack() as stack:
        streams = streams_of_all_workers(server, f"/logs/{deployment}", stack)
        (killed, _), (_, left) = streams.items()
        left.wait_for_lines(1)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in worker_pids(server), "its end to be seen")
        (server.folder / "gate").write_text("go\n")
        left.read_to_end()
        assert left.lines == ["one", "two"]


def has_ended(pid: int, started: int | None) -> bool:
    return process_start(pid) != started


@pytest.mark.parametrize("is_killed", [False, True])
def test_no_worker_outlives_the_server(server: Server, is_killed: bool) -> None:
    assert server.process is not None
    below = [(found.pid, process_start(found.pid)) for found in descendants(server.process.pid)]
    assert len(below) == 4, "two workers, a fork server of each"
    if is_killed:
        server.kill()
    else:
        assert server.terminate() == 0
    wait_for(lambda: all(has_ended(*found) for found in below), "the workers to end")
    server.start()  # the port is free again


def test_a_port_that_workers_share_is_taken_for_anybody_else(server: Server) -> None:
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--workers", workers]
        command += ["--port", str(server.port)]
        done = subprocess.run(command, cwd=server.folder, capture_output=True, text=True)
        assert done.returncode == 111
        assert "the port is taken" in done.stderr
        assert done.stderr.count("\n") == 1


def autostarted(server: Server) -> list[str]:
    return [
        record["name"]
        for record in server.http.get("/deployments?source=app").json()["deployments"]
    ]


def test_what_is_started_by_itself_is_started_once(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    folder = tmp_path / "followed"
    folder.mkdir()
    (folder / "a.log").write_text("a\n")
    server = make_server(
        'workers = 2\nrescan_seconds = 0.1\n[sources.app]\ntype = "file_tail"\nautostart = true\n'
        f'path = "{folder}/*.log"\n'
    )
    wait_for(lambda: autostarted(server), "the file to be followed")
    (record,) = server.http.get("/deployments?source=app").json()["deployments"]
    server.wait_for_state(record["id"], "running")
    server.http.post(f"/deployments/{record['id']}/stop").raise_for_status()
    server.wait_for_state(record["id"], "stopped")
    for pid in worker_pids(server):
        os.kill(pid, signal.SIGKILL)
        wait_for_other_workers(server, pid)
    # Their successors see what is new, and leave alone what somebody stopped.
    (folder / "b.log").write_text("b\n")
    wait_for(lambda: len(autostarted(server)) > 1, "the new file to be followed")
    assert sorted(Path(name).name for name in autostarted(server)) == ["a.log", "b.log"]


def test_what_comes_to_be_while_a_worker_is_replaced_is_followed_from_its_beginning(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    folder = tmp_path / "followed"
    folder.mkdir()
    server = make_server(
        'workers = 2\nrescan_seconds = 0.1\n[sources.app]\ntype = "file_tail"\nautostart = true\n'
        f'path = "{folder}/*.log"\nlines = 1\n'
    )
    pids = worker_pids(server)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    (folder / "b.log").write_text("one\ntwo\nthree\n")
    wait_for(lambda: len(set(worker_pids(server)) - set(pids)) == 2, "the successors")
    wait_for(lambda: autostarted(server), "the new file to be followed")
    (record,) = server.http.get("/deployments?source=app").json()["deployments"]
    wait_for(lambda: server.log(record["id"]) == b"one\ntwo\nthree\n", "all of its lines")


def test_workers_that_cannot_begin_end_the_server_with_their_status() -> None:
    script = """
import sys
from tornado_logs.workers import Supervisor
def serve(worker):
    print("worker", worker.number, "cannot", file=sys.stderr)
    return 111
sys.exit(Supervisor([[], []], serve, lambda: print("ready")).run())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 111
    assert done.stdout == ""
    assert re.search(r"worker \d cannot", done.stderr)


def test_any_number_of_workers_is_checked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--workers", "0"]
    command += ["--port", str(free_port())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 100
    assert "--workers: expected 1 or more, found 0" in done.stderr
