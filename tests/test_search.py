"""`GET /logs/<id>/search`: what a real grep finds for a client, live, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from conftest import WAIT_SECONDS, Server, drop_log, wait_for
from level_samples import ERROR, SAMPLES
from sse_client import Event, Parser, Stream, open_stream, read_events
from test_wire import deploy_bytes, gated, numbered

from tornado_logs.config import Config
from tornado_logs.deployment import Record, State
from tornado_logs.follower import Follower
from tornado_logs.grep import Grep
from tornado_logs.query import compile_query
from tornado_logs.search import Search


def url(log: str, q: str | None = None, **options: Any) -> str:
    query = urlencode(({} if q is None else {"q": q}) | options, quote_via=quote)
    return f"/logs/{log}/search?{query}"


def lines_of(events: list[Event]) -> list[int]:
    """The line numbers that were reported since the last reset."""
    found: list[int] = []
    for event in events:
        if event.type == "reset":
            found = []
        elif event.type == "matches":
            found += event.json()["lines"]
    return found


def search(server: Server, log: str, q: str | None = None, **options: Any) -> list[int]:
    """The lines that a search to the end of an ended log finds; its total agrees with them."""
    events = read_events(server.http, url(log, q, **options))
    found, end = lines_of(events), events[-1].json()
    assert end["matches"] == len(found)
    assert end["done"] is True
    assert end["truncated"] is False
    assert end["lines_searched"] == end["lines_total"]
    return found


def wait_until_done(stream: Stream, matches: int) -> dict[str, Any]:
    """Read on until all was searched and this many lines were found; the progress that says so."""

    def found() -> dict[str, Any] | None:
        types = [event.type for event in stream.events]
        since = len(types) - types[::-1].index("reset") if "reset" in types else 0
        progress = [event.json() for event in stream.events[since:] if event.type == "progress"]
        done = [state for state in progress if state["done"] and state["matches"] == matches]
        return done[-1] if done else None

    state: dict[str, Any] = stream.wait(found, f"{matches} matches")
    return state


def greps() -> set[int]:
    """The processes that are a grep of ours."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if folder.name.isdecimal() and words[:2] == [b"grep", b"-a"]:
            found.add(int(folder.name))
    return found


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """One for all tests of this module: they leave it as it was, each beside its own logs."""
    return lasting_server


@pytest.fixture(scope="module")
def slow(lasting_server: Server) -> str:
    """A log whose search takes many seconds."""
    return drop_slow_log(lasting_server, "slow")


def drop_slow_log(server: Server, name: str) -> str:
    """A log of 40 GB, which takes no room on the disk, but a grep many seconds to read."""
    path = server.data_dir / f"{name}.log"
    with path.open("wb") as file:
        file.write(b"\x1b[1mfirst\n")
        for number in range(1, 2001):  # or grep would hold all in memory
            file.seek(number * 20_000_000)
            file.write(b"\n")
    old = time.time() - 3600
    os.utime(path, (old, old))
    server.wait_for_state(name, "finished")
    return name


# --- what is found


def test_the_lines_found_are_those_that_python_finds(lasting_server: Server) -> None:
    words = ["error", "Error", "warning", "info", "ünï", "", "x" * 200]
    chosen = random.Random(4)
    lines = [" ".join(chosen.choices(words, k=3)) for _ in range(30_000)]
    log = deploy_bytes(lasting_server, "".join(line + "\n" for line in lines).encode())
    for q, options, pattern in (
        ("error", {}, re.compile("error", re.IGNORECASE)),
        ("error", {"case": 1}, re.compile("error")),
        ("ÜNÏ", {}, re.compile("ünï")),
        ("^(error|info).*x$", {"regex": 1}, re.compile("^(error|info).*x$", re.IGNORECASE)),
        ("(error|info", {}, re.compile("never")),
        (r"^\S+ ünï \w{200}$", {"regex": 1, "case": 1}, re.compile(r"^\S+ ünï \w{200}$")),
        ("nowhere", {}, re.compile("nowhere")),
    ):
        expected = [number for number, line in enumerate(lines, 1) if pattern.search(line)]
        assert search(lasting_server, log, q, **options) == expected, q


