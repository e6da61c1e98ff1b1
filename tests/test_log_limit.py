"""The limit of a log's size: the run ends there, or the oldest part goes and all else stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, slow_connection, wait_for
from returning_viewer import Viewer
from sse_client import lines_of, open_stream, read_events

from tornado_logs import holes
from tornado_logs import window as window_module
from tornado_logs.catalog import Catalog
from tornado_logs.config import ConfigError, read_config
from tornado_logs.journal import JournalWriter, LogFile, LogFullError, LogLimit
from tornado_logs.registry import Registry
from tornado_logs.sse import CELL_BYTES
from tornado_logs.window import Wanted, read_window

MIB = 1024 * 1024
LINE_BYTES = 32
STOP = f"max_log_bytes = {MIB}\n"
DROP = f'max_log_bytes = {MIB}\nwhen_log_full = "drop_oldest"\n'
SOURCES = '[sources.shell]\ntype = "subprocess"\ntty = false\n'


def line(number: int) -> str:
    """Line `number` of a log of these tests, without its LF; the first is 1."""
    return f"line {number:09d} ".ljust(LINE_BYTES - 1, ".")


def deploy_gated(server: Server, *commands: str) -> tuple[str, Path, Path]:
    """Commands of which each but the first waits until something is written to the gate.

    The deployment's id, its log, and the gate.
    """
    gate = server.folder / "gate"
    os.mkfifo(gate)
    deployment = str(server.deploy(f"; read go < {gate}; ".join(commands))["id"])
    return deployment, server.data_dir / f"{deployment}.log", gate


def count_to(last: int) -> str:
    """A command that prints so many lines."""
    return f"awk 'BEGIN {{ for (n = 1; n <= {last}; n++) {_PRINT} }}'"


_PRINT = 'printf "line %09d ................\\n", n'


def on_disk(path: Path) -> int:
    """What a file takes on disk, in bytes."""
    return path.stat().st_blocks * 512


def write_lines(writer: JournalWriter, last: int) -> None:
    for start in range(1, last + 1, 500):
        numbers = range(start, start + 500)
        writer.append("".join(f"{line(number)}\n" for number in numbers).encode())


def new_writer(folder: Path, *, drops_oldest: bool = True) -> JournalWriter:
    fd = os.open(folder / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return JournalWriter(fd, str(folder / "x.idx"), limit=LogLimit(MIB, drops_oldest))


# --- the run ends


@pytest.fixture(scope="module")
def stopping_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("stopping"), STOP + SOURCES)
    server.start()
    yield server
    server.close()


def test_a_run_whose_log_is_full_is_stopped_with_a_sentence(stopping_server: Server) -> None:
    server = stopping_server
    command = f"trap 'exit 7' TERM; {count_to(40_000)}; while :; do sleep 0.05; echo more; done"
    deployment = server.deploy(command)["id"]
    record = server.wait_for_end(deployment)
    assert record["state"] == "failed"
    assert f"max_log_bytes = {MIB}" in record["error"]
    assert record["exit_status"] == 7
    assert record["log_bytes"] == MIB
    expected = "".join(f"{line(number)}\n" for number in range(1, 40_001)).encode()
    assert server.log(deployment) == expected[:MIB]


def test_viewers_of_a_full_log_get_all_of_it_and_the_end(stopping_server: Server) -> None:
    server = stopping_server
    deployment = server.deploy(f"sleep 0.3; exec {count_to(40_000)}")["id"]
    events = read_events(server.http, f"/logs/{deployment}")
    whole, cut = divmod(MIB, LINE_BYTES)
    assert cut == 0
    assert lines_of(events) == [line(number) for number in range(1, whole + 1)]
    assert events[-1].json()["state"] == "failed"


def test_a_log_that_is_just_full_is_no_fault(stopping_server: Server) -> None:
    record = stopping_server.deploy(f"head -c {MIB} /dev/zero")
    ended = stopping_server.wait_for_end(record["id"])
    assert (ended["state"], ended["log_bytes"], ended["error"]) == ("succeeded", MIB, "")


# --- the oldest part goes


SLACK_BYTES = 64 * 1024  # what a file system may hold ready behind a file's end


def random_lines(random_: random.Random, count: int) -> list[bytes]:
    """Lines of all sizes, some of them longer than a block of the disk, or than a step."""
    sizes = (0, 10, 100, 5_000, 70_000, 300_000)
    weights = (5, 50, 50, 10, 2, 0.2)
    return [
        b"%d:" % number + random_.randbytes(random_.choices(sizes, weights)[0]).hex().encode()
        for number in range(count)
    ]


def write_randomly(writer: JournalWriter, data: bytes, random_: random.Random) -> None:
    done = 0
    while done < len(data):
        size = random_.choice((1, 100, 4096, 65_536, 700_000, 3 * MIB))
        writer.append(data[done : done + size])
        done += size


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_of_a_log_is_what_it_was(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    lines = random_lines(random_, 1500)
    data = b"".join(text + b"\n" for text in lines)
    assert len(data) > 3 * MIB
    ends: list[int] = []
    for text in lines:
        ends.append((ends[-1] if ends else 0) + len(text) + 1)
    writer = new_writer(tmp_path)
    write_randomly(writer, data, random_)
    writer.close()

    log = LogFile(str(tmp_path / "x.log"), 0)
    dropped = log.first_byte()
    assert dropped == (writer.dropped_bytes // CELL_BYTES + 1) * CELL_BYTES
    assert MIB / 2 < len(data) - dropped <= MIB
    assert log.size() == len(data)
    assert log.read(dropped, MIB) == data[dropped:]
    first = next(number for number, end in enumerate(ends) if end >= dropped) + 1
    place = log.first_place()
    assert (place.offset, place.lines, place.has_line) == (ends[first - 1], first, True)
    for number in (0, 1, first - 1, first, first + 1, len(lines) - 1, len(lines)):
        known = max(number, first)
        found = log.find_line(number)
        assert found is not None
        assert (found.offset, found.lines) == (ends[known - 1], known)
    assert log.find_line(len(lines) + 1) is None
    for number in range(first, len(lines), 7):
        assert log.count_lines(ends[number]) == number + 1
        assert log.count_lines(ends[number] - 1) == number
    assert log.tail_start(3, log.size()) == ends[-4]
    assert log.tail_start(10_000, log.size()) == place.offset
    log.close()


def test_a_log_takes_no_more_room_than_it_may_and_nor_does_its_index(tmp_path: Path) -> None:
    now = [1e6]
    fd = os.open(tmp_path / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    limit = LogLimit(MIB, drops_oldest=True)
    writer = JournalWriter(fd, str(tmp_path / "x.idx"), lambda: now[0], limit)
    text = (
        b"a hundred bytes, or nearly so, which is what a line of a log has, if it is no short one\n"
    )
    for _ in range(80_000):
        now[0] += 1 / 64  # which a float holds as it is
        writer.append(text)
        assert on_disk(tmp_path / "x.log") <= MIB + SLACK_BYTES
    writer.close()
    in_log = MIB / len(text) * 24
    assert (tmp_path / "x.idx").stat().st_size == 80_000 * 24 + 24
    assert on_disk(tmp_path / "x.idx") <= in_log + 2 * SLACK_BYTES
    log = LogFile(str(tmp_path / "x.log"), 0)
    first = log.first_place().lines
    assert log.line_start(79_999) == 79_999 * len(text)
    assert log.line_times(first, 1) == [10**12 + 15_625 * (first + 1)]
    assert log.line_times(79_999, 1) == [10**12 + 15_625 * 80_000]
    assert log.started_at() == 10**12 + 15_625
    window = read_window(log, Wanted(1, 2, times=True), ended=True, max_line_bytes=100)
    assert (window["from"], window["started_ms"]) == (first + 1, 1_000_000_015)
    for time_us in (0, 10**12 - 1, 10**12 + 50_000, 10**12 + 10**6):
        window = read_window(log, Wanted(1, 2, time_us), ended=True, max_line_bytes=100)
        assert window["from"] == first + 1
    at = 10**12 + 15_625 * 79_000
    assert read_window(log, Wanted(1, 2, at), ended=True, max_line_bytes=100)["from"] == 79_000
    log.close()


def test_a_line_longer_than_the_limit_is_dropped_as_a_whole(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    writer.append(b"one\ntwo\n")
    writer.append(b"x" * (3 * MIB))
    log = LogFile(str(tmp_path / "x.log"), 0)
    assert not log.first_place().has_line
    window = read_window(log, Wanted(-5, 5), ended=False, max_line_bytes=100)
    assert (window["lines"], window["total_lines"], window["kept_from"]) == ([], 2, 3)
    writer.append(b"\nfour\nfive")
    window = read_window(log, Wanted(1, 5), ended=False, max_line_bytes=100)
    assert (window["lines"], window["from"], window["kept_from"]) == (["four"], 4, 4)
    window = read_window(log, Wanted(-1, 1), ended=True, max_line_bytes=100)
    assert (window["lines"], window["from"], window["total_lines"]) == (["five"], 5, 5)
    writer.close()
    log.close()


def test_a_sparse_log_of_another_making_is_all_there(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("wb") as file:
        file.seek(MIB)
        file.write(b"\nend\n")
    log = LogFile(str(path))
    assert log.first_byte() == 0
    assert log.line_start(1) == MIB + 1
    log.close()


def test_a_copy_without_the_hole_is_read_as_the_original(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    write_lines(writer, 100_000)
    writer.close()
    original = LogFile(str(tmp_path / "x.log"), 0)
    (tmp_path / "y.log").write_bytes((tmp_path / "x.log").read_bytes())
    (tmp_path / "y.idx").write_bytes((tmp_path / "x.idx").read_bytes())
    copied = LogFile(str(tmp_path / "y.log"), writer.dropped_bytes)
    assert on_disk(tmp_path / "y.log") > 3 * MIB
    place = original.first_place()
    assert copied.first_place() == place
    for log in (original, copied):  # the line before it has no cursor of its own any more
        assert (log.cursor(place.offset).offset, log.cursor(place.offset).lines) == (
            place.offset,
            0,
        )
        assert log.cursor(place.offset + LINE_BYTES).lines == 1
    assert copied.find_line(99_000) == original.find_line(99_000)
    copied.close()
    original.close()


def test_where_the_file_system_can_not_drop_the_run_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The file systems that can't aren't here to be tried.
    def refuse(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(holes, "punch", refuse)
    writer = new_writer(tmp_path)
    with pytest.raises(LogFullError, match=r"can't drop .*Operation not supported"):
        write_lines(writer, 100_000)
    assert (tmp_path / "x.log").stat().st_size == MIB
    with pytest.raises(LogFullError):
        writer.append(b"more\n")
    assert (tmp_path / "x.log").stat().st_size == MIB
    writer.close()


def test_a_log_that_others_cut_is_limited_as_before(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    write_lines(writer, 100_000)
    os.truncate(tmp_path / "x.log", 0)
    write_lines(writer, 100_000)
    writer.close()
    assert on_disk(tmp_path / "x.log") <= MIB + SLACK_BYTES
    log = LogFile(str(tmp_path / "x.log"), 0)
    place = log.first_place()
    assert place.offset == place.lines * LINE_BYTES > 0
    log.close()


def test_the_lines_before_a_hole_are_known_however_rare_checkpoints_are(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    limit = LogLimit(MIB, drops_oldest=True)
    writer = JournalWriter(fd, str(tmp_path / "x.idx"), lambda: 1e6, limit)
    log = LogFile(str(tmp_path / "x.log"), 0)
    for start in range(1, 100_000, 500):
        writer.append("".join(f"{line(number)}\n" for number in range(start, start + 500)).encode())
        place = log.first_place()
        assert place.offset == place.lines * LINE_BYTES
    assert place.lines > 60_000
    writer.close()
    log.close()


def test_a_window_that_is_dropped_while_it_is_read_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_writer(tmp_path)
    write_lines(writer, 30_000)
    read_lines = window_module._read_lines

    def read_slowly(log: LogFile, *arguments: Any) -> tuple[list[str], int]:
        if log.size() == 30_000 * LINE_BYTES:
            for start in range(30_001, 80_000, 500):
                numbers = range(start, start + 500)
                writer.append("".join(f"{line(number)}\n" for number in numbers).encode())
        return read_lines(log, *arguments)

    monkeypatch.setattr(window_module, "_read_lines", read_slowly)
    log = LogFile(str(tmp_path / "x.log"), 0)
    window = read_window(log, Wanted(1, 3), ended=False, max_line_bytes=100)
    assert window["from"] >= window["kept_from"] > 40_000
    assert window["lines"] == [line(window["from"] + n) for n in range(3)]
    writer.close()
    log.close()


# --- readers of a log that drops its oldest part


FLOOD_LINES = 400_000
FLOOD = (
    "n=0; while [ $n -lt 400000 ]; do awk -v n=$n "
    f"'BEGIN {{ for (m = n + 20000; n < m;) {{ n++; {_PRINT} }} }}'; "
    "n=$((n + 20000)); sleep 0.1; done"
)


@pytest.fixture(scope="module")
def dropping_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("dropping"), DROP + SOURCES)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def dropped(dropping_server: Server) -> str:
    """A log of 100,000 lines that has ended; all but the last MiB was dropped."""
    deployment = str(dropping_server.deploy(f"exec {count_to(100_000)}")["id"])
    assert dropping_server.wait_for_end(deployment)["state"] == "succeeded"
    return deployment


def first_line(server: Server, deployment: str) -> int:
    """The number of the first line that is there, by the file itself: with the first whole cell."""
    with (server.data_dir / f"{deployment}.log").open("rb") as log:
        hole_bytes = os.lseek(log.fileno(), 0, os.SEEK_DATA)
    return (hole_bytes // CELL_BYTES + 1) * CELL_BYTES // LINE_BYTES + 1


def cursor_after(number: int, *, is_batch: bool = False) -> str:
    """The cursor of line `number`, without the log's mark."""
    offset = (number - 1) * LINE_BYTES
    if is_batch:
        return str(offset + LINE_BYTES)
    return f"{offset // CELL_BYTES}:{offset % CELL_BYTES // LINE_BYTES + 1}"


