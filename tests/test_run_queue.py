"""How many run at once, who waits, in which order; exclusive names; and what faults do to it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, wait_for
from sse_client import open_stream

from tornado_logs.deployment import Record, State, write_record
from tornado_logs.run_queue import Entry, HeldError, QueueFullError, RunQueue, next_to_run
from tornado_logs.source import DEPLOYMENT_VARIABLE

UNTIL = "while [ ! -e %s ]; do sleep 0.02; done; echo done"


def entries(text: str) -> list[Entry]:
    """Of "1r 2w:prod": 1 runs, 2 waits for the name prod."""
    found = []
    for word in text.split():
        head, _, exclusive = word.partition(":")
        found.append(Entry(head[:-1], head[-1] == "r", exclusive))
    return found


@pytest.mark.parametrize(
    ("text", "max_running", "expected"),
    [
        ("1w 2w 3w", 2, "1 2"),
        ("3w 1w 2w", 1, "1"),
        ("1r 2w 3w", 1, ""),
        ("1r 2w 3w", 2, "2"),
        ("1r 2r 3w", 1, ""),
        ("1r:prod 2w:prod 3w", 5, "3"),
        ("1w:prod 2w:prod 3w:test", 5, "1 3"),
        ("1r:prod 2w:test 3w:test", 2, "2"),
        ("1w:prod 2r:prod 3w:prod", 5, ""),
        ("", 5, ""),
    ],
)
def test_the_first_who_may_run_is_next(text: str, max_running: int, expected: str) -> None:
    assert [e.id for e in next_to_run(entries(text), max_running)] == expected.split()


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    queue = RunQueue(str(tmp_path))
    queue.open(2)
    return queue


def enter(queue: RunQueue, deployment_id: str, exclusive: str = "", **how: Any) -> int:
    return queue.enter(deployment_id, exclusive, **{"max_queued": 10, **how})


def running(queue: RunQueue, ids: str) -> list[str]:
    return [one for one in ids.split() if queue.has_turn(one)]


def test_who_leaves_lets_the_next_run(queue: RunQueue) -> None:
    for one in "abcd":
        enter(queue, one)
    assert (running(queue, "a b c d"), queue.waiting()) == (["a", "b"], ["c", "d"])
    queue.leave("b")
    assert (running(queue, "a c d"), queue.waiting()) == (["a", "c"], ["d"])
    queue.leave("d")
    queue.leave("a")
    assert queue.waiting() == []


def test_who_dies_gives_up_its_place_in_the_queue_and_its_turn(queue: RunQueue) -> None:
    fds = {one: enter(queue, one) for one in "abcde"}
    os.close(fds["c"])
    queue.pass_on()
    assert queue.waiting() == ["c", "d", "e"] or queue.waiting() == ["d", "e"]
    os.close(fds["a"])
    queue.pass_on()
    assert queue.waiting() == ["e"]
    assert running(queue, "b d") == ["b", "d"]


def test_the_dead_are_noticed_by_who_enters_too(queue: RunQueue) -> None:
    fds = [enter(queue, one) for one in "ab"]
    for fd in fds:
        os.close(fd)
    enter(queue, "c")
    assert queue.waiting() == []


def test_more_may_run_as_soon_as_the_setting_says_so(queue: RunQueue) -> None:
    for one in "abcde":
        enter(queue, one)
    queue.open(4)
    assert queue.waiting() == ["e"]


def test_a_name_is_one_runners_at_a_time(queue: RunQueue) -> None:
    queue.open(10)
    enter(queue, "a", "prod")
    enter(queue, "b", "prod")
    enter(queue, "c", "test")
    assert (running(queue, "a b c"), queue.waiting()) == (["a", "c"], ["b"])
    with pytest.raises(HeldError, match="a"):
        enter(queue, "d", "prod", may_wait=False)
    queue.leave("a")
    with pytest.raises(HeldError, match="b"):
        enter(queue, "d", "prod", may_wait=False)
    queue.leave("b")
    enter(queue, "d", "prod", may_wait=False)
    assert running(queue, "d") == ["d"]


def test_a_name_stays_taken_by_a_command_whose_start_no_record_tells_of(
    queue: RunQueue, tmp_path: Path
) -> None:
    """Its capture process was killed just after it had started it."""
    os.close(enter(queue, "1", "prod"))  # as its death does
    path = str(tmp_path / "1.json")
    record = Record("1", state=State.RUNNING)
    write_record(path, record)
    with pytest.raises(HeldError):  # nobody has looked yet what is left of it
        enter(queue, "2", "prod", may_wait=False)
    with subprocess.Popen(["sleep", "60"], env={DEPLOYMENT_VARIABLE: "1"}) as command:
        record.state, record.left_running = State.LOST, [{"pid": command.pid, "command": "sleep"}]
        write_record(path, record)
        with pytest.raises(HeldError):
            enter(queue, "2", "prod", may_wait=False)
        command.kill()
    record.left_running[0]["pid"] = os.getpid()  # another has its number now
    write_record(path, record)
    os.close(enter(queue, "2", "prod", may_wait=False))


def test_a_queue_has_an_end(queue: RunQueue) -> None:
    for one in "abc":
        enter(queue, one, max_queued=1)
    with pytest.raises(QueueFullError) as refused:
        enter(queue, "d", max_queued=1)
    assert refused.value.waiting == 1
    assert queue.waiting() == ["c"]


def test_a_lock_that_a_stopped_process_has_is_no_reason_to_hang(
    queue: RunQueue, tmp_path: Path
) -> None:
    with (tmp_path / ".queue" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        queue.pass_on()
        with pytest.raises(OSError, match="locked"):
            enter(queue, "a")


# --- the same, by a server


def gate(server: Server, name: str = "gate") -> Path:
    return server.folder / name


def until(server: Server, name: str = "gate") -> str:
    """A command that runs until the gate is open."""
    return UNTIL % gate(server, name)


def place(server: Server, deployment_id: str) -> int | None:
    waits = server.record(deployment_id).get("queue")
    return waits and int(waits["place"])


def files_of_deployments(server: Server) -> list[str]:
    names = (path.name for path in server.data_dir.rglob("*"))
    return sorted(name for name in names if name[:2] == "20")


def test_those_beyond_max_running_wait_in_their_order_with_their_place(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 2\n")
    ids = [server.deploy(until(server, f"gate{n}"))["id"] for n in range(5)]
    for one in ids[:2]:
        server.wait_for_state(one, "running")
    wait_for(lambda: [place(server, one) for one in ids] == [None, None, 1, 2, 3], "their places")
    gate(server, "gate1").touch()
    server.wait_for_state(ids[2], "running")
    assert server.wait_for_end(ids[1])["state"] == "succeeded"
    wait_for(lambda: [place(server, one) for one in ids[2:]] == [None, 1, 2], "new places")
    for n in range(5):
        gate(server, f"gate{n}").touch()
    ended = [server.wait_for_end(one) for one in ids]
    assert [record["state"] for record in ended] == ["succeeded"] * 5
    assert [server.log(one) for one in ids] == [b"done\n"] * 5
    assert list((server.data_dir / ".queue").glob("*.*ing")) == []


def test_an_answer_says_that_it_waits_and_a_stream_waits_too(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 1\n")
    first = server.deploy(until(server))["id"]
    server.wait_for_state(first, "running")
    second = server.deploy("echo second")
    assert (second["state"], second["queue"]["place"]) == ("queued", 1)
    fields = {"command": "echo third; exit 3"}
    with open_stream(server.http, "/deployments", method="POST", json=fields) as stream:
        gate(server).touch()
        assert stream.read_to_end()[-1].json()["exit_status"] == 3
    assert stream.lines[0].endswith("third")


def test_one_that_waits_can_be_stopped_and_never_runs(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 1\n")
    first = server.deploy(until(server))["id"]
    second = server.deploy(f"touch {gate(server, 'ran')}")["id"]
    third = server.deploy("echo third")["id"]
    assert server.http.post(f"/deployments/{second}/stop").status_code == 202
    record = server.wait_for_state(second, "stopped")
    assert "never ran" in record["note"]
    assert record["stopped_by"] == {"address": "127.0.0.1"}
    assert record["started_at"] is None
    gate(server).touch()
    assert server.wait_for_end(third)["state"] == "succeeded"
    assert server.wait_for_end(first)["state"] == "succeeded"
    assert not gate(server, "ran").exists()


def test_a_full_queue_is_refused_and_leaves_nothing_behind(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 1\nmax_queued = 1\n")
    ids = [server.deploy(until(server))["id"] for _ in range(2)]
    for one in ids:
        capture_pid(server, one)
    before = files_of_deployments(server)
    answer = server.http.post("/deployments", json={"command": "echo"})
    assert answer.status_code == 503
    assert "queue is full: 1 deployments" in answer.json()["error"]
    assert int(answer.headers["Retry-After"]) > 0
    assert files_of_deployments(server) == before
    gate(server).touch()
    for one in ids:
        server.wait_for_end(one)
    server.deploy("echo")


def test_the_queue_goes_on_without_a_server_and_with_the_next(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 1\n")
    ids = [server.deploy(until(server, f"gate{n}"))["id"] for n in range(4)]
    wait_for(lambda: place(server, ids[3]) == 3, "its place")
    server.kill()
    gate(server, "gate0").touch()
    wait_for(lambda: on_disk(server, ids[1])["state"] == "running", "the next, without a server")
    server.start()
    assert [place(server, one) for one in ids] == [None, None, 1, 2]
    for n in range(4):
        gate(server, f"gate{n}").touch()
    assert [server.wait_for_end(one)["state"] for one in ids] == ["succeeded"] * 4


def on_disk(server: Server, deployment_id: str) -> dict[str, Any]:
    return dict(json.loads((server.data_dir / f"{deployment_id}.json").read_text()))


def capture_pid(server: Server, deployment_id: str) -> int:
    """The pid of the process that waits, once it does."""
    return int(wait_for(lambda: on_disk(server, deployment_id)["capture_pid"], "its process"))


def test_a_killed_capture_process_gives_its_turn_to_the_next(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 1\n")
    ids = [server.deploy(until(server, f"gate{n}"))["id"] for n in range(3)]
    wait_for(lambda: place(server, ids[2]) == 2, "its place")
    os.kill(capture_pid(server, ids[1]), signal.SIGKILL)
    assert "never ran" in server.wait_for_state(ids[1], "lost")["note"]
    os.kill(server.wait_for_state(ids[0], "running")["capture_pid"], signal.SIGKILL)
    server.wait_for_state(ids[0], "lost")
    server.wait_for_state(ids[2], "running")


def test_a_stopped_process_in_the_queue_goes_on_once_it_is_continued(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_running = 1\n")
    ids = [server.deploy(until(server, f"gate{n}"))["id"] for n in range(3)]
    wait_for(lambda: place(server, ids[2]) == 2, "its place")
    waiting = capture_pid(server, ids[1])
    os.kill(waiting, signal.SIGSTOP)
    for n in range(3):
        gate(server, f"gate{n}").touch()
    server.wait_for_end(ids[0])
    os.kill(waiting, signal.SIGCONT)
    assert [server.wait_for_end(one)["state"] for one in ids] == ["succeeded"] * 3


def test_an_exclusive_name_is_one_deployments_at_a_time(server: Server) -> None:
    first = server.deploy(until(server), exclusive="prod", name="the first")
    server.wait_for_state(first["id"], "running")
    second = server.deploy("echo second", exclusive="prod")
    assert second["queue"]["held_by"]["id"] == first["id"]
    other = server.deploy("echo other", exclusive="test")
    assert server.wait_for_end(other["id"])["state"] == "succeeded"
    assert server.record(second["id"])["state"] == "queued"
    gate(server).touch()
    ended = server.wait_for_end(second["id"])
    assert ended["started_at"] >= server.record(first["id"])["started_at"]
    assert ended["state"] == "succeeded"


def test_who_may_not_wait_is_told_who_holds_the_name_since_when(server: Server) -> None:
    first = server.deploy(until(server), exclusive="prod", name="the first")
    running = server.wait_for_state(first["id"], "running")
    fields = {"command": "echo", "exclusive": "prod", "if_busy": "refuse"}
    before = files_of_deployments(server)
    for answer in (
        server.http.post("/deployments", json=fields),
        server.http.post("/deployments", data=fields),
    ):
        assert answer.status_code == 409
        error = answer.json()["error"]
        for told in ("'prod'", first["id"], "the first", "127.0.0.1", running["started_at"]):
            assert told in error
    assert files_of_deployments(server) == before
    gate(server).touch()
    server.wait_for_end(first["id"])
    assert server.http.post("/deployments", json=fields).status_code == 201


def test_a_name_stays_taken_while_the_command_outlives_its_capture_process(
    server: Server,
) -> None:
    first = server.wait_for_state(server.deploy(until(server), exclusive="prod")["id"], "running")
    second = server.deploy("echo second", exclusive="prod")["id"]
    os.kill(first["capture_pid"], signal.SIGKILL)
    assert server.wait_for_state(first["id"], "lost")["left_running"]
    refused = server.http.post(
        "/deployments", json={"command": "echo", "exclusive": "prod", "if_busy": "refuse"}
    )
    assert refused.status_code == 409
    assert server.record(second)["state"] == "queued"
    gate(server).touch()
    assert server.wait_for_end(second)["state"] == "succeeded"


PRESET = """
[commands.deploy]
command = ["sh", "wait.sh", "{environment}"]
exclusive = "deploy-{environment}"
if_busy = "refuse"

