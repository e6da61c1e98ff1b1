"""What outlives what: kills of the server and of the capture process, in the middle of output."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server, wait_for
from sse_client import open_stream

from tornado_logs.processes import command_of, descendants

COUNT = "i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; %s; done; exit 7"


def numbered(count: int) -> bytes:
    """What COUNT prints."""
    return b"".join(b"line %d\n" % n for n in range(1, count + 1))


def has_output(server: Server, deployment_id: str) -> bool:
    return len(server.log(deployment_id)) > 0


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie doesn't."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def on_disk(server: Server, deployment_id: str) -> dict[str, object]:
    return dict(json.loads((server.data_dir / f"{deployment_id}.json").read_text()))


@pytest.mark.parametrize("tty", [True, False])
def test_a_command_outlives_a_killed_server_with_all_its_output_and_its_exit_status(
    server: Server, tty: bool
) -> None:
    deployment = server.deploy(COUNT % (100, "sleep 0.03"), tty=tty)["id"]
    wait_for(lambda: has_output(server, deployment), "output")
    server.kill()
    seen = len(server.log(deployment))
    wait_for(lambda: len(server.log(deployment)) > seen, "output without a server")
    server.start()
    assert server.record(deployment)["state"] == "running"
    record = server.wait_for_end(deployment)
    assert (record["state"], record["exit_status"]) == ("failed", 7)
    assert server.log(deployment) == numbered(100)


def test_a_command_that_ends_while_no_server_runs_has_its_exit_status(server: Server) -> None:
    deployment = server.deploy(COUNT % (10, "sleep 0.02"))["id"]
    wait_for(lambda: has_output(server, deployment), "output")
    server.kill()
    wait_for(lambda: on_disk(server, deployment)["state"] == "failed", "the end, on disk")
    server.start()
    assert server.record(deployment)["exit_status"] == 7
    assert server.log(deployment) == numbered(10)


def test_the_next_server_can_stop_what_the_last_one_started(server: Server) -> None:
    deployment = server.deploy("echo begun; sleep 1000")["id"]
    pid = server.wait_for_state(deployment, "running")["pid"]
    server.kill()
    server.start()
    assert server.http.post(f"/deployments/{deployment}/stop").status_code == 202
    record = server.wait_for_state(deployment, "stopped")
    assert record["stopped_by"] == {"address": "127.0.0.1"}
    assert not is_alive(pid)


def test_servers_killed_at_any_moment_of_a_start_leave_no_deployment_in_doubt(
    server: Server,
) -> None:
    moments = random.Random(20261122)
    for _ in range(16):
        before = {path.stem for path in server.data_dir.glob("*.log")}
        posting = threading.Thread(target=post_quietly, args=(server,))
        posting.start()
        time.sleep(moments.random() * 0.012)  # the moment of the kill is what is tried here
        server.kill()
        posting.join()
        server.start()
        for deployment in {path.stem for path in server.data_dir.glob("*.log")} - before:
            record = server.wait_for_end(deployment)
            if record["state"] == "lost":
                assert "never ran" in record["note"]
                assert server.log(deployment) == b""
            else:
                assert (record["state"], record["exit_status"]) == ("failed", 7)
                assert server.log(deployment) == b"ran\n"


def post_quietly(server: Server) -> None:
    """Start one; the server may be killed before it answers."""
    try:
        server.http.post("/deployments", json={"command": "echo ran; exit 7"})
    except Exception:
        server.http.close()
        server.http = type(server.http)(base_url=server.url, timeout=20)


def test_a_killed_capture_process_leaves_a_lost_deployment_that_tells_what_still_runs(
    server: Server,
) -> None:
    command = "echo begun; setsid sleep 1000 & sleep 1000"
    deployment = server.deploy(command)["id"]
    wait_for(lambda: has_output(server, deployment), "output")
    record = server.wait_for_state(deployment, "running")
    os.kill(record["capture_pid"], signal.SIGKILL)
    record = server.wait_for_state(deployment, "lost")
    assert record["exit_status"] is None
    assert "Still running" in record["note"]
    left = [process["pid"] for process in record["left_running"]]
    assert len(left) >= 2
    assert all(map(is_alive, left))
    assert record["can_stop"]
    server.http.post(f"/deployments/{deployment}/stop")
    wait_for(lambda: not any(map(is_alive, left)), "what was left to be ended")
    wait_for(lambda: not server.record(deployment)["left_running"], "the record to say so")
    assert "Nothing of the command was found running" in server.record(deployment)["note"]


def test_a_capture_process_killed_while_no_server_ran_is_found_by_the_next(server: Server) -> None:
    deployment = server.deploy("echo begun; exec sleep 1000")["id"]
    record = server.wait_for_state(deployment, "running")
    wait_for(lambda: has_output(server, deployment), "output")
    server.kill()
    os.kill(record["capture_pid"], signal.SIGKILL)
    server.start()
    record = server.wait_for_state(deployment, "lost")
    assert [process["command"] for process in record["left_running"]] == ["sleep 1000"]


def test_viewers_of_a_lost_deployment_are_told_its_end(server: Server) -> None:
    deployment = server.deploy("echo begun; exec sleep 1000")["id"]
    pid = server.wait_for_state(deployment, "running")["capture_pid"]
    with server.http.stream("GET", f"/logs/{deployment}") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("data:")) == "data: begun"
        os.kill(pid, signal.SIGKILL)
        assert "event: end" in list(lines)


def test_a_killed_fork_server_is_replaced(server: Server) -> None:
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    for pid in map(int, children.split()):
        os.kill(pid, signal.SIGKILL)
    deployment = server.deploy("echo still here")["id"]
    assert server.wait_for_end(deployment)["state"] == "succeeded"
    assert server.log(deployment) == b"still here\n"


def test_the_server_ends_in_peace_and_its_commands_go_on(server: Server) -> None:
    deployment = server.deploy(COUNT % (20, "sleep 0.02"))["id"]
    wait_for(lambda: has_output(server, deployment), "output")
    assert server.terminate() == 0
    wait_for(lambda: on_disk(server, deployment)["state"] == "failed", "the end, on disk")
    server.start()
    assert server.log(deployment) == numbered(20)


def test_a_server_that_is_stopped_under_its_viewers_has_no_failure_to_tell_of(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.terminate()
    server.start()  # this time its stderr is ours
    deployment = server.deploy("while :; do echo line; sleep 0.01; done")["id"]
    with (
        open_stream(server.http, f"/logs/{deployment}") as stream,
        open_stream(server.http, f"/logs/{deployment}?batch=1") as other,
    ):
        stream.wait_for_lines(1)
        other.wait_for_lines(1)
        assert server.terminate() == 0
    assert capfd.readouterr().err == ""


def test_two_servers_on_one_folder_see_the_same(
    server: Server, make_server: Callable[..., Server]
) -> None:
    other = make_server(f'data_dir = "{server.data_dir}"')
    deployment = server.deploy("echo begun; sleep 1000")["id"]
    wait_for(lambda: other.record(deployment).get("state") == "running", "the other to see it")
    other.http.post(f"/deployments/{deployment}/stop")
    assert server.wait_for_end(deployment)["state"] == "stopped"


def test_a_log_removed_while_it_runs_leaves_nothing_behind(server: Server) -> None:
    deployment = server.deploy("echo begun; sleep 1000")["id"]
    pid = server.wait_for_state(deployment, "running")["capture_pid"]
    wait_for(lambda: has_output(server, deployment), "output")
    for suffix in ("log", "json", "idx"):
        (server.data_dir / f"{deployment}.{suffix}").unlink()
    wait_for(
        lambda: server.http.get(f"/deployments/{deployment}").status_code == 404,
        "the deployment to be gone",
    )
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not is_alive(pid), "its capture process to end")
    assert not list(server.data_dir.glob(f"{deployment}*"))


def test_what_cleared_its_environment_is_found_and_ended_too(server: Server) -> None:
    command = "env -i sleep 1000 & env -i setsid sleep 1000 & exec env -i sh -c 'sleep 1000; true'"
    deployment = server.deploy(command)["id"]
    record = server.wait_for_state(deployment, "running")
    wait_for(lambda: count_of(record["capture_pid"]) == 4, "all four to run")
    os.kill(record["capture_pid"], signal.SIGKILL)
    record = server.wait_for_state(deployment, "lost")
    left = [process["pid"] for process in record["left_running"]]
    assert len(left) == 4
    server.http.post(f"/deployments/{deployment}/stop")
    wait_for(lambda: not any(map(is_alive, left)), "what was left to be ended")


def count_of(pid: int) -> int:
    """How many processes run below this one, as the commands that they are to be."""
    commands = [command_of(process.pid) for process in descendants(pid)]
    return sum(command.startswith(("sleep", "sh -c sleep")) for command in commands)


def test_a_start_right_after_the_fork_server_was_killed_is_a_start(server: Server) -> None:
    for _ in range(10):
        assert server.process is not None
        path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        for pid in map(int, path.read_text().split()):
            os.kill(pid, signal.SIGKILL)
        deployment = server.deploy("echo ran")["id"]
        assert server.wait_for_end(deployment)["state"] == "succeeded"
        assert server.log(deployment) == b"ran\n"


def test_modules_in_the_folder_of_the_server_are_not_taken_for_its_own(server: Server) -> None:
    server.terminate()
    (server.folder / "secrets.py").write_text("raise SystemExit")
    (server.folder / "json.py").write_text("raise SystemExit")
    installed = Path(sys.executable).parent / "tornado-logs"
    command = [str(installed), "serve", "--port", str(server.port)]
    with subprocess.Popen(command, cwd=server.folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deployment = server.deploy("echo ran")["id"]
        assert server.wait_for_end(deployment)["state"] == "succeeded"
        process.terminate()
