"""Source types: found by entry points, and refused by name when they can't be."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from tornado_logs.registry import GROUP, Registry, RegistryError


def entry_point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def test_the_built_in_sources_are_plugins_like_any_other() -> None:
    registry = Registry()
    assert {"subprocess", "file_tail", "mock"} <= set(registry.types())
    assert registry.source_class("mock").__name__ == "MockSource"


def test_two_plugins_with_one_name_are_an_error_that_names_both() -> None:
    with pytest.raises(RegistryError, match=r"'x': one:A .* and two:B .*; uninstall one"):
        Registry([entry_point("x", "one:A"), entry_point("x", "two:B")])


def test_a_plugin_that_is_found_twice_is_one() -> None:
    twice = [entry_point("x", "one:A"), entry_point("x", "one:A")]
    assert Registry(twice).types() == ["x"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("no_such_module:A", "can't be loaded from no_such_module:A"),
        ("os:no_such_name", "can't be loaded"),
        ("os:getcwd", "is no LogSource"),
        ("pathlib:Path", "is no LogSource"),
    ],
)
def test_a_broken_plugin_is_named(value: str, sentence: str) -> None:
    with pytest.raises(RegistryError, match=sentence):
        Registry([entry_point("x", value)]).source_class("x")


def test_an_unknown_type_is_answered_with_those_there_are() -> None:
    with pytest.raises(RegistryError, match="no source type 'y' is installed; there are: x"):
        Registry([entry_point("x", "os:getcwd")]).source_class("y")
