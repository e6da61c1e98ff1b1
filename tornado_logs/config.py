"""Every setting, once: name, type, default, help; read from a TOML file, the environment and flags.

    config = read_config("tornado_logs.toml", environ=os.environ, flags={"port": 5001})
    config.port, config.sources["shell"].settings["tty"]

A flag beats the environment (`TORNADO_LOGS_PORT`), that beats the file, that beats the default.
What is unknown or of a wrong type is refused with where it stands, what was expected and what
was found.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tornado_logs.mask import MIN_SECRET_CHARS, Masker
from tornado_logs.source import Command, Environment, Option, Texts

CONFIG_FILE = "tornado_logs.toml"
ENVIRONMENT_PREFIX = "TORNADO_LOGS_"
_MAX_VALUE_CHARS = 200
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
SHORT_SECRET = (
    f"a secret needs {MIN_SECRET_CHARS} characters or more; hiding a shorter one would hide half "
    "of every log"
)
MAX_NUMBER = 1 << 53
"""Numbers of less than this JSON's readers can be trusted to take for what they are."""

BOOLEANS = {"true": True, "1": True, "on": True, "yes": True}
BOOLEANS |= {"false": False, "0": False, "off": False, "no": False}
"""The texts, in lower case, that stand for true and false."""

WAIT, REFUSE = "wait", "refuse"
MAX_EXCLUSIVE_CHARS = 100

SETTINGS: tuple[Option, ...] = (
    Option(
        "host",
        str,
        "localhost",
        "The address or name to listen on; any but a loopback one takes tokens or a proxy.",
    ),
    Option(
        "port",
        int,
        5000,
        "The TCP port to listen on; 0 takes any free one.",
        minimum=0,
        maximum=65535,
    ),
    Option("data_dir", str, "data", "The folder that keeps logs and records."),
    Option(
        "workers",
        int,
        1,
        "How many processes serve; one for each core lets more people watch.",
        minimum=1,
        maximum=64,
    ),
    Option(
        "ping_seconds",
        float,
        15.0,
        "A comment is sent to a viewer when this long nothing else was.",
        minimum=0.1,
    ),
    Option(
        "retry_ms",
        int,
        1000,
        "How long an EventSource waits before it comes back, in milliseconds.",
        minimum=0,
    ),
    Option(
        "max_viewers",
        int,
        20_000,
        "How many streams may be open at a time; each worker counts its own.",
        minimum=1,
    ),
    Option(
        "max_viewers_per_address",
        int,
        10_000,
        "How many of them one client's address may have, of each worker's.",
        minimum=1,
    ),
    Option(
        "max_viewers_per_deployment",
        int,
        20_000,
        "How many of them may be of one deployment, of each worker's.",
        minimum=1,
    ),
    Option(
        "header_seconds",
        float,
        75.0,
        "How long a connection may take to its next request; a proxy should close sooner.",
        minimum=0.1,
    ),
    Option(
        "body_seconds",
        float,
        60.0,
        "How long a request's body may take to arrive.",
        minimum=0.1,
    ),
    Option(
        "stall_seconds",
        float,
        300.0,
        "A client that takes nothing of what is sent for this long is disconnected.",
        minimum=0.1,
    ),
    Option(
        "max_refused_sign_ins",
        int,
        10,
        "How many wrong tokens an address may sign in with, in a minute.",
        minimum=1,
    ),
    Option(
        "max_line_bytes",
        int,
        65536,
        "A longer line is cut on the wire, with a mark; the file keeps it whole.",
        minimum=16,
    ),
    Option(
        "partial_seconds",
        float,
        0.05,
        "The shortest time between two states of a line that is still being written.",
        minimum=0.0,
    ),
    Option(
        "max_body_bytes",
        int,
        1_048_576,
        "The largest request body that is accepted.",
        minimum=1024,
    ),
    Option(
        "max_log_bytes",
        int,
        100_000_000_000,
        "How large a log may get on disk.",
        minimum=1_048_576,
    ),
    Option(
        "when_log_full",
        str,
        "stop",
        "What happens then: `stop` ends the run, `drop_oldest` drops the log's oldest part.",
    ),
    Option(
        "rescan_seconds",
        float,
        2.0,
        "How often a glob of an autostarted source is looked at for new files.",
        minimum=0.1,
    ),
    Option(
        "max_running",
        int,
        1000,
        "How many deployments run at once; the others wait in a queue.",
        minimum=1,
    ),
    Option(
        "max_queued",
        int,
        1000,
        "How many deployments may wait in the queue; more are refused.",
        minimum=0,
    ),
    Option(
        "keep_days",
        float,
        None,
        "Deployments that ended longer ago are removed; default: none.",
        minimum=0.0,
    ),
    Option(
        "keep_deployments",
        int,
        None,
        "So many ended deployments are kept, the oldest are removed; default: all.",
        minimum=0,
    ),
    Option(
        "keep_bytes",
        int,
        None,
        "The oldest ended deployments are removed while all logs take more; default: never.",
        minimum=0,
    ),
    Option(
        "shutdown_seconds",
        float,
        5.0,
        "How long requests that are being answered may still take after TERM.",
        minimum=0.0,
        maximum=3600.0,
    ),
    Option(
        "min_free_bytes",
        int,
        200_000_000,
        "Where the disk of `data_dir` has less free, nothing new is started; 0: whatever it has.",
        minimum=0,
    ),
    Option(
        "disk_full_seconds",
        float,
        60.0,
        "How long output waits for room on a full disk, and its command with it.",
        minimum=0.0,
    ),
    Option("hosts", Texts, [], "Other names that browsers may reach this server by."),
    Option(
        "allowed_origins",
        Texts,
        [],
        "Sites whose pages may call this server (CORS), such as https://dash.example.com.",
    ),
    Option(
        "trusted_proxies",
        Texts,
        [],
        "Addresses or networks of reverse proxies; they tell the client's address and protocol.",
    ),
    Option(
        "user_header",
        str,
        None,
        "The header in which a trusted proxy names the user, such as X-Remote-User.",
    ),
    Option("user_role", str, "viewer", "The role of users whom `[users]` doesn't name."),
    Option(
        "session_days",
        int,
        30,
        "How long a browser stays signed in.",
        minimum=1,
        maximum=365,
    ),
)
"""The server's own settings: the top level of the file, and fields of `Config`."""

