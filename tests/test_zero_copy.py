"""Bytes that go from a file to a socket without being here."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tornado_logs.zero_copy import send_file

DATA = bytes(range(256)) * 4096  # 1 MiB
HEAD, TAIL = b"head", b"tail"


def test_head_bytes_and_tail_come_in_order_and_what_the_socket_does_not_take_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(DATA)
    everything = HEAD + DATA[100:] + TAIL
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        ours.setblocking(False)
        sent_bytes = send_file(ours, file.fileno(), 100, len(DATA) - 100, HEAD, TAIL)
        assert len(HEAD) < sent_bytes < len(everything)
        assert send_file(ours, file.fileno(), 0, len(DATA), HEAD) == 0  # it is full
        ours.setblocking(True)
        came = theirs.recv(sent_bytes, socket.MSG_WAITALL)
    assert came == everything[:sent_bytes]


def test_a_small_file_goes_at_once_and_one_that_ends_too_soon_has_no_tail(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"0123456789")
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        assert send_file(ours, file.fileno(), 2, 5, HEAD, TAIL) == 13
        assert theirs.recv(100) == b"head23456tail"
        assert send_file(ours, file.fileno(), 8, 5, HEAD, TAIL) == 6
        assert theirs.recv(100) == b"head89"


def test_where_a_file_can_not_be_sent_so_nothing_of_it_is() -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with ours, theirs:
        ours.setblocking(False)
        assert send_file(ours, reading, 0, 5, HEAD, TAIL) == len(HEAD)
        ours.close()
        assert send_file(ours, reading, 0, 5, HEAD, TAIL) == 0
    os.close(reading)
    os.close(writing)
