"""What the config says is followed as soon as the server runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, wait_for

CONFIG = """
rescan_seconds = 0.1
[sources.app]
type = "file_tail"
path = "{path}"
autostart = true
lines = 1
[sources.shell]
type = "subprocess"
"""


def records(server: Server, source: str = "app") -> list[dict[str, Any]]:
    return list(server.http.get(f"/deployments?source={source}").json()["deployments"])


def logs(server: Server) -> dict[str, bytes]:
    """What was captured, by the name of the file that is followed."""
    return {Path(record["name"]).name: server.log(record["id"]) for record in records(server)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "followed"
    folder.mkdir()
    return folder


def test_each_file_of_a_glob_is_followed_and_a_new_one_from_its_start(
    make_server: Callable[..., Server], folder: Path
) -> None:
    (folder / "a.log").write_text("old\nlast\n")
    server = make_server(CONFIG.format(path=folder / "*.log"))
    wait_for(lambda: logs(server) == {"a.log": b"last\n"}, "the last line of the first file")
    (folder / "b.log").write_text("one\ntwo\n")
    both = {"a.log": b"last\n", "b.log": b"one\ntwo\n"}
    wait_for(lambda: logs(server) == both, "all of the new file")


def test_the_next_server_goes_on_with_what_runs_and_starts_nothing_twice(
    make_server: Callable[..., Server], folder: Path
) -> None:
    (folder / "a.log").write_text("last\n")
    server = make_server(CONFIG.format(path=folder / "*.log"))
    wait_for(lambda: logs(server) == {"a.log": b"last\n"}, "the file to be followed")
    server.kill()
    with (folder / "a.log").open("a") as file:
        file.write("while no server ran\n")
    server.start()
    (folder / "b.log").write_text("new\n")
    wait_for(lambda: len(records(server)) == 2, "the new file to be noticed")
    assert len([record for record in records(server) if "a.log" in record["name"]]) == 1
    wait_for(lambda: logs(server)["a.log"] == b"last\nwhile no server ran\n", "the rest")


def test_a_file_is_followed_again_when_all_processes_were_lost_with_the_machine(
    make_server: Callable[..., Server], folder: Path
) -> None:
    (folder / "a.log").write_text("last\n")
    server = make_server(CONFIG.format(path=folder / "a.log"))
    (first,) = wait_for(lambda: [r for r in records(server) if r["capture_pid"]], "the start")
    server.kill()
    os.kill(first["capture_pid"], signal.SIGKILL)
    server.start()
    states = ["lost", "running"]
    wait_for(lambda: sorted(r["state"] for r in records(server)) == states, "a new one")


def test_what_was_stopped_is_not_started_again_but_what_was_lost_is(
    make_server: Callable[..., Server], folder: Path
) -> None:
    (folder / "a.log").write_text("last\n")
    server = make_server(CONFIG.format(path=folder / "*.log"))
    (first,) = wait_for(lambda: [r for r in records(server) if r["capture_pid"]], "the start")
    os.kill(first["capture_pid"], signal.SIGKILL)
    server.wait_for_state(first["id"], "lost")
    (second,) = wait_for(
        lambda: [record for record in records(server) if record["state"] == "running"], "a new one"
    )
    server.http.post(f"/deployments/{second['id']}/stop")
    server.wait_for_state(second["id"], "stopped")
    (folder / "b.log").write_text("new\n")
    wait_for(lambda: len(records(server)) == 3, "the new file: a whole round later")
    assert sorted((Path(r["name"]).name, r["state"]) for r in records(server))[:2] == [
        ("a.log", "lost"),
        ("a.log", "stopped"),
    ]


def test_a_glob_that_covers_the_data_folder_does_not_follow_our_own_logs(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server(CONFIG.format(path=tmp_path / "**" / "*.log"))
    server.wait_for_end(server.deploy("echo a log of our own")["id"])
    (tmp_path / "other.log").write_text("new\n")
    wait_for(lambda: records(server), "the other file to be followed")
    assert [record["name"] for record in records(server)] == [str(tmp_path / "other.log")]