_USERS = Option("users", Environment, {}, "The role of each user that a proxy names.")

SECTION_SETTINGS: tuple[Option, ...] = (
    Option("type", str, None, "Which kind of source this is.", required=True),
    Option("autostart", bool, False, "Whether it is started as soon as the server runs."),
    Option("pass_secrets", Texts, [], "Which of [secrets] its commands get as variables."),
    Option("start_role", str, "operator", "The least role that may start it by a request."),
    Option("exclusive", str, None, "Of all that have this name, one runs at a time."),
    Option("if_busy", str, WAIT, "What if that name is another's: `wait`, or `refuse` to start."),
    Option(
        "max_log_bytes", int, None, "As the server's setting; default: that.", minimum=1_048_576
    ),
    Option("when_log_full", str, None, "As the server's setting; default: that."),
)
"""What each `[sources.NAME]` section takes beside the options of its type."""

DEFAULT_SOURCES: dict[str, dict[str, Any]] = {
    "shell": {"type": "subprocess"},
    "demo": {"type": "mock"},
    "tail": {"type": "file_tail", "below": "."},
}
"""The sources of a server whose config file names none."""

IF_BUSY = (WAIT, REFUSE)
"""What a deployment does whose exclusive name is another's."""

CLOSED = "nobody"
START_ROLES = ("operator", "admin", CLOSED)
"""Who may start something by a request, from this role on; CLOSED: no request may."""


DROP_OLDEST = "drop_oldest"
WHEN_LOG_FULL = ("stop", DROP_OLDEST)
"""What may be done once a log is as large as it may get."""


class ConfigError(Exception):
    """A setting is unknown or wrong. The message says where, what was expected, what was found."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One `[sources.NAME]` section. `settings` are those given, checked later against its type."""

    name: str
    type: str
    settings: Mapping[str, Any] = field(repr=False)
    autostart: bool = False
    where: str = "the defaults"
    pass_secrets: Sequence[str] = ()
    start_role: str = "operator"
    exclusive: str = ""
    if_busy: str = WAIT
    max_log_bytes: int | None = None
    when_log_full: str | None = None