class GapViewer(Viewer):
    """Holds each line, and each gap, against what the log must have there."""

    def __init__(self, server: Server, deployment: str, query: str = "") -> None:
        super().__init__(server, deployment, query)
        self.next_line = 1
        self.faults: list[str] = []
        self.gaps: list[dict[str, int]] = []
        self.pause: Callable[[], None] = lambda: None
        self._is_batch = "batch" in query
        self._has_come_back = False

    def _connect(self) -> None:
        self._has_come_back = bool(self._last_id)
        super()._connect()

    def _dispatch(self, event: dict[str, list[str]]) -> None:
        super()._dispatch(event)
        kind = event.get("event", ["message"])[0]
        if kind == "gap":
            gap = json.loads(event["data"][0])
            self.gaps.append(gap)
            bytes_ = (gap["next_line"] - self.next_line) * LINE_BYTES
            self.next_line = gap["next_line"]
            # Of a line of a cell that is gone, no more is known than where the cell began.
            uncertain_bytes = CELL_BYTES if self._has_come_back and not self._is_batch else 0
            self._expect(bytes_ <= gap["dropped_bytes"] <= bytes_ + uncertain_bytes, event)
        elif kind == "message" and "data" in event:
            numbers = range(self.next_line, self.next_line + len(event["data"]))
            self._expect(event["data"] == [line(number) for number in numbers], event)
            self.next_line = numbers.stop
            self.lines.clear()
        else:
            return
        is_batch = self._is_batch or kind == "gap"
        cursor = cursor_after(self.next_line - 1, is_batch=is_batch)
        self._expect(event["id"][0].split("-")[1] == cursor, event)
        self._has_come_back = False
        self.pause()

    def _expect(self, is_so: bool, event: dict[str, list[str]]) -> None:
        if not is_so:
            self.faults.append(f"at line {self.next_line}: {str(event)[:300]}")


