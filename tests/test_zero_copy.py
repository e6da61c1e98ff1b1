"""Bytes that go from a file to a socket without being here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from tornado_logs import reading_turns
from tornado_logs.app import Services, make_app
from tornado_logs.config import Config
from tornado_logs.deployment import Record, State, record_bytes
from tornado_logs.handlers.logs import RawLogHandler
from tornado_logs.zero_copy import PIECE_BYTES, send_file

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


@pytest.mark.parametrize("told_bytes", [4 * PIECE_BYTES + 7, 8 * PIECE_BYTES])
def test_a_download_has_no_more_bytes_than_it_said_though_its_file_has_grown_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_bytes: int
) -> None:
    """What comes after an answer would be taken for the next one's."""
    (tmp_path / "grown.log").write_bytes(DATA * 3)
    record = Record(id="grown", state=State.SUCCEEDED, request={})
    (tmp_path / "grown.json").write_bytes(record_bytes(record))
    monkeypatch.setattr(RawLogHandler, "get_content_size", lambda _: told_bytes)
    monkeypatch.setattr(reading_turns, "_TURN_SECONDS", 0.0)  # a piece at a time
    flush, unwritten = RawLogHandler.flush, []

    def watched_flush(handler: RawLogHandler, include_footers: bool = False) -> Any:
        unwritten.append(len(handler._write_buffer))
        return flush(handler, include_footers)

    monkeypatch.setattr(RawLogHandler, "flush", watched_flush)

    async def download() -> bytes:
        services = Services(Config(data_dir=str(tmp_path)))
        services.deployments.start()
        server = HTTPServer(make_app(services))
        ours, theirs = socket.socketpair()
        server.handle_stream(IOStream(theirs), ("", 0))
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(b"GET /logs/grown/raw HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read()
        assert b"Content-Length: %d\r\n" % told_bytes in head
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await server.close_all_connections()
        services.deployments.close()
        return body

    assert asyncio.run(download()) == (DATA * 3)[:told_bytes]
    assert max(unwritten) == 1, "what is passed on leaves something behind at each piece"