@dataclass(frozen=True, slots=True)
class PresetConfig:
    """One `[commands.NAME]` section. `section` is as given, checked later (`presets`)."""

    name: str
    section: Mapping[str, Any]
    where: str


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a server; `SETTINGS` says what each is.

    `secrets` has the value of each by its name, `secret_variables` the environment variables that
    some of them came from.
    """

    host: str = "localhost"
    port: int = 5000
    data_dir: str = "data"
    workers: int = 1
    ping_seconds: float = 15.0
    retry_ms: int = 1000
    max_viewers: int = 20_000
    max_viewers_per_address: int = 10_000
    max_viewers_per_deployment: int = 20_000
    header_seconds: float = 75.0
    body_seconds: float = 60.0
    stall_seconds: float = 300.0
    max_refused_sign_ins: int = 10
    max_line_bytes: int = 65536
    partial_seconds: float = 0.05
    max_body_bytes: int = 1_048_576
    max_log_bytes: int = 100_000_000_000
    when_log_full: str = "stop"
    rescan_seconds: float = 2.0
    max_running: int = 1000
    max_queued: int = 1000
    keep_days: float | None = None
    keep_deployments: int | None = None
    keep_bytes: int | None = None
    shutdown_seconds: float = 5.0
    min_free_bytes: int = 200_000_000
    disk_full_seconds: float = 60.0
    hosts: Sequence[str] = field(default_factory=list)
    allowed_origins: Sequence[str] = field(default_factory=list)
    trusted_proxies: Sequence[str] = field(default_factory=list)
    user_header: str | None = None
    user_role: str = "viewer"
    session_days: int = 30
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_variables: frozenset[str] = frozenset()
    commands: Mapping[str, PresetConfig] = field(default_factory=dict)


def read_config(
    path: str | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
) -> Config:
    """Read the settings; `path` None takes `tornado_logs.toml` of this folder if it is there.

    Raises ConfigError, also where `path` can't be read.
    """
    where = path or CONFIG_FILE
    document = _read_toml(where) if path or os.path.exists(where) else {}
    declared = document.pop("secrets", {})
    secrets = _secrets(declared, environ, where)
    with _masked_errors(secrets.values()):
        sections = document.pop("sources", {})
        users = check_value(_USERS, document.pop("users", {}), f"{where}: users")
        commands = _preset_configs(document.pop("commands", {}), where)
        settings = check_settings(SETTINGS, document, where)
        settings.update(_from_environment(environ))
        settings.update(_from_flags(flags))
        check_when_log_full(settings["when_log_full"], where)
        return Config(
            **settings,
            sources=_source_configs(sections, where),
            users=users,
            secrets=secrets,
            secret_variables=frozenset(_variables_of(declared)),
            commands=commands,
        )


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except (OSError, ValueError) as error:  # not UTF-8, say, or a number of thousands of digits
        raise ConfigError(f"cannot read the config file {path}: {error}") from error
    except RecursionError:
        raise ConfigError(f"cannot read the config file {path}: nested too deeply") from None


def _secrets(declared: Any, environ: Mapping[str, str], where: str) -> dict[str, str]:
    """The values of `[secrets]`. No error shows one, not even a part of what may be one."""
    if not isinstance(declared, dict):
        raise ConfigError(f"{where}: secrets: expected a section [secrets], found a value")
    return {
        name: _secret(name, given, environ, f"{where}: secrets.{shorten(name)[1:-1]}")
        for name, given in declared.items()
    }


def _secret(name: str, given: Any, environ: Mapping[str, str], here: str) -> str:
    if not _VARIABLE_NAME.fullmatch(name) or name.startswith(ENVIRONMENT_PREFIX):
        raise ConfigError(
            f"{here}: expected a name that an environment variable can have (letters, digits and "
            f"_), and that does not begin with {ENVIRONMENT_PREFIX}"
        )
    value = _secret_text(given, environ, here)
    if not is_text(value):
        raise ConfigError(f"{here}: expected text without a NUL character")
    if len(value.strip()) < MIN_SECRET_CHARS:
        raise ConfigError(f"{here}: {SHORT_SECRET}")
    return value


def _secret_text(given: Any, environ: Mapping[str, str], here: str) -> str:
    if isinstance(given, str):
        return given
    match given:
        case {"env": str() as variable, **rest} if not rest:
            if variable not in environ:
                raise ConfigError(f"{here}: the environment variable {variable} is not set")
            return environ[variable]
        case {"file": str() as path, **rest} if not rest:
            return _secret_of_file(path, here)
    raise ConfigError(
        f'{here}: expected "the value", {{env = "VARIABLE"}} or {{file = "/path"}}, found neither'
    )


def _secret_of_file(path: str, here: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{here}: the file {path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{here}: cannot read the file {path}: {reason}") from error


def _variables_of(declared: Mapping[str, Any]) -> Iterator[str]:
    for given in declared.values():
        if isinstance(given, dict) and "env" in given:
            yield given["env"]


@contextlib.contextmanager
def _masked_errors(secrets: Iterable[str]) -> Iterator[None]:
    """See to it that no ConfigError shows one of these: they may stand in other settings too."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(Masker(secrets).text(str(error))) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for option in SETTINGS:
        variable = ENVIRONMENT_PREFIX + option.name.upper()
        if variable in environ:
            value = parse_text(option, environ[variable], f"the environment: {variable}")
            found[option.name] = check_value(option, value, f"the environment: {variable}")
    return found


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    by_name = {option.name: option for option in SETTINGS}
    return {
        name: check_value(by_name[name], value, f"--{name.replace('_', '-')}")
        for name, value in flags.items()
        if value is not None
    }


