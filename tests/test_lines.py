"""`GET /logs/<id>/lines`: windows by time, with times, and with the style that holds there."""

from __future__ import annotations

import os
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, drop_log
from test_wire import deploy_bytes, gated, numbered

from tornado_logs.journal import BLOCK_BYTES, JournalWriter, LogFile
from tornado_logs.log_index import NoTimesError
from tornado_logs.style import style_after
from tornado_logs.window import STYLE_BYTES, style_at


def window(server: Server, log: str, **query: Any) -> dict[str, Any]:
    answer = server.http.get(f"/logs/{log}/lines", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def drop_timed_log(server: Server, name: str, pieces: list[tuple[float, bytes]]) -> str:
    """A log whose pieces were written at these times, in seconds since 1970; its id."""
    folder = server.folder / name
    folder.mkdir()
    write_log(folder / "x.log", pieces)
    (folder / "x.idx").rename(server.data_dir / f"{name}.idx")
    return drop_log(server, name, (folder / "x.log").read_bytes())


def write_log(path: Path, pieces: list[tuple[float, bytes]]) -> None:
    now = 0.0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = JournalWriter(fd, str(path.with_suffix(".idx")), clock=lambda: now)
    for now, piece in pieces:  # noqa: B007 - the clock reads it
        writer.append(piece)
    writer.close()
    os.close(fd)


START = 1_800_000_000.0
PIECES = [
    (START, b"one\n"),
    (START + 1, b"two\nth"),
    (START + 2, b"r"),
    (START + 3, b"ee\nfour\nfive\n"),
    (START + 60, b"six\nseven"),
]
TIMES = [START, START + 1, START + 3, START + 3, START + 3, START + 60, START + 60]


# --- times


def test_each_line_has_the_time_at_which_it_was_whole(lasting_server: Server) -> None:
    log = drop_timed_log(lasting_server, "timed", PIECES)
    found = window(lasting_server, log, times=1)
    assert found["times"] == [seconds * 1000 for seconds in TIMES]
    assert found["started_ms"] == START * 1000
    part = window(lasting_server, log, times=1, **{"from": 3}, count=2)
    assert part["times"] == [seconds * 1000 for seconds in TIMES[2:4]]
    assert part["started_ms"] == START * 1000
    assert "times" not in window(lasting_server, log)


@pytest.mark.parametrize(
    ("seconds", "first"),
    [(-1e9, 1), (-1, 1), (0, 1), (0.5, 2), (1, 2), (1.5, 3), (2, 3), (3, 3), (3.1, 6), (60, 6)],
)
def test_a_window_begins_at_a_time(lasting_server: Server, seconds: float, first: int) -> None:
    log = "timed"
    if not (lasting_server.data_dir / "timed.log").exists():
        drop_timed_log(lasting_server, log, PIECES)
    moment = START + seconds
    iso = datetime.fromtimestamp(moment, UTC).isoformat()
    for text in (f"{moment * 1000:.0f}", iso, iso.replace("+00:00", "Z"), iso[:-6]):
        assert window(lasting_server, log, time=text, count=2)["from"] == first, text


def test_a_window_of_a_later_time_is_empty_and_leads_to_the_end(lasting_server: Server) -> None:
    log = drop_timed_log(lasting_server, "timed-end", PIECES)
    found = window(lasting_server, log, time=str(int((START + 61) * 1000)), times=1)
    assert (found["from"], found["lines"], found["times"]) == (8, [], [])
    assert found["cursor"] == window(lasting_server, log, **{"from": -1})["cursor"]


def test_times_agree_with_windows_by_time_in_a_real_log(lasting_server: Server) -> None:
    before = time.time()
    record = lasting_server.deploy("for i in 1 2 3 4 5; do echo $i; sleep 0.03; done")
    lasting_server.wait_for_end(record["id"])
    found = window(lasting_server, record["id"], times=1)
    times = found["times"]
    assert times == sorted(times)
    assert before * 1000 - 1 <= found["started_ms"] == times[0]
    assert times[-1] <= time.time() * 1000
    for number, moment in enumerate(times, 1):
        by_time = window(lasting_server, record["id"], time=moment, count=1)
        assert by_time["from"] <= number
        assert times[by_time["from"] - 1] == moment


def test_a_running_log_has_times_too(lasting_server: Server) -> None:
    log, gate = gated(lasting_server, "a\\nb\\nunfinished", "\\n")
    found = window(lasting_server, log, times=1)
    while len(found["lines"]) < 2:
        found = window(lasting_server, log, times=1)
    now = time.time() * 1000
    assert all(now - 60_000 < moment <= now + 1000 for moment in found["times"])
    assert len(found["times"]) == 2
    gate.touch()


def test_the_times_of_a_log_without_an_index_are_not_known(lasting_server: Server) -> None:
    log = drop_log(lasting_server, "untimed", b"a\nb\n")
    found = window(lasting_server, log, times=1)
    assert (found["times"], found["started_ms"]) == ([None, None], None)
    answer = lasting_server.http.get(f"/logs/{log}/lines?time=0")
    assert answer.status_code == 400
    assert "no index" in answer.json()["error"]


def test_many_checkpoints_within_a_line_and_many_lines_within_one(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    pieces = [(1000.0 + n, b"." * (n % 3)) for n in range(10_000)]
    pieces += [(20_000.0, b"\n" + b"\n" * 20_000), (30_000.0, b"last\n")]
    write_log(path, pieces)
    log = LogFile(str(path))
    assert log.line_times(0, 20_002) == [20_000 * 10**6] * 20_001 + [30_000 * 10**6]
    assert log.line_times(19_999, 3) == [20_000 * 10**6] * 2 + [30_000 * 10**6]
    assert log.line_at_time(5000 * 10**6) == 0
    assert log.line_at_time(20_001 * 10**6) == 20_001
    log.close()


def test_an_empty_log_has_no_times(tmp_path: Path) -> None:
    write_log(tmp_path / "x.log", [])
    log = LogFile(str(tmp_path / "x.log"))
    assert log.line_times(0, 0) == []
    assert log.line_at_time(0) is None
    log.close()


def test_an_index_of_rubbish_gives_wrong_times_at_worst(lasting_server: Server) -> None:
    log = drop_log(lasting_server, "rubbish", numbered(100))
    rubbish = b"TLOGIDX1" + b"0123abcd" + struct.pack("<Q", 1) + b"\0" * 1000
    (lasting_server.data_dir / f"{log}.idx").write_bytes(rubbish)
    found = window(lasting_server, log, times=1)
    assert len(found["lines"]) == len(found["times"]) == 100
    assert window(lasting_server, log, time=5)["lines"] == []


def test_a_bare_log_raises_when_asked_for_times(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"a\n")
    log = LogFile(str(tmp_path / "x.log"))
    with pytest.raises(NoTimesError):
        log.line_times(0, 1)
    log.close()


# --- styles


@pytest.mark.parametrize(
    ("before", "style"),
    [
        ("", ""),
        ("plain", ""),
        ("\x1b[31mred", "\x1b[31m"),
        ("\x1b[31mred\x1b[0m", ""),
        ("\x1b[31mred\x1b[m", ""),
        ("\x1b[31mred\x1b[39m", ""),
        ("\x1b[1;31mred\x1b[0;4m", "\x1b[4m"),
        ("\x1b[1m\x1b[31m\x1b[44m", "\x1b[1;31;44m"),
        ("\x1b[1m\x1b[2m", "\x1b[1;2m"),
        ("\x1b[1;2m\x1b[22m", ""),
        ("\x1b[38;5;9m\x1b[48;2;1;2;3m", "\x1b[38;5;9;48;2;1;2;3m"),
        ("\x1b[38;5;9;1m\x1b[31m", "\x1b[31;1m"),
        ("\x1b[38:2::1:2:3m", "\x1b[38:2::1:2:3m"),
        ("\x1b[4:3m\x1b[4:0m", ""),
        ("\x1b[31m\x1bc", ""),
        ("\x1b[31m\x1b[K\x1b[2J", "\x1b[31m"),
        ("\x1b[31", ""),
        ("\x1b[;m\x1b[0031m", "\x1b[31m"),
        ("\x1b[38m\x1b[38;5m", "\x1b[38;5m"),
        ("\x1b[999;3m", "\x1b[3m"),
    ],
)
def test_a_window_tells_the_style_that_holds_where_it_begins(
    lasting_server: Server, before: str, style: str
) -> None:
    log = deploy_bytes(lasting_server, f"{before}\nsecond\n".encode())
    assert window(lasting_server, log, **{"from": 2})["style"] == style
    assert window(lasting_server, log)["style"] == ""


def test_a_style_is_found_far_back_whatever_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for filler in (0, 1, 100, *range(BLOCK_BYTES - 40, BLOCK_BYTES + 1), 900_000):
        data = b"\x1b[31m\x1b[1mbefore\x1b[0m\x1b[32mgreen\x1b[3" + b"m" + b"x" * filler
        path.write_bytes(data)
        log = LogFile(str(path))
        for offset in range(len(data) - 3, len(data) + 1):
            assert style_at(log, offset) == style_after(data[:offset])
        log.close()


def test_a_style_further_back_than_is_looked_for_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\x1b[31m" + b"x" * STYLE_BYTES)
    log = LogFile(str(path))
    assert style_at(log, log.size()) == ""
    assert style_at(log, log.size() - 6) == "\x1b[31m"
    log.close()


def test_a_log_of_escape_sequences_alone_has_a_style(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\x1b[31m\x1b[1m\x1b[4m\x1b[0;38;2;1;2;3m" * 200_000 + b"\x1b" * 100_000)
    log = LogFile(str(path))
    assert style_at(log, log.size()) == "\x1b[38;2;1;2;3m"
    path.write_bytes(b"\x1b[31m\x1b[1m\x1b[4m\x1b[38;2;1;2;3m" * 200_000)
    expected = style_after(b"\x1b[31m\x1b[1m\x1b[4m\x1b[38;2;1;2;3m")
    assert len(style_at(log, log.size())) == len(expected)
    log.close()


# --- bad input


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("time=yesterday", "ISO 8601"),
        ("time=2026-13-01", "ISO 8601"),
        ("time=9999999999999999999999", "ISO 8601"),
        ("time=-5", "ISO 8601"),
        ("time=1e400", "ISO 8601"),
        ("time=0001-01-01T00:00:00%2B23:59&from=3", "from or time"),
        ("time=5&from=3", "from or time"),
        ("from=0", "neither"),
        ("from=x", "whole number"),
        ("count=0", "count takes"),
    ],
)
def test_a_window_that_can_not_be_is_refused_with_a_sentence(
    lasting_server: Server, known_id: str, query: str, sentence: str
) -> None:
    answer = lasting_server.http.get(f"/logs/{known_id}/lines?{query}")
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0"])
def test_a_time_before_or_after_everything_is_no_error(
    lasting_server: Server, known_id: str, time: str
) -> None:
    assert window(lasting_server, known_id, time=time)["from"] in (1, 2)
