"""Presets: what a request may give reaches the program as data, and what is refused is named."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_logs.catalog import Catalog, RequestError
from tornado_logs.config import ConfigError, read_config
from tornado_logs.parameters import MAX_FILES, ParameterError, read_parameter
from tornado_logs.registry import Registry

PRINT_ARGUMENTS = (
    "import json, os, sys; "
    "print(json.dumps([[os.fsencode(a).hex() for a in sys.argv[1:]], os.environ.get('PRESET')]))"
)
CONFIG = f"""
[sources.shell]
type = "subprocess"
tty = false

[sources.closed]
type = "subprocess"
start_role = "nobody"
env = {{ FROM_SOURCE = "source", PRESET = "source" }}
stop_grace_seconds = 3.0

[commands.show]
help = "Prints what it is given"
command = ["{sys.executable}", "-c", '''{PRINT_ARGUMENTS}''',
    "{{text}}", "{{environment}}", "--count={{count}}", "{{share}}", "{{verbose}}",
    "--", "{{rest}}"]
tty = false
env = {{ PRESET = "<{{rest}}>" }}
[commands.show.parameters.text]
type = "text"
required = false
[commands.show.parameters.environment]
type = "choice"
choices = ["staging", "prod", "a b; $(c) `d` 'e' \\"f\\""]
default = "staging"
help = "Where to"
[commands.show.parameters.count]
type = "number"
minimum = -5
maximum = 10
required = false
[commands.show.parameters.share]
type = "number"
whole = false
required = false
[commands.show.parameters.verbose]
type = "flag"
value = "--be verbose"
[commands.show.parameters.rest]
type = "text"
required = false

[commands.version]
source = "closed"
command = ["sh", "-c", 'echo "$1 $FROM_SOURCE $PRESET"', "sh", "{{version}}"]
[commands.version.parameters.version]
type = "text"
pattern = "v[0-9.]+"

[commands.restore]
source = "closed"
command = ["cat", "dumps/{{dump}}"]
timeout_seconds = 600
[commands.restore.parameters.dump]
type = "file"
folder = "dumps"

[commands.never]
command = ["true"]
start_role = "nobody"
"""


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with presets for all tests of this module."""
    folder = tmp_path_factory.mktemp("presets")
    dumps = folder / "dumps"
    (dumps / "old").mkdir(parents=True)
    (dumps / ".git").mkdir()
    (dumps / "new.sql").write_text("new\n")
    (dumps / "old" / "ä b.sql").write_text("old\n")
    (dumps / ".git" / "config").write_text("hidden\n")
    (dumps / ".hidden").write_text("hidden\n")
    (dumps / "-rf").write_text("a name as an option\n")
    (folder / "secret").write_text("secret\n")
    (folder / "dumps-of-another").mkdir()
    (folder / "dumps-of-another" / "x").write_text("another\n")
    (dumps / "linked").symlink_to(dumps / "new.sql")
    (dumps / "escape").symlink_to(folder / "secret")
    (dumps / "to-hidden").symlink_to(dumps / ".hidden")
    (dumps / "up").symlink_to(folder)
    (dumps / "loop").symlink_to(dumps / "loop")
    os.mkfifo(dumps / "pipe")
    server = Server(folder, CONFIG)
    server.start()
    yield server
    server.close()


def start(server: Server, preset: str, **parameters: Any) -> httpx.Response:
    """The answer to a request that starts a preset."""
    return server.http.post("/deployments", json={"preset": preset, "parameters": parameters})


def refusal(answer: httpx.Response) -> str:
    """The sentence of a 400."""
    assert answer.status_code == 400, answer.text
    sentence = str(answer.json()["error"])
    assert re.match(r"\S+ \S+ \S+", sentence), sentence
    return sentence


def shown(server: Server, answer: httpx.Response) -> tuple[list[str], str | None]:
    """What the program of `show` was given: its arguments, and its variable."""
    assert answer.status_code == 201, answer.text
    deployment_id = answer.json()["id"]
    assert server.wait_for_end(deployment_id)["state"] == "succeeded", server.log(deployment_id)
    arguments, variable = json.loads(server.log(deployment_id))
    return [bytes.fromhex(argument).decode() for argument in arguments], variable


# --- What arrives


def test_parameters_arrive_as_arguments_and_what_has_no_value_is_left_out(presets: Server) -> None:
    assert shown(presets, start(presets, "show")) == (["staging", "--"], None)
    answer = start(
        presets, "show", text="a", environment="prod", count=3, share=0.5, verbose=True, rest="-r"
    )
    expected = ["a", "prod", "--count=3", "0.5", "--be verbose", "--", "-r"]
    assert shown(presets, answer) == (expected, "<-r>")