class TextViewer(threading.Thread):
    """Reads the bytes of a log, live, to their end."""

    def __init__(self, server: Server, deployment: str) -> None:
        super().__init__()
        self.url = f"{server.url}/logs/{deployment}/raw"
        self.data = b""

    def run(self) -> None:
        """Read until the end, or until the server is killed."""
        with (
            contextlib.suppress(httpx.HTTPError),  # the server is killed meanwhile
            httpx.stream("GET", self.url, timeout=20) as answer,
        ):
            for piece in answer.iter_raw():
                self.data += piece
                time.sleep(0.01)  # a slow one


def test_every_viewer_of_a_flood_gets_each_line_or_is_told_of_the_gap(
    make_server: Callable[[str], Server],
) -> None:
    server = make_server(DROP + SOURCES)
    deployment = str(server.deploy(FLOOD)["id"])
    log = server.data_dir / f"{deployment}.log"
    flooded = threading.Event()
    random_ = random.Random(1)
    viewers = [GapViewer(server, deployment, query) for query in ("batch=1", "", "", "batch=1", "")]
    _, _, slow, leaving, late = viewers

    def be_slow() -> None:
        if slow.next_line % 500 == 0 and not flooded.is_set():
            time.sleep(0.05)

    def leave() -> None:
        if random_.random() < 0.1 and not flooded.is_set():
            time.sleep(random_.choice((0, 0, 0.5)))
            raise httpx.ReadError("it has gone")

    slow.pause, leaving.pause = be_slow, leave
    text = TextViewer(server, deployment)
    for viewer in (*viewers[:-1], text):
        viewer.start()
    killed = False
    most = 0
    record = None
    while record is None or record["state"] in ("queued", "running"):
        most = max(most, on_disk(log))
        if not killed and text.data and log.stat().st_size > 4 * MIB:
            killed = True
            server.kill()
            server.start()
            late.start()
        time.sleep(0.002)  # a look at the disk as often as that
        record = json.loads((server.data_dir / f"{deployment}.json").read_text())
    flooded.set()
    for viewer in (*viewers, text):
        viewer.join()

    assert killed
    assert record["state"] == "succeeded"
    assert most <= MIB + SLACK_BYTES
    for viewer in viewers:
        assert viewer.faults == []
        assert viewer.has_ended
        assert viewer.resets == 0
        assert viewer.next_line == FLOOD_LINES + 1
    assert slow.gaps
    assert late.gaps[0]["next_line"] > 100_000
    *whole, _ = text.data.decode().split("\n")
    numbers = [int(words.split()[1]) for words in whole]
    assert numbers == sorted(set(numbers))
    assert whole == [line(number) for number in numbers]


