"""The list: its filters, its last lines, and what it does while records are still being read."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS, Server

from tornado_logs import store
from tornado_logs.deployment import Record, State, new_id, timestamp, write_record
from tornado_logs.launcher import Launcher
from tornado_logs.store import Deployments, Filter
from tornado_logs.window import last_line

RECORD = Record(
    id="20240506-123000-22abcdef",
    name="Grün & Blau",
    source="shell",
    state=State.FAILED,
    created_at="2024-05-06T12:30:00.500Z",
)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(state="failed"), True),
        (Filter(state="running"), False),
        (Filter(source="shell"), True),
        (Filter(source="file"), False),
        (Filter(text="grün"), True),
        (Filter(text="red"), False),
        (Filter(text="20240506-123000-22abcdef"), True),
        (Filter(text="20240506"), False),
        (Filter(since="2024-05-06T12:30:00.500Z"), True),
        (Filter(since="2024-05-06T12:30:00.501Z"), False),
        (Filter(until="2024-05-06T12:30:00.500Z"), False),
        (Filter(until="2024-05-06T12:30:00.501Z"), True),
        (Filter(state="failed", source="demo"), False),
    ],
)
def test_a_filter_takes_what_meets_all_of_it(wanted: Filter, matches: bool) -> None:
    assert wanted.matches(RECORD) is matches


def test_a_bare_log_has_the_source_file() -> None:
    assert Filter(source="file").matches(Record(id="a"))


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"", ""),
        (b"one\ntwo\n", "two"),
        (b"one\ntwo", "two"),
        (b"one\n\n  \n\r\n", "one"),
        (b"one\n\x1b[0m\x1b[2K\n", "one"),
        (b"one\r\n", "one"),
        (b"10%\r50%\r100%", "100%"),
        (b"\x1b[1;31mred\x1b[0m and\ttab\n", "red and tab"),
        (b"\x1b]8;;https://a.b\x1b\\link\x1b]8;;\x07 end\n", "link end"),
        (b"bell\x07 nul\x00 \xc2\x9b7 \xff\n", "bell nul 7 \ufffd"),
        (b"cut \x1b[3", "cut"),
        (b"section_end:1:build\r\x1b[0Kdone\n", "done"),
        ("wörter ✓\n".encode(), "wörter ✓"),
        (b"x" * 300, "x" * 199 + "…"),
        (b"\n" * 10_000, ""),
        (b"\r" * 10_000, ""),
    ],
)
def test_the_last_line_is_the_last_that_says_something(
    tmp_path: Path, log: bytes, expected: str
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(log)
    assert last_line(str(path)) == expected


def test_a_line_longer_than_what_is_read_begins_with_an_ellipsis(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes("é".encode() * 5000 + b"x\n")  # the 4 KiB begin within a character
    line = last_line(str(path))
    assert line.startswith("…é")
    assert line.endswith("é…")
    assert len(line) == 200


def test_a_log_that_can_t_be_read_has_no_last_line(tmp_path: Path) -> None:
    assert last_line(str(tmp_path / "none.log")) == ""
    assert last_line(str(tmp_path)) == ""


def fill(folder: Path, count: int) -> list[str]:
    """Deployments that ended, oldest first."""
    ids = sorted(new_id() for _ in range(count))
    for number, deployment_id in enumerate(ids):
        (folder / f"{deployment_id}.log").write_bytes(b"one\n")
        record = Record(
            id=deployment_id,
            name=f"number {number}",
            state=State.SUCCEEDED,
            created_at=timestamp(),
            request={},
        )
        write_record(str(folder / f"{deployment_id}.json"), record)
    return ids


def test_a_search_that_takes_long_gives_what_it_has_and_goes_on(tmp_path: Path) -> None:
    ids = fill(tmp_path, 1000)

    async def search() -> tuple[list[str], int]:
        deployments = Deployments(str(tmp_path), Launcher(str(tmp_path), []))
        deployments.start()
        found: list[str] = []
        before: str | None = None
        pages = 0
        while pages == 0 or before:
            wanted = Filter(text="number 7")
            records, before = await deployments.page(50, before, wanted, 1e-6)
            found += [record.id for record in records]
            pages += 1
        deployments.close()
        return found, pages

    found, pages = asyncio.run(search())
    assert found == [ids[n] for n in reversed(range(1000)) if str(n).startswith("7")]
    assert pages > 4


def test_a_bare_log_that_goes_while_it_is_looked_at_is_gone_and_has_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its viewers would be told that it had come to its end."""
    (tmp_path / "bare.log").write_text("one\n")

    def vanish(path: str) -> bool:
        Path(path).unlink()
        return False

    async def look() -> Record | None:
        deployments = Deployments(str(tmp_path), Launcher(str(tmp_path), []))
        deployments.start()
        assert deployments.get("bare")
        monkeypatch.setattr(store, "is_being_written", vanish)
        (tmp_path / "bare.log").write_text("two\n")
        deployments._refresh("bare")
        found = deployments.get("bare")
        deployments.close()
        return found

    assert asyncio.run(look()) is None