def _source_configs(sections: Any, where: str) -> dict[str, SourceConfig]:
    if not isinstance(sections, dict):
        raise ConfigError(f"{where}: sources: expected sections [sources.NAME], found a value")
    if not sections:
        sections, where = DEFAULT_SOURCES, "the defaults"
    return {name: _source_config(name, given, where) for name, given in sections.items()}


def _source_config(name: str, given: Any, where: str) -> SourceConfig:
    here = f"{where}: sources.{name}"
    if not isinstance(given, dict):
        raise ConfigError(f"{here}: expected a section [sources.{name}], found {given!r}")
    own = {option.name for option in SECTION_SETTINGS}
    section = check_settings(SECTION_SETTINGS, {k: v for k, v in given.items() if k in own}, here)
    rest = {key: value for key, value in given.items() if key not in own}
    check_start_role(section["start_role"], here)
    check_when_log_full(section["when_log_full"], here)
    check_if_busy(section["if_busy"], f"{here}: if_busy")
    section["exclusive"] = check_exclusive(section["exclusive"] or "", f"{here}: exclusive")
    return SourceConfig(name, settings=rest, where=here, **section)


def _preset_configs(sections: Any, where: str) -> dict[str, PresetConfig]:
    if not isinstance(sections, dict):
        raise ConfigError(f"{where}: commands: expected sections [commands.NAME], found a value")
    for name, given in sections.items():
        if not isinstance(given, dict):
            raise ConfigError(
                f"{where}: commands.{name}: expected a section [commands.{name}], "
                f"found {shorten(given)}"
            )
    return {
        name: PresetConfig(name, given, f"{where}: commands.{name}")
        for name, given in sections.items()
    }


def check_start_role(role: str, where: str) -> str:
    """One of START_ROLES. Raises ConfigError."""
    if role not in START_ROLES:
        expected = ", ".join(START_ROLES)
        raise ConfigError(f"{where}: start_role: expected one of {expected}, found {shorten(role)}")
    return role


def check_exclusive(name: Any, where: str) -> str:
    """A name that one deployment has at a time, or empty. Raises ConfigError."""
    is_name = is_text(name) and len(name) <= MAX_EXCLUSIVE_CHARS and name.isprintable()
    if not is_name:
        raise ConfigError(
            f"{where}: expected a name of up to {MAX_EXCLUSIVE_CHARS} characters, "
            f"found {shorten(name)}"
        )
    return str(name).strip()


def check_if_busy(text: Any, where: str) -> str:
    """One of IF_BUSY. Raises ConfigError."""
    if text not in IF_BUSY:
        raise ConfigError(f"{where}: expected {' or '.join(IF_BUSY)}, found {shorten(text)}")
    return str(text)