def test_viewers_at_the_live_edge_of_a_server_that_stood_still_are_told_of_the_gap(
    make_server: Callable[[str], Server],
) -> None:
    server = make_server(DROP + SOURCES)
    # Of the second, one step is dropped.
    deployment, log, gate = deploy_gated(server, count_to(1000), count_to(33_000))
    with contextlib.ExitStack() as stack:
        urls = [f"/logs/{deployment}{query}" for query in ("", "", "?batch=1", "?partial=1")]
        streams = [stack.enter_context(open_stream(server.http, url)) for url in urls]
        for stream in streams:
            stream.wait_for_lines(1000)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            gate.write_text("go\n")
            wait_for(lambda: log.stat().st_size == 34_000 * LINE_BYTES, "the flood")
        finally:
            server.process.send_signal(signal.SIGCONT)
        for stream in streams:
            stream.read_to_end()
            (gap,) = stream.of_type("gap")
            first = gap.json()["next_line"]
            assert gap.json()["dropped_bytes"] == (first - 1001) * LINE_BYTES
            assert first == first_line(server, deployment)
            assert stream.lines[1000:] == [line(n - 1000) for n in range(first, 34_001)]


def test_a_slow_text_viewer_has_no_zeros_and_the_end_although_the_record_was_removed(
    make_server: Callable[[str], Server],
) -> None:
    """Only the record says that the log drops its oldest part; who has read it knows so still."""
    server = make_server(DROP + SOURCES)
    deployment, log, gate = deploy_gated(server, count_to(30_000), count_to(60_000), "true")
    wait_for(lambda: log.stat().st_size == 30_000 * LINE_BYTES, "the first lines")
    connection = slow_connection(server)
    connection.request("GET", f"/logs/{deployment}", headers={"Accept": "text/plain"})
    response = connection.getresponse()
    came = response.read(1000)
    (server.data_dir / f"{deployment}.json").unlink()
    wait_for(lambda: server.record(deployment)["request"] is None, "the server's notice of that")
    gate.write_text("go\n")
    wait_for(lambda: log.stat().st_size == 90_000 * LINE_BYTES, "the flood")
    gate.write_text("go\n")
    came += response.read()
    connection.close()
    lines = came.decode().splitlines()
    assert lines[:1000] == [line(number) for number in range(1, 1001)]
    assert lines[-1000:] == [line(number) for number in range(59_001, 60_001)]
    assert len(lines) < 90_000
    assert all(text == line(int(text.split()[1])) for text in lines)


