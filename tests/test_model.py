"""Anything that can happen to a log, in any order, under readers of every kind, held to a model.

A machine writes a log as a capture process or a shell would, kills, cuts and replaces it, takes its
index away, restarts the server, and has readers come, dawdle, vanish within an event and come back
by their cursors. Whatever it did: each reader has each line once, in order, and the end last.

The server's parts are the real ones, on a real event loop, with limits so small that a log of some
hundred bytes is a long one. Some seconds in `make test`; `make fuzz` goes on for FUZZ_MINUTES.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import itertools
import json
import logging
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from fuzzing import fuzz
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from naive_log import Limits, NaiveLine, NaiveLog
from sse_client import Event, Parser
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from tornado_logs import (
    deployment,
    follower,
    journal,
    live,
    log_index,
    sse,
    store,
    watch,
    window,
)
from tornado_logs.app import Services, make_app
from tornado_logs.config import Config
from tornado_logs.deployment import Record, State, timestamp, write_record
from tornado_logs.journal import JournalWriter, LogFile

_SETTLE_SECONDS = 10.0
_ID = "log"
_YOUTH = 10  # steps
_MOST_READERS = 8
_MOST_RESTARTS = 3

# So small that nearly every log has all there is: blocks, lines that fit into none, full groups.
LIMITS = Limits(block_bytes=320, line_bytes=100)
_CELL_BYTES = LIMITS.block_bytes
_SMALL = [
    (journal, "BLOCK_BYTES", LIMITS.block_bytes),
    (follower, "BLOCK_BYTES", LIMITS.block_bytes),
    (live, "PIECE_BYTES", LIMITS.block_bytes // 2),
    (window, "BLOCK_BYTES", LIMITS.block_bytes),
    (journal, "_LOOKS_BYTES", (10, 50)),
    (journal, "_MOST_LINES", 20),
    (journal, "_SHORT_LINES_STEP_BYTES", 30),
    (journal, "_MOST_REDRAWS", 2),
    (journal, "_REDRAWN_STEP_BYTES", 20),
    (journal, "_SAMPLE_STRIDE", 3),
    (journal, "SCAN_BYTES", 200),
    (journal, "_STRIDE_BYTES", 20),
    (log_index, "SCAN_BYTES", 200),
    (sse, "CELL_BYTES", _CELL_BYTES),
    (journal, "CHECKPOINT_BYTES", 300),
    (follower, "_SCAN_SLICE_BYTES", 700),
    (live, "_GROUP_VIEWERS", 3),
    (deployment, "_JUST_WRITTEN_SECONDS", 0.02),
    (watch, "_REST_SECONDS", 0.0002),
    (store, "_RECHECK_SECONDS", 0.03),
    (store, "_LOCK_RELEASE_SECONDS", 0.005),
]
_CURSOR = re.compile(r"[0-9a-f]{8}-([0-9]+)(?::([0-9]+))?(-end)?", re.ASCII)
_SOCKET_BYTES = 1  # Linux gives a socket 4,608 at least to send from

# --- what is written

_UNIQUE = itertools.count(1)
_WORDS = st.one_of(
    st.binary(max_size=12),
    st.text("abcäöü日本📦\u2028\u0085 ", max_size=12).map(str.encode),
    st.sampled_from(
        [b"", b"\0", b"data: x", b"id: 1-1", b"event: end", b": x", b"\xff\xfe", b"%s"]
    ),
    st.sampled_from([b"\x1b[31mred\x1b[0m", b"\x1b]0;title\x07", b"\xef\xbb\xbfbom", b"\xf0\x9f"]),
).map(lambda word: word.replace(b"\n", b"").replace(b"\r", b""))
_REDRAWN = st.lists(
    st.text("abc 0123456789%", max_size=30).map(str.encode), min_size=2, max_size=40
).map(b"\r".join)
_LONG = st.tuples(st.sampled_from([b"x", b"\xff", "ä".encode()]), st.integers(60, 900)).map(
    lambda drawn: drawn[0] * drawn[1]
)
_LINES = st.lists(
    st.tuples(
        st.booleans(),
        st.one_of(_WORDS, _WORDS, _WORDS, _REDRAWN, _LONG),
        st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r\r\n", b"\n\n\n"]),
    ),
    min_size=1,
    max_size=12,
)


def lines_of(drawn: list[tuple[bool, bytes, bytes]]) -> bytes:
    """Whole lines; those that are numbered can't be mistaken for any other."""
    return b"".join(
        (b"%d " % next(_UNIQUE) if is_numbered else b"") + text + end
        for is_numbered, text, end in drawn
    )


_QUERIES = st.tuples(
    st.sampled_from(["events", "events", "batch", "batch", "raw"]),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 30)),
)
"""How a reader asks: framing, whether it wants partial lines, and `tail`."""


_RUSH = st.lists(
    st.tuples(
        st.sampled_from(["flood", "flood", "come", "rest", "round", "round", "take"]),
        st.integers(0, 20),
        st.integers(1, 60),
    ),
    min_size=3,
    max_size=20,
)


