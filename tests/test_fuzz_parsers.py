"""Whatever is put before a parser, it says what it found or raises the error that it declares.

Those that a server's whole answer depends on are in `test_fuzz.py`; some seconds in `make test`,
`make fuzz` goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from test_query import grep

from tornado_logs.app import Services
from tornado_logs.audit import Audit
from tornado_logs.capture import take_stop_request
from tornado_logs.config import (
    SETTINGS,
    ConfigError,
    check_value,
    parse_text,
    read_config,
)
from tornado_logs.deployment import Record, State, read_record, summary, write_record
from tornado_logs.handlers.base import preferred_type
from tornado_logs.journal import LogFile
from tornado_logs.log_index import NoTimesError
from tornado_logs.query import QueryError, compile_query
from tornado_logs.redraw import redraw
from tornado_logs.registry import RegistryError
from tornado_logs.source import Command, Environment, Option, Texts
from tornado_logs.sse import CELL_BYTES, Cursor, parse_cursor, visible_line
from tornado_logs.store import Deployments
from tornado_logs.style import last_reset, style_after
from tornado_logs.window import Wanted, last_line, read_window

quick = fuzz(60, 300)
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
        st.sampled_from(["running", "x", "2026-11-22T10:00:00.000Z", -(2**70), "\0", "\ud800"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a test."""
    return tmp_path_factory.mktemp("fuzz")


# --- cursors and Accept headers


@quick
@given(
    st.one_of(
        st.text(max_size=30),
        st.from_regex(
            r"[0-9a-fA-F]{7,9}-+[0-9٣]{0,20}([:.][0-9٣]{0,10})?(-end)?\s?", fullmatch=True
        ),
    )
)
def test_a_text_is_a_cursor_or_none_is(text: str) -> None:
    cursor = parse_cursor(text)
    if cursor is not None:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9]+(:[1-9][0-9]*)?(-end)?", text)
        assert parse_cursor(str(cursor)) == cursor


@quick
@given(
    st.from_regex("[0-9a-f]{8}", fullmatch=True),
    st.integers(0, 10**13 - 1),
    st.integers(0, 65536),
    st.booleans(),
)
def test_any_cursor_reads_back(mark: str, cell: int, lines: int, ended: bool) -> None:
    for cursor in (Cursor(mark, cell, 0, ended), Cursor(mark, cell * CELL_BYTES, lines, ended)):
        assert parse_cursor(str(cursor)) == cursor


@quick
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(["*/*", "text/*", "text/html", "q=0", "q=nan", "q=1e999", "a;q="]),
        ),
        max_size=6,
    ),
    st.sampled_from([",", ";", ", "]),
)
def test_any_wish_ends_in_what_is_offered(parts: list[str], between: str) -> None:
    assert preferred_type(between.join(parts), ("text/html", "a/b")) in ("text/html", "a/b")


# --- records


@st.composite
def spoilt_records(draw: st.DrawFn) -> Any:
    """The JSON of a record in which some values are of any kind."""
    data = asdict(Record("x", state=draw(st.sampled_from(list(State))), request={}))
    for name in draw(st.lists(st.sampled_from([*data, "unknown"]), max_size=4)):
        data[name] = draw(JSON)
    return data


@quick
@given(st.one_of(JSON, spoilt_records(), spoilt_records()))
def test_json_is_a_record_that_can_be_told_or_none(data: Any) -> None:
    try:
        record = Record.from_json(data)
    except ValueError:
        return
    told = summary(record, 0, 0)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    json.dumps(dict(told))


@quick
@given(
    st.one_of(
        st.binary(max_size=200),
        spoilt_records().map(lambda data: json.dumps(data).encode()),
        st.sampled_from([DEEP.encode(), b"\xff", b"", b'{"id": "x"}' * 2, b'{"id":' * 100_000]),
    ),
    st.integers(0, 300),
)
def test_a_file_is_a_record_or_a_value_error(folder: Path, data: bytes, cut: int) -> None:
    path = str(folder / "x.json")
    for written in (data, data[:cut]):
        (folder / "x.json").write_bytes(written)
        with contextlib.suppress(ValueError):
            record = read_record(path)
            write_record(path, record)
            assert read_record(path) == record


@quick
@given(st.one_of(st.binary(max_size=50), JSON.map(lambda data: json.dumps(data).encode())))
def test_a_stop_request_is_somebodys_or_nobodys(folder: Path, data: bytes) -> None:
    for written in (data, DEEP.encode()):
        (folder / "x.stop").write_bytes(written)
        request = take_stop_request(str(folder / "x.stop"))
        assert request is None or isinstance(request, dict)