def test_bytes_go_on_at_the_first_line_after_a_gap(make_server: Callable[[str], Server]) -> None:
    server = make_server(DROP + SOURCES)
    deployment, log, gate = deploy_gated(
        server, "printf 'one\\nbegun'", f"echo ' and ended'; exec {count_to(33_000)}"
    )
    with server.http.stream("GET", f"/logs/{deployment}/raw") as answer:
        pieces = answer.iter_raw()
        data = b""
        while data != b"one\nbegun":
            data += next(pieces)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            gate.write_text("go\n")
            wait_for(lambda: log.stat().st_size == 33_000 * LINE_BYTES + 20, "the flood")
        finally:
            server.process.send_signal(signal.SIGCONT)
        one, begun, *lines, end = (data + b"".join(pieces)).decode().split("\n")
    assert (one, begun, end) == ("one", "begun", "")
    assert lines == [line(33_001 - left) for left in range(len(lines), 0, -1)]
    assert 20_000 < len(lines) < 33_000


def test_who_comes_back_to_what_was_dropped_is_told_and_goes_on(
    dropping_server: Server, dropped: str
) -> None:
    server, first = dropping_server, first_line(dropping_server, dropped)
    mark = read_events(server.http, f"/logs/{dropped}?tail=0")[-1].last_event_id.split("-")[0]
    asked = [(0, ""), (0, f"?after={mark}-0"), (1234, f"?after={mark}-{1234 * LINE_BYTES}")]
    cell_lines = CELL_BYTES // LINE_BYTES
    asked += [(cell_lines, f"?after={mark}-1:7")]  # nobody knows the ends of these
    for known, query in asked:
        events = read_events(server.http, f"/logs/{dropped}{query}")
        gap = events[0]
        assert gap.type == "gap"
        dropped_bytes = (first - 1 - known) * LINE_BYTES
        assert gap.json() == {"dropped_bytes": dropped_bytes, "next_line": first}
        assert gap.last_event_id == f"{mark}-{(first - 1) * LINE_BYTES}"
        assert lines_of(events[1:]) == [line(number) for number in range(first, 100_001)]
        again = read_events(server.http, f"/logs/{dropped}", last_event_id=gap.last_event_id)
        assert lines_of(again) == lines_of(events[1:])
        assert [event.type for event in again if event.type != "message"] == ["end"]

    for known in (first, first + 4, 99_999):
        cursor = f"{mark}-{cursor_after(known)}"
        events = read_events(server.http, f"/logs/{dropped}", last_event_id=cursor)
        assert {event.type for event in events} == {"message", "end"}
        assert lines_of(events)[0] == line(known + 1)


