"""What a power loss or a full disk may leave: files cut anywhere. The server starts and says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Server

LINES = b"".join(b"line %d\n" % number for number in range(20))
COMMAND = "for n in $(seq 0 19); do echo line $n; done; exit 7"


class Copies:
    """Copies of one deployment that has ended, each to be damaged in its own way."""

    def __init__(self, server: Server) -> None:
        record = server.wait_for_end(server.deploy(COMMAND)["id"])
        server.terminate()
        self._folder = server.data_dir
        self._original = record["id"]
        self.record: dict[str, Any] = json.loads(self.read(".json"))
        self._count = 0

    def read(self, suffix: str) -> bytes:
        """A file of the original."""
        return (self._folder / f"{self._original}{suffix}").read_bytes()

    def add(self, **damaged: bytes) -> str:
        """A copy but for what is given of `log`, `idx` and `json`; its id."""
        self._count += 1
        deployment = f"{self._original[:16]}{self._count:08d}"
        record = json.dumps(self.record | {"id": deployment}).encode()
        files = {"log": self.read(".log"), "idx": self.read(".idx"), "json": record} | damaged
        for suffix, data in files.items():
            if data is not None:
                (self._folder / f"{deployment}.{suffix}").write_bytes(data)
        return deployment

    def add_record(self, **fields: Any) -> str:
        """A copy whose record has other fields."""
        deployment = self.add()
        path = self._folder / f"{deployment}.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))
        return deployment

    def remove(self) -> None:
        """Take the copies away."""
        for path in self._folder.glob(f"{self._original[:16]}0*"):
            path.unlink()


@pytest.fixture
def copies(server: Server) -> Iterator[Copies]:
    made = Copies(server)
    yield made
    made.remove()


def check_log(server: Server, deployment: str, data: bytes) -> None:
    """Readers get these bytes, by whatever way, and the end."""
    assert server.http.get(f"/logs/{deployment}/raw").content == data
    window = server.http.get(f"/logs/{deployment}/lines?from=1&count=100").json()
    assert window["lines"] == data.decode().splitlines()
    events = server.http.get(f"/logs/{deployment}").text
    assert events.count("\ndata: l") == len(data.splitlines())
    assert "event: end" in events


def test_a_log_that_was_cut_says_how_much_it_has_lost(server: Server, copies: Copies) -> None:
    sizes = [*range(len(LINES) - 20, len(LINES)), 0, 1, 7]
    cut = {size: copies.add(log=LINES[:size]) for size in sizes}
    whole = copies.add()
    server.start()
    for size, deployment in cut.items():
        record = server.record(deployment)
        assert (record["state"], record["exit_status"]) == ("failed", 7)
        assert record["lost_bytes"] == len(LINES) - size
        assert record["error"] == (
            f"The log was cut since it ended, by a power loss or by somebody: of {len(LINES)} "
            f"bytes it has the first {size}."
        )
        check_log(server, deployment, LINES[:size])
    assert (server.record(whole)["lost_bytes"], server.record(whole)["error"]) == (0, "")


def test_an_index_that_was_cut_costs_nothing_but_times(server: Server, copies: Copies) -> None:
    index = copies.read(".idx")
    cut = [copies.add(idx=index[:size]) for size in range(0, len(index), 5)]
    cut.append(copies.add(idx=bytes(len(index))))
    server.start()
    for deployment in cut:
        check_log(server, deployment, LINES)


def test_a_record_that_was_cut_is_listed_with_its_error(server: Server, copies: Copies) -> None:
    record = json.dumps(copies.record).encode()
    cut = [copies.add(json=record[:size]) for size in range(0, len(record) - 1, 37)]
    cut += [copies.add(json=bytes(len(record))), copies.add(json=record)]  # the last: another's
    server.start()
    listed = {item["id"]: item for item in deployments(server)}
    for deployment in cut:
        assert f"its record {deployment}.json can't be read" in listed[deployment]["error"]
        check_log(server, deployment, LINES)
    assert server.wait_for_end(server.deploy(COMMAND)["id"])["exit_status"] == 7


WRONG: dict[str, Callable[[Copies], str]] = {
    "a list": lambda copies: copies.add(json=b"[]"),
    "too deep": lambda copies: copies.add(json=b"[" * 100_000),
    "not UTF-8": lambda copies: copies.add(json=b'{"id": "\xff"}'),
    "a state to come": lambda copies: copies.add_record(state="paused"),
    "a text for a number": lambda copies: copies.add_record(exit_status="7"),
    "a number for a list": lambda copies: copies.add_record(left_running=7),
}


def test_a_record_that_is_none_is_listed_with_its_error(server: Server, copies: Copies) -> None:
    wrong = {what: make(copies) for what, make in WRONG.items()}
    future = copies.add_record(priority=7)
    server.start()
    listed = {item["id"]: item for item in deployments(server)}
    for what, deployment in wrong.items():
        assert "can't be read" in listed[deployment]["error"], what
        check_log(server, deployment, LINES)
    assert (listed[future]["state"], listed[future]["error"]) == ("failed", "")


def deployments(server: Server) -> list[dict[str, Any]]:
    """The whole list."""
    return list(server.http.get("/deployments?limit=1000").json()["deployments"])


def test_tokens_and_audit_entries_that_were_cut_are_told_of(server: Server) -> None:
    server.deploy("true")
    audit = server.data_dir / ".access" / "audit.jsonl"
    audit.write_bytes(audit.read_bytes() + b'{"time": "2026-11-2')
    later = server.deploy("true")["id"]
    entries = server.http.get("/audit").json()["entries"]
    assert [entry["deployment"] == later for entry in entries] == [True, False]
    (server.data_dir / ".access" / "tokens.json").write_bytes(b'{"tokens": [{"id"')
    answer = server.http.get("/deployments", headers={"Authorization": "Bearer tl_a_b"})
    assert answer.status_code == 503
    assert "nobody may" in answer.json()["error"]


def test_a_record_left_by_a_run_that_has_not_ended_is_told_as_lost(
    server: Server, copies: Copies
) -> None:
    running = copies.add_record(
        state="running", exit_status=None, ended_at=None, log_bytes=None, capture_pid=None
    )
    spare = Path(server.data_dir / f".{running}.json.spare")
    spare.write_bytes(b"\0" * 100)
    server.start()
    record = server.wait_for_state(running, "lost")
    assert "the log goes as far as it was written" in record["note"]
    check_log(server, running, LINES)
    assert not spare.exists()
