"""Commands as a user sees them: terminals and pipes, stopping, timeouts, what is left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Server, wait_for
from test_survival import has_output, is_alive

from tornado_logs.processes import descendants

QUICK = """
[sources.shell]
type = "subprocess"
stop_grace_seconds = 0.5
linger_seconds = 0.5
"""


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """One for all tests of this module: they leave it as it was, each beside its own logs."""
    return lasting_server


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that loses patience soon."""
    with contextlib.closing(Server(tmp_path_factory.mktemp("quick"), QUICK)) as server:
        server.start()
        yield server


def test_a_command_sees_a_terminal_unless_told_otherwise(server: Server) -> None:
    command = "test -t 1 && test -t 2 && echo terminal || echo pipe; tput cols 2>/dev/null"
    on_terminal = server.deploy(command)["id"]
    by_pipe = server.deploy("test -t 1 && echo terminal || echo pipe", tty=False)["id"]
    server.wait_for_end(on_terminal)
    server.wait_for_end(by_pipe)
    assert server.log(on_terminal).startswith(b"terminal\n")
    assert server.log(by_pipe) == b"pipe\n"


def test_a_python_program_prints_line_by_line(server: Server) -> None:
    command = "python3 -c 'import signal; print(1); signal.pause()'"
    deployment = server.deploy(command)["id"]
    wait_for(lambda: server.log(deployment) == b"1\n", "the line, long before the end")


@pytest.mark.parametrize("tty", [True, False])
def test_the_log_has_exactly_the_bytes_that_were_written(server: Server, tty: bool) -> None:
    every_byte = bytes(range(256)) * 40
    (server.folder / "bytes").write_bytes(every_byte)
    deployment = server.deploy("cat bytes; cat bytes >&2", tty=tty)["id"]
    server.wait_for_end(deployment)
    assert server.log(deployment) == every_byte * 2


def test_a_command_that_asks_gets_no_input_and_goes_on(server: Server) -> None:
    deployment = server.deploy("read answer || echo nobody; test -r /dev/tty; cat")["id"]
    assert server.wait_for_end(deployment)["state"] == "succeeded"
    assert server.log(deployment) == b"nobody\n"


def test_an_argument_list_passes_no_shell(server: Server) -> None:
    deployment = server.deploy(["printf", "%s\\n", "$HOME; echo x", "b"])["id"]
    server.wait_for_end(deployment)
    assert server.log(deployment) == b"$HOME; echo x\nb\n"


def test_a_command_gets_its_folder_and_its_environment(server: Server, tmp_path: Path) -> None:
    deployment = server.deploy("pwd; echo $GREETING", cwd=str(tmp_path), env={"GREETING": "a b"})
    server.wait_for_end(deployment["id"])
    assert server.log(deployment["id"]) == f"{tmp_path}\na b\n".encode()


@pytest.mark.parametrize(
    ("command", "status", "signal"),
    [("exit 0", 0, None), ("exit 42", 42, None), ("kill -KILL $$", 137, "SIGKILL")],
)
def test_the_exit_status_is_the_commands_own(
    server: Server, command: str, status: int, signal: str | None
) -> None:
    record = server.wait_for_end(server.deploy(command)["id"])
    assert (record["exit_status"], record["signal"]) == (status, signal)
    assert record["state"] == ("succeeded" if status == 0 else "failed")


def test_a_program_that_does_not_exist_is_a_127_with_a_sentence(server: Server) -> None:
    record = server.wait_for_end(server.deploy(["no-such-program", "x"])["id"])
    assert (record["state"], record["exit_status"]) == ("failed", 127)
    assert record["note"] == "cannot run 'no-such-program': No such file or directory"


def test_stop_ends_the_whole_group(quick: Server) -> None:
    deployment = quick.deploy("sleep 1000 & sleep 1000 | sleep 1000")["id"]
    wait_for(lambda: quick.record(deployment)["pid"], "the command")
    quick.http.post(f"/deployments/{deployment}/stop")
    record = quick.wait_for_state(deployment, "stopped")
    assert (record["exit_status"], record["signal"]) == (143, "SIGTERM")
    assert record["left_running"] == []


def test_stop_ends_what_ignores_term_and_what_has_daemonised(quick: Server) -> None:
    command = (
        "trap '' TERM; (setsid sh -c 'trap : TERM; echo $$; while :; do sleep 1000; done' &); "
        "echo $$; while :; do sleep 1000; done"
    )
    deployment = quick.deploy(command)["id"]
    pids = wait_for(
        lambda: len(lines := quick.log(deployment).split()) == 2 and list(map(int, lines)),
        "both to run",
    )
    quick.http.post(f"/deployments/{deployment}/stop")
    assert quick.wait_for_state(deployment, "stopped")["exit_status"] == 137
    assert not any(map(is_alive, pids))


def test_a_command_may_clean_up_and_speak_when_it_is_stopped(quick: Server) -> None:
    command = "trap 'echo cleaning; exit 3' TERM; echo begun; while :; do sleep 0.05; done"
    deployment = quick.deploy(command)["id"]
    wait_for(lambda: has_output(quick, deployment), "output")
    quick.http.post(f"/deployments/{deployment}/stop")
    record = quick.wait_for_state(deployment, "stopped")
    assert record["exit_status"] == 3
    assert quick.log(deployment).endswith(b"cleaning\n")