def test_a_tail_begins_in_what_is_there(dropping_server: Server, dropped: str) -> None:
    server, first = dropping_server, first_line(dropping_server, dropped)
    for tail, expected in ((3, 99_998), (1_000_000, first)):
        events = read_events(server.http, f"/logs/{dropped}?tail={tail}")
        assert lines_of(events) == [line(number) for number in range(expected, 100_001)]


def test_windows_have_true_numbers_and_begin_at_the_first_line_that_is_there(
    dropping_server: Server, dropped: str
) -> None:
    server, first = dropping_server, first_line(dropping_server, dropped)

    def window(**query: int) -> dict[str, Any]:
        return dict(server.http.get(f"/logs/{dropped}/lines", params=query).json())

    for wanted, expected in ((1, first), (first - 1, first), (first, first), (90_000, 90_000)):
        found = window(**{"from": wanted, "count": 2, "times": 1})
        assert found["lines"] == [line(expected), line(expected + 1)]
        assert (found["from"], found["kept_from"], found["total_lines"]) == (
            expected,
            first,
            100_000,
        )
        assert found["times"][0] >= found["started_ms"] > 1e12
    assert window(**{"from": -2})["from"] == 99_999
    assert window(time=0)["from"] == first


def test_raw_bytes_of_an_ended_log_are_what_is_left_of_it(
    dropping_server: Server, dropped: str
) -> None:
    server, first = dropping_server, first_line(dropping_server, dropped)
    left = "".join(f"{line(number)}\n" for number in range(first, 100_001)).encode()
    url = f"/logs/{dropped}/raw"
    whole = server.http.get(url)
    assert whole.content == left
    assert whole.headers["Content-Length"] == str(len(left))
    assert whole.headers["X-Dropped-Bytes"] == str((first - 1) * LINE_BYTES)
    head = server.http.head(url)
    assert (head.headers["Content-Length"], head.headers["ETag"]) == (
        str(len(left)),
        whole.headers["ETag"],
    )
    for asked, expected in (("0-31", left[:32]), ("100-", left[100:]), ("-32", left[-32:])):
        part = server.http.get(url, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, expected)
    assert part.headers["Content-Range"] == f"bytes {len(left) - 32}-{len(left) - 1}/{len(left)}"
    beyond = server.http.get(url, headers={"Range": f"bytes={len(left)}-"})
    assert beyond.status_code == 416
    unchanged = server.http.get(url, headers={"If-None-Match": whole.headers["ETag"]})
    assert unchanged.status_code == 304