ATTACKS = [
    "; rm -rf /",
    "$(touch pwned)",
    "`touch pwned`",
    "a && touch pwned",
    "a | touch pwned",
    "> pwned",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "\\",
    "\\'",
    "${IFS}",
    "*",
    "~",
    "a  b   c ",
    " ",
    "%s%n",
    "{environment}",
    "{{}}",
    "ü ✓ 😀 e\u0301",
    "–rf",  # noqa: RUF001  a dash, but none that begins an option
    "!history",
    "#comment",
    "a=b",
    "x" * 200,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda text: text[:12])
def test_what_a_shell_would_run_arrives_as_one_argument(presets: Server, attack: str) -> None:
    arguments, variable = shown(presets, start(presets, "show", text=attack, rest=attack))
    assert arguments == [attack, "staging", "--", attack]
    assert variable == f"<{attack}>"
    assert not (presets.folder / "pwned").exists()


def test_a_choice_may_say_anything_for_the_config_says_it(presets: Server) -> None:
    choice = "a b; $(c) `d` 'e' \"f\""
    assert shown(presets, start(presets, "show", environment=choice))[0] == [choice, "--"]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=210),
    rest=st.text(max_size=210),
    count=st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5)),
    share=st.one_of(st.none(), st.floats(), st.integers()),
    verbose=st.one_of(st.none(), st.booleans(), st.just("on")),
)
def test_any_value_is_refused_or_arrives_byte_for_byte_as_one_argument(
    presets: Server, text: str, rest: str, count: Any, share: Any, verbose: Any
) -> None:
    parameters = {"text": text, "rest": rest, "count": count, "share": share, "verbose": verbose}
    body = json.dumps({"preset": "show", "parameters": parameters})
    answer = presets.http.post("/deployments", content=body)
    if answer.status_code != 201:
        assert re.match(
            r"(text|rest|count|share|verbose): expected |text: .* begins with '-'", refusal(answer)
        )
        return
    arguments, variable = shown(presets, answer)
    assert arguments.pop(0) == text if text else True
    assert arguments.pop(0) == "staging"
    if count not in (None, ""):
        assert arguments.pop(0) == f"--count={int(count)}"
    if share is not None:
        assert float(arguments[0]) == share
        assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", arguments.pop(0))
    assert arguments.pop(0) == "--be verbose" if verbose else True
    assert arguments == (["--", rest] if rest else ["--"])
    assert variable == (f"<{rest}>" if rest else None)


# --- What is refused

WRONG_VALUES: list[tuple[str, Any]] = [
    ("text", "a\nb"),
    ("text", "a\r"),
    ("text", "a\0b"),
    ("text", "\x1b[31m"),
    ("text", "\x7f"),
    ("text", "\x85"),
    ("text", "a\u2028b"),
    ("text", "\u202egpj.exe"),
    ("text", "\ud800"),
    ("text", "x" * 201),
    ("text", "x" * 500_000),
    ("text", "-rf"),
    ("text", "--output=/etc/passwd"),
    ("text", "-–"),  # noqa: RUF001
    ("text", 3),
    ("text", True),
    ("text", ["a"]),
    ("text", {"a": "b"}),
    ("environment", "Prod"),
    ("environment", "prod "),
    ("environment", "prod\n"),
    ("environment", "production"),
    ("environment", 0),
    ("environment", []),
    ("count", "3"),
    ("count", "1e999"),
    ("count", "0x10"),
    ("count", 11),
    ("count", -6),
    ("count", 1.5),
    ("count", True),
    ("count", 10**4000),
    ("count", [3]),
    ("share", 1e999),
    ("share", math.nan),
    ("share", -math.inf),
    ("share", 1e300),
    ("share", "0.5"),
    ("verbose", 1),
    ("verbose", "true"),
    ("verbose", []),
]


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES, ids=lambda value: str(value)[:12])
def test_a_wrong_value_is_refused_and_its_parameter_named(
    presets: Server, name: str, value: Any
) -> None:
    body = json.dumps({"preset": "show", "parameters": {name: value}})
    sentence = refusal(presets.http.post("/deployments", content=body))
    assert sentence.startswith(f"{name}: ")
    assert len(sentence) < 600


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "1e999"),
        ("count", "0x10"),
        ("count", "1_0"),
        ("count", "nan"),
        ("count", "٣"),
        ("count", "3; rm"),
        ("count", "9" * 5000),
        ("share", "1e999"),
        ("share", "inf"),
        ("share", "1,5"),
        ("verbose", "maybe"),
        ("text", "a\r\nb"),
        ("environment", "PROD"),
    ],
)
def test_a_form_is_held_to_the_same(presets: Server, name: str, text: str) -> None:
    answer = presets.http.post("/deployments", data={"preset": "show", name: text})
    assert refusal(answer).startswith(f"{name}: ")