class Reader:
    """A client as a browser is one: it knows what it has read, and the last id of that.

    `offset`: that up to which it has all of `log`, from where it began, `start`. `is_void`: the log
    was cut under it, and it has what is in no log: until it is told to begin anew. `may_be_reset`:
    something has happened for which it may be.
    """

    def __init__(self, model: ModelOfLog, kind: str, query: str, *, http: str, bites: int) -> None:
        self.model = model
        self.kind = kind  # events, batch or raw
        self.query = query
        self.http = http
        self.bites = bites  # how many bytes it takes at a time
        self.wants_partial = "partial" in query
        self.sock: socket.socket | None = None
        self.last_id = ""
        self.has_ended = False
        self.is_void = False
        self.may_be_reset = False
        self.begin(0)
        self.raw = b""
        self.partial: str | None = None
        self.said: list[str] = []

    def __repr__(self) -> str:
        return (
            f"<{self.kind} {self.query} HTTP/{self.http} at {self.offset} "
            f"{'void ' * self.is_void}{'ended ' * self.has_ended}{self.last_id} {self.said[-12:]}>"
        )

    @property
    def says_it_had_all(self) -> bool:
        """Whether it asks with an id that says that it has had the end."""
        return (self.last_id or self.query).endswith("-end")

    @property
    def is_connected(self) -> bool:
        """Whether it reads, or could."""
        return self.sock is not None

    def begin(self, offset: int) -> None:
        """It has nothing, and wants all from here on."""
        self.is_void = False
        self.start = self.offset = offset
        self.log = self.model.data

    def connect(self, sock: socket.socket) -> None:
        """Ask for the log by a new connection, as a browser does: by the id it has, if any."""
        self.sock = sock
        self._answer = b""
        self._head: bytes | None = None
        self.is_chunked = False
        self._chunk_left = 0
        self.is_complete = False
        self.parser = Parser(self.last_id)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self.partial = None
        self.has_ended = False
        self._wants_nothing = self.says_it_had_all and self.model.has_surely_all(self)
        path = f"/logs/{_ID}" + ("/raw" if self.kind == "raw" else "")
        headers = [f"GET {path}?{self.query} HTTP/{self.http}", "Host: localhost"]
        headers += ["Accept: text/event-stream", "Connection: close"]
        if self.last_id:
            headers.append(f"Last-Event-ID: {self.last_id}")
        self.status = 0
        self.said.append("connect")
        sock.sendall("\r\n".join([*headers, "", ""]).encode())

    def disconnect(self) -> None:
        """Hang up; what is in the socket is lost."""
        assert self.sock is not None
        self.said.append("gone")
        self.sock.close()
        self.sock = None

    def take(self, count: int) -> bool:
        """Read up to `count` bytes, if there are any; whether there were."""
        if self.sock is None:
            return False
        try:
            data = self.sock.recv(count)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if data:
            self._feed(data)
        else:
            self.said.append("eof")
            self.sock.close()
            self.sock = None
        return True

    def _feed(self, data: bytes) -> None:
        self._answer += data
        if self._head is None:
            head, separator, rest = self._answer.partition(b"\r\n\r\n")
            if not separator:
                return
            self._head, self._answer = head.lower(), rest
            self.status = int(head.split()[1])
            assert self.status in (200, 204, 404), (self, head, rest)
            self.is_chunked = b"transfer-encoding: chunked" in self._head
            assert self.status == 204 or not self._wants_nothing, self
            if self.status == 404:
                assert self.model.is_deleted, self
                self.has_ended = True
            if self.status == 204:
                self.model.check_nothing_left(self)
        body = self._body()
        if self.status == 200:
            self._read(body)

    def _body(self) -> bytes:
        """What the new bytes add to the body."""
        if not self.is_chunked:
            body, self._answer = self._answer, b""
            return body
        body = b""
        while self._answer:
            if self._chunk_left > 2:
                piece = self._answer[: self._chunk_left - 2]
                body += piece
                self._chunk_left -= len(piece)
                self._answer = self._answer[len(piece) :]
            elif self._chunk_left:
                ending = self._answer[: self._chunk_left]
                assert b"\r\n".endswith(ending) or ending in (b"\r", b"\r\n"), (self, ending)
                self._answer = self._answer[len(ending) :]
                self._chunk_left -= len(ending)
            else:
                length, found, rest = self._answer.partition(b"\r\n")
                if not found:
                    break
                assert not self.is_complete, (self, self._answer)
                self._chunk_left = int(length, 16) + 2
                self.is_complete = self._chunk_left == 2
                self._answer = rest
        return body

    def _read(self, body: bytes) -> None:
        if self.kind == "raw":
            self.raw += body
            return
        self._utf8.decode(body)  # or it raises: what is invalid is replaced by the server
        for event in self.parser.feed(body):
            self.last_id = event.last_event_id
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        assert not self.has_ended, (self, event)
        if event.type == "partial":
            assert self.wants_partial, (self, event)
            self.partial = event.data
            return
        self.partial = None
        cursor = _CURSOR.fullmatch(event.last_event_id)
        assert cursor, (self, event)
        assert (event.type == "end") == bool(cursor[3]), (self, event)
        offset = self.model.place(cursor)
        self.said.append(f"{event.type}-{offset}")
        if event.type == "reset":
            assert self.may_be_reset, (self, event)
            assert offset == 0, (self, event)
            self.begin(0)
            return
        if event.type == "end":
            self.has_ended = True
            self.model.check_end(self, offset)
        else:
            assert event.type == "message", (self, event)
            lines = event.data.split("\n")
            assert self.kind == "batch" or len(lines) == 1, (self, event)
            self.model.check_lines(self, lines, offset)