def test_a_record_tells_the_size_and_what_was_dropped_of_it(
    dropping_server: Server, dropped: str
) -> None:
    server = dropping_server
    record = server.record(dropped)
    assert record["log_bytes"] == 100_000 * LINE_BYTES
    assert record["max_log_bytes"] == MIB
    assert record["log_bytes"] - MIB <= record["dropped_bytes"] < record["log_bytes"] - MIB / 2
    assert on_disk(server.data_dir / f"{dropped}.log") <= MIB + SLACK_BYTES


def test_a_search_begins_with_the_first_line_that_is_there(
    dropping_server: Server, dropped: str
) -> None:
    server, first = dropping_server, first_line(dropping_server, dropped)
    for start in (1, first - 1, first, 99_000):
        events = read_events(server.http, f"/logs/{dropped}/search?q=77%20&from={start}")
        found = [n for e in events if e.type == "matches" for n in e.json()["lines"]]
        assert found == [n for n in range(max(start, first), 100_001) if n % 100 == 77]
        assert events[-1].json()["lines_searched"] == 100_000


def test_other_tools_find_the_last_lines(dropping_server: Server, dropped: str) -> None:
    path = dropping_server.data_dir / f"{dropped}.log"
    expected = "".join(f"{line(number)}\n" for number in range(99_998, 100_001))
    assert subprocess.check_output(["tail", "-n", "3", path], text=True) == expected
    assert subprocess.check_output(["cat", path]).endswith(expected.encode())
    assert subprocess.check_output(["grep", "-a", "-c", "line", path]) != b"100000\n"


