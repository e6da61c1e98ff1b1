"""The contract of `tornado_logs.source.LogSource`, run against every source that is registered."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from source_control import PipeControl, defaults

from tornado_logs import processes
from tornado_logs.source import Command, Ending, Environment, LogSource, Option, Texts

STOP_SECONDS = 3.0
"""How soon a source has to be at its end once a stop was asked for."""

Settings = dict[str, Any]

ENDING: dict[str, Callable[[Path], Settings]] = {
    "file_tail": lambda folder: {"path": _three_lines(folder)},
    "mock": lambda _: {"lines": 3, "interval_seconds": 0.0},
    "subprocess": lambda _: {"command": "printf 'a\\nb\\n'"},
}
"""Settings with which a source prints something and ends soon, some only when they are stopped."""

LASTING: dict[str, Callable[[Path], Settings]] = {
    "file_tail": lambda folder: {"path": _three_lines(folder), "poll_seconds": 3600.0},
    "mock": lambda _: {"lines": 0, "interval_seconds": 3600.0},
    "subprocess": lambda _: {"command": "echo a; sleep 3600"},
}
"""Settings with which it prints something at once, and then nothing for an hour."""

TYPES: dict[type, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    Command: (str, list),
    Environment: (dict,),
    Texts: (list,),
}


def _three_lines(folder: Path) -> str:
    path = folder / "app.log"
    path.write_bytes(b"1\n2\n3\n")
    return str(path)


def _registered() -> dict[str, type[LogSource]]:
    found = entry_points(group="tornado_logs.sources")
    return {entry.name: entry.load() for entry in found}


SOURCES = _registered()
each_source = pytest.mark.parametrize("name", sorted(SOURCES))
each_option = pytest.mark.parametrize(
    ("name", "option"),
    [
        pytest.param(name, option, id=f"{name}-{option.name}")
        for name, source in sorted(SOURCES.items())
        for option in source.options
    ],
)


def make(name: str, settings: Settings) -> LogSource:
    return SOURCES[name](defaults(SOURCES[name], **settings))


def held() -> tuple[list[str], list[processes.Process]]:
    """What this process has open and what runs below it."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    return sorted(os.listdir(folder)), processes.descendants(os.getpid())


def rest_of(run: Generator[bytes, None, Ending]) -> tuple[list[object], object]:
    """All that a run still yields, and what it returns."""
    pieces: list[object] = []
    while True:
        try:
            pieces.append(next(run))
        except StopIteration as end:
            return pieces, end.value


def test_every_registered_source_is_under_this_contract() -> None:
    assert set(ENDING) == set(LASTING) == set(SOURCES)


@each_source
def test_the_source_says_in_a_docstring_what_it_is(name: str) -> None:
    source = SOURCES[name]
    assert issubclass(source, LogSource)
    assert not inspect.isabstract(source)
    assert source.__doc__ != LogSource.__doc__
    assert inspect.cleandoc(source.__doc__ or "")


@each_option
def test_the_option_has_a_name_a_help_and_a_default_of_its_type(name: str, option: Option) -> None:
    names = [other.name for other in SOURCES[name].options]
    assert option.name.isidentifier()
    assert option.name == option.name.lower()
    assert names.count(option.name) == 1
    assert option.help
    assert option.help == option.help.strip()
    assert "\n" not in option.help
    default: Any = option.default
    if default is not None:
        assert not option.required
        assert option.minimum is None or default >= option.minimum
        assert (type(default) is bool) == (option.type is bool)
        assert isinstance(default, TYPES[option.type])


@each_source
def test_it_yields_bytes_alone_and_returns_an_ending(name: str, tmp_path: Path) -> None:
    before = held()
    with PipeControl() as control:
        timer = threading.Timer(0.5, control.stop)
        timer.start()
        pieces, ending = rest_of(make(name, ENDING[name](tmp_path)).run(control))
        timer.cancel()
        timer.join()
    assert pieces
    assert all(type(piece) is bytes and piece for piece in pieces)
    assert isinstance(ending, Ending)
    assert ending.exit_status is None or 0 <= ending.exit_status <= 255
    assert "\n" not in ending.note
    assert held() == before


@each_source
def test_it_ends_soon_once_it_is_to_stop(name: str, tmp_path: Path) -> None:
    before = held()
    asked: list[float] = []
    with PipeControl() as control:

        def stop() -> None:
            asked.append(time.monotonic())
            control.stop()

        run = make(name, LASTING[name](tmp_path)).run(control)
        assert next(run)
        timer = threading.Timer(0.2, stop)
        timer.start()
        ending = rest_of(run)[1]
        took = time.monotonic() - asked[0]
        timer.join()
    assert isinstance(ending, Ending)
    assert took < STOP_SECONDS
    assert held() == before


@each_source
def test_it_ends_soon_if_it_was_to_stop_before_it_began(name: str, tmp_path: Path) -> None:
    before = held()
    with PipeControl() as control:
        control.stop()
        began = time.monotonic()
        _, ending = rest_of(make(name, LASTING[name](tmp_path)).run(control))
    assert isinstance(ending, Ending)
    assert time.monotonic() - began < STOP_SECONDS
    assert held() == before


@each_source
def test_closed_in_the_middle_it_leaves_nothing_open_and_nothing_running(
    name: str, tmp_path: Path
) -> None:
    before = held()
    with PipeControl() as control:
        run = make(name, LASTING[name](tmp_path)).run(control)
        assert next(run)
        assert held() != before or name == "mock"
        run.close()
    assert held() == before


@each_source
def test_closed_before_it_began_it_leaves_nothing(name: str, tmp_path: Path) -> None:
    before = held()
    with PipeControl() as control:
        make(name, LASTING[name](tmp_path)).run(control).close()
    assert held() == before


@each_source
def test_the_constructor_opens_and_starts_nothing(name: str, tmp_path: Path) -> None:
    settings = LASTING[name](tmp_path)
    before = held()
    threads = threading.active_count()
    source = make(name, settings)
    source.title()
    assert held() == before
    assert threading.active_count() == threads


@each_source
def test_the_title_is_one_line(name: str, tmp_path: Path) -> None:
    title = make(name, ENDING[name](tmp_path)).title()
    assert title
    assert title.isprintable()


@each_source
def test_expand_gives_changes_to_its_own_options(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    settings = defaults(source, **ENDING[name](tmp_path))
    changes = source.expand(settings)
    names = {option.name for option in source.options}
    assert isinstance(changes, list)
    assert changes
    for change in changes:
        assert isinstance(change, dict)
        assert set(change) <= names
        source(settings | change)
        later = source.discovered(change)
        assert set(change) <= set(later) <= names
        source(settings | later)


@each_source
def test_expand_and_discovered_leave_what_they_are_given_alone(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    settings = defaults(source, **ENDING[name](tmp_path))
    given = dict(settings)
    for change in source.expand(settings):
        copy = dict(change)
        source.discovered(change)
        assert change == copy
    assert settings == given