def test_a_form_gives_parameters_as_fields(presets: Server) -> None:
    fields = {
        "preset": "show",
        "name": "mine",
        "text": "a & b",
        "environment": "prod",
        "count": "+3",
        "share": "5e-1",
        "verbose": "on",
        "rest": "",
    }
    answer = presets.http.post("/deployments", data=fields)
    assert shown(presets, answer)[0] == ["a & b", "prod", "--count=3", "0.5", "--be verbose", "--"]
    assert answer.json()["name"] == "mine"


def test_of_a_checkbox_and_the_hidden_field_before_it_the_checkbox_counts(presets: Server) -> None:
    for fields, expected in (
        ("0", ["staging", "--"]),
        ("0&verbose=1", ["staging", "--be verbose", "--"]),
    ):
        answer = presets.http.post(
            "/deployments",
            content=f"preset=show&verbose={fields}",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert shown(presets, answer)[0] == expected


def test_a_parameter_without_default_must_be_given(presets: Server) -> None:
    for parameters in ({}, {"version": None}, {"version": ""}):
        sentence = refusal(start(presets, "version", **parameters))
        assert sentence.startswith("version: expected text")
        assert "found nothing" in sentence


@pytest.mark.parametrize("version", ["1.2", "v1.2 ", "v1.2;id", "xv1", "v", "v٣"])
def test_a_pattern_has_to_match_all_of_a_text(presets: Server, version: str) -> None:
    sentence = refusal(start(presets, "version", version=version))
    assert "that matches v[0-9.]+, found" in sentence


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "old/../../secret",
        "old/../new.sql",
        "./new.sql",
        "/etc/passwd",
        "old//ä b.sql",
        "new.sql/",
        "old",
        "",
        ".",
        "..",
        ".hidden",
        ".git/config",
        "escape",
        "to-hidden",
        "up/secret",
        "../dumps-of-another/x",
        "loop",
        "pipe",
        "none",
        "new.sql\0.txt",
        "new.sql\n",
        "NEW.sql ",
        "\udcff",
        "x/" * 3000,
        3,
        ["new.sql"],
        None,
    ],
    ids=lambda value: str(value)[:16],
)
def test_a_file_is_one_of_the_folder_and_no_other(presets: Server, name: Any) -> None:
    body = json.dumps({"preset": "restore", "parameters": {"dump": name}})
    sentence = refusal(presets.http.post("/deployments", content=body))
    assert sentence.startswith("dump: expected ")
    assert str(presets.folder) not in sentence


@pytest.mark.parametrize("name", ["new.sql", "old/ä b.sql", "linked"])
def test_a_file_of_the_folder_reaches_the_program(presets: Server, name: str) -> None:
    record = start(presets, "restore", dump=name).json()
    presets.wait_for_end(record["id"])
    assert presets.log(record["id"]) in (b"new\n", b"old\n")


def test_an_unknown_preset_or_parameter_is_refused_with_the_nearest(presets: Server) -> None:
    assert "there is no preset 'shwo'; start one of its presets: show, version, restore" in refusal(
        start(presets, "shwo")
    )
    sentence = refusal(start(presets, "show", txet="a"))
    assert "preset 'show': unknown parameter 'txet'; did you mean 'text'?" in sentence
    sentence = refusal(presets.http.post("/deployments", data={"preset": "show", "command": "id"}))
    assert "unknown parameter 'command'" in sentence


@pytest.mark.parametrize(
    "extra",
    [
        {"source": "shell"},
        {"command": "id"},
        {"env": {"LD_PRELOAD": "x"}},
        {"cwd": "/"},
        {"timeout_seconds": 1},
        {"parameters": "text=a"},
        {"parameters": [1]},
        {"preset": ["show"]},
        {"preset": {"a": 1}},
        {"preset": ""},
        {"name": 3},
    ],
)
def test_nothing_else_may_be_given_along_with_a_preset(
    presets: Server, extra: dict[str, Any]
) -> None:
    refusal(presets.http.post("/deployments", json={"preset": "show", **extra}))


def test_a_refused_start_leaves_no_deployment(presets: Server) -> None:
    before = presets.http.get("/deployments?limit=1000").json()["deployments"]
    refusal(start(presets, "show", text="\0"))
    refusal(start(presets, "restore", dump="../secret"))
    assert presets.http.get("/deployments?limit=1000").json()["deployments"] == before