def test_a_search_that_is_overtaken_goes_on_with_true_numbers(
    make_server: Callable[[str], Server],
) -> None:
    server = make_server(DROP + SOURCES)
    deployment = str(server.deploy(FLOOD)["id"])
    log = server.data_dir / f"{deployment}.log"
    wait_for(lambda: log.stat().st_size > 2 * MIB, "lines to be dropped")
    events = read_events(server.http, f"/logs/{deployment}/search?q=7%20")
    found = [n for e in events if e.type == "matches" for n in e.json()["lines"]]
    assert found == sorted(set(found))
    assert {number % 10 for number in found} == {7}
    assert found[-1] == FLOOD_LINES - 3
    first = first_line(server, deployment)
    assert [n for n in found if n >= first] == [
        n for n in range(first, FLOOD_LINES + 1) if n % 10 == 7
    ]


# --- settings


def test_a_source_and_a_preset_have_limits_of_their_own(
    make_server: Callable[[str], Server],
) -> None:
    config = """
        max_log_bytes = 3000000
        [sources.shell]
        type = "subprocess"
        [sources.small]
        type = "subprocess"
        max_log_bytes = 2000000
        when_log_full = "drop_oldest"
        [commands.plain]
        command = ["true"]
        [commands.own]
        command = ["true"]
        source = "small"
        max_log_bytes = 1500000
        [commands.strict]
        command = ["true"]
        source = "small"
        when_log_full = "stop"
    """
    server = make_server(config)
    limits = {}
    for fields in ({"command": "true"}, {"command": "true", "source": "small"}):
        record = server.deploy(**fields)
        stored = json.loads((server.data_dir / f"{record['id']}.json").read_text())
        limits[record["source"]] = (stored["max_log_bytes"], stored["dropped_bytes"])
    for preset in ("plain", "own", "strict"):
        record = server.deploy(preset=preset)
        stored = json.loads((server.data_dir / f"{record['id']}.json").read_text())
        limits[preset] = (stored["max_log_bytes"], stored["dropped_bytes"])
    assert limits == {
        "shell": (3_000_000, None),
        "small": (2_000_000, 0),
        "plain": (3_000_000, None),
        "own": (1_500_000, 0),
        "strict": (2_000_000, None),
    }


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("max_log_bytes = 1000", "max_log_bytes: expected 1048576 or more"),
        ('when_log_full = "explode"', "when_log_full: expected stop or drop_oldest"),
        ('[sources.a]\ntype = "mock"\nwhen_log_full = "x"', "sources.a: when_log_full: expected"),
        (
            '[commands.a]\ncommand = ["true"]\nwhen_log_full = "x"',
            "commands.a: when_log_full: expected",
        ),
    ],
)
def test_a_wrong_limit_is_refused(tmp_path: Path, config: str, sentence: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(config)
    with pytest.raises(ConfigError, match=sentence):
        Catalog(read_config(str(path), {}, {}), Registry())