[commands.deploy.parameters.environment]
type = "choice"
choices = ["test", "prod"]
"""


def test_a_preset_has_an_exclusive_name_for_each_of_its_values(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(PRESET)
    (server.folder / "wait.sh").write_text(until(server))

    def start(environment: str, **more: str) -> httpx.Response:
        body = {"preset": "deploy", "parameters": {"environment": environment}, **more}
        return server.http.post("/deployments", json=body)

    first = start("prod")
    assert (first.status_code, first.json()["exclusive"]) == (201, "deploy-prod")
    assert start("prod").status_code == 409
    assert start("test").status_code == 201
    assert start("prod", if_busy="wait").json()["queue"]["held_by"]["id"] == first.json()["id"]
    assert "can't change" in start("prod", exclusive="mine").json()["error"]
    gate(server).touch()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"exclusive": "x" * 101}, "up to 100 characters"),
        ({"exclusive": "a\nb"}, "up to 100 characters"),
        ({"exclusive": 5}, "exclusive takes text"),
        ({"if_busy": "later"}, "wait or refuse"),
    ],
)
def test_what_can_be_no_exclusive_name_is_refused(
    lasting_server: Server, fields: dict[str, Any], told: str
) -> None:
    answer = lasting_server.http.post("/deployments", json={"command": "echo", **fields})
    assert answer.status_code == 400
    assert told in answer.json()["error"]


def test_a_list_hears_how_the_queue_moves(make_server: Callable[..., Server]) -> None:
    server = make_server("max_running = 1\n")
    ids = [server.deploy(until(server, f"gate{n}"))["id"] for n in range(3)]
    wait_for(lambda: place(server, ids[2]) == 2, "its place")
    with open_stream(server.http, "/events") as stream:
        gate(server, "gate0").touch()

        def told_places() -> list[int]:
            records = [event.json() for event in stream.of_type("deployment")]
            return [record["queue"]["place"] for record in records if record["id"] == ids[2]]

        stream.wait(lambda: told_places()[-1:] == [1], "the last one's new place")


def test_what_the_config_starts_never_waits(make_server: Callable[..., Server]) -> None:
    server = make_server(
        "max_running = 1\n[sources.shell]\ntype = 'subprocess'\n"
        "[sources.beat]\ntype = 'mock'\nautostart = true\n"
    )
    first = server.deploy(until(server))["id"]
    server.wait_for_state(first, "running")
    listed = server.http.get("/deployments", params={"source": "beat"}).json()["deployments"]
    server.wait_for_state(listed[0]["id"], "running")
