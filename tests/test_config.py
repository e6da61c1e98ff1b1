"""Settings: where they come from, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tornado_logs.config import (
    SETTINGS,
    Config,
    ConfigError,
    check_settings,
    check_value,
    parse_text,
    read_config,
)
from tornado_logs.source import Command, Environment, Option


def read(tmp_path: Path, text: str, **flags: Any) -> Config:
    path = tmp_path / "conf.toml"
    path.write_text(text)
    return read_config(str(path), {}, flags)


def test_without_a_file_there_are_defaults_and_three_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_config(None, {}, {})
    assert (config.host, config.port, config.data_dir) == ("localhost", 5000, "data")
    assert list(config.sources) == ["shell", "demo", "tail"]


def test_the_file_of_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tornado_logs.toml").write_text("port = 1234")
    monkeypatch.chdir(tmp_path)
    assert read_config(None, {}, {}).port == 1234


def test_a_flag_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    path = tmp_path / "conf.toml"
    path.write_text("port = 1\nping_seconds = 2\nretry_ms = 3")
    environ = {"TORNADO_LOGS_PORT": "4", "TORNADO_LOGS_PING_SECONDS": "5"}
    config = read_config(str(path), environ, {"port": 6, "host": None})
    assert (config.port, config.ping_seconds, config.retry_ms) == (6, 5.0, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1", "unknown setting 'prot'; did you mean 'port'?"),
        ("port = 'x'", "port: expected a whole number, found 'x'"),
        ("port = true", "port: expected a whole number, found True"),
        ("port = -1", "port: expected 0 or more, found -1"),
        ("port =", "is not valid TOML"),
        ("port = " + "9" * 5000, "cannot read the config file"),
        ("port = " + "[" * 5000, "nested too deeply"),
        ("data_dir = 3", "data_dir: expected text, found 3"),
        ("sources = 3", "expected sections [sources.NAME]"),
        ("[sources]\nshell = 3", "expected a section [sources.shell], found 3"),
        ("[sources.shell]\ntty = true", "sources.shell: type is missing"),
        ("[sources.shell]\ntype = 3", "sources.shell: type: expected text, found 3"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert sentence in str(caught.value)
    assert str(tmp_path / "conf.toml") in str(caught.value)


def test_a_wrong_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="TORNADO_LOGS_PORT: expected a whole number, found 'x'"):
        read_config(None, {"TORNADO_LOGS_PORT": "x"}, {})


def test_a_file_that_is_not_there_is_an_error_only_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the config file"):
        read_config(str(tmp_path / "none.toml"), {}, {})


OPTIONS = (
    Option("command", Command, None, "what to run", required=True),
    Option("env", Environment, None, "variables"),
    Option("seconds", float, None, "how long", minimum=0),
    Option("tty", bool, True, "whether"),
)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"command": ""}, "command"),
        ({"command": "   "}, "command"),
        ({"command": []}, "command"),
        ({"command": ["ls", 3]}, "command"),
        ({"command": [""]}, "command"),
        ({"command": "a\0b"}, "command"),
        ({"command": "x", "env": {"A": 1}}, "env"),
        ({"command": "x", "env": {"A=B": "1"}}, "env"),
        ({"command": "x", "env": {"": "1"}}, "env"),
        ({"command": "x", "env": []}, "env"),
        ({"command": "x", "seconds": "1"}, "seconds"),
        ({"command": "x", "seconds": float("nan")}, "seconds"),
        ({"command": "x", "tty": 1}, "tty"),
        ({"tty": True}, "command is missing"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"here: {wrong}"):
        check_settings(OPTIONS, given, "here")


def test_values_of_the_right_kind_are_taken_and_the_rest_is_default() -> None:
    given = {"command": ["ls", ""], "env": {"A": ""}, "seconds": 1}
    assert check_settings(OPTIONS, given, "here") == {
        "command": ["ls", ""],
        "env": {"A": ""},
        "seconds": 1.0,
        "tty": True,
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tty", "false", False),
        ("tty", "on", True),
        ("seconds", "1.5", 1.5),
        ("env", "A=1\nB=x=y\n", {"A": "1", "B": "x=y"}),
        ("command", "make", "make"),
    ],
)
def test_texts_of_a_form_become_values(name: str, text: str, value: object) -> None:
    option = next(option for option in OPTIONS if option.name == name)
    assert parse_text(option, text, "here") == value


def test_every_setting_has_a_sentence_and_a_default_of_its_own_type() -> None:
    for option in SETTINGS:
        assert option.help.endswith(".")
        assert option.default is None or check_value(option, option.default, "") == option.default
        assert getattr(Config(), option.name) == option.default
