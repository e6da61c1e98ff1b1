"""Which ended deployments are removed, and that nothing else ever is."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import OLD, Server, drop_log, wait_for

from tornado_logs.deployment import Record, State, timestamp, write_record
from tornado_logs.launcher import Launcher
from tornado_logs.retention import Keep, Retention
from tornado_logs.store import Deployments

DAY = 86400.0


def put(folder: Path, age_days: float, log_bytes: int = 10, **fields: object) -> str:
    """A deployment that was created, and had ended, so many days ago; its id."""
    at = time.time() - age_days * DAY
    deployment_id = time.strftime("%Y%m%d-%H%M%S-aaaaaaaa", time.gmtime(at))
    record = Record(deployment_id, state=State.SUCCEEDED, request={}, ended_at=timestamp(at))
    for name, value in fields.items():
        setattr(record, name, value)
    write_record(str(folder / f"{deployment_id}.json"), record)
    for suffix in (".log", ".idx"):
        (folder / (deployment_id + suffix)).write_bytes(b"x" * log_bytes)
    return deployment_id


def look(folder: Path, keep: Keep) -> list[str]:
    deployments = Deployments(str(folder), Launcher(str(folder)))
    retention = Retention(deployments, keep)
    return retention.look(sorted(path.stem for path in folder.glob("*.log")))


def left(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.iterdir()}


def test_what_ended_long_ago_goes(tmp_path: Path) -> None:
    old = [put(tmp_path, days) for days in (40, 31)]
    new = [put(tmp_path, days) for days in (29, 1)]
    # Created long ago, ended just now.
    slow = put(tmp_path, 50, ended_at=timestamp(time.time() - DAY))
    assert look(tmp_path, Keep(days=30)) == old
    assert left(tmp_path) == {*new, slow}


def test_so_many_are_kept_the_newest(tmp_path: Path) -> None:
    ids = [put(tmp_path, days) for days in (5, 4, 3, 2, 1)]
    assert look(tmp_path, Keep(deployments=2)) == ids[:3]
    assert left(tmp_path) == set(ids[3:])


def test_so_many_bytes_are_kept_the_newest(tmp_path: Path) -> None:
    ids = [put(tmp_path, days, log_bytes=100_000) for days in (5, 4, 3, 2, 1)]
    assert look(tmp_path, Keep(log_bytes=320_000)) == ids[:2]
    assert left(tmp_path) == set(ids[2:])


@pytest.mark.parametrize("keep", [Keep(days=1), Keep(deployments=0), Keep(log_bytes=0)])
def test_what_runs_or_isnt_ours_is_never_touched(tmp_path: Path, keep: Keep) -> None:
    running = put(tmp_path, 9, state=State.RUNNING, ended_at=None)
    waiting = put(tmp_path, 8, state=State.QUEUED, ended_at=None)
    command_runs = put(
        tmp_path, 7, state=State.LOST, left_running=[{"pid": os.getpid(), "command": "pytest"}]
    )
    unknown = put(tmp_path, 6)
    (tmp_path / f"{unknown}.json").write_text("{")
    (tmp_path / "mine.log").write_text("bare")
    os.utime(tmp_path / "mine.log", (OLD, OLD))
    ended = put(tmp_path, 5)
    assert look(tmp_path, keep) == [ended]
    assert left(tmp_path) == {running, waiting, command_runs, unknown, "mine"}


def test_what_is_being_captured_is_kept_whatever_its_record_says(tmp_path: Path) -> None:
    held = put(tmp_path, 9)
    with (tmp_path / f"{held}.log").open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert look(tmp_path, Keep(deployments=0)) == []
    assert look(tmp_path, Keep(deployments=0)) == [held]


def test_what_a_kill_left_lying_about_goes_after_an_hour(tmp_path: Path) -> None:
    whole = put(tmp_path, 3)
    names = [
        "20260101-101010-aaaaaaaa.json",
        "20260101-101010-aaaaaaaa.idx",
        "20260101-101011-aaaaaaaa.log.new",
        ".20260101-101012-aaaaaaaa.json.17-18.tmp",
        "notes.json",
        "20260101-101013-aaaaaaaa.txt",
    ]
    for name in names:
        (tmp_path / name).write_text("{}")
    retention = Retention(Deployments(str(tmp_path), Launcher(str(tmp_path))), Keep())
    assert retention.tidy() == []
    for name in names:
        os.utime(tmp_path / name, (OLD - 60, OLD - 60))
    assert retention.tidy() == sorted(names[:4])
    assert left(tmp_path) == {whole, "notes", "20260101-101013-aaaaaaaa"}


def listed(server: Server) -> set[str]:
    return {record["id"] for record in server.http.get("/deployments").json()["deployments"]}


def test_a_server_removes_what_it_is_not_to_keep_and_tells_who_looks(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("")
    ids = [server.deploy(f"echo {n}")["id"] for n in range(3)]
    for one in ids:
        server.wait_for_end(one)
    runs = server.deploy("sleep 1000")["id"]
    drop_log(server, "mine", b"bare\n")
    server.terminate()
    (server.folder / "tornado_logs.toml").write_text("keep_deployments = 1\n")
    server.start()
    wait_for(lambda: listed(server) == {ids[2], runs, "mine"}, "the older two to go")
    assert server.http.get(f"/logs/{ids[0]}").status_code == 404
    assert not list(server.data_dir.glob(f"{ids[0]}*"))