class ModelOfLog:
    """What was written, and what each reader is to have of it."""

    def __init__(self) -> None:
        self.data = b""
        self.marks_may_change = False  # the index was lost, and the ids that were given with it
        self.was_only_cut = (
            False  # and nothing came at once: ids of the time in between hold no more
        )
        self.has_ended = False
        self.is_deleted = False
        self._naive: NaiveLog | None = None

    @property
    def naive(self) -> NaiveLog:
        """The log as it is now."""
        if self._naive is None or self._naive.data != self.data:
            self._naive = NaiveLog(self.data, LIMITS)
        return self._naive

    def place(self, cursor: re.Match[str]) -> int:
        """The offset that a cursor stands for; -1 if it has none in the log as it is now."""
        number, lines = int(cursor[1]), int(cursor[2] or 0)
        return self.naive.place(number * _CELL_BYTES if lines else number, lines)

    def check_lines(self, reader: Reader, lines: list[str], end: int) -> None:
        """These are the lines from where the reader is up to the offset `end`, all of them."""
        expected = self.naive.lines_between(reader.offset, end, ended=self.has_ended)
        if self._is_same_log(reader) and _are_shown_as(expected, lines, end):
            reader.offset = end
        else:
            # It may not have heard of a cut yet, or the server may not, and what is read meanwhile
            # may be of both logs; but then a reset follows.
            assert reader.may_be_reset, (reader, lines, end, expected)
            reader.is_void = True

    def _is_same_log(self, reader: Reader) -> bool:
        """Whether what it has seen is of the log as it is now."""
        if not reader.is_void and reader.log is not self.data:
            had = slice(reader.start, reader.offset)
            reader.is_void = reader.log[had] != self.data[had]
            reader.log = self.data
        return not reader.is_void

    def check_end(self, reader: Reader, offset: int) -> None:
        """All was sent, and nothing comes any more."""
        assert self.has_ended, reader
        if self._is_same_log(reader):
            assert reader.offset == offset == len(self.data), reader

    def check_nothing_left(self, reader: Reader) -> None:
        """It was told that it has had everything."""
        assert self.has_ended, reader
        assert reader.says_it_had_all, reader
        reader.has_ended = True

    def has_surely_all(self, reader: Reader) -> bool:
        """Whether the log has ended, and nothing has happened for which it would be sent again."""
        is_sure = self.has_ended and not self.is_deleted and not reader.may_be_reset
        return is_sure and reader.offset == len(self.data) and self._is_same_log(reader)

    def has_all(self, reader: Reader) -> bool:
        """Whether the reader is where it is to be."""
        if reader.kind == "raw":
            return self._has_all_raw(reader)
        if reader.status == 404:
            return self.is_deleted and not reader.is_connected
        if reader.has_ended and reader.is_chunked and not reader.is_complete:
            return False
        if not self._is_same_log(reader):
            return False
        if self.has_ended:
            return reader.has_ended and not reader.is_connected
        if reader.offset != self.naive.whole_end or not reader.is_connected:
            return False
        is_between = reader.wants_partial and self.naive.whole_end < len(self.data)
        return not is_between or self.naive.partial() in (None, reader.partial)

    def _has_all_raw(self, reader: Reader) -> bool:
        """It has all of the log; after what it got of others that the log was before its cuts."""
        if self.has_ended == reader.is_connected:
            return False
        if reader.status != 200 or reader.may_be_reset:
            return self.is_deleted or reader.raw.endswith(self.data)
        return reader.raw == self.data


def _are_shown_as(expected: list[NaiveLine], lines: list[str], end: int) -> bool:
    if len(lines) != len(expected) or not expected or expected[-1].end != end:
        return False
    return all(line.is_shown_as(text) for line, text in zip(expected, lines, strict=True))


