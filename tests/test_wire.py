"""What a client gets to see of a log: events, raw bytes and windows of lines, byte for byte."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
from conftest import Server, drop_log, slow_connection, wait_for
from sse_client import (
    Event,
    Parser,
    lines_of,
    open_stream,
    parse,
    read_cut,
    read_events,
)

from tornado_logs.journal import BLOCK_BYTES

_NUMBERS = itertools.count(1)
MORE_THAN_A_BLOCK = 2 * BLOCK_BYTES

# What Python, and a careless client, takes for line ends.
SEPARATORS = "separators \u2028 \u2029 \u0085 \x0b \x0c \x1c \x1d \x1e"

# What a log may hold, and the line that a reader is shown.
SHOWN = [
    (b"plain", "plain"),
    (b"", ""),
    (b" one space before", " one space before"),
    (b"  two before, two after  ", "  two before, two after  "),
    (b"data: injected", "data: injected"),
    (b"id: 99999999-0", "id: 99999999-0"),
    (b"event: end", "event: end"),
    (b"retry: 1", "retry: 1"),
    (b": a comment", ": a comment"),
    (b":", ":"),
    (b"nul \0 within", "nul \0 within"),
    (b"\0", "\0"),
    (SEPARATORS.encode(), SEPARATORS),
    ("\ufeffmark at the start".encode(), "\ufeffmark at the start"),
    (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    (b"\x1b]0;title\x07text", "\x1b]0;title\x07text"),
    ("ünïcödé \U0001f680 e\u0301".encode(), "ünïcödé \U0001f680 e\u0301"),
    (b"bad \xff\xfe bytes", "bad \ufffd\ufffd bytes"),
    (b"cut \xe2\x82", "cut \ufffd"),
    (b"surrogate \xed\xa0\x80", "surrogate \ufffd\ufffd\ufffd"),
    (b"windows\r", "windows"),
    (b"\r", ""),
    (b"\r\r\r", ""),
    (b"10%\r20%\r100%", "100%"),
    (b"long text\rab", "abng text"),
    (b"\rdata: injected\r\revent: end", "event: endcted"),
    (b"a\rid: 1\rb\r", "bd: 1"),
    (b"100%\r\x1b[Kdone", "done\x1b[K"),
    (b"100% of it\r\x1b[2Kdone", "done\x1b[K"),
    (b"abc\b\bX", "abc\b\bX"),
    (b"abc\b\bX\r", "abc\b\bX"),
    (b"\xff\rok", "ok"),
]
NASTY = b"".join(line + b"\n" for line, _ in SHOWN)
NASTY_SHOWN = [line for _, line in SHOWN]


def deploy_bytes(server: Server, data: bytes) -> str:
    """A deployment that printed exactly these bytes and has succeeded; its id."""
    path = server.folder / f"printed-{len(list(server.folder.iterdir()))}"
    path.write_bytes(data)
    record = server.deploy(["cat", str(path)])
    assert server.wait_for_end(record["id"])["state"] == "succeeded"
    assert server.log(record["id"]) == data
    return str(record["id"])


def gated(server: Server, before: str, after: str, **fields: Any) -> tuple[str, Path]:
    """A command that prints `before`, waits until the path returned exists, and prints `after`."""
    gate = server.folder / f"gate-{len(list(server.folder.iterdir()))}"
    command = (
        f"printf '%b' '{before}'; while [ ! -e {gate} ]; do sleep 0.01; done; printf '%b' '{after}'"
    )
    return str(server.deploy(command, **fields)["id"]), gate


def numbered(count: int) -> bytes:
    """A log of this many lines, all different and of different lengths."""
    return b"".join(b"%d %s\n" % (n, b"x" * (n % 97)) for n in range(1, count + 1))


# --- the client itself


def test_the_test_client_reads_the_examples_of_the_standard() -> None:
    assert parse(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [Event("message", "YHOO\n+2\n10", "")]
    assert parse(b": x\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n") == [
        Event("message", "first", "1"),
        Event("message", "second", ""),
        Event("message", " third", ""),
    ]
    assert parse(b"data\n\ndata\ndata\n\ndata:") == [
        Event("message", "", ""),
        Event("message", "\n", ""),
    ]
    assert parse(b"\xef\xbb\xbfdata:a\r\rdata:b\r\n\r\nevent:e\nid:\0\ndata:c\n\n") == [
        Event("message", "a", ""),
        Event("message", "b", ""),
        Event("e", "c", ""),
    ]


def test_the_test_client_reads_the_same_whatever_the_pieces() -> None:
    stream = "id: 1\r\ndata: ü\u2028\r\n\r\n: ping\r\rretry: 5\ndata: b\n\n".encode()
    parser = Parser()
    events = [event for n in range(len(stream)) for event in parser.feed(stream[n : n + 1])]
    assert events == parse(stream) == [Event("message", "ü\u2028", "1"), Event("message", "b", "1")]
    assert parser.retry == 5
    assert parser.comments == ["ping"]


# --- headers and framing


def test_an_event_stream_says_that_nobody_may_keep_or_hold_it_back(
    lasting_server: Server,
) -> None:
    log = deploy_bytes(lasting_server, b"a\n")
    with open_stream(
        lasting_server.http, f"/logs/{log}", headers={"Accept-Encoding": "gzip, br"}
    ) as stream:
        headers = stream.response.headers
        assert headers["Content-Type"].startswith("text/event-stream")
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in headers
        assert "Content-Length" not in headers
        assert stream.read_to_end()[0].data == "a"


def test_a_stream_begins_with_the_time_to_reconnect_after(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("retry_ms = 1234")
    with open_stream(server.http, f"/logs/{deploy_bytes(server, b'')}") as stream:
        stream.read_to_end()
        assert stream.raw.startswith(b"retry: 1234\n\n")
        assert stream.parser.retry == 1234


def test_each_line_is_one_event_with_an_id_of_its_own(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, numbered(50))
    with open_stream(lasting_server.http, f"/logs/{log}") as stream:
        *messages, end = stream.read_to_end()
    assert [event.data for event in messages] == numbered(50).decode().splitlines()
    assert {event.type for event in messages} == {"message"}
    ids = [*stream.parser.own_ids]
    assert None not in ids
    assert len(set(ids)) == 51
    assert end.type == "end"


def test_the_end_carries_the_final_record(lasting_server: Server) -> None:
    record = lasting_server.deploy("echo out; exit 7")
    end = read_events(lasting_server.http, f"/logs/{record['id']}")[-1].json()
    assert (end["id"], end["state"], end["exit_status"]) == (record["id"], "failed", 7)
    assert end["log_bytes"] == 4
    assert end == lasting_server.record(record["id"])


def test_whatever_a_log_holds_neither_breaks_the_framing_nor_injects_a_field(
    lasting_server: Server,
) -> None:
    log = deploy_bytes(lasting_server, NASTY)
    with open_stream(lasting_server.http, f"/logs/{log}") as stream:
        *messages, end = stream.read_to_end()
    assert [event.data for event in messages] == NASTY_SHOWN
    assert {event.type for event in messages} == {"message"}
    assert end.type == "end"
    assert stream.parser.retry == 1000
    assert stream.parser.comments == []
    assert all(
        own_id == event.last_event_id
        for own_id, event in zip(stream.parser.own_ids, [*messages, end], strict=True)
    )
    assert lasting_server.http.get(f"/logs/{log}/raw").content == NASTY


def test_another_client_reads_the_same_lines(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, numbered(100) + b"\n \xff\n")
    with httpx_sse.connect_sse(lasting_server.http, "GET", f"/logs/{log}") as source:
        # It makes an event of the stream's `retry` field too; the standard doesn't.
        events = [event for event in source.iter_sse() if event.retry is None]
    ours = read_events(lasting_server.http, f"/logs/{log}")
    assert [(e.event, e.data, e.id) for e in events] == [
        (e.type, e.data, e.last_event_id) for e in ours
    ]


def test_bytes_that_are_no_utf8_are_replaced_on_the_wire_alone(lasting_server: Server) -> None:
    data = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") + b"\n"
    log = deploy_bytes(lasting_server, data)
    lines = lines_of(read_events(lasting_server.http, f"/logs/{log}"))
    assert lines == [data[:-1].decode(errors="replace")]
    assert lasting_server.http.get(f"/logs/{log}/raw").content == data


@pytest.mark.parametrize("batch", ["", "?batch=1"])
def test_an_empty_log_has_no_line_but_an_end(lasting_server: Server, batch: str) -> None:
    log = deploy_bytes(lasting_server, b"")
    assert [e.type for e in read_events(lasting_server.http, f"/logs/{log}{batch}")] == ["end"]
    assert lasting_server.http.get(f"/logs/{log}/raw").content == b""


@pytest.mark.parametrize("data", [b"\n", b"\n\n\n", b"a\n\nb\n\n", b"a", b"a\nb", b"\na"])
def test_every_line_counts_the_empty_and_the_unended_too(
    lasting_server: Server, data: bytes
) -> None:
    expected = data.decode().removesuffix("\n").split("\n")
    for log in (deploy_bytes(lasting_server, data), drop_log(lasting_server, _name(), data)):
        for query in ("", "?batch=1"):
            events = read_events(lasting_server.http, f"/logs/{log}{query}")
            assert lines_of(events) == expected, (log, query)
        window = lasting_server.http.get(f"/logs/{log}/lines").json()
        assert window["lines"] == expected
        assert window["total_lines"] == len(expected)


def _name() -> str:
    return f"bare-{next(_NUMBERS)}"


# --- long lines


def test_a_line_longer_than_the_limit_is_cut_with_a_mark_that_counts(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_line_bytes = 100")
    lines = [b"a" * 100, b"b" * 101, b"c" * 12_345, "é".encode() * 51, b"d"]
    log = deploy_bytes(server, b"\n".join(lines) + b"\n")
    found = lines_of(read_events(server.http, f"/logs/{log}"))
    assert found[0] == "a" * 100
    assert found[1].startswith("b" * 100 + " … [1 byte")
    assert found[2].startswith("c" * 100 + " … [12,245 bytes left out")
    assert found[3].startswith("é" * 50 + " … [2 bytes left out")
    assert found[4] == "d"
    assert server.http.get(f"/logs/{log}/lines").json()["lines"] == found
    assert lines_of(read_events(server.http, f"/logs/{log}?batch=1")) == found


def test_no_character_is_cut_in_two(make_server: Callable[..., Server]) -> None:
    server = make_server("max_line_bytes = 16")
    log = deploy_bytes(server, b"".join(b"x" * n + "€".encode() * 9 + b"\n" for n in range(4)))
    for line in lines_of(read_events(server.http, f"/logs/{log}")):
        assert "\ufffd" not in line
        assert len(line.partition(" … ")[0].encode()) in (14, 15, 16)


@pytest.mark.parametrize("length", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3_000_000])
def test_a_line_longer_than_a_block_is_one_event_between_its_neighbours(
    lasting_server: Server, length: int
) -> None:
    log = deploy_bytes(lasting_server, b"before\n" + b"m" * length + b"\nafter\n")
    cut = "m" * 65536 + f" … [{length - 65536:,} bytes left out; the raw log has them]"
    for query in ("", "?batch=1"):
        events = read_events(lasting_server.http, f"/logs/{log}{query}")
        assert lines_of(events) == ["before", cut, "after"]
    window = lasting_server.http.get(f"/logs/{log}/lines").json()
    assert window["lines"] == ["before", cut, "after"]
    first = read_events(lasting_server.http, f"/logs/{log}")[1]
    rest = read_events(lasting_server.http, f"/logs/{log}", last_event_id=first.last_event_id)
    assert lines_of(rest) == ["after"]


@pytest.mark.parametrize("length", [40_000, 400_000])
def test_a_cut_line_of_bytes_that_are_no_utf8_bears_one_true_mark(
    lasting_server: Server, length: int
) -> None:
    log = deploy_bytes(lasting_server, b"\xff" * length + b"\n")
    (line,) = lines_of(read_events(lasting_server.http, f"/logs/{log}"))
    text, *marks = line.split(" … [")
    assert set(text) == {"\ufffd"}
    left_out = int(marks[0].partition(" ")[0].replace(",", "")) if marks else 0
    assert len(marks) <= 1
    assert len(text) + left_out == length


def test_a_progress_bar_longer_than_a_block_ends_as_it_was_last_drawn(
    lasting_server: Server,
) -> None:
    drawn = b"".join(b"\r%6d of 60000" % n for n in range(60_001))
    log = deploy_bytes(lasting_server, drawn + b"\nafter\n")
    for query in ("", "?batch=1"):
        events = read_events(lasting_server.http, f"/logs/{log}{query}")
        assert lines_of(events) == [" 60000 of 60000", "after"]
    window = lasting_server.http.get(f"/logs/{log}/lines").json()
    assert window["lines"] == [" 60000 of 60000", "after"]


def test_a_progress_bar_watched_live_ends_as_it_was_last_drawn(lasting_server: Server) -> None:
    # Each write is one state and ends with the CR, as of print(..., end="\r").
    bar = "=" * 4000
    script = (
        "import os, time\n"
        "for n in range(1, 201):\n"
        f"    os.write(1, b'%3d of 200 {bar}\\r' % n)\n"
        "    time.sleep(0.004)\n"
        "os.write(1, b'\\nafter\\n')\n"
    )
    record = lasting_server.deploy(["python3", "-c", script], tty=False)
    live = read_events(lasting_server.http, f"/logs/{record['id']}")
    assert lines_of(live) == [f"200 of 200 {bar}", "after"]
    assert read_events(lasting_server.http, f"/logs/{record['id']}") == live


@pytest.mark.parametrize("boundary", [BLOCK_BYTES, 1024 * 1024])
def test_a_redraw_at_the_edge_of_what_is_read_at_once_counts(
    lasting_server: Server, boundary: int
) -> None:
    data = b"a" * (boundary - 1) + b"\r" + b"b" * (boundary + 10) + b"\n"
    log = deploy_bytes(lasting_server, data)
    (line,) = lines_of(read_events(lasting_server.http, f"/logs/{log}"))
    assert line.startswith("b" * 65536)


# --- cursors


def test_every_cursor_of_a_log_resumes_strictly_after_its_line(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, NASTY + numbered(60) + b"no line end")
    *messages, end = read_events(lasting_server.http, f"/logs/{log}")
    for number, event in enumerate(messages, 1):
        cursor = event.last_event_id
        expected = [*messages[number:], end]
        by_header = read_events(lasting_server.http, f"/logs/{log}", last_event_id=cursor)
        assert by_header == expected, cursor
        by_query = read_events(lasting_server.http, f"/logs/{log}?after={cursor}")
        assert by_query == expected, cursor


def test_the_header_wins_over_the_query(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, numbered(9))
    *messages, _ = read_events(lasting_server.http, f"/logs/{log}")
    for query in (f"after={messages[0].last_event_id}", "tail=9", "after=rubbish"):
        events = read_events(
            lasting_server.http,
            f"/logs/{log}?{query}",
            last_event_id=messages[6].last_event_id,
        )
        assert [event.data for event in events[:-1]] == [event.data for event in messages[7:]]


@pytest.mark.parametrize("query", ["", "?batch=1", "?partial=1"])
def test_a_stream_cut_at_any_byte_and_resumed_gives_each_line_exactly_once(
    lasting_server: Server, query: str
) -> None:
    data = NASTY + numbered(60) + b"unended"
    log = deploy_bytes(lasting_server, data)
    with open_stream(lasting_server.http, f"/logs/{log}{query}") as stream:
        whole = stream.read_to_end()
    expected = NASTY_SHOWN + numbered(60).decode().splitlines() + ["unended"]
    assert lines_of(whole) == expected
    chance = random.Random(20261122)
    for _ in range(60):
        cut = chance.randrange(len(stream.raw))
        first, cursor = read_cut(lasting_server.http, f"/logs/{log}{query}", cut)
        if any(event.type == "end" for event in first):
            continue
        rest = read_events(lasting_server.http, f"/logs/{log}{query}", last_event_id=cursor)
        assert lines_of(first) + lines_of(rest) == expected, cut
        assert rest[-1] == whole[-1]


def test_a_live_stream_cut_again_and_again_gives_each_line_exactly_once(
    lasting_server: Server,
) -> None:
    command = "for i in $(seq 60); do seq $((i * 50 - 49)) $((i * 50)); sleep 0.01; done"
    record = lasting_server.deploy(command, tty=False)
    chance = random.Random(3)
    found: list[str] = []
    cursor, ended = "", False
    while not ended:
        events, cursor = read_cut(
            lasting_server.http,
            f"/logs/{record['id']}",
            chance.randrange(20, 4000),
            last_event_id=cursor,
        )
        found += lines_of(events)
        ended = any(event.type == "end" for event in events)
    assert found == [str(n) for n in range(1, 3001)]
    assert lasting_server.log(record["id"]).decode().split() == found


def test_a_stream_over_many_blocks_resumes_from_any_line(lasting_server: Server) -> None:
    data = numbered(MORE_THAN_A_BLOCK // 50)
    log = deploy_bytes(lasting_server, data)
    *messages, _ = read_events(lasting_server.http, f"/logs/{log}")
    expected = data.decode().splitlines()
    assert [event.data for event in messages] == expected
    for number in random.Random(5).sample(range(len(messages)), 12):
        rest = read_events(
            lasting_server.http, f"/logs/{log}", last_event_id=messages[number].last_event_id
        )
        assert lines_of(rest) == expected[number + 1 :]


def _impossible_cursors(server: Server, log: str) -> dict[str, str]:
    *messages, end = read_events(server.http, f"/logs/{log}")
    other = read_events(server.http, f"/logs/{deploy_bytes(server, numbered(7))}")
    mark = messages[2].last_event_id.split("-")[0]
    return {
        "rubbish": "rubbish",
        "a bare number": "17",
        "a fraction": f"{mark}-1.5",
        "a negative offset": f"{mark}--3",
        "not ASCII digits": f"{mark}-²",
        "a huge number": f"{mark}-{10**40}",
        "beyond the end": f"{mark}-999999",
        "within a line": f"{mark}-1",
        "after more lines than there are": f"{mark}-0.8",
        "of another log": other[2].last_event_id,
        "the end of another log": other[-1].last_event_id,
        "the end, but earlier": end.last_event_id.replace(end.last_event_id.split("-")[1], "1"),
        "very long": "x" * 5000,
    }


def test_a_cursor_that_cannot_be_right_resets_the_viewer_and_starts_over(
    lasting_server: Server,
) -> None:
    log = deploy_bytes(lasting_server, numbered(7))
    whole = read_events(lasting_server.http, f"/logs/{log}")
    for what, cursor in _impossible_cursors(lasting_server, log).items():
        by_query = read_events(lasting_server.http, f"/logs/{log}", params={"after": cursor})
        assert [event.type for event in by_query] == ["reset", *["message"] * 7, "end"], what
        assert by_query[1:] == whole, what
        if cursor.isascii():
            by_header = read_events(lasting_server.http, f"/logs/{log}", last_event_id=cursor)
            assert by_header == by_query, what


def test_a_viewer_that_was_reset_and_lost_its_line_goes_on_without_another_reset(
    lasting_server: Server,
) -> None:
    log = deploy_bytes(lasting_server, numbered(3))
    reset = read_events(lasting_server.http, f"/logs/{log}?after=rubbish")[0]
    assert reset.type == "reset"
    events = read_events(
        lasting_server.http, f"/logs/{log}?after=rubbish", last_event_id=reset.last_event_id
    )
    assert [event.type for event in events] == ["message"] * 3 + ["end"]


def test_a_cursor_holds_although_the_first_line_was_unfinished_when_somebody_else_came(
    server: Server,
) -> None:
    # Whoever comes with a cursor that can't be right must not spoil those of the others.
    path = server.data_dir / "bare.log"
    with path.open("wb", buffering=0) as log:
        log.write(b"unfin")
        server.wait_for_state("bare", "running")
        with open_stream(server.http, "/logs/bare?after=rubbish") as stream:
            stream.wait_for_event("reset")
            log.write(b"ished\nsecond\nthird\n")
            stream.wait_for_lines(3)
            second = stream.of_type("message")[1]
        server.kill()
        server.start()
        with open_stream(server.http, "/logs/bare", last_event_id=second.last_event_id) as stream:
            stream.wait(lambda: stream.events, "an event")
            assert [event.data for event in stream.events] == ["third"]


# --- tail


@pytest.mark.parametrize("unended", [b"", b"unended"])
@pytest.mark.parametrize("bare", [False, True])
def test_tail_starts_n_lines_before_the_end(
    lasting_server: Server, unended: bytes, bare: bool
) -> None:
    data = numbered(20) + unended
    log = drop_log(lasting_server, _name(), data) if bare else deploy_bytes(lasting_server, data)
    lines = data.decode().splitlines()
    whole = read_events(lasting_server.http, f"/logs/{log}")
    for count in (0, 1, 2, 19, 20, 21, 22, 10**6, 10**17):
        events = read_events(lasting_server.http, f"/logs/{log}?tail={count}")
        assert lines_of(events) == lines[max(0, len(lines) - count) :], count
        assert events == whole[-len(events) :], count


def test_tail_of_an_empty_log_is_its_end(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"")
    for count in (0, 1, 5):
        events = read_events(lasting_server.http, f"/logs/{log}?tail={count}")
        assert [event.type for event in events] == ["end"]


def test_tail_of_a_running_log_goes_on_live(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "1\\n2\\n3\\n", "4\\n5\\n")
    wait_for(lambda: lasting_server.log(log) == b"1\n2\n3\n", "three lines")
    with (
        open_stream(lasting_server.http, f"/logs/{log}?tail=0") as none,
        open_stream(lasting_server.http, f"/logs/{log}?tail=2") as two,
    ):
        assert two.wait_for_lines(2) == ["2", "3"]
        none.wait(lambda: none.parser.retry, "the stream's begin")
        gate.touch()
        assert lines_of(none.read_to_end()) == ["4", "5"]
        assert lines_of(two.read_to_end()) == ["2", "3", "4", "5"]


def test_tail_gives_an_unfinished_last_line_whole_once_it_is_finished(
    lasting_server: Server,
) -> None:
    log, gate = gated(lasting_server, "1\\n2\\nhal", "f\\nnext\\n")
    wait_for(lambda: lasting_server.log(log) == b"1\n2\nhal", "half a line")
    expected = {0: ["half", "next"], 1: ["half", "next"], 2: ["2", "half", "next"]}
    for count in (2, 1, 0):
        with open_stream(lasting_server.http, f"/logs/{log}?tail={count}") as stream:
            stream.wait(lambda: stream.parser.retry, "the stream's begin")
            if count == 0:
                gate.touch()
                assert lines_of(stream.read_to_end()) == expected[count]
    for count in (1, 2):
        events = read_events(lasting_server.http, f"/logs/{log}?tail={count}")
        assert lines_of(events) == ["half", "next"][-count:]


# --- the end


def test_a_reconnect_after_the_end_gets_204_so_that_a_browser_stops(
    lasting_server: Server,
) -> None:
    for data in (b"", b"a\nb\n", b"unended"):
        log = deploy_bytes(lasting_server, data)
        for query in ("", "?batch=1", "?partial=1", "?tail=1", "?after=rubbish"):
            cursor = read_events(lasting_server.http, f"/logs/{log}{query}")[-1].last_event_id
            answer = lasting_server.http.get(
                f"/logs/{log}{query}",
                headers={"Accept": "text/event-stream", "Last-Event-ID": cursor},
            )
            assert answer.status_code == 204, (data, query)
            assert answer.content == b""


def test_a_client_cut_off_just_before_the_end_still_gets_it(lasting_server: Server) -> None:
    for data in (b"a\nb\n", b"a\nunended"):
        log = deploy_bytes(lasting_server, data)
        *_, last, end = read_events(lasting_server.http, f"/logs/{log}")
        events = read_events(lasting_server.http, f"/logs/{log}", last_event_id=last.last_event_id)
        assert events == [end]


def test_a_stream_opened_before_the_end_is_told_of_it(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\n", "b\\nunended")
    with open_stream(lasting_server.http, f"/logs/{log}") as stream:
        stream.wait_for_lines(1)
        assert stream.of_type("end") == []
        gate.touch()
        *messages, end = stream.read_to_end()
    assert [event.data for event in messages] == ["a", "b", "unended"]
    assert end.json()["state"] == "succeeded"


# --- heartbeats


def test_a_quiet_stream_is_kept_alive_by_comments(make_server: Callable[..., Server]) -> None:
    server = make_server("ping_seconds = 0.2")
    log, gate = gated(server, "a\\nhal", "f\\n")
    with (
        open_stream(server.http, f"/logs/{log}") as stream,
        open_stream(server.http, "/events") as events,
    ):
        stream.wait(lambda: len(stream.parser.comments) >= 3, "three comments")
        events.wait(lambda: len(events.parser.comments) >= 3, "three comments")
        gate.touch()
        assert lines_of(stream.read_to_end()) == ["a", "half"]


def test_a_quiet_raw_stream_gets_no_heartbeat_in_its_bytes(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("ping_seconds = 0.1")
    log, gate = gated(server, "a\\n", "b\\n")
    with (
        open_stream(server.http, f"/logs/{log}") as events,
        server.http.stream("GET", f"/logs/{log}/raw") as raw,
    ):
        events.wait(lambda: len(events.parser.comments) >= 3, "three comments")
        gate.touch()
        assert raw.read() == b"a\nb\n"


# --- batches


def test_batches_carry_the_same_lines_with_one_id_each(lasting_server: Server) -> None:
    data = NASTY + numbered(MORE_THAN_A_BLOCK // 50) + b"unended"
    log = deploy_bytes(lasting_server, data)
    lines = lines_of(read_events(lasting_server.http, f"/logs/{log}"))
    with open_stream(lasting_server.http, f"/logs/{log}?batch=1") as stream:
        *batches, end = stream.read_to_end()
    assert lines_of(batches) == lines
    assert 1 < len(batches) < 20
    assert None not in stream.parser.own_ids
    for number, batch in enumerate(batches, 1):
        rest = read_events(
            lasting_server.http, f"/logs/{log}?batch=1", last_event_id=batch.last_event_id
        )
        assert lines_of(rest) == lines_of(batches[number:])
        # A plain client may go on from there too, and the other way round.
        single = read_events(lasting_server.http, f"/logs/{log}", last_event_id=batch.last_event_id)
        assert lines_of(single) == lines_of(rest)
        assert single[-1] == end


# --- partial lines


def test_a_progress_bar_moves_live_and_then_becomes_a_line(lasting_server: Server) -> None:
    gates = [lasting_server.folder / f"bar-{n}" for n in range(3)]
    wait = "; ".join(
        f"printf '{n}0%%\\r'; while [ ! -e {gate} ]; do sleep 0.01; done"
        for n, gate in enumerate(gates, 1)
    )
    log = lasting_server.deploy(f"echo start; {wait}; printf 'done\\n'; echo after")["id"]
    with open_stream(lasting_server.http, f"/logs/{log}?partial=1") as stream:
        for number, gate in enumerate(gates, 1):
            stream.wait(
                lambda: stream.events and stream.events[-1].data == f"{number}0%",  # noqa: B023
                f"{number}0%",
            )
            gate.touch()
        stream.read_to_end()
    partials = stream.of_type("partial")
    assert [event.data for event in partials][:1] == ["10%"]
    assert {event.data for event in partials} <= {"10%", "20%", "30%", "done"}
    assert lines_of(stream.events) == ["start", "done", "after"]
    start = stream.of_type("message")[0].last_event_id
    own_ids = dict(zip(map(id, stream.events), stream.parser.own_ids, strict=True))
    assert all(own_ids[id(event)] is None for event in partials)
    assert {event.last_event_id for event in partials} == {start}


def test_a_viewer_who_did_not_ask_for_partial_lines_gets_none(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\nhal", "f\\n")
    with open_stream(lasting_server.http, f"/logs/{log}?partial=1") as asked:
        assert asked.wait_for_event("partial").data == "hal"
        with open_stream(lasting_server.http, f"/logs/{log}") as stream:
            gate.touch()
            events = stream.read_to_end()
    assert [event.type for event in events] == ["message", "message", "end"]


@pytest.mark.parametrize("query", ["", "&tail=1", "&batch=1&tail=0"])
def test_a_viewer_who_comes_later_gets_the_line_that_others_have_seen_already(
    lasting_server: Server, query: str
) -> None:
    log, gate = gated(lasting_server, "one\\npassword: ", "")
    url = f"/logs/{log}?partial=1{query}"
    with open_stream(lasting_server.http, url) as first:
        first.wait_for_event("partial")
        with open_stream(lasting_server.http, url) as second:
            assert second.wait_for_event("partial").data == "password: "
    gate.touch()


def test_an_unfinished_line_longer_than_a_block_is_shown_to_each_who_comes(server: Server) -> None:
    path = server.data_dir / "long.log"
    with path.open("wb", buffering=0) as log, contextlib.ExitStack() as stack:
        log.write(b"first\n" + b"x" * MORE_THAN_A_BLOCK)
        server.wait_for_state("long", "running")
        for _ in range(3):
            stream = stack.enter_context(open_stream(server.http, "/logs/long?partial=1"))
            assert stream.wait_for_event("partial").data.startswith("xxx")


def test_a_partial_line_of_hostile_bytes_stays_one_event(lasting_server: Server) -> None:
    before = "a\\nx\\0\\342\\200\\250\\rdata: 1\\r\\033]0;\\revent: end\\007id: 2\\351"
    log, gate = gated(lasting_server, before, "\\n")
    with open_stream(lasting_server.http, f"/logs/{log}?partial=1&batch=1") as stream:
        partial = stream.wait_for_event("partial")
        gate.touch()
        events = stream.read_to_end()
    assert {event.type for event in events} == {"message", "partial", "end"}
    assert "\n" not in partial.data
    assert len(lines_of(events)) == 2


def test_a_partial_character_is_not_shown_as_a_broken_one(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "gr\\303", "\\274n\\n")
    with open_stream(lasting_server.http, f"/logs/{log}?partial=1") as stream:
        assert stream.wait_for_event("partial").data == "gr"
        gate.touch()
        stream.read_to_end()
    assert "\ufffd" not in stream.raw.decode()
    assert lines_of(stream.events) == ["grün"]


def test_a_partial_line_is_cut_as_the_finished_one_will_be(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_line_bytes = 20")
    log, gate = gated(server, "x" * 50, "\\n")
    with open_stream(server.http, f"/logs/{log}?partial=1") as stream:
        partial = stream.wait_for_event("partial").data
        gate.touch()
        assert lines_of(stream.read_to_end()) == [partial]
    assert partial.startswith("x" * 20 + " … [30 bytes left out")


def test_a_resumed_viewer_sees_the_partial_line_again(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\nhal", "f\\n")
    with open_stream(lasting_server.http, f"/logs/{log}?partial=1") as stream:
        cursor = stream.wait_for_event("partial").last_event_id
    with open_stream(lasting_server.http, f"/logs/{log}?partial=1", last_event_id=cursor) as stream:
        assert stream.wait_for_event("partial").data == "hal"
        gate.touch()
        assert lines_of(stream.read_to_end()) == ["half"]


# --- raw bytes


def test_plain_text_is_the_log_byte_for_byte_and_live(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\r\\n\\0\\377hal", "f\\n\\033[0mend")
    with lasting_server.http.stream(
        "GET", f"/logs/{log}", headers={"Accept": "text/plain"}
    ) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        pieces = response.iter_raw()
        found = b""
        while not found.endswith(b"hal"):
            found += next(pieces)
        gate.touch()
        found += b"".join(pieces)
    assert found == b"a\r\n\0\xffhalf\n\x1b[0mend" == lasting_server.log(log)


def test_the_raw_log_of_a_running_command_is_streamed_to_its_end(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\n", "b")
    with lasting_server.http.stream("GET", f"/logs/{log}/raw") as response:
        assert "Content-Length" not in response.headers
        pieces = response.iter_raw()
        assert next(pieces) == b"a\n"
        gate.touch()
        assert b"".join(pieces) == b"b"


def test_the_headers_of_a_running_log_can_be_asked_for_alone(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\n", "b")
    head = lasting_server.http.head(f"/logs/{log}/raw")
    gate.touch()
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"].startswith("text/plain")


def test_the_raw_log_of_an_ended_one_is_a_file_with_a_length_a_tag_and_ranges(
    lasting_server: Server,
) -> None:
    data = NASTY + numbered(MORE_THAN_A_BLOCK // 50)
    log = deploy_bytes(lasting_server, data)
    url = f"/logs/{log}/raw"
    answer = lasting_server.http.get(url, headers={"Accept": "text/event-stream"})
    assert answer.content == data
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Content-Type"].startswith("text/plain")
    head = lasting_server.http.head(url)
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(data)))
    tag = answer.headers["ETag"]
    assert head.headers["ETag"] == tag
    unchanged = lasting_server.http.get(url, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    changed = lasting_server.http.get(url, headers={"If-None-Match": '"another"'})
    assert (changed.status_code, changed.content) == (200, data)


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("0-0", 0, 0), ("5-99", 5, 99), ("300000-", 300_000, None), ("-7", -7, None)],
)
def test_a_range_of_the_raw_log_is_exact(
    lasting_server: Server, wanted: str, first: int, last: int | None
) -> None:
    data = numbered(MORE_THAN_A_BLOCK // 50)
    log = deploy_bytes(lasting_server, data)
    answer = lasting_server.http.get(f"/logs/{log}/raw", headers={"Range": f"bytes={wanted}"})
    assert answer.status_code == 206
    assert answer.content == data[first : None if last is None else last + 1]
    assert answer.headers["Content-Range"].endswith(f"/{len(data)}")


def test_a_range_beyond_the_end_cannot_be_satisfied(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"abc")
    answer = lasting_server.http.get(f"/logs/{log}/raw", headers={"Range": "bytes=3-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */3"


def test_curl_continues_a_download_that_was_cut(lasting_server: Server) -> None:
    data = numbered(MORE_THAN_A_BLOCK // 50)
    url = f"{lasting_server.url}/logs/{deploy_bytes(lasting_server, data)}/raw"
    target = lasting_server.folder / "download"
    cut = f"curl -s {url} | head -c 300001 > {target}"
    subprocess.run(["sh", "-c", cut], check=True, timeout=20)
    assert target.stat().st_size == 300_001
    for _ in range(2):  # the second finds nothing left to do
        subprocess.run(["curl", "-sSf", "-C", "-", "-o", str(target), url], timeout=20)
        assert target.read_bytes() == data


def test_curl_continues_a_live_download_that_was_cut_once_the_log_has_ended(
    lasting_server: Server,
) -> None:
    log, gate = gated(lasting_server, "first\\nsecond\\n", "third\\n")
    url, target = f"{lasting_server.url}/logs/{log}/raw", lasting_server.folder / "live"
    cut = f"curl -sN {url} | head -c 8 > {target}"
    gate.touch()
    subprocess.run(["sh", "-c", cut], check=True, timeout=20)
    lasting_server.wait_for_end(log)
    subprocess.run(["curl", "-sSf", "-C", "-", "-o", str(target), url], check=True, timeout=20)
    assert target.read_bytes() == b"first\nsecond\nthird\n"


@pytest.mark.parametrize("path", ["/logs/{}", "/logs/{}/raw"])
def test_a_client_that_takes_bare_bytes_by_fits_and_starts_gets_each_of_them_once(
    lasting_server: Server, path: str
) -> None:
    """What its socket takes at once comes from the file itself, the rest by way of the server."""
    chance = random.Random(3)
    data = chance.randbytes(5_000_003)
    log = deploy_bytes(lasting_server, data)
    connection = slow_connection(lasting_server)
    for _ in range(2 if path.endswith("raw") else 1):  # a file leaves the connection open
        connection.request("GET", path.format(log), headers={"Accept": "text/plain"})
        response = connection.getresponse()
        came = bytearray()
        while piece := response.read(chance.choice((1, 1000, 100_000, 700_000))):
            came += piece
        assert bytes(came) == data
    connection.close()


def test_a_download_of_a_file_that_somebody_cuts_is_not_taken_for_the_whole(server: Server) -> None:
    data = b"a line of what was there\n" * 1_000_000
    drop_log(server, "cut", data)
    connection = slow_connection(server)
    connection.request("GET", "/logs/cut/raw")
    response = connection.getresponse()
    came = response.read(100_000)
    os.truncate(server.data_dir / "cut.log", 300_000)
    with pytest.raises(http.client.IncompleteRead) as incomplete:
        came += response.read()
    came += incomplete.value.partial
    assert data.startswith(came)
    connection.close()


# --- who gets what


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("application/json", "text/event-stream"),
        ("rubbish;;q=x,,/", "text/event-stream"),
        ("text/plain", "text/plain"),
        ("TEXT/PLAIN", "text/plain"),
        ("text/event-stream;q=0.1, text/plain", "text/plain"),
        ("text/plain;q=0, */*", "text/event-stream"),
    ],
)
def test_the_log_comes_in_the_form_that_the_client_accepts(
    lasting_server: Server, accept: str | None, content_type: str
) -> None:
    log = deploy_bytes(lasting_server, b"a\n")
    request = lasting_server.http.build_request("GET", f"/logs/{log}")
    if accept is None:
        del request.headers["Accept"]
    else:
        request.headers["Accept"] = accept
    answer = lasting_server.http.send(request)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].split(";")[0] == content_type


def test_a_browser_that_opens_a_log_is_sent_to_its_page(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, b"a\n")
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
    answer = lasting_server.http.get(f"/logs/{log}", headers={"Accept": accept})
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/deployments/{log}"
    page = lasting_server.http.get(answer.headers["Location"], headers={"Accept": accept})
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")


# --- windows of lines


@pytest.mark.parametrize("bare", [False, True])
def test_any_window_of_lines_agrees_with_the_stream(lasting_server: Server, bare: bool) -> None:
    data = NASTY + numbered(2000) + b"unended"
    log = drop_log(lasting_server, _name(), data) if bare else deploy_bytes(lasting_server, data)
    *messages, _ = read_events(lasting_server.http, f"/logs/{log}")
    lines = [event.data for event in messages]
    total = len(lines)
    chance = random.Random(7)
    firsts = [1, 2, total - 1, total, -1, -2, -total, 1 - total, -total - 5, -(10**17)]
    firsts += [chance.randrange(1, total) for _ in range(30)]
    for first in firsts:
        count = chance.choice([1, 2, 10, 1000, 10_000])
        window = lasting_server.http.get(
            f"/logs/{log}/lines", params={"from": first, "count": count}
        ).json()
        begin = first - 1 if first > 0 else max(0, total + first)
        assert window["from"] == begin + 1, first
        assert window["lines"] == lines[begin : begin + count], (first, count)
        assert window["total_lines"] == total
        assert window["ended"] is True
        shown = begin + len(window["lines"])
        assert window["cursor"] == messages[shown - 1].last_event_id


@pytest.mark.parametrize("bare", [False, True])
def test_one_goes_on_from_a_window_exactly_where_it_ends(
    lasting_server: Server, bare: bool
) -> None:
    data = numbered(300)
    log = drop_log(lasting_server, _name(), data) if bare else deploy_bytes(lasting_server, data)
    lines = data.decode().splitlines()
    for first, count in ((1, 1), (1, 300), (1, 301), (77, 20), (-1, 5), (-10, 3), (301, 1)):
        window = lasting_server.http.get(
            f"/logs/{log}/lines", params={"from": first, "count": count}
        ).json()
        rest = read_events(lasting_server.http, f"/logs/{log}?after={window['cursor']}")
        begin = window["from"] - 1
        assert lines[:begin] + window["lines"] + lines_of(rest) == lines, (first, count)


def test_a_window_beyond_the_end_is_empty_and_leads_to_the_end(lasting_server: Server) -> None:
    for data, total in ((numbered(5), 5), (b"a\nunended", 2), (b"", 0)):
        log = deploy_bytes(lasting_server, data)
        for first in (total + 1, total + 2, 10**15):
            window = lasting_server.http.get(f"/logs/{log}/lines?from={first}").json()
            assert (window["lines"], window["total_lines"]) == ([], total)
            assert window["from"] == total + 1
            events = read_events(lasting_server.http, f"/logs/{log}?after={window['cursor']}")
            assert [event.type for event in events] == ["end"]


def test_a_window_of_a_running_log_leaves_the_unfinished_line_to_the_stream(
    lasting_server: Server,
) -> None:
    log, gate = gated(lasting_server, "1\\n2\\nhal", "f\\n4\\n")
    wait_for(lambda: lasting_server.log(log) == b"1\n2\nhal", "half a line")
    cursors = []
    for query in ("", "?from=-1", "?from=3", "?from=99", "?from=-99&count=2"):
        window = lasting_server.http.get(f"/logs/{log}/lines{query}").json()
        assert window["total_lines"] == 2
        assert window["ended"] is False
        cursors.append(window["cursor"])
    gate.touch()
    for cursor in cursors:
        events = read_events(lasting_server.http, f"/logs/{log}?after={cursor}")
        assert lines_of(events) == ["half", "4"]


def test_windows_are_the_same_without_the_index(lasting_server: Server) -> None:
    data = (
        numbered(MORE_THAN_A_BLOCK // 25)
        + b"x" * MORE_THAN_A_BLOCK
        + b"\n"
        + numbered(10)
        + b"unended"
    )
    indexed, bare = deploy_bytes(lasting_server, data), drop_log(lasting_server, _name(), data)
    assert (lasting_server.data_dir / f"{indexed}.idx").exists()
    assert not (lasting_server.data_dir / f"{bare}.idx").exists()
    for query in ("from=1&count=1", "from=-12", "from=20000&count=50", "from=-10000&count=10000"):
        first, second = (
            lasting_server.http.get(f"/logs/{log}/lines?{query}").json() for log in (indexed, bare)
        )
        assert {**first, "cursor": ""} == {**second, "cursor": ""}
        assert first["cursor"].split("-")[1] == second["cursor"].split("-")[1]


def test_a_log_survives_the_loss_of_its_index(lasting_server: Server) -> None:
    log = deploy_bytes(lasting_server, numbered(500))
    whole = lines_of(read_events(lasting_server.http, f"/logs/{log}"))
    (lasting_server.data_dir / f"{log}.idx").unlink()
    assert lines_of(read_events(lasting_server.http, f"/logs/{log}")) == whole
    assert lasting_server.http.get(f"/logs/{log}/lines?from=-3").json()["lines"] == whole[-3:]


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"TLOG", b"rubbish" * 100, b"TLOGIDX1" + b"\xff" * 64],
    ids=["empty", "half a magic number", "no index", "rubbish within"],
)
def test_a_spoilt_index_spoils_neither_lines_nor_cursors(
    lasting_server: Server, rubbish: bytes
) -> None:
    log = deploy_bytes(lasting_server, numbered(500))
    whole = lines_of(read_events(lasting_server.http, f"/logs/{log}"))
    (lasting_server.data_dir / f"{log}.idx").write_bytes(rubbish)
    events = read_events(lasting_server.http, f"/logs/{log}")
    assert lines_of(events) == whole
    assert events[99].last_event_id.isascii()
    assert (
        lasting_server.http.get(f"/logs/{log}/lines?from=250&count=2").json()["lines"]
        == whole[249:251]
    )
    rest = read_events(lasting_server.http, f"/logs/{log}", last_event_id=events[99].last_event_id)
    assert lines_of(rest) == whole[100:]


# --- a POST that goes on


def test_one_request_starts_a_command_follows_it_and_tells_its_end(
    lasting_server: Server,
) -> None:
    with open_stream(
        lasting_server.http,
        "/deployments",
        method="POST",
        json={"command": "echo a; echo b; exit 3"},
    ) as stream:
        location = stream.response.headers["Location"]
        events = stream.read_to_end()
    assert lines_of(events) == ["a", "b"]
    assert events[-1].json()["exit_status"] == 3
    assert location == f"/deployments/{events[-1].json()['id']}"


def test_a_post_that_accepts_text_shows_the_output_itself(lasting_server: Server) -> None:
    with lasting_server.http.stream(
        "POST",
        "/deployments",
        json={"command": "printf 'a\\n\\377b'", "tty": False},
        headers={"Accept": "text/plain"},
    ) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        assert response.headers["Location"].startswith("/deployments/")
        assert response.read() == b"a\n\xffb"


def test_a_post_from_a_form_of_a_page_leads_to_the_page_of_the_deployment(
    lasting_server: Server,
) -> None:
    answer = lasting_server.http.post(
        "/deployments",
        data={"command": "echo $A $B; pwd", "env": "A=1\r\nB=2=3", "cwd": "/", "tty": "false"},
        headers={"Accept": "text/html,*/*;q=0.8"},
    )
    assert answer.status_code == 303
    log = answer.headers["Location"].rpartition("/")[2]
    assert lines_of(read_events(lasting_server.http, f"/logs/{log}")) == ["1 2=3", "/"]


def test_a_post_of_json_tells_where_the_deployment_is(lasting_server: Server) -> None:
    answer = lasting_server.http.post(
        "/deployments", json={"command": "true", "source": "shell", "name": "  my\n name "}
    )
    record = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/deployments/{record['id']}"
    assert record["name"] == "my name"
    assert record["request"] == {"command": "true"}
    assert record["requested_by"] == {"address": "127.0.0.1"}
    assert lasting_server.wait_for_end(record["id"])["state"] == "succeeded"
    assert lasting_server.http.get(answer.headers["Location"]).json()["id"] == record["id"]


def test_a_multipart_form_starts_one_too(lasting_server: Server) -> None:
    url = f"{lasting_server.url}/deployments"
    done = subprocess.run(
        ["curl", "-sN", "-H", "Accept: text/plain", "-F", "command=echo ünï", url],
        capture_output=True,
        timeout=20,
    )
    assert done.stdout == "ünï\n".encode()


def test_a_lost_post_stream_does_not_run_the_command_again(lasting_server: Server) -> None:
    before = lasting_server.http.get("/deployments").json()["deployments"]
    answer = lasting_server.http.post(
        "/deployments", json={"command": "true"}, headers={"Last-Event-ID": "a-1"}
    )
    assert answer.status_code == 400
    assert "GET /logs/" in answer.json()["error"]
    assert lasting_server.http.get("/deployments").json()["deployments"] == before


# --- other clients


def test_curl_follows_a_log_live(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "one\\n", "two\\n")
    with subprocess.Popen(
        ["curl", "-sN", f"{lasting_server.url}/logs/{log}"], stdout=subprocess.PIPE
    ) as curl:
        assert curl.stdout is not None
        head = b""
        while b"data: one\n\n" not in head:
            head += curl.stdout.readline()
        gate.touch()
        rest = curl.stdout.read()
        assert curl.wait(20) == 0
    assert lines_of(parse(head + rest)) == ["one", "two"]
    assert parse(head + rest)[-1].type == "end"


def test_one_curl_starts_and_follows_a_command(lasting_server: Server) -> None:
    done = subprocess.run(
        [
            *("curl", "-sN", "-H", "Accept: text/event-stream"),
            *("-d", "command=echo a; echo b", f"{lasting_server.url}/deployments"),
        ],
        capture_output=True,
        timeout=20,
    )
    assert done.returncode == 0
    events = parse(done.stdout)
    assert lines_of(events) == ["a", "b"]
    assert events[-1].json()["state"] == "succeeded"


@pytest.mark.parametrize("connection", ["", "Connection: keep-alive\r\n"])
def test_a_client_of_http_1_0_gets_the_stream_and_its_end(
    lasting_server: Server, connection: str
) -> None:
    log = deploy_bytes(lasting_server, b"a\nb\n")
    with socket.create_connection(("127.0.0.1", lasting_server.port), timeout=3) as sock:
        sock.sendall(f"GET /logs/{log} HTTP/1.0\r\nHost: localhost\r\n{connection}\r\n".encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert b"chunked" not in head.lower()
    assert lines_of(parse(body)) == ["a", "b"]
    assert parse(body)[-1].type == "end"


def test_many_viewers_that_join_a_flood_each_get_every_line_once_and_in_order(
    server: Server,
) -> None:
    viewers = 40
    stop = server.folder / "stop"
    burst = "seq $((i * 20 + 1)) $((i * 20 + 20)); i=$((i + 1)); sleep 0.005"
    log = server.deploy(f"i=0; while [ ! -e {stop} ]; do {burst}; done", tty=False)["id"]
    found: dict[int, list[str]] = {}

    def view(number: int) -> None:
        # Some from the start, some from the live edge, some in batches, some by the raw bytes.
        query = ["", "?batch=1", "?tail=0", "?tail=50&batch=1&partial=1"][number % 4]
        with httpx.Client(base_url=server.url, timeout=20) as http:
            if number % 5 == 4:
                found[number] = http.get(f"/logs/{log}/raw").text.split()
            else:
                found[number] = lines_of(read_events(http, f"/logs/{log}{query}"))

    threads = [threading.Thread(target=view, args=(n,), daemon=True) for n in range(viewers)]
    for thread in threads:
        size = len(server.log(log))
        wait_for(lambda: len(server.log(log)) > size, "the flood")  # noqa: B023
        thread.start()
    size = len(server.log(log))
    wait_for(lambda: len(server.log(log)) > size + 5000, "the flood")
    stop.touch()
    for thread in threads:
        thread.join(30)
    lines = server.log(log).decode().split()
    assert lines == [str(n) for n in range(1, len(lines) + 1)]
    assert sorted(found) == list(range(viewers))
    for number, got in found.items():
        assert got == lines[len(lines) - len(got) :], f"viewer {number}"
        if number % 4 < 2 or number % 5 == 4:
            assert len(got) == len(lines), f"viewer {number}"


# --- the list


def test_the_list_tells_of_what_is_started_changes_and_goes(server: Server) -> None:
    with open_stream(server.http, "/events") as events:
        events.wait(lambda: events.parser.retry, "the stream's begin")
        record = server.deploy("true")

        def states() -> list[str]:
            changes = [event.json() for event in events.of_type("deployment")]
            return [change["state"] for change in changes if change["id"] == record["id"]]

        events.wait(lambda: "succeeded" in states(), "the end of the deployment")
        assert states()[-1] == "succeeded"
        assert events.of_type("deployment")[-1].json() == server.record(record["id"])
        (server.data_dir / "bare.log").write_bytes(b"x\n")
        events.wait(lambda: events.events[-1].json()["id"] == "bare", "the bare log")
        assert events.events[-1].json()["state"] == "running"  # it was written just now
        (server.data_dir / "bare.log").unlink()
        assert events.wait_for_event("removed").json() == {"id": "bare"}
        for suffix in (".log", ".json", ".idx"):
            (server.data_dir / (record["id"] + suffix)).unlink()
        assert events.wait_for_event("removed", 2).json() == {"id": record["id"]}
    assert server.http.get("/deployments").json() == {"deployments": [], "next": None}
    assert server.http.get(f"/deployments/{record['id']}").status_code == 404


def test_the_list_comes_in_pages_newest_first(server: Server) -> None:
    ids = [server.deploy("true", name=f"number {n}")["id"] for n in range(7)]
    found: list[str] = []
    following: str | None = ""
    pages = 0
    while following is not None:
        query = f"&before={following}" if following else ""
        page = server.http.get(f"/deployments?limit=3{query}").json()
        found += [record["id"] for record in page["deployments"]]
        following = page["next"]
        pages += 1
    assert sorted(found) == sorted(ids)
    assert pages == 3
    times = [server.record(deployment_id)["created_at"] for deployment_id in found]
    assert times == sorted(times, reverse=True)


def test_the_list_can_be_filtered(server: Server) -> None:
    good = server.deploy("true", name="Grün & Blau")["id"]
    bad = server.deploy("false", name="red")["id"]
    demo = server.deploy(source="demo", lines=1)["id"]
    for deployment_id in (good, bad, demo):
        server.wait_for_end(deployment_id)

    def found(**query: str) -> set[str]:
        page = server.http.get("/deployments", params=query).json()
        return {record["id"] for record in page["deployments"]}

    assert found() == {good, bad, demo}
    assert found(state="failed") == {bad}
    assert found(state="running") == set()
    assert found(source="demo") == {demo}
    assert found(source="nothing") == set()
    assert found(q="GRÜN &") == {good}
    assert found(q="r", source="shell", state="failed") == {bad}


def test_the_record_of_a_deployment_is_json_that_any_parser_takes(lasting_server: Server) -> None:
    record = lasting_server.deploy("true", timeout_seconds=1e6)
    text = lasting_server.http.get(f"/deployments/{record['id']}").text

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)


def test_viewers_that_leave_within_a_finished_log_leave_no_failure_behind(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.terminate()
    server.start()  # this time its stderr is ours
    drop_log(server, "large", b"a line of a large log\n" * 200_000)
    request = b"GET /logs/large/raw HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for received_bytes in (0, 1, 1000, 100_000):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
                sock.sendall(request)
                if received_bytes:
                    sock.recv(received_bytes)
    assert server.http.get("/logs/large/raw").content == server.log("large")
    server.terminate()
    assert capfd.readouterr().err == ""