@quick
@given(
    st.lists(st.one_of(st.binary(max_size=30), JSON.map(lambda data: json.dumps(data).encode())))
)
def test_the_audit_tells_of_entries_alone(folder: Path, lines: list[bytes]) -> None:
    path = folder / "audit.jsonl"
    whole = b'{"time": "2026-11-22T10:00:00.000Z", "action": "start"}'
    path.write_bytes(b"\n".join([DEEP.encode(), *lines, b"", whole]))
    found = Audit(str(path)).last(100)
    assert found[0] == json.loads(whole)
    assert all(isinstance(entry, dict) for entry in found)


# --- an index of anything

_LOG = b"".join(b"line %d\n" % number for number in range(50)) + b"rest"
_NUMBERS = st.one_of(
    st.integers(0, len(_LOG) + 10), st.sampled_from([0, 2**63, 2**64 - 1, 10**15, 50])
)
_ENTRIES = st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS), max_size=12).map(
    lambda entries: b"".join(struct.pack("<QQQ", *entry) for entry in entries)
)


@quick
@given(
    st.one_of(st.sampled_from([b"TLOGIDX1a1b2c3d4", b"TLOGIDX1a1b2c3dX", b""]), st.binary()),
    st.binary(max_size=9),
    st.one_of(_ENTRIES, st.binary(max_size=100)),
    st.integers(-60, 60).filter(bool),
    st.one_of(st.none(), st.integers(0, 2**63)),
)
def test_an_index_of_anything_breaks_nothing(
    folder: Path, head: bytes, made_at: bytes, entries: bytes, first: int, time_us: int | None
) -> None:
    (folder / "i.log").write_bytes(_LOG)
    (folder / "i.idx").write_bytes(head + made_at + entries)
    log = LogFile(str(folder / "i.log"))
    try:
        log.mark()
        for number in (0, 1, 49, 50, 51, 60):
            start = log.line_start(number)
            assert start is None or 0 <= start <= len(_LOG)
            assert 0 <= log.tail_start(number, len(_LOG), ended=True) <= len(_LOG)
            assert log.count_lines(number) >= 0
        wanted = Wanted(first, 20, time_us, times=True)
        with contextlib.suppress(NoTimesError):
            window = read_window(log, wanted, ended=True, max_line_bytes=100)
            assert len(window["times"]) == len(window["lines"])
            json.dumps(window)
    finally:
        log.close()


@quick
@given(st.binary(max_size=300))
def test_the_last_line_is_short_text_on_one_line(folder: Path, data: bytes) -> None:
    (folder / "l.log").write_bytes(data)
    line = last_line(str(folder / "l.log"))
    assert len(line) <= 200
    assert not re.search("[\x00-\x1f\x7f-\x9f]", line)


# --- config