# --- Closed sources


def test_a_closed_source_takes_presets_alone(presets: Server) -> None:
    for body in ({"source": "closed", "command": "id"}, {"source": "closed"}):
        sentence = refusal(presets.http.post("/deployments", json=body))
        assert sentence == (
            "source 'closed' is closed to free requests; start one of its presets: "
            "show, version, restore"
        )
    record = start(presets, "version", version="v1").json()
    assert presets.wait_for_end(record["id"])["state"] == "succeeded"
    assert presets.log(record["id"]) == b"v1 source source\n"


def test_a_closed_preset_can_not_be_started(presets: Server) -> None:
    assert "preset 'never' is closed to requests" in refusal(start(presets, "never"))


def test_with_everything_closed_a_free_command_is_refused(
    make_server: Callable[..., Server],
) -> None:
    server = make_server('[sources.shell]\ntype = "subprocess"\nstart_role = "nobody"\n')
    for body in ({"command": "id"}, {"command": ["id"]}, {"source": "shell", "command": "id"}, {}):
        sentence = refusal(server.http.post("/deployments", json=body))
        assert "source 'shell' is closed to free requests" in sentence
    assert server.http.get("/").status_code == 200


def test_a_closed_source_is_still_autostarted(make_server: Callable[..., Server]) -> None:
    server = make_server(
        '[sources.job]\ntype = "subprocess"\nstart_role = "nobody"\nautostart = true\n'
        'command = "echo ran"\n'
    )
    records = wait_for(lambda: server.http.get("/deployments").json()["deployments"], "its start")
    server.wait_for_end(records[0]["id"])
    assert server.log(records[0]["id"]) == b"ran\n"


# --- The record, and the list of presets


def test_the_record_says_which_preset_with_what(presets: Server) -> None:
    record = start(presets, "show", text="a b", count=2, verbose=True).json()
    values = {"text": "a b", "environment": "staging", "count": 2, "verbose": True}
    assert record["request"] == {"preset": "show", "parameters": values}
    assert record["source"] == "shell"
    assert record["name"] == "show text='a b' environment=staging count=2 verbose"
    again = presets.http.post("/deployments", json={**record["request"], "name": record["name"]})
    assert again.json()["request"] == record["request"]


def test_the_list_of_presets_says_all_that_a_form_needs(presets: Server) -> None:
    listed = presets.http.get("/presets").json()["presets"]
    assert [preset["name"] for preset in listed] == ["show", "version", "restore"]
    show = listed[0]
    assert (show["help"], show["source"]) == ("Prints what it is given", "shell")
    assert show["start_role"] == "operator"
    by_name = {parameter["name"]: parameter for parameter in show["parameters"]}
    assert by_name["environment"] == {
        "name": "environment",
        "type": "choice",
        "help": "Where to",
        "required": False,
        "default": "staging",
        "choices": ["staging", "prod", "a b; $(c) `d` 'e' \"f\""],
    }
    assert by_name["count"]["minimum"] == -5
    assert by_name["count"]["whole"] is True
    assert by_name["verbose"]["default"] is False
    (dump,) = listed[2]["parameters"]
    assert dump["files"] == ["-rf", "linked", "new.sql", "old/ä b.sql"]
    assert dump["more_files"] is False
    assert str(presets.folder) not in json.dumps(listed)


def test_of_very_many_files_a_part_is_listed_and_each_is_taken(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 5):
        (tmp_path / f"{number:04}").touch()
    parameter = read_parameter("f", {"type": "file", "folder": str(tmp_path)}, "here")
    described = parameter.describe()
    assert (len(described["files"]), described["more_files"]) == (MAX_FILES, True)
    assert parameter.check("1004") == "1004"


def test_without_presets_the_list_is_empty(lasting_server: Server) -> None:
    assert lasting_server.http.get("/presets").json() == {"presets": []}
    assert "there are no presets to start" in refusal(start(lasting_server, "deploy"))


# --- The config


def catalog(folder: Path, text: str) -> Catalog:
    """The catalog of a config file with this text."""
    path = folder / "conf.toml"
    path.write_text(text)
    return Catalog(read_config(str(path), {}, {}), Registry())


def deploy(rest: str = "", parameter: str = 'type = "text"', command: str = '["d", "{x}"]') -> str:
    """A config with the preset `deploy`, whose parameter is x."""
    section = f"[commands.deploy]\ncommand = {command}\n{rest}\n"
    return f"{section}[commands.deploy.parameters.x]\n{parameter}\n"