class Writer:
    """A capture process, as far as its log, index and record are concerned; or a shell with `>`."""

    def __init__(self, folder: str, *, is_captured: bool) -> None:
        self.is_captured = is_captured
        self.log_path = os.path.join(folder, f"{_ID}.log")
        self.index_path = os.path.join(folder, f"{_ID}.idx")
        self.record_path = os.path.join(folder, f"{_ID}.json")
        self.now = 1e9
        self.fd: int | None = None
        self.journal: JournalWriter | None = None
        self._ended_journals: list[JournalWriter] = []
        self.open()

    def open(self) -> None:
        """Begin, or go on with a log that a shell appends to."""
        self.fd = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if self.is_captured:
            deployment.hold(self.fd)
            self.journal = JournalWriter(self.fd, self.index_path, lambda: self.now)
            self._write_record(State.RUNNING)

    def _write_record(self, state: State) -> None:
        ended_at = timestamp() if state.is_final else None
        record = Record(_ID, state=state, created_at=timestamp(), request={}, ended_at=ended_at)
        write_record(self.record_path, record)

    def append(self, piece: bytes, seconds: float) -> None:
        """Write a piece, so long after the last."""
        self.now += seconds
        if self.journal is not None:
            self.journal.append(piece)
        else:
            assert self.fd is not None
            os.write(self.fd, piece)

    def finish(self) -> None:
        """The source has come to its end."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None
            self._write_record(State.SUCCEEDED)
        self.die()

    def replace_log(self, data: bytes) -> None:
        """Put another file into the log's place. A shell's script goes on there."""
        self.die()
        new_path = self.log_path + ".new"
        with open(new_path, "wb") as file:
            file.write(data)
        os.replace(new_path, self.log_path)
        with contextlib.suppress(FileNotFoundError):  # which is of no use to the new one
            os.unlink(self.index_path)
        if not self.is_captured:
            self.open()

    def spoil_index(self, how: str, count: int) -> None:
        """Do to the index what a person, a crash or a later version may do; or make one of junk."""
        with open(self.index_path, "ab+") as file:
            size = file.tell()
            if how == "remove":
                os.unlink(self.index_path)
            elif how == "cut":
                # While it is written its records keep their places.
                most = size if self.journal is None else size // 24
                file.truncate(count % (most + 1) * (1 if self.journal is None else 24))
            elif how == "zeros" and self.journal is None and size % 24 == 0:
                file.write(bytes(count))
            elif how == "other version":
                with open(self.index_path, "rb+") as another:
                    another.write(b"TLOGIDX9" + b"\x07" * max(0, size - 8))

    def die(self) -> None:
        """`kill -9`: the kernel closes the log and lets go of its lock. Nobody writes anything."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        if self.journal is not None:
            self._ended_journals.append(self.journal)
            self.journal = None

    def close(self) -> None:
        """Close what a kill would have closed."""
        self.die()
        for ended in self._ended_journals:
            ended.close()


class Faults(logging.Handler):
    """What a server's log would say of failures of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said.append(self.format(record))

    def on_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The same, of what went wrong on the event loop alone."""
        self.said.append(repr(context))