def test_a_command_that_is_stopped_in_a_flood_ends_at_once(quick: Server) -> None:
    deployment = quick.deploy("yes")["id"]
    wait_for(lambda: len(quick.log(deployment)) > 1_000_000, "a flood")
    quick.http.post(f"/deployments/{deployment}/stop")
    assert quick.wait_for_state(deployment, "stopped")["signal"] == "SIGTERM"


def test_a_timeout_ends_a_command_and_says_so(quick: Server) -> None:
    record = quick.wait_for_end(quick.deploy("sleep 1000", timeout_seconds=0.2)["id"])
    assert record["state"] == "timed_out"
    assert record["note"] == "Stopped after its timeout of 0.2 s."


def test_a_background_child_does_not_hold_the_deployment_open(quick: Server) -> None:
    deployment = quick.deploy("(while :; do echo tick; sleep 0.1; done) & echo $!; exit 5")["id"]
    record = quick.wait_for_end(deployment)
    assert (record["state"], record["exit_status"]) == ("failed", 5)
    assert "still run, and what they print is no longer taken" in record["note"]
    assert b"tick" in quick.log(deployment)
    child = next(int(word) for word in quick.log(deployment).split() if word.isdigit())
    assert child in [process["pid"] for process in record["left_running"]]


def test_a_daemon_that_let_go_of_the_output_is_named_and_left_alone(quick: Server) -> None:
    deployment = quick.deploy("nohup sleep 1000 >/dev/null 2>&1 & echo started")["id"]
    record = quick.wait_for_end(deployment)
    assert record["state"] == "succeeded"
    (left,) = record["left_running"]
    assert left["command"] == "sleep 1000"
    assert is_alive(left["pid"])


def test_stop_during_the_linger_ends_what_was_left(make_server: Callable[..., Server]) -> None:
    server = make_server(QUICK.replace("linger_seconds = 0.5", "linger_seconds = 1000"))
    deployment = server.deploy("sleep 1000 & echo begun")["id"]
    wait_for(lambda: has_output(server, deployment), "output")
    server.http.post(f"/deployments/{deployment}/stop")
    record = server.wait_for_state(deployment, "stopped")
    assert (record["exit_status"], record["left_running"]) == (0, [])


def test_a_stop_right_after_the_start_is_heard(quick: Server) -> None:
    deployment = quick.deploy("sleep 1000")["id"]
    assert quick.http.post(f"/deployments/{deployment}/stop").status_code == 202
    quick.wait_for_state(deployment, "stopped")


def test_what_has_ended_cannot_be_stopped_again(quick: Server) -> None:
    deployment = quick.deploy("true")["id"]
    quick.wait_for_end(deployment)
    answer = quick.http.post(f"/deployments/{deployment}/stop")
    assert answer.status_code == 409
    assert "its state is succeeded" in answer.json()["error"]


def test_memory_of_the_capture_process_stays_small_in_a_flood(quick: Server) -> None:
    deployment = quick.deploy("head -c 300M /dev/zero", tty=False)["id"]
    record = quick.wait_for_state(deployment, "running", "succeeded")
    status = Path(f"/proc/{record['capture_pid']}/status")
    peak_kb = 0
    while quick.record(deployment)["state"] == "running":
        try:
            text = status.read_text()
        except OSError:
            break
        if "VmHWM" in text:
            peak_kb = max(peak_kb, int(text.split("VmHWM:")[1].split()[0]))
        time.sleep(0.01)  # the peak has to be read before the end, but not all the time
    assert quick.wait_for_end(deployment)["log_bytes"] == 300 * 1024 * 1024
    assert 0 < peak_kb < 30_000


def test_a_command_can_trap_a_hangup(quick: Server) -> None:
    deployment = quick.deploy("trap 'echo got it; exit 7' HUP; kill -HUP $$; echo not hung up")[
        "id"
    ]
    assert quick.wait_for_end(deployment)["exit_status"] == 7
    assert quick.log(deployment) == b"got it\n"


def test_orphans_that_have_ended_are_not_kept_as_zombies(quick: Server) -> None:
    deployment = quick.deploy("for i in $(seq 50); do (sleep 0.01 &); done; echo done; sleep 1000")
    record = quick.wait_for_state(deployment["id"], "running")
    wait_for(lambda: b"done" in quick.log(deployment["id"]), "the orphans to be started")
    wait_for(lambda: len(descendants(record["capture_pid"])) == 2, "the shell and its sleep alone")


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_what_was_printed_before_the_end_is_kept_however_short_the_linger(
    make_server: Callable[..., Server], seconds: float
) -> None:
    server = make_server(QUICK.replace("linger_seconds = 0.5", f"linger_seconds = {seconds}"))
    for _ in range(5):
        command = "sleep 1000 & head -c 900000 /dev/zero"
        deployment = server.deploy(command, tty=False)["id"]
        server.wait_for_end(deployment)
        assert len(server.log(deployment)) == 900_000