def plain(rest: str) -> str:
    """A config with the preset `deploy`, which has no parameter."""
    return f"[commands.deploy]\ncommand = ['d']\n{rest}"


WRONG_CONFIGS = [
    ("commands = 3", "commands: expected sections [commands.NAME]"),
    ("[commands]\ndeploy = 3", "expected a section [commands.deploy], found 3"),
    ('[commands."a b"]\ncommand = ["d"]', "expected a name of letters, digits"),
    ("[commands.deploy]\nhelp = 'x'", "deploy: command is missing; it takes a list such as"),
    ("[commands.deploy]\ncommand = 'd {x}'", "command: expected a list of a program and its"),
    ("[commands.deploy]\ncommand = []", "command: expected a list of a program and its"),
    ("[commands.deploy]\ncommand = ['d', 3]", "command: expected a list of a program and its"),
    ("[commands.deploy]\ncommand = ['', 'a']", "command: expected the name of a program"),
    ("[commands.deploy]\ncommand = ['d', \"a\\u0000\"]", "command: expected text, found"),
    (plain("hlep = 'x'"), "unknown setting 'hlep'; did you mean 'help'?"),
    (plain("parameter = 3"), "did you mean 'parameters'?"),
    (plain("parameters = 3"), "parameters: expected sections"),
    (plain("help = 3"), "deploy: help: expected text, found 3"),
    (plain("tty = 3"), "deploy: tty: expected true or false, found 3"),
    (plain("source = 'no'"), "source: expected one of shell, demo, tail"),
    (plain("source = 3"), "source: expected one of shell, demo, tail"),
    (plain("source = 'demo'"), "expected a source that runs a command"),
    (plain("start_role = 'viewer'"), "expected one of operator, admin, nobody, found 'viewer'"),
    (plain("env = 3"), "env: expected names and texts"),
    (plain("env = { A = 3 }"), "env: expected names and texts"),
    (plain("env = { A = '{y}' }"), "env.A: unknown parameter 'y'"),
    (deploy("env = { BASH_ENV = '{x}' }"), "env.BASH_ENV: expected a text without parameters"),
    (deploy("env = { LD_PRELOAD = '{x}' }"), "env.LD_PRELOAD: expected a text without parameters"),
    (deploy(command="['d', '{y}']"), "unknown parameter 'y'; known are: x"),
    (deploy(command="['d', '{X}']"), "unknown parameter 'X'"),
    (deploy(command="['d', '{}']"), "unknown parameter ''"),
    (deploy(command="['d', '{x!r}']"), "unknown parameter 'x!r'"),
    (deploy(command="['d', '{x']"), "or {{ for the character { itself; found '{x'"),
    (deploy(command="['d', 'x}']"), "or }} for the character } itself; found 'x}'"),
    (deploy(command="['{x}', 'd']"), "expected the name of a program"),
    (deploy(command="['d']"), "deploy.parameters.x: expected {x} in command or env, found none"),
    (deploy(command="['d', '{{x}}']"), "deploy.parameters.x: expected {x} in command or env"),
    (
        deploy(parameter="help = 'x'"),
        "x: type: expected one of text, choice, number, flag, file, found nothing",
    ),
    (
        deploy(parameter="type = 'string'"),
        "x: type: expected one of text, choice, number, flag, file, found 'string'",
    ),
    (deploy(parameter="type = ['text']"), "x: type: expected one of"),
    (
        deploy(parameter="type = 'text'\npatern = 'a'"),
        "x: unknown setting 'patern'; did you mean 'pattern'?",
    ),
    (
        deploy(parameter="type = 'text'\npattern = '('"),
        "x: pattern: expected a regular expression, found '('",
    ),
    (deploy(parameter="type = 'text'\nmax_chars = 0"), "x: max_chars: expected 1 or more"),
    (deploy(parameter="type = 'text'\ndefault = 3"), "x: default: expected text"),
    (deploy(parameter="type = 'text'\npattern = 'a'\ndefault = 'b'"), "x: default: expected text"),
    (deploy(parameter="type = 'text'\ndefault = '-x'"), "x: default: '-x' begins with '-'"),
    (deploy(parameter="type = 'text'\nrequired = 'yes'"), "x: required: expected true or false"),
    (
        deploy(parameter="type = 'text'\ndefault = 'a'\nrequired = true"),
        "x: required: expected none",
    ),
    (deploy(parameter="type = 'choice'"), "x: choices is missing"),
    (deploy(parameter="type = 'choice'\nchoices = []"), "x: choices: expected one text or more"),
    (deploy(parameter="type = 'choice'\nchoices = 'a'"), "x: choices: expected a list of texts"),
    (
        deploy(parameter="type = 'choice'\nchoices = ['a', 'a']"),
        "x: choices: 'a' stands there twice",
    ),
    (
        deploy(parameter="type = 'choice'\nchoices = [\"a\\n\"]"),
        "x: choices: expected text on one line",
    ),
    (
        deploy(parameter="type = 'choice'\nchoices = ['a']\ndefault = 'b'"),
        "x: default: expected one of a, found 'b'",
    ),
    (
        deploy(parameter="type = 'number'\nminimum = 3\nmaximum = 2"),
        "x: maximum: expected 3 or more",
    ),
    (deploy(parameter="type = 'number'\ndefault = 1.5"), "x: default: expected a whole number"),
    (deploy(parameter="type = 'number'\nminimum = nan"), "x: minimum: expected a number"),
    (deploy(parameter="type = 'flag'\nvalue = ''"), "x: value: expected text, found none"),
    (deploy(parameter="type = 'flag'\nrequired = true"), "x: required: expected none"),
    (deploy(parameter="type = 'file'"), "x: folder is missing"),
    (
        deploy(parameter="type = 'file'\nfolder = 'no/such'"),
        "x: folder: expected an existing folder",
    ),
    (
        deploy().replace("parameters.x", "parameters.name").replace("{x}", "{name}"),
        "parameters.name: expected another name",
    ),
    (
        deploy().replace("parameters.x", "parameters._x").replace("{x}", "{_x}"),
        "parameters._x: expected a name of letters",
    ),
    (
        "[commands.deploy]\ncommand = ['d', '{x}']\n[commands.deploy.parameters]\nx = 3",
        "parameters.x: expected a section with a type",
    ),
    (
        "[sources.shell]\ntype = 'subprocess'\nstart_role = 'root'",
        "sources.shell: start_role: expected one of operator, admin, nobody, found 'root'",
    ),
    (
        "[sources.demo]\ntype = 'mock'\n[commands.deploy]\ncommand = ['d']",
        "expected a source that runs a command, found 'demo'",
    ),
    (plain("user = 'nosuch'"), "user is 'nosuch'"),
    (plain("secrets = {PIN = '123'}"), "commands.deploy: secrets: a secret needs 4 characters"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_CONFIGS, ids=lambda text: text[:40])
def test_a_wrong_section_is_refused_with_its_place(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog(tmp_path, text)
    assert sentence in str(caught.value)
    assert str(tmp_path / "conf.toml") in str(caught.value)


def test_no_error_of_a_section_shows_a_secret(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    for rest in (
        f"cwd = ['{secret}']",
        f"user = '{secret}'\n",
        f"timeout_seconds = '{'x' * 190}{secret}'",
        "secrets = {A = 'another-secret'}\nuser = 'another-secret'",
    ):
        with pytest.raises(ConfigError, match=r"commands\.deploy: ") as caught:
            catalog(tmp_path, f'secrets = {{TOKEN = "{secret}"}}\n' + plain(rest))
        assert not re.search("hunter|another", str(caught.value))


CODE = [
    ["sh", "-c", "deploy {x}"],
    ["/bin/bash", "-lc", "deploy '{x}'"],
    ["bash", "-c", "--", "{x}"],
    ["bash", "-o", "pipefail", "-c", "{x}"],
    ["bash", "-c", "-o", "errexit", "{x}"],
    ["bash", "--norc", "-c", "{x}"],
    ["sh", "-ec", "{x}"],
    ["sh", "-{x}", "script"],
    ["env", "A=1", "sh", "-c", "{x}"],
    ["sudo", "-u", "deploy", "sh", "-c", "{x}"],
    ["docker", "exec", "box", "bash", "-c", "{x}"],
    ["busybox", "ash", "-c", "{x}"],
    ["fish", "--command={x}"],
    ["fish", "--command", "{x}"],
    ["fish", "--com", "{x}"],
    ["su", "deploy", "-c", "{x}"],
    ["su", "-c", "{x}", "deploy"],
    ["su", "--command={x}"],
    ["flock", "lock", "-c", "{x}"],
    ["python3.12", "-c", "print('{x}')"],
    ["python3", "-W", "error", "-c", "{x}"],
    ["python3", "-cprint({x})"],
    ["perl", "-ne", "{x}"],
    ["perl", "-e{x}"],
    ["ruby", "-e", "{x}"],
    ["node", "--eval={x}"],
    ["node", "-p", "{x}"],
    ["php", "-r", "{x}"],
    ["env", "-S", "deploy {x}"],
    ["ssh", "host", "deploy", "{x}"],
    ["watch", "df {x}"],
]


@pytest.mark.parametrize("command", CODE, ids=" ".join)
def test_a_parameter_within_the_code_of_an_interpreter_is_refused(
    tmp_path: Path, command: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"command: .*\{x\}") as caught:
        catalog(tmp_path, deploy(command=json.dumps(command)))
    assert 'deploy \\"$1\\"", "sh", "{x}"]' in str(caught.value) or "write a script" in str(
        caught.value
    )


NO_CODE = [
    ["sh", "-c", 'deploy "$1"', "sh", "{x}"],
    ["sh", "deploy.sh", "-c", "{x}"],
    ["bash", "-euo", "pipefail", "deploy.sh", "{x}"],
    ["python3", "-c", "import sys; print(sys.argv)", "{x}"],
    ["python3", "-m", "http.server", "{x}"],
    ["python3", "deploy.py", "-c", "{x}"],
    ["su", "deploy", "-c", 'deploy "$0"', "{x}"],
    ["flock", "lock", "./deploy", "-c", "{x}"],
    ["env", "A={x}", "deploy"],
    ["git", "-c", "user.name={x}", "status"],
    ["tar", "-c", "{x}"],
    ["./deploy", "{x}"],
]


@pytest.mark.parametrize("command", NO_CODE, ids=" ".join)
def test_a_parameter_beside_the_code_is_taken(tmp_path: Path, command: list[str]) -> None:
    assert catalog(tmp_path, deploy(command=json.dumps(command))).preset("deploy")


def test_a_flag_before_the_code_hides_none_of_it(tmp_path: Path) -> None:
    """Off, it is left out, and what follows moves up."""
    for flag in (
        'type = "flag"',
        'type = "choice"\nchoices = ["-c"]',
        'type = "text"\nrequired = false',
    ):
        with pytest.raises(ConfigError, match=r"so that it would run what a request gives"):
            catalog(
                tmp_path,
                "[commands.d]\ncommand = ['sh', '{f}', '-c', '{x}']\n"
                f"[commands.d.parameters.f]\n{flag}\n"
                "[commands.d.parameters.x]\ntype = 'text'\n",
            )


def test_ssh_may_be_given_choices_of_plain_words(tmp_path: Path) -> None:
    command = '["ssh", "host", "deploy", "{x}"]'
    choices = 'type = "choice"\nchoices = ["staging", "prod"]'
    assert catalog(tmp_path, deploy(command=command, parameter=choices)).preset("deploy")
    choices = 'type = "choice"\nchoices = ["staging", "prod; id"]'
    with pytest.raises(ConfigError, match="ssh gives its arguments to a shell"):
        catalog(tmp_path, deploy(command=command, parameter=choices))


def test_options_of_the_source_are_beaten_by_the_presets_own(tmp_path: Path) -> None:
    source = '[sources.s]\ntype = "subprocess"\ntimeout_seconds = 5\ntty = false\n'
    source += 'env = {A = "1", B = "1"}\n'
    text = deploy('timeout_seconds = 600\nstop_grace_seconds = 1\nenv = {B = "{x}"}')
    record, _ = catalog(tmp_path, source + text).prepare_preset("deploy", {"x": "2"})
    assert record.settings["timeout_seconds"] == 600.0
    assert record.settings["stop_grace_seconds"] == 1.0
    assert record.settings["tty"] is False
    assert record.settings["env"] == {"A": "1", "B": "2"}
    assert record.settings["command"] == ["d", "2"]


def test_doubled_braces_are_braces(tmp_path: Path) -> None:
    text = deploy(command='["d", "{{x}}={x}", "a{{{x}}}"]')
    record, _ = catalog(tmp_path, text).prepare_preset("deploy", {"x": "{x}{{"})
    assert record.settings["command"] == ["d", "{x}={x}{{", "a{{x}{{}"]


def test_after_two_dashes_a_value_may_begin_with_one_but_not_for_another_program(
    tmp_path: Path,
) -> None:
    ours = catalog(tmp_path, deploy(command='["rm", "--", "{x}"]'))
    assert ours.prepare_preset("deploy", {"x": "-r"})[0].settings["command"] == ["rm", "--", "-r"]
    for command in ('["sudo", "--", "rm", "{x}"]', '["rm", "{x}", "--", "{x}"]', '["d", "{x}y"]'):
        with pytest.raises(RequestError, match="'-r' begins with '-'"):
            catalog(tmp_path, deploy(command=command)).prepare_preset("deploy", {"x": "-r"})
    inner = catalog(tmp_path, deploy(command='["d", "--x={x}", "-x{x}"]'))
    assert inner.prepare_preset("deploy", {"x": "-r"})


def test_roles_are_told_for_whoever_enforces_them(tmp_path: Path) -> None:
    ours = catalog(
        tmp_path,
        '[sources.a]\ntype = "subprocess"\nstart_role = "admin"\n[sources.b]\ntype = "subprocess"\n'
        '[commands.deploy]\ncommand = ["d"]\nstart_role = "admin"\n',
    )
    assert (ours.start_role("a"), ours.start_role("b")) == ("admin", "operator")
    assert ours.preset("deploy").start_role == "admin"
    assert [source["start_role"] for source in ours.describe()] == ["admin", "operator"]


def test_who_may_start_what_follows_from_the_role(make_server: Callable[..., Server]) -> None:
    server = make_server(
        '[sources.shell]\ntype = "subprocess"\nstart_role = "admin"\n'
        '[sources.open]\ntype = "subprocess"\n'
        '[commands.deploy]\ncommand = ["true"]\n'
        '[commands.wipe]\ncommand = ["true"]\nstart_role = "admin"\n'
    )
    clients = {role: {"Authorization": f"Bearer {token(server, role)}"} for role in ROLES}
    for body, roles in (
        ({"source": "shell", "command": "true"}, {"admin"}),
        ({"command": "true"}, {"admin"}),
        ({"source": "open", "command": "true"}, {"admin", "operator"}),
        ({"preset": "deploy"}, {"admin", "operator"}),
        ({"preset": "wipe"}, {"admin"}),
    ):
        for role, headers in clients.items():
            answer = server.http.post("/deployments", json=body, headers=headers)
            assert answer.status_code == (201 if role in roles else 403), (body, role)
            if role == "operator" and role not in roles:
                assert "takes the role admin; yours is operator" in answer.json()["error"]
    html = {"Accept": "text/html"}
    pages = {role: server.http.get("/", headers=h | html).text for role, h in clients.items()}
    offered = {role: re.findall(r'data-preset="(\w+)"', page) for role, page in pages.items()}
    assert offered == {"viewer": [], "operator": ["deploy"], "admin": ["deploy", "wipe"]}
    options = {role: '<option value="shell" selected' in page for role, page in pages.items()}
    assert options == {"viewer": False, "operator": False, "admin": True}


ROLES = ("viewer", "operator", "admin")


def token(server: Server, role: str) -> str:
    """A new token for this server."""
    command = [sys.executable, "-m", "tornado_logs.cli", "token", "create", role, "--role", role]
    made = subprocess.run(command, cwd=server.folder, capture_output=True, text=True, check=True)
    return made.stdout.split()[-1]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PARAMETERS: dict[str, dict[str, Any]] = {
    "text": {"pattern": "[a-z]+-?x"},
    "choice": {"choices": ["a", "b"]},
    "number": {"minimum": 0, "maximum": 9},
    "flag": {},
    "file": {"folder": "."},
}


@settings(deadline=None)
@given(type_name=st.sampled_from(sorted(PARAMETERS)), value=JSON_VALUES)
def test_a_check_gives_a_value_that_it_gives_again_or_a_sentence(
    type_name: str, value: Any
) -> None:
    parameter = read_parameter("p", {"type": type_name, **PARAMETERS[type_name]}, "here")
    try:
        checked = parameter.check(value)
    except ParameterError as error:
        sentence = str(error)
    else:
        assert checked == value
        assert parameter.check(checked) == checked
        argument = parameter.argument(checked)
        assert argument is None or ("\0" not in argument and "\n" not in argument)
        return
    assert sentence.startswith("p: ")


@settings(deadline=None)
@given(
    command=st.lists(st.text(alphabet="ab{}x-c$ ", max_size=6), max_size=5),
    value=st.text(alphabet="ab{}-$;' ", min_size=1, max_size=6),
)
def test_a_template_is_refused_or_gives_one_argument_for_each_of_its_texts(
    tmp_path_factory: pytest.TempPathFactory, command: list[str], value: str
) -> None:
    folder = tmp_path_factory.mktemp("c")
    try:
        ours = catalog(folder, deploy(command=json.dumps(["d", *command, "--x={x}"])))
        record, _ = ours.prepare_preset("deploy", {"x": value})
    except (ConfigError, RequestError):
        return
    made = record.settings["command"]
    assert len(made) == len(command) + 2
    assert made[-1] == f"--x={value}"