class LogMachine(RuleBasedStateMachine):
    """A server, one log in its folder, whoever writes it and whoever reads it."""

    def __init__(self) -> None:
        super().__init__()
        # Each thing is given back even if `begin` fails: where Hypothesis breaks an example off,
        # it doesn't tell of what fails in `teardown`.
        self.open = contextlib.ExitStack()
        for module, name, value in _SMALL:
            self.open.enter_context(mock.patch.object(module, name, value))
        self.folder = self.open.enter_context(tempfile.TemporaryDirectory(prefix="model"))
        os.mkdir(os.path.join(self.folder, "aside"))
        self.data_dir = os.path.join(self.folder, "data")
        os.mkdir(self.data_dir)
        self.faults = Faults()
        logging.getLogger().addHandler(self.faults)
        self.open.callback(logging.getLogger().removeHandler, self.faults)
        self.runner = self.open.enter_context(asyncio.Runner())
        self.runner.get_loop().set_exception_handler(self.faults.on_loop)
        self.model = ModelOfLog()
        self.readers: list[Reader] = []
        self.is_cut_unheard = False
        self.is_end_unheard = False
        self.restarts = 0
        self.age = 0

    @invariant()
    def grow_older(self) -> None:
        """What ends a log has to wait until there is something in it."""
        self.age += 1

    @initialize(
        is_captured=st.booleans(),
        first=_LINES,
        fashion=st.lists(_QUERIES, min_size=1, max_size=3),
        ping_seconds=st.sampled_from([15.0, 15.0, 0.02]),
        come_at_once=st.integers(0, 4),
    )
    def begin(
        self,
        is_captured: bool,
        first: list[tuple[bool, bytes, bytes]],
        fashion: list[tuple[str, bool, int | None]],
        ping_seconds: float,
        come_at_once: int,
    ) -> None:
        """The log's first line is a line that no other log has."""
        self.writer = Writer(self.data_dir, is_captured=is_captured)
        self.open.callback(self.writer.close)
        self._append(b"log %d\n" % next(_UNIQUE) + lines_of(first), 1.0)
        self.fashion = fashion  # readers who ask for the same are served together
        self.ping_seconds = ping_seconds
        self.open.callback(self._disconnect_all)
        self.runner.run(self._start())
        self.open.callback(lambda: self.runner.run(self._stop()))
        for number in range(come_at_once):
            self._come(number)

    async def _start(self) -> None:
        config = Config(
            data_dir=self.data_dir,
            ping_seconds=self.ping_seconds,
            partial_seconds=0.002,
            max_line_bytes=LIMITS.line_bytes,
        )
        self.services = Services(config)
        self.services.deployments.start()  # but for the fork server: nothing is launched
        self.server = HTTPServer(make_app(self.services))

    async def _stop(self) -> None:
        self.services.closing = True
        self.services.followers.close()
        self.services.live.close()
        self.services.deployments.close()
        await asyncio.wait_for(self.server.close_all_connections(), _SETTLE_SECONDS)

    # --- the writer

    def _append(self, piece: bytes, seconds: float) -> None:
        self.writer.append(piece, seconds)
        self.model.data += piece

    @property
    def is_written(self) -> bool:
        """Whether anybody writes the log."""
        return self.writer.fd is not None

    @precondition(lambda self: self.is_written)
    @rule(
        lines=_LINES,
        cuts=st.lists(st.integers(0, 2000), max_size=5),
        rounds=st.integers(0, 3),
        seconds=st.sampled_from([0.0, 0.004, 0.02]),
    )
    def append(
        self, lines: list[tuple[bool, bytes, bytes]], cuts: list[int], rounds: int, seconds: float
    ) -> None:
        """Lines, in pieces that end anywhere; the rest of the last waits for what comes next."""
        data = lines_of(lines)
        places = sorted({0, *(cut % (len(data) + 1) for cut in cuts)})
        if len(cuts) % 2:  # the last piece is whole
            places.append(len(data))
        for start, end in itertools.pairwise(places):
            self._append(data[start:end], seconds)
            self.go_round(rounds)

    @precondition(lambda self: self.is_written)
    @rule(size=st.integers(0, 90), count=st.integers(1, 60))
    def append_flood(self, size: int, count: int) -> None:
        """More than a block at once, and more than a small socket takes."""
        line = b"y" * size
        lines = [b"%d %b\n" % (next(_UNIQUE), line) if size else b"\n" * 8 for _ in range(count)]
        self._append(b"".join(lines), 0.0)

    @precondition(lambda self: self.writer.journal is not None)
    @rule()
    def settle_journal(self) -> None:
        """The writer has nothing to write, and time passes."""
        assert self.writer.journal is not None
        self.writer.now += 1.0
        self.writer.journal.settle()

    @precondition(lambda self: self.is_written and self.age > _YOUTH)
    @rule()
    def finish(self) -> None:
        """The last line may lack its LF."""
        self.writer.finish()
        self._note_end()

    @precondition(lambda self: self.is_written and self.writer.is_captured and self.age > _YOUTH)
    @rule()
    def kill_capture_process(self) -> None:
        """It leaves what it wrote, with no word of its end."""
        self.writer.die()
        self._note_end()

    @precondition(
        lambda self: self.model.has_ended and not (self.writer.is_captured or self.model.is_deleted)
    )
    @rule(lines=_LINES)
    def go_on(self, lines: list[tuple[bool, bytes, bytes]]) -> None:
        """Somebody appends to a log that had come to its end."""
        self.settle()
        is_whole = self.model.naive.whole_end == len(self.model.data)
        for reader in self.readers:
            reader.has_ended = False
            reader.may_be_reset |= not is_whole  # the last line counted, and goes on now
        self.writer.open()
        self.model.has_ended = False
        self._append(lines_of(lines), 0.0)
        self.runner.run(_until(self._is_heard, lambda: "the server to hear that it goes on"))

    def _note_end(self) -> None:
        self.model.has_ended = self.is_end_unheard = True

    # --- what else may happen to its files

    @precondition(lambda self: self.is_written)
    @rule(
        keep=st.integers(0, 5000),
        is_at_line=st.booleans(),
        grows=st.sampled_from(
            ["not", "not", "a little", "beyond", "by empty lines", "by a long line", "as it was"]
        ),
        vanishes=st.integers(0, 2 * _MOST_READERS),
        lines=_LINES,
    )
    def cut(
        self,
        keep: int,
        is_at_line: bool,
        grows: str,
        vanishes: int,
        lines: list[tuple[bool, bytes, bytes]],
    ) -> None:
        """Somebody cuts the log, and its writer goes on. A reader may not be there to see it."""
        if vanishes < len(self.readers):
            self.vanish(vanishes, 0)
        before_bytes, whole_end = len(self.model.data), self.model.naive.whole_end
        keep = self.model.naive.whole_end if is_at_line else keep % max(1, before_bytes)
        # Without its index, a log is known by its first line: one that kept it would be the same.
        keep = keep if self.writer.is_captured and not self.model.marks_may_change else 0
        self._note_cut()
        os.truncate(self.writer.log_path, keep)
        self.model.data = self.model.data[:keep]
        if grows == "not":
            # A captured log gets its new mark with the next line: who comes by then, comes twice.
            self.model.was_only_cut |= self.writer.is_captured
            self.go_round(5)
            return
        number = next(_UNIQUE)
        if grows == "as it was":  # as far as lengths can tell
            first = b"log %d " % number + b"%d." % number * before_bytes
            self._append(first[: max(0, whole_end - keep - 1)], 0.0)
            self._append(b"\n" + (b"%d-" % number * before_bytes)[: before_bytes - whole_end], 0.0)
            return
        first = b"" if is_at_line and keep else b"log %d\n" % number
        self._append(first + (lines_of(lines) if grows == "a little" else b""), 0.0)
        if grows == "beyond":
            self.append_flood(1 + before_bytes // 40, 40)
        elif grows == "by empty lines":
            self.append_flood(0, 1 + before_bytes // 8)
        elif grows == "by a long line":
            self._append(b"%d-" % number * (before_bytes % 300), 0.0)

    @precondition(lambda self: self.is_written and self.age > _YOUTH)
    @rule(lines=_LINES)
    def replace(self, lines: list[tuple[bool, bytes, bytes]]) -> None:
        """Another file gets its name; a capture process can't go on with that."""
        data = b"log %d\n" % next(_UNIQUE) + lines_of(lines)
        self._note_cut()
        self.writer.replace_log(data)
        self.model.data = data
        if not self.is_written:
            self._note_end()

    @precondition(lambda self: not self.model.is_deleted)
    @rule(
        how=st.sampled_from(["remove", "cut", "zeros", "other version"]), count=st.integers(0, 900)
    )
    def spoil_index(self, how: str, count: int) -> None:
        """What it had is found by reading the log; the ids that were given may hold no more."""
        self.writer.spoil_index(how, count)
        self.model.marks_may_change = True
        for reader in self.readers:
            reader.may_be_reset |= not reader.is_connected and reader.kind != "raw"

    @precondition(lambda self: self.age > 2 * _YOUTH and not self.model.is_deleted)
    @rule()
    def delete(self) -> None:
        """It is removed; who reads it yet has it to its end."""
        self.settle()  # of what the server hasn't seen, it can't tell
        os.unlink(self.writer.log_path)
        self.writer.die()
        self.model.is_deleted = self.model.has_ended = True
        self.settle()

    def _note_cut(self) -> None:
        self.is_cut_unheard = True
        for reader in self.readers:
            reader.may_be_reset = True

    # --- the server

    @rule(rounds=st.integers(1, 30))
    def go_round(self, rounds: int) -> None:
        """Let the event loop do what it has to do, or a part of it."""
        self.runner.run(_rounds(rounds))

    @precondition(lambda self: self.restarts < _MOST_RESTARTS)
    @rule()
    def restart_server(self) -> None:
        """All connections end; what was sent may yet be read."""
        self.restarts += 1
        self.runner.run(self._restart())

    async def _restart(self) -> None:
        await self._stop()
        for reader in self.readers:
            if reader.is_connected and reader.bites % 2:
                while reader.take(reader.bites):
                    pass
            elif reader.is_connected:
                reader.disconnect()
        await self._start()

    # --- the readers

    @rule(
        number=st.integers(0, 3),
        http=st.sampled_from(["1.1", "1.1", "1.0"]),
        bites=st.sampled_from([1, 7, 100, 1000, 65536]),
        is_small=st.booleans(),
        is_settled=st.booleans(),
    )
    def come(self, number: int, http: str, bites: int, is_small: bool, is_settled: bool) -> None:
        """A new reader, by a connection of any kind."""
        self._come(number, http, bites, is_small=is_small)
        if is_settled:
            self.settle()

    def _come(
        self, number: int, http: str = "1.1", bites: int = 65536, *, is_small: bool = False
    ) -> None:
        if len(self.readers) > _MOST_READERS:
            return
        kind, wants_partial, tail = self.fashion[number % len(self.fashion)]
        asked = {
            "batch=1": kind == "batch",
            "partial=1": wants_partial,
            f"tail={tail}": tail is not None,
        }
        text = "&".join(name for name, is_asked in asked.items() if is_asked)
        query = "" if kind == "raw" else text
        self._add(Reader(self.model, kind, query, http=http, bites=bites), is_small=is_small)

    def _add(self, reader: Reader, *, is_small: bool = False) -> None:
        self.readers.append(reader)
        self._connect(reader, is_small=is_small)

    @precondition(lambda self: self.is_written)
    @rule(steps=_RUSH)
    def rush(self, steps: list[tuple[str, int, int]]) -> None:
        """Readers come, take a little and go, while more is written than can be sent at once."""
        self.settle()
        for step, number, count in steps:
            if step == "flood":
                self.append_flood(number * 6, count)
            elif step == "come":
                self._come(number, is_small=bool(count % 2))
            elif step == "rest":
                self._append(b"r" * count, 0.0)
            elif step == "round":
                self.go_round(number)
            elif self.readers:
                self.readers[number % len(self.readers)].take(count * 50)

    @precondition(lambda self: self.readers)
    @rule(
        number=st.integers(0, _MOST_READERS - 1), shift=st.integers(-9, 9), is_batch=st.booleans()
    )
    def come_after(self, number: int, shift: int, is_batch: bool) -> None:
        """One comes with the cursor of another; which may have been tampered with."""
        if len(self.readers) >= _MOST_READERS:
            return
        self.settle()
        donors = [reader for reader in self.readers if reader.last_id]
        donor = donors[number % len(donors)] if donors else None
        if donor is None or donor.is_void or donor.may_be_reset:
            return  # it may be of a log that is no more
        given = _CURSOR.fullmatch(donor.last_id)
        assert given, donor
        offset = self.model.place(given)
        at = max(0, offset + shift)
        cursor = f"{donor.last_id[:8]}-{at}{given[3] or ''}"
        kind = "batch" if is_batch else "events"
        query = ("batch=1&" if is_batch else "") + f"after={cursor}"
        reader = Reader(self.model, kind, query, http="1.1", bites=65536)
        reader.begin(at)
        ends = {0} | {line.end for line in self.model.naive.lines(ended=self.model.has_ended)}
        reader.is_void = at not in ends
        reader.may_be_reset = reader.is_void or self.model.marks_may_change
        reader.may_be_reset |= self.model.was_only_cut
        self.readers.append(reader)
        self._ask(reader)
        reader.query = query.partition("after")[0]  # who knows where it is when it comes back

    def _connect(self, reader: Reader, *, is_small: bool = False) -> None:
        """Have it ask, and begin to be answered; by its last id, or as it did at first."""
        tail = re.search("tail=([0-9]+)", reader.query)
        if not reader.last_id:
            if tail and (self.is_end_unheard or self.is_cut_unheard):
                self.settle()  # whether the last line counts is known to the server only then
            ended = self.model.has_ended
            reader.begin(self.model.naive.tail_start(int(tail[1]), ended=ended) if tail else 0)
        if reader.kind == "raw":
            reader.raw, reader.may_be_reset = b"", False
        reader.may_be_reset |= self.is_cut_unheard
        is_mark_sure = not (self.model.marks_may_change or self.model.was_only_cut)
        reader.may_be_reset |= not is_mark_sure and reader.kind != "raw"
        self._ask(reader, is_small=is_small)

    def _ask(self, reader: Reader, *, is_small: bool = False) -> None:
        self.runner.run(self._answer(reader, is_small=is_small))

    async def _answer(self, reader: Reader, *, is_small: bool) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        if is_small:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        self.server.handle_stream(IOStream(theirs), ("", 0))
        reader.connect(ours)

        def is_answered() -> bool:
            while not reader.status and reader.take(reader.bites):
                pass
            return bool(reader.status) or not reader.is_connected

        await _until(is_answered, lambda: f"no answer: {reader}")

    @precondition(lambda self: self.readers)
    @rule(number=st.integers(0, _MOST_READERS - 1), count=st.integers(1, 5000))
    def take(self, number: int, count: int) -> None:
        """One reader takes some bytes; the event loop stands still."""
        reader = self.readers[number % len(self.readers)]
        if reader.is_connected:
            reader.take(count)

    @precondition(lambda self: self.readers)
    @rule(number=st.integers(0, _MOST_READERS - 1), count=st.integers(0, 1500))
    def vanish(self, number: int, count: int) -> None:
        """One hangs up after so many bytes, which may end within an event."""
        reader = self.readers[number % len(self.readers)]
        if reader.is_connected and count:
            reader.take(count)
        if reader.is_connected:
            reader.disconnect()

    @precondition(lambda self: self.readers)
    @rule(number=st.integers(0, _MOST_READERS - 1), is_small=st.booleans())
    def come_back(self, number: int, is_small: bool) -> None:
        """One that was cut off comes back with the last id that it has, as a browser does."""
        reader = self.readers[number % len(self.readers)]
        if not reader.is_connected:
            self._connect(reader, is_small=is_small)

    # --- what must hold

    @rule()
    def settle(self) -> None:
        """Once nothing happens any more, all who read have all, and nobody has more."""
        self.runner.run(self._settle())

    async def _settle(self) -> None:
        await self._hear()
        reading = [reader for reader in self.readers if reader.is_connected]

        def have_all() -> bool:
            for reader in reading:
                while reader.take(max(reader.bites, 500)):
                    pass
            return all(self.model.has_all(reader) for reader in reading)

        await _until(have_all, lambda: f"{[r for r in reading if not self.model.has_all(r)]}")
        await _rounds(5)
        assert have_all(), [reader for reader in reading if not self.model.has_all(reader)]
        self.is_cut_unheard = self.is_end_unheard = False
        for reader in reading:
            reader.may_be_reset = reader.kind == "raw" and reader.may_be_reset
        assert not self.faults.said, self.faults.said

    async def _hear(self) -> None:
        """The server hears of all that was done; of what was done to the log before the bell."""
        await _until(self._is_heard, lambda: "the server to hear of the end")
        if self.is_cut_unheard:
            told: list[str] = []
            stop = self.services.deployments.listen(lambda name, _: told.append(name))
            bell = f"bell{next(_UNIQUE)}"
            path = os.path.join(self.data_dir, f"{bell}.log")
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
            await _until(lambda: bell in told, lambda: "the server to hear of a file")
            os.unlink(path)
            stop()

    def _is_heard(self) -> bool:
        record = self.services.deployments.get(_ID)
        if self.model.is_deleted:
            return record is None
        return record is not None and record.state.is_final == self.model.has_ended

    @precondition(lambda self: not self.model.is_deleted)
    @rule(number=st.integers(-40, 60).filter(bool), count=st.integers(1, 40))
    def read_window(self, number: int, count: int) -> None:
        """Any lines by their numbers."""
        if self.is_end_unheard or self.is_cut_unheard:
            self.settle()
        answer = self.runner.run(self._get(f"/logs/{_ID}/lines?from={number}&count={count}"))
        lines = self.model.naive.lines(ended=self.model.has_ended)
        first = max(0, len(lines) + number) if number < 0 else min(number - 1, len(lines))
        expected = lines[first : first + count]
        told = (answer, first, expected)
        assert answer["from"] == first + 1, told
        assert answer["total_lines"] == len(lines), told
        assert len(answer["lines"]) == len(expected), told
        for line, text in zip(expected, answer["lines"], strict=True):
            assert line.is_shown_as(text), (*told, line, text)
        end = lines[first + len(expected) - 1].end if first + len(expected) else 0
        cursor = _CURSOR.fullmatch(answer["cursor"])
        assert cursor, told
        assert self.model.place(cursor) == end, (*told, end)

    async def _get(self, path: str) -> Any:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.server.handle_stream(IOStream(theirs), ("", 0))
        answer = b""
        with ours:
            ours.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_SETTLE_SECONDS):
                while piece := await loop.sock_recv(ours, 1 << 20):
                    answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], answer
        return json.loads(body)

    @precondition(lambda self: not self.model.is_deleted)
    @rule(at=st.integers(0, 20_000), number=st.integers(0, 300), ended=st.booleans())
    def count_lines(self, at: int, number: int, ended: bool) -> None:
        """Numbers of lines and offsets, from the index and from the log alone."""
        aside = os.path.join(self.folder, "aside", f"{next(_UNIQUE)}.log")
        os.link(self.writer.log_path, aside)
        for path in (self.writer.log_path, aside):
            log, naive = LogFile(path), self.model.naive
            try:
                size = log.size()
                assert log.read(0, size) == naive.data
                end = at % (size + 1)
                assert log.count_lines(end) == naive.data.count(b"\n", 0, end)
                number = number % (len(naive.starts) + 2)
                start = naive.starts[number] if number < len(naive.starts) else None
                assert log.line_start(number) == start
                start = naive.tail_start(number, ended=ended)
                assert log.tail_start(number, size, ended=ended) == start
            finally:
                log.close()

    def teardown(self) -> None:
        """All come back, the log comes to its end, and all have had it all."""
        try:
            if sys.exc_info()[0] is None:
                self._end_well()
        finally:
            self.open.close()

    def _disconnect_all(self) -> None:
        for reader in self.readers:
            if reader.is_connected:
                reader.disconnect()

    def _end_well(self) -> None:
        self._come_back_all()
        if self.is_written:
            self._append(b"torn %d" % next(_UNIQUE), 0.0)
            self.settle()
            self._come(0)  # it gets to see the torn line too
            self.settle()
            self.runner.run(self._restart())
            self._come_back_all()
            self.finish()
        self.settle()
        if not self.model.is_deleted:
            self._add(Reader(self.model, "events", "tail=2", http="1.1", bites=65536))
        self._come_back_all()
        if not (self.writer.is_captured or self.model.is_deleted):
            self.go_on([(True, b"more", b"\n")])
            self._come_back_all()
            self.finish()
            self.settle()
        for reader in self.readers:
            assert self.model.has_all(reader), reader

    def _come_back_all(self) -> None:
        """Those who have ended too: they are told that there is nothing more."""
        for reader in self.readers:
            if not reader.is_connected:
                self._connect(reader)
        self.settle()


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Let the event loop go on until this is so."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_SETTLE_SECONDS:g} s for {what()}"
        await asyncio.sleep(0.0005)  # what it waits for comes by timers and by inotify


TestLog = LogMachine.TestCase
# What fails is told as it happened: to make it shorter would take hundreds of tries, each of which
# waits for what doesn't come.
TestLog.settings = settings(
    fuzz(examples=40, examples_a_minute=100),
    stateful_step_count=30,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


def test_an_unfinished_line_that_fits_into_no_block_is_shown_to_all_who_come() -> None:
    state = LogMachine()
    try:
        state.begin(False, [(True, b"first", b"\n")], [("events", True, None)], 15.0, 1)
        state.writer.append(b"x" * 1000, 0.0)
        state.model.data += b"x" * 1000
        state.settle()
        state.come(0, "1.1", 65536, False, True)
    finally:
        state.teardown()
