"""A strict Server-Sent Events client: the parser of WHATWG HTML 9.2.6, and streams to read with it.

    with open_stream(server.http, f"/logs/{id}") as stream:
        events = stream.read_to_end()

It does what the standard says and nothing more, so that a test sees what any browser would see.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

STREAM_SECONDS = 20.0
"""How long any stream may take to say what a test waits for."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event. `last_event_id` is the source's, whether or not this event set it."""

    type: str
    data: str
    last_event_id: str

    def json(self) -> dict[str, Any]:
        """The data as a JSON object."""
        return dict(json.loads(self.data))


@dataclass(slots=True)
class Parser:
    """WHATWG HTML 9.2.6, "Interpreting an event stream": bytes in, events out."""

    last_event_id: str = ""
    retry: int | None = None
    comments: list[str] = field(default_factory=list)
    own_ids: list[str | None] = field(default_factory=list)  # of each event: the id it set, if any
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _text: str = ""
    _began: bool = False
    _data: list[str] = field(default_factory=list)
    _type: str = ""
    _id: str = ""
    _own_id: str | None = None

    def __post_init__(self) -> None:
        self._id = self.last_event_id

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with `data`. What is never completed is never dispatched."""
        self._text += self._decoder.decode(data)
        if not self._began and self._text:
            self._began = True
            self._text = self._text.removeprefix("\ufeff")
        events: list[Event] = []
        for line in self._lines():
            if line:
                self._field(line)
            else:
                self._dispatch(events)
        return events

    def _lines(self) -> Iterator[str]:
        # A CR at the end may be the first half of a CRLF: it waits for what follows.
        held = "\r" if self._text.endswith("\r") else ""
        text = self._text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        self._text = rest + held
        yield from lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith(":"):
            self.comments.append(value)
        elif name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = self._own_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        self.last_event_id = self._id
        if self._data:
            data = "\n".join(self._data)
            events.append(Event(self._type or "message", data, self.last_event_id))
            self.own_ids.append(self._own_id)
        self._data, self._type, self._own_id = [], "", None


def parse(data: bytes) -> list[Event]:
    """The events of a whole stream."""
    return Parser().feed(data)


class Stream:
    """An open event stream: what it has said so far, and waiting for what it will say."""

    def __init__(self, response: httpx.Response, last_event_id: str = "") -> None:
        self.response = response
        self.parser = Parser(last_event_id)
        self.raw = bytearray()
        self.events: list[Event] = []
        self.closed = False  # by the server
        self._pieces = response.iter_raw()

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Read on until `condition()` is true, and return it."""
        deadline = time.monotonic() + STREAM_SECONDS
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited {STREAM_SECONDS:g} s for {what}"
            assert not self.closed, f"the stream was closed before {what}; it said {self._tail()}"
            self.read_piece()
        return value

    def read_piece(self) -> None:
        """Take what comes next."""
        try:
            piece = next(self._pieces)
        except StopIteration:
            self.closed = True
        else:
            self.raw += piece
            self.events += self.parser.feed(piece)

    def wait_for_lines(self, count: int) -> list[str]:
        """Read on until there are as many lines, and return all."""
        self.wait(lambda: len(self.lines) >= count, f"{count} lines")
        return self.lines

    def wait_for_event(self, event_type: str, number: int = 1) -> Event:
        """Read on until the event of this type and number (from 1) has come, and return it."""
        found = self.wait(
            lambda: self.of_type(event_type)[number - 1 : number], f"event: {event_type}"
        )
        return Event(found[0].type, found[0].data, found[0].last_event_id)

    def read_to_end(self) -> list[Event]:
        """Read on until the server closes, which it does after `event: end`; all events."""
        self.wait(lambda: self.closed, "the end of the stream")
        assert [event.type for event in self.events].count("end") == 1, self._tail()
        assert self.events[-1].type == "end", self._tail()
        return self.events

    @property
    def lines(self) -> list[str]:
        """The lines of the log so far."""
        return lines_of(self.events)

    def of_type(self, event_type: str) -> list[Event]:
        """The events of one type so far."""
        return [event for event in self.events if event.type == event_type]

    def _tail(self) -> str:
        return repr(bytes(self.raw[-300:]))


@contextlib.contextmanager
def open_stream(
    http: httpx.Client,
    path: str,
    *,
    last_event_id: str = "",
    method: str = "GET",
    **request: Any,
) -> Iterator[Stream]:
    """Open an event stream, as after a lost connection where `last_event_id` is given."""
    headers: dict[str, str] = {"Accept": "text/event-stream", **request.pop("headers", {})}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    with http.stream(method, path, headers=headers, **request) as response:
        if response.status_code != 200:
            response.read()
        assert response.status_code == 200, (response.status_code, response.text)
        yield Stream(response, last_event_id)


def read_events(
    http: httpx.Client, path: str, *, last_event_id: str = "", **request: Any
) -> list[Event]:
    """All events of a log to its end."""
    with open_stream(http, path, last_event_id=last_event_id, **request) as stream:
        return stream.read_to_end()


def read_cut(
    http: httpx.Client, path: str, cut_after_bytes: int, *, last_event_id: str = ""
) -> tuple[list[Event], str]:
    """The events in the first bytes of a stream, and the last event id that they leave behind."""
    with open_stream(http, path, last_event_id=last_event_id) as stream:
        while len(stream.raw) < cut_after_bytes and not stream.closed:
            stream.read_piece()
        parser = Parser(last_event_id)
        return parser.feed(bytes(stream.raw[:cut_after_bytes])), parser.last_event_id


def lines_of(events: list[Event]) -> list[str]:
    """The lines that message events carry, of one line each or of many."""
    return [line for event in events if event.type == "message" for line in event.data.split("\n")]


def unchunked(data: bytes) -> bytes:
    """The content of an HTTP/1.1 chunked body (RFC 9112, 7.1), which may be cut off anywhere."""
    pieces, start = [], 0
    while (head_end := data.find(b"\r\n", start) + 2) >= 2:
        end = head_end + int(data[start : head_end - 2], 16)
        pieces.append(data[head_end:end])
        assert b"\r\n".startswith(data[end : end + 2]), "a chunk that is longer than it said"
        start = end + 2
    return b"".join(pieces)
