"""Viewers that are cut off anywhere and come back: each line exactly once, in order."""

from __future__ import annotations

import random
import socket
import time
from functools import partial
from pathlib import Path

from conftest import Server, drop_log, wait_for
from returning_viewer import Viewer
from sse_client import lines_of, parse

from tornado_logs.journal import LogFile
from tornado_logs.sse import parse_cursor

FLOOD = "i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i of a flood; done"


def has_risen(server: Server, deployment_id: str, log_bytes: int) -> bool:
    return (server.data_dir / f"{deployment_id}.log").stat().st_size > log_bytes


def test_viewers_through_servers_killed_over_and_over_get_each_line_once(server: Server) -> None:
    moments = random.Random(6)
    command = "for i in $(seq 1 4000); do echo line $i; test $((i % 20)) = 0 && sleep 0.01; done"
    deployment = server.deploy(command)["id"]
    viewers = [Viewer(server, deployment, query) for query in ("", "", "batch=1", "batch=1")]
    for viewer in viewers:
        viewer.start()
    for _ in range(5):
        time.sleep(moments.uniform(0.05, 0.5))  # the moment of the kill is what is tried here
        server.kill()
        server.start()
    for viewer in viewers:
        viewer.join()
        assert not viewer.gave_up
        assert viewer.lines == server.log(deployment).decode().splitlines()
        assert viewer.resets == 0
    assert len(viewers[0].lines) == 4000
    assert viewers[0].ids == viewers[1].ids


def test_each_id_is_the_place_after_its_line(server: Server) -> None:
    deployment = server.deploy(FLOOD % 3000)["id"]
    server.wait_for_end(deployment)
    viewer = Viewer(server, deployment)
    viewer.run()
    log = LogFile(str(server.data_dir / f"{deployment}.log"))
    offset = 0
    for line, text in zip(viewer.lines, viewer.ids, strict=True):
        offset += len(line.encode()) + 1
        cursor = parse_cursor(text)
        assert cursor == log.cursor(offset)
        assert log.after_lines(cursor.offset, cursor.lines) == offset
    assert offset == log.size()
    log.close()


def test_many_that_join_in_the_middle_of_a_flood_get_each_line_once(server: Server) -> None:
    deployment = server.deploy(FLOOD % 100_000)["id"]
    viewers = [Viewer(server, deployment, "batch=1" if n % 2 else "") for n in range(30)]
    for n, viewer in enumerate(viewers):
        wait_for(partial(has_risen, server, deployment, n * 40_000), "the flood to rise")
        viewer.start()
    server.wait_for_end(deployment)
    expected = server.log(deployment).decode().splitlines()
    assert len(expected) == 100_000
    for viewer in viewers:
        viewer.join()
        assert viewer.lines == expected


def open_socket(server: Server, deployment_id: str, version: str = "1.1") -> socket.socket:
    """A viewer with a small window, that reads only when it is told to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", server.port))
    request = f"GET /logs/{deployment_id} HTTP/{version}\r\nHost: localhost\r\n\r\n"
    sock.sendall(request.encode())
    return sock


def read_all(sock: socket.socket) -> bytes:
    """The body of the answer, to its end; chunks joined."""
    answer = b""
    while piece := sock.recv(1 << 20):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    joined = b""
    while body:
        length, _, rest = body.partition(b"\r\n")
        joined, body = joined + rest[: int(length, 16)], rest[int(length, 16) + 2 :]
    return joined


def test_viewers_that_stop_reading_in_a_flood_fall_behind_alone_and_miss_nothing(
    server: Server,
) -> None:
    deployment = server.deploy(FLOOD % 150_000)["id"]
    stopped = [open_socket(server, deployment) for _ in range(10)]
    reading = [Viewer(server, deployment, query) for query in ("", "batch=1", "partial=1")]
    for viewer in reading:
        viewer.start()
    server.wait_for_end(deployment)
    expected = server.log(deployment).decode().splitlines()
    for viewer in reading:
        viewer.join()
        assert viewer.lines == expected
    for sock in stopped:
        with sock:
            events = parse(read_all(sock))
        assert lines_of(events) == expected
        assert events[-1].type == "end"


def test_all_viewers_of_a_line_that_must_be_searched_for_its_end_get_it_and_what_follows(
    server: Server,
) -> None:
    drop_log(server, "long", b"first\n" + b"x" * 30_000_000 + b"\nlast\n")
    viewers = [Viewer(server, "long") for _ in range(6)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
        assert [line[:5] for line in viewer.lines] == ["first", "xxxxx", "last"]


def test_clients_of_http_1_0_in_a_flood_get_each_line_once(server: Server) -> None:
    deployment = server.deploy(FLOOD % 50_000)["id"]
    sockets = [open_socket(server, deployment, "1.0") for _ in range(5)]
    server.wait_for_end(deployment)
    expected = server.log(deployment).decode().splitlines()
    for sock in sockets:
        with sock:
            events = parse(read_all(sock))
        assert lines_of(events) == expected
        assert events[-1].type == "end"


def test_five_hundred_viewers_of_one_log_get_what_is_written_and_its_end(server: Server) -> None:
    log = server.data_dir / "shared.log"
    with log.open("wb", buffering=0) as file:
        server.wait_for_state("shared", "running")
        sockets = [open_socket(server, "shared") for _ in range(500)]
        for number in range(50):
            file.write(b"line %d\n" % number)
    server.wait_for_state("shared", "finished")
    expected = [f"line {number}" for number in range(50)]
    for sock in sockets:
        with sock:
            assert lines_of(parse(read_all(sock))) == expected


def test_viewers_that_leave_at_any_moment_leave_nothing_behind(server: Server) -> None:
    assert server.process is not None
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    deployment = server.deploy("while :; do echo line; sleep 0.01; done")["id"]
    server.wait_for_state(deployment, "running")
    before = len(list(descriptors.iterdir()))
    moments = random.Random(7)
    for _ in range(300):
        sock = open_socket(server, deployment)
        if moments.random() < 0.7:
            sock.recv(moments.choice([1, 100, 1000]))
        sock.close()
    # The client of this test holds a connection or two of its own.
    wait_for(lambda: len(list(descriptors.iterdir())) <= before + 2, "all descriptors closed")
