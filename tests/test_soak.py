"""`make soak`, for some seconds: that it runs, and that it would find what it looks for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server
from fault_load import RAN_FILE, RawViewer, Request, check_requests
from returning_viewer import Viewer
from soak import Sample, judge

SOAK = Path(__file__).parent / "soak.py"


def test_a_short_soak_finds_nothing() -> None:
    command = [sys.executable, str(SOAK), "--minutes", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    acts = done.stdout.splitlines()[1:]
    assert [act.partition(":")[0] for act in acts] == [
        "one server",
        "two workers",
        "servers that end",
    ]
    assert all(act.endswith("faults: 0") for act in acts)


def test_what_grows_is_not_flat() -> None:
    flat = [Sample(30_000_000 + n % 7 * 500_000, 20 + n % 7) for n in range(100)]
    assert judge(flat) == []
    leaking = [Sample(s.pss_bytes + n * 500_000, s.descriptors) for n, s in enumerate(flat)]
    assert "pss_bytes" in judge(leaking)[0]
    open_ended = [Sample(s.pss_bytes, s.descriptors + n) for n, s in enumerate(flat)]
    assert "descriptors" in judge(open_ended)[0]


@pytest.mark.parametrize("spoilt", ["log", "ran twice", "never ran", "no record", "viewer"])
def test_what_is_lost_or_comes_twice_is_found(server: Server, spoilt: str) -> None:
    request = Request("t1", 100, 100, tty=False, folder=server.folder)
    request.deployment_id = server.deploy(**request.body)["id"]
    server.wait_for_end(request.deployment_id)
    viewer = RawViewer(server, request.deployment_id)
    viewer.run()
    assert check_requests(server, [request], [viewer]).faults == []
    log = server.data_dir / f"{request.deployment_id}.log"
    if spoilt == "log":
        log.write_bytes(log.read_bytes().replace(b"t1 50\n", b""))
    elif spoilt == "ran twice":
        (server.folder / RAN_FILE).write_text("t1\nt1\n")
    elif spoilt == "never ran":
        (server.folder / RAN_FILE).write_text("")
    elif spoilt == "no record":
        log.with_suffix(".json").unlink()
    else:
        viewer = RawViewer(server, request.deployment_id)
    assert len(check_requests(server, [request], [viewer]).faults) == 1


ROLLING = """
[sources.rolling]
type = "subprocess"
max_log_bytes = 1048576
when_log_full = "drop_oldest"
"""


@pytest.mark.parametrize("spoilt", ["", "log", "gap", "line", "too much dropped"])
def test_what_is_missing_but_was_not_dropped_is_found(
    make_server: Callable[..., Server], spoilt: str
) -> None:
    server = make_server(ROLLING)
    request = Request("t1", 150_000, 20_000, tty=False, folder=server.folder, drops_oldest=True)
    request.source = "rolling"
    request.deployment_id = server.deploy(**request.body)["id"]
    server.wait_for_end(request.deployment_id)
    viewer = Viewer(server, request.deployment_id)
    viewer.run()
    text = RawViewer(server, request.deployment_id)
    text.run()
    assert viewer.gaps_after == [0]
    log = server.data_dir / f"{request.deployment_id}.log"
    if spoilt == "log":
        log.write_bytes(log.read_bytes().replace(b"t1 149999\n", b"t1 149998\n"))
    elif spoilt == "gap":
        viewer.gaps_after.clear()
    elif spoilt == "line":
        del viewer.lines[7]
    elif spoilt == "too much dropped":
        kept = log.read_bytes().lstrip(b"\0")[:500_000]
        log.write_bytes(kept.rjust(len(request.log), b"\0"))
    faults = check_requests(server, [request], [viewer, text]).faults
    assert len(faults) == bool(spoilt)


def test_two_of_one_exclusive_name_are_found(server: Server) -> None:
    requests = [
        Request(token, 100, 5, tty=False, folder=server.folder, exclusive="prod")
        for token in ("t1", "t2")
    ]
    for request in requests:
        body = {name: value for name, value in request.body.items() if name != "exclusive"}
        request.deployment_id = server.deploy(**body)["id"]
    for request in requests:
        server.wait_for_end(str(request.deployment_id))
    (fault,) = check_requests(server, requests, []).faults
    assert fault.startswith("t2 ")