def check_when_log_full(choice: str | None, where: str) -> None:
    """One of WHEN_LOG_FULL, or none at all. Raises ConfigError."""
    if choice is not None and choice not in WHEN_LOG_FULL:
        expected = " or ".join(WHEN_LOG_FULL)
        raise ConfigError(f"{where}: when_log_full: expected {expected}, found {shorten(choice)}")


def check_settings(
    options: Iterable[Option],
    given: Mapping[str, Any],
    where: str,
    *,
    may_lack_required: bool = False,
) -> dict[str, Any]:
    """The value of each option: the one given, checked, or its default. Raises ConfigError."""
    by_name = {option.name: option for option in options}
    for name in given:
        if name not in by_name:
            raise ConfigError(f"{where}: {unknown_name(name, by_name)}")
    settings = {}
    for name, option in by_name.items():
        if name in given:
            settings[name] = check_value(option, given[name], f"{where}: {name}")
        elif option.required and not may_lack_required:
            raise ConfigError(f"{where}: {name} is missing; {_sentence_start(option.help)}")
        else:
            settings[name] = option.default
    return settings


def unknown_name(name: str, known: Iterable[str], kind: str = "setting") -> str:
    """A clause that says that nothing is called `name`, with the nearest name or all names."""
    names = sorted(known)
    name = name[:_MAX_VALUE_CHARS]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(names) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"


def check_value(option: Option, value: Any, where: str) -> Any:
    """`value` as the option's type. Raises ConfigError that begins with `where`."""
    if value is None and not option.required and option.default is None:
        return None
    matches, expected = _TYPES[option.type]
    found = "something else" if option.secret else shorten(value)
    if not matches(value):
        raise ConfigError(f"{where}: expected {expected}, found {found}")
    if option.minimum is not None and value < option.minimum:
        raise ConfigError(f"{where}: expected {_in_full(option.minimum)} or more, found {found}")
    if option.maximum is not None and value > option.maximum:
        raise ConfigError(f"{where}: expected {_in_full(option.maximum)} or less, found {found}")
    return float(value) if option.type is float else value


def _in_full(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def shorten(value: Any) -> str:
    """A value as it may stand in a sentence, however long or deep it is."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: a number of many thousand digits
        return "something that is far too large"
    return text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + "…"


def parse_text(option: Option, text: str, where: str) -> Any:
    """The value that `text` (of a form, a flag, the environment) stands for. Raises ConfigError."""
    try:
        if option.type is bool:
            return BOOLEANS[text.strip().lower()]
        if option.type in (int, float):
            return option.type(text)
        if option.type is Environment:
            return dict(_variable(line) for line in text.splitlines() if line.strip())
        if option.type is Texts:
            return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    except (KeyError, ValueError):
        expected = _TYPES[option.type][1]
        found = "something else" if option.secret else shorten(text)
        raise ConfigError(f"{where}: expected {expected}, found {found}") from None
    return text


def _variable(line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals:
        raise ValueError(line)
    return name.strip(), value


def is_text(value: Any) -> bool:
    """Whether `value` is text that can be a path or an argument of a program."""
    if not isinstance(value, str) or "\0" in value:  # execve(2) takes no NUL
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can spell it, but it is no character
        return False
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_command(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(is_text, value)) and bool(value[0])
    return is_text(value) and bool(value.strip())


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_text(name) and name and "=" not in name and is_text(text) for name, text in value.items()
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(is_text(item) and item for item in value)


_TYPES: dict[type, tuple[Callable[[Any], bool], str]] = {
    str: (is_text, "text"),
    int: (_is_whole, "a whole number"),
    float: (_is_number, "a number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    Command: (_is_command, "a command: text that isn't empty, or a list of texts"),
    Environment: (_is_environment, "names and texts (NAME=text, a line each, in a form)"),
    Texts: (_is_texts, "a list of texts (separated by commas where it has to be one text)"),
}


def type_name(option: Option) -> str:
    """What a value of this option has to be, in words."""
    return _TYPES[option.type][1]


def _sentence_start(text: str) -> str:
    return text[:1].lower() + text[1:]


# Config's fields repeat the names for the type checker's sake; this keeps the two from drifting.
assert [f.name for f in fields(Config)][: len(SETTINGS)] == [option.name for option in SETTINGS]