@pytest.mark.parametrize("colour", ["", "\x1b[1m\n"], ids=["plain", "coloured"])
def test_line_numbers_are_true_across_greps_and_beyond_what_is_reported(
    lasting_server: Server, colour: str
) -> None:
    count = 160_000
    data = colour.encode() + b"".join(b"n %d\n" % n for n in range(1, count))
    log = deploy_bytes(lasting_server, data)
    events = read_events(lasting_server.http, url(log, "N "))
    first = 2 if colour else 1
    assert lines_of(events) == list(range(first, first + 50_000))
    end = events[-1].json()
    assert (end["matches"], end["truncated"]) == (count - 1, True)
    assert end["lines_total"] == end["lines_searched"] == count - 1 + bool(colour)
    assert search(lasting_server, log, "7777")[0] == 7777 + bool(colour)


def test_exactly_as_many_matches_as_are_reported_are_not_truncated(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"n\n" * 50_000 + b"other\n")
    assert search(lasting_server, log, "n") == list(range(1, 50_001))


def test_the_last_of_all_that_are_reported_may_have_been_reported_before_its_grep_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, for which of the two is first is a matter of a moment elsewhere."""
    monkeypatch.setattr(Grep, "is_time_to_tell", lambda _grep: True)
    monkeypatch.setattr("tornado_logs.search.MAX_REPORTED_LINES", 100)
    path = tmp_path / "x.log"
    path.write_bytes(b"n\n" * 150)
    sent = []

    async def send(data: bytes) -> None:
        sent.append(data)

    async def find() -> None:
        record = Record(id="x", state=State.SUCCEEDED)
        follower = Follower(str(path), record, Record.to_json, Config())
        query, slots = compile_query("n", regex=False, case=False), asyncio.Semaphore()
        search = Search(
            follower, str(path), query, from_line=1, slots=slots, ping_seconds=WAIT_SECONDS
        )
        async with asyncio.timeout(WAIT_SECONDS):
            await search.run(send)
        follower.close()

    asyncio.run(find())
    events = Parser().feed(b"".join(sent))
    assert lines_of(events) == list(range(1, 101))
    end = events[-1].json()
    assert (end["matches"], end["lines_searched"], end["truncated"]) == (150, 150, True)


def test_a_bare_log_without_an_index_has_true_numbers_too(lasting_server: Server) -> None:
    data = numbered(200_000)
    log = drop_log(lasting_server, "bare-to-search", data)
    expected = [n for n, line in enumerate(data.splitlines(), 1) if b"77" in line]
    assert search(lasting_server, log, "77") == expected


def test_a_search_can_begin_at_any_line(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"a\nb\n" * 500 + b"a")
    assert search(lasting_server, log, "a", **{"from": 501}) == list(range(501, 1002, 2))
    assert search(lasting_server, log, "a", **{"from": 1001}) == [1001]
    assert search(lasting_server, log, "a", **{"from": 5000}) in ([], [1001])


def test_colours_are_no_text_and_hide_none(lasting_server: Server) -> None:
    log = deploy_bytes(
        lasting_server,
        b"\x1b[1m\x1b[38;5;9merror\x1b[0m\x1b[1m: could not compile\x1b[0m\n"
        b"line 38 is plain\n"
        b"\x1b]8;;https://example.com/38\x1b\\link\x1b]8;;\x1b\\ed\n",
    )
    assert search(lasting_server, log, "error: could") == [1]
    assert search(lasting_server, log, "38") == [2]
    assert search(lasting_server, log, "^linked$", regex=1) == [3]


@pytest.mark.parametrize("count", [20, 60_000])
def test_colours_that_begin_late_are_no_text_either(lasting_server: Server, count: int) -> None:
    data = b"x" * 400 + b"\n" + b"needle 31\n" * count + b"y" * 20_000_000 + b"\n"
    data += b"need\x1b[31mle\n\x1b[31mno\n"
    log = deploy_bytes(lasting_server, data)
    for q, total in (("needle", count + 1), ("31", count)):
        events = read_events(lasting_server.http, url(log, q))
        assert "reset" in {event.type for event in events}
        assert lines_of(events)[:20] == list(range(2, 22))
        assert events[-1].json()["matches"] == total


def test_carriage_returns_hide_nothing(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"windows\r\n10%\r20%\rdone\r\n\r\r\r\n")
    assert search(lasting_server, log, "windows$", regex=1) == [1]
    assert search(lasting_server, log, "done") == [2]


def test_binary_logs_are_searched_like_any(lasting_server: Server) -> None:
    data = random.Random(1).randbytes(1_000_000) + b"\nneedle \xff\0\xfe\n" + b"\0" * 1000
    log = deploy_bytes(lasting_server, data)
    expected = [n for n, line in enumerate(data.split(b"\n"), 1) if b"needle" in line]
    assert search(lasting_server, log, "needle", case=1) == expected


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"", []), (b"\n\n", []), (b"a", [1]), (b"\na", [2]), (b"a\na\n", [1, 2]), (b"b\nxa", [2])],
)
def test_the_last_line_of_an_ended_log_counts_without_its_end(
    lasting_server: Server, data: bytes, found: list[int]
) -> None:
    log = deploy_bytes(lasting_server, data)
    assert search(lasting_server, log, "a") == found
    assert search(lasting_server, log, "^$", regex=1) == [
        n for n, line in enumerate(data.splitlines(), 1) if not line
    ]


def test_queries_that_look_like_options_are_text(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"-r x\n--help\n$(id) `id` ;'\"\n")
    assert search(lasting_server, log, "-r") == [1]
    assert search(lasting_server, log, "--help") == [2]
    assert search(lasting_server, log, "$(id) `id` ;'\"") == [3]
    assert search(lasting_server, log, " x") == [1]


def test_fold_markers_are_found(lasting_server: Server) -> None:
    lines = [
        b"all is well",
        b"::group::Install",
        b"::endgroup::",
        b"\x1b[0Ksection_start:1700000000:build[collapsed=true]\r\x1b[0KBuild",
        b"section_end:1700000001:build\r\x1b[0K",
        b"##[group]Azure",
        b"2026-11-22T10:41:59.1234567Z ##[endgroup]",
        b"echo ::group::no marker",
    ]
    log = deploy_bytes(lasting_server, b"\n".join(lines) + b"\n")
    assert search(lasting_server, log, structure=1) == [2, 3, 4, 5, 6, 7]


def test_the_errors_found_are_those_that_the_page_marks(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, "".join(f"{line}\n" for line, _ in SAMPLES).encode())
    found = search(lasting_server, log, errors=1)
    assert [SAMPLES[n - 1][0] for n in found] == [line for line, level in SAMPLES if level == ERROR]


# --- live


def test_a_search_goes_on_while_the_log_grows(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "needle 1\\nother\\nneed", "le 2\\nother\\nneedle 3")
    with open_stream(lasting_server.http, url(log, "needle")) as stream:
        state = wait_until_done(stream, 1)
        assert lines_of(stream.events) == [1]
        assert state["lines_searched"] == state["lines_total"] == 2  # the third isn't whole
        gate.touch()
        end = stream.read_to_end()[-1].json()
    assert lines_of(stream.events) == [1, 3, 5]
    assert (end["matches"], end["lines_total"]) == (3, 5)


def test_a_search_of_a_flood_finds_every_line_once(lasting_server: Server) -> None:
    command = "for i in $(seq 200); do seq 500; printf part; sleep 0.01; echo; done"
    record = lasting_server.deploy(command, tty=False)
    with open_stream(lasting_server.http, url(record["id"], "7$|part", regex=1)) as stream:
        end = stream.read_to_end()[-1].json()
    lines = lasting_server.log(record["id"]).splitlines()
    found = [n for n, line in enumerate(lines, 1) if re.search(b"7$|part", line)]
    assert lines_of(stream.events) == found
    assert end["matches"] == len(found)


def test_counting_beyond_what_is_reported_goes_on_and_leaves_out_the_unfinished_line(
    lasting_server: Server,
) -> None:
    log = "counted"
    path = lasting_server.data_dir / f"{log}.log"
    with path.open("wb") as file:
        file.write(b"n\n" * 60_000 + b"n")
        file.flush()
        lasting_server.wait_for_state(log, "running")
        with open_stream(lasting_server.http, url(log, "n")) as stream:
            wait_until_done(stream, 60_000)
            for count in range(1, 4):
                file.write(b"\nn")
                file.flush()
                wait_until_done(stream, 60_000 + count)
            file.close()
            end = stream.read_to_end()[-1].json()
    assert end["matches"] == 60_004
    assert lines_of(stream.events) == list(range(1, 50_001))


def test_a_log_that_is_cut_is_searched_again_from_its_start(server: Server) -> None:
    path = server.data_dir / "cut.log"
    with path.open("wb", buffering=0) as file:
        file.write(b"old needle\n" * 100)
        server.wait_for_state("cut", "running")
        with open_stream(server.http, url("cut", "needle")) as stream:
            wait_until_done(stream, 100)
            file.truncate(0)
            file.seek(0)
            file.write(b"x\nnew needle\n")
            stream.wait_for_event("reset")
            wait_until_done(stream, 1)
            file.write(b"needle\n")
            wait_until_done(stream, 2)
    assert lines_of(stream.events) == [2, 3]


def test_a_log_that_is_replaced_is_searched_again_from_its_start(server: Server) -> None:
    path = server.data_dir / "replaced.log"
    with path.open("wb", buffering=0) as file:
        file.write(b"needle\n" * 10)
        server.wait_for_state("replaced", "running")
        with open_stream(server.http, url("replaced", "needle")) as stream:
            wait_until_done(stream, 10)
            other = server.folder / "other.log"
            with other.open("wb", buffering=0) as new:
                new.write(b"-\n-\nneedle\n" * 10)
                other.rename(path)
                stream.wait_for_event("reset")
                wait_until_done(stream, 10)
    assert lines_of(stream.events) == list(range(3, 31, 3))


def test_a_log_that_is_deleted_ends_the_search_with_a_sentence(server: Server) -> None:
    path = server.data_dir / "deleted.log"
    with path.open("wb", buffering=0) as file:
        file.write(b"needle\n")
        server.wait_for_state("deleted", "running")
        with open_stream(server.http, url("deleted", "needle")) as stream:
            wait_until_done(stream, 1)
            path.unlink()
            stream.wait(lambda: stream.closed, "the end")
    assert "deleted" in stream.of_type("error")[0].json()["error"]


# --- processes


def test_a_client_that_goes_takes_its_grep_with_it(server: Server, slow: str) -> None:
    before = greps()
    with open_stream(server.http, url(slow, "(a|b)*c$", regex=1)):
        wait_for(lambda: greps() - before, "a grep to run")
    wait_for(lambda: not greps() - before, "the grep to be gone")


def test_no_more_than_four_searches_run_and_the_others_are_told(server: Server, slow: str) -> None:
    before = greps()
    streams = [open_stream(server.http, url(slow, "(a|b)*c$", regex=1)) for _ in range(4)]
    for stream in streams:
        stream.__enter__()
    try:
        wait_for(lambda: len(greps() - before) == 4, "four greps")
        with open_stream(server.http, url(slow, "first")) as waiting:
            state = waiting.wait_for_event("progress").json()
            assert (state["waiting"], state["done"]) == (True, False)
            assert len(greps() - before) == 4
            streams.pop().__exit__(None, None, None)
            waiting.wait_for_event("matches")
            assert lines_of(waiting.events) == [1]
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
    wait_for(lambda: not greps() - before, "the greps to be gone")


def test_a_grep_that_is_killed_ends_the_search_with_a_sentence(server: Server, slow: str) -> None:
    before = greps()
    with open_stream(server.http, url(slow, "(a|b)*c$", regex=1)) as stream:
        (pid,) = wait_for(lambda: greps() - before, "a grep to run")
        os.kill(pid, signal.SIGXCPU)  # what the kernel sends at the limit of its time
        stream.wait(lambda: stream.closed, "the end")
    assert "too long" in stream.of_type("error")[0].json()["error"]


def test_a_line_too_long_for_memory_ends_the_search_with_a_sentence(server: Server) -> None:
    path = server.data_dir / "long.log"
    with path.open("wb") as file:
        file.write(b"needle\n")
        file.truncate(1_000_000_000)
    with open_stream(server.http, url("long", "needle")) as stream:
        stream.wait(lambda: stream.closed or stream.of_type("error"), "the error")
    assert "line 2" in stream.of_type("error")[0].json()["error"]
    assert lines_of(stream.events) in ([], [1])


def test_a_server_that_ends_takes_its_greps_with_it_and_tells_no_end(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    log = drop_slow_log(server, "slow")
    before = greps()
    with open_stream(server.http, url(log, "(a|b)*c$", regex=1)) as stream:
        wait_for(lambda: greps() - before, "a grep to run")
        thread = threading.Thread(target=server.terminate)
        thread.start()
        with contextlib.suppress(httpx.RemoteProtocolError):  # it is cut, so that one comes back
            stream.wait(lambda: stream.closed, "the end")
        thread.join()
    assert not stream.of_type("end")
    assert not stream.of_type("error")
    wait_for(lambda: not greps() - before, "the grep to be gone")


def test_others_are_served_while_a_search_runs(server: Server, slow: str) -> None:
    record = server.deploy("echo a")
    with open_stream(server.http, url(slow, "(a|b)*c$", regex=1)):
        assert [e.data for e in read_events(server.http, f"/logs/{record['id']}")][:1] == ["a"]


# --- bad input


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "just one"),
        ("q=a&errors=1", "just one"),
        ("q=", "nothing to search for"),
        ("q=a%0Ab", "line end"),
        ("q=a%00b", "NUL"),
        ("q=%ff%fe", "UTF-8"),
        ("q=" + "x" * 30_000, "1,000 characters"),
        ("q=(&regex=1", "never closed"),
        ("q=(a)%5C1&regex=1", "refer back"),
        ("q=(((a{1,99}){1,99}){1,99}){1,99}&regex=1", "too large"),
        ("q=a&from=0", "a whole number of 1 or more"),
        ("q=a&from=-5", "a whole number of 1 or more"),
        ("q=a&from=x", "whole number"),
    ],
)
def test_a_search_that_can_not_be_is_refused_with_a_sentence(
    lasting_server: Server, known_id: str, query: str, sentence: str
) -> None:
    answer = lasting_server.http.get(f"/logs/{known_id}/search?{query}")
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_a_query_of_100_kb_harms_nobody(lasting_server: Server, known_id: str) -> None:
    with socket.create_connection(("127.0.0.1", lasting_server.port)) as sock:
        request = (
            f"GET /logs/{known_id}/search?q={'x' * 100_000} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # whichever: an answer, or the connection closed
            sock.sendall(request.encode())
            sock.recv(1000)
    assert search(lasting_server, known_id, "a") == [1]


def test_a_search_of_no_log_is_not_found(lasting_server: Server) -> None:
    assert lasting_server.http.get("/logs/nothing/search?q=a").status_code == 404


def test_a_regular_expression_that_explodes_elsewhere_is_searched_for(
    lasting_server: Server,
) -> None:
    log = deploy_bytes(lasting_server, (b"a" * 100_000 + b"!\n") * 20 + b"aaa\n")
    assert search(lasting_server, log, "^(a+)+$", regex=1) == [21]
    assert search(lasting_server, log, "^(a|aa|a*)*$", regex=1) == [21]
    assert search(lasting_server, log, "(.*)(.*)(.*)(.*)(.*)(.*)b", regex=1) == []


def test_an_event_source_that_comes_back_after_the_end_is_stopped(
    lasting_server: Server, known_id: str
) -> None:
    end = read_events(lasting_server.http, url(known_id, "a"))[-1]
    answer = lasting_server.http.get(
        url(known_id, "a"), headers={"Last-Event-ID": end.last_event_id}
    )
    assert answer.status_code == 204