_WORDS = st.sampled_from(
    [
        *("port", "host", "sources", "commands", "users", "secrets", "workers", "ping_seconds"),
        *("type", "command", "path", "parameters", "choices", "default", "required", "env", "tty"),
        *("minimum", "maximum", "pattern", "start_role", "autostart", "source", "help", "file"),
        *("trusted_proxies", "user_header", "allowed_origins", "hosts", "data_dir", "x", "a b"),
        *(option.name for option in SETTINGS),
    ]
)
_TOML_VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), _WORDS,
        st.sampled_from(["subprocess", "mock", "file_tail", "{x}", "{", "(", "10.0.0.0/33", "*"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(_WORDS, st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=10,
)  # fmt: skip
_SECTIONS = st.dictionaries(
    st.one_of(_WORDS, _WORDS, st.text(max_size=5)), _TOML_VALUES, max_size=4
)


def toml_of(value: Any) -> str:
    """`value` in TOML; inline, which is right everywhere."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_of(k)} = {toml_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, str):
        # Without surrogates: what is no TOML is tried elsewhere.
        text = json.dumps(value.encode(errors="replace").decode(), ensure_ascii=False)
        return text.replace("\x7f", "\\u007f")
    return (
        json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
        if not hasattr(value, "isoformat")
        else value.isoformat()
    )


@quick
@given(_SECTIONS)
def test_any_config_is_read_or_refused_in_a_sentence(folder: Path, sections: Any) -> None:
    text = "".join(f"{toml_of(name)} = {toml_of(value)}\n" for name, value in sections.items())
    tomllib.loads(text)
    path = folder / "tornado_logs.toml"
    path.write_text(text)
    with may_be_refused():
        Services(read_config(str(path), {}, {}))


@contextlib.contextmanager
def may_be_refused() -> Iterator[None]:
    """By an error that says something."""
    said = ""
    try:
        yield
    except (ConfigError, RegistryError) as error:
        said = str(error)
    assert not said or len(said) > 10, said


@quick
@given(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(
            [
                "port = " + "9" * 5000,
                "port = 0x" + "f" * 5000,
                "a = " + DEEP,
                "a" + ".a" * 5000 + " = 1",
                "a = 9999-99-99",
                "[a]\n[a]",
                "port = 1e999",
                "\ufeffport = 1",
            ]
        ),
    )
)
def test_any_text_is_a_config_or_refused_in_a_sentence(folder: Path, text: str) -> None:
    path = folder / "tornado_logs.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with may_be_refused():
        read_config(str(path), {}, {})


_TYPES = st.sampled_from([str, int, float, bool, Command, Environment, Texts])


@quick
@given(
    _TYPES,
    st.one_of(st.text(max_size=20), st.sampled_from(["1" * 5000, "٣", "1_0", " 1", "nan", "1e9"])),
    JSON,
)
def test_any_text_of_a_form_is_a_value_of_its_type_or_refused(
    kind: type, text: str, value: Any
) -> None:
    option = Option("x", kind, None, "What it is.", minimum=0 if kind in (int, float) else None)
    with may_be_refused():
        checked = check_value(option, parse_text(option, text, "here"), "here")
        assert check_value(option, checked, "here") == checked
    with may_be_refused():
        check_value(option, value, "here")
    variable = {f"TORNADO_LOGS_{SETTINGS[len(text) % len(SETTINGS)].name.upper()}": text}
    with may_be_refused():
        read_config(None, variable, {})


# --- searches

_PIECES = st.sampled_from(
    [
        *("a", "é", "😀", ".", "*", "+", "?", "{2}", "{1,3}", "{", "}", "(", ")", "[", "]", "^"),
        *("$", "|", "\\", "\\d", "\\b", "\\W", "\\x41", "[a-z]", "[^a]", "[[:alpha:]]", "[]", "-"),
        *("\x1b", "\r", " ", "(?:", "(?i)", "\\1", "[é-ü]", "[^\\s]", "\\u00e9", "{,3}", "a{0}"),
    ]
)


@fuzz(30, 100)
@given(
    st.one_of(st.lists(_PIECES, min_size=1, max_size=8).map("".join), st.text(max_size=8)),
    st.booleans(),
    st.booleans(),
)
def test_any_query_is_a_pattern_that_grep_takes_or_refused(
    text: str, regex: bool, case: bool
) -> None:
    try:
        query = compile_query(text, regex=regex, case=case)
    except QueryError:
        return
    for pattern in (query.exact, query.loose):
        grep(pattern, b"a line\nA \x1b[31mred\x1b[0m one\n\xff\n")
    if not regex:
        # What it is to find, and no more: the text itself, in a line without escape sequences.
        lines = [line for line in (f"x{text}y", "other") if "\x1b" not in line and "\r" not in line]
        found = grep(query.loose, "".join(f"{line}\n" for line in lines).encode(errors="replace"))
        if lines[0] != "other" and "\udcff" not in text:
            assert 1 in found


# --- escape sequences

_SEQUENCES = st.one_of(
    st.builds(
        "\x1b[{}{}{}".format,
        st.text("0123456789;:?<=>", max_size=8),
        st.text(" !\"#$%&'()*+,-./", max_size=1),
        st.characters(min_codepoint=0x40, max_codepoint=0x7E),
    ),
    st.builds("\x1b]{};{}{}".format, st.integers(0, 60), st.text(max_size=6),
              st.sampled_from(["\x07", "\x1b\\", ""])),
    st.builds("\x1b{}{}{}".format, st.sampled_from("PX^_"), st.text(max_size=6),
              st.sampled_from(["\x1b\\", ""])),
    st.builds("\x1b{}{}".format, st.text(" !\"#$%&'()*+,-./", max_size=2), st.characters()),
    st.sampled_from(["\r", "\r", "\b", "\t", "\x1b", "\x9b31m", "\x00", "\x7f", "\x1b[", "\x1bc"]),
    st.text(max_size=8),
).map(lambda text: text.replace("\n", ""))  # fmt: skip
_ESCAPED = st.lists(_SEQUENCES, max_size=14).map("".join)


@quick
@given(_ESCAPED, st.integers(1, 60))
def test_any_sequences_leave_a_line_without_redraws(text: str, most: int) -> None:
    data = text.encode(errors="surrogatepass")
    line = visible_line(data, most).decode()
    assert "\r" not in line
    assert "\n" not in line
    drawn = redraw(text)
    assert "\r" not in drawn
    assert redraw("\r" + drawn).count("\r") == 0


@quick
@given(st.lists(_SEQUENCES.map(lambda text: text.encode(errors="replace")), max_size=8))
def test_any_sequences_leave_a_style_that_says_itself(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    style = style_after(data)
    assert style_after(style.encode()) == style
    reset = last_reset(data)
    assert reset == -1 or style_after(data[reset:]) == style


# --- the folder


@quick
@given(st.text(max_size=20))
def test_any_name_has_a_path_in_the_folder_or_none(folder: Path, name: str) -> None:
    deployments = Deployments(str(folder), SimpleNamespace())  # type: ignore[arg-type]
    if deployments.get(name) is not None:
        assert os.path.dirname(deployments.log_path(name)) == str(folder)