def test_a_deployment_that_is_removed_while_it_is_found_lost_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (deployment_id,) = fill(tmp_path, 1)
    record = Record(id=deployment_id, state=State.RUNNING, created_at=timestamp(), request={})
    write_record(str(tmp_path / f"{deployment_id}.json"), record)
    find_lost = Launcher.find_lost
    is_forgotten = threading.Event()
    found: list[Record | None] = []

    def find_and_remove(launcher: Launcher, which: str) -> Record | None:
        found.append(find_lost(launcher, which))
        (tmp_path / f"{which}.log").unlink()
        assert is_forgotten.wait(WAIT_SECONDS)
        return found[-1]

    def on_record(_which: str, changed: Record | None) -> None:
        if changed is None:
            is_forgotten.set()

    async def look() -> Record | None:
        monkeypatch.setattr(Launcher, "find_lost", find_and_remove)
        deployments = Deployments(str(tmp_path), Launcher(str(tmp_path), []))
        deployments.start()
        deployments.listen(on_record)
        assert deployments.get(deployment_id)
        async with asyncio.timeout(WAIT_SECONDS):
            while not found or deployments._tasks:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        deployments.close()
        return deployments.get(deployment_id)

    assert asyncio.run(look()) is None
    assert found[0] is not None
    assert found[0].state is State.LOST


def listed(server: Server, query: str) -> list[str]:
    """The names that the list has."""
    answer = server.http.get(f"/deployments?{query}")
    assert answer.status_code == 200, answer.text
    return [record["name"] for record in answer.json()["deployments"]]


def test_the_list_is_filtered_by_time(server: Server) -> None:
    first = server.wait_for_end(server.deploy("true", name="first")["id"])
    second = server.wait_for_end(server.deploy("true", name="second")["id"])
    at = second["created_at"]
    assert listed(server, f"since={at}") == ["second"]
    assert listed(server, f"until={at}") == ["first"]
    assert listed(server, f"since={first['created_at']}&until={at}") == ["first"]
    assert listed(server, f"since={at}&until={at}") == []
    for ago in ("1m", "1h", "1d", "1w"):
        assert listed(server, f"since={ago}") == ["second", "first"]
        assert listed(server, f"until={ago}") == []
    assert listed(server, "since=2020-01-01&until=2100-01-01T00:00:00%2B02:00") == [
        "second",
        "first",
    ]


def test_the_list_has_last_lines_for_who_asks(server: Server) -> None:
    one = server.wait_for_end(server.deploy("echo one; echo two")["id"])["id"]
    server.wait_for_end(server.deploy("echo three")["id"])
    plain = server.http.get("/deployments").json()["deployments"]
    assert all("last_line" not in record for record in plain)
    lines = server.http.get("/deployments?last_line=1").json()["deployments"]
    assert [record["last_line"] for record in lines] == ["three", "two"]
    alone = server.http.get(f"/deployments?last_line=1&id={one}&id=none&id=../x").json()
    assert [record["last_line"] for record in alone["deployments"]] == ["two"]


@pytest.mark.parametrize(
    "query",
    [
        *("since=yesterday", "since=1y", "since=-1h", "since=2024-13-01", "since=99999-01-01"),
        *("until=x", "until=999999w", "until=0001-01-01T00:00:00%2B14:00"),
        *("max_ms=-1", "max_ms=x", "max_ms=60001", "limit=000000001" + "9" * 20),
    ],
)
@pytest.mark.parametrize("path", ["/deployments", "/events", "/"])
def test_a_filter_that_is_wrong_is_refused_in_a_sentence(
    lasting_server: Server, path: str, query: str
) -> None:
    if path != "/deployments" and query.startswith(("max_ms", "limit")):
        return
    answer = lasting_server.http.get(f"{path}?{query}", headers={"Accept": "application/json"})
    assert answer.status_code == 400
    assert re.match(f"{query.split('=')[0]} takes a (time|whole number)", answer.json()["error"])
