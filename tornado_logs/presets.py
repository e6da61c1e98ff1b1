"""Commands that the config has prepared: started by name, with parameters of declared types.

    preset = read_preset(config.commands["deploy"], "shell", source_options)
    values = preset.check({"environment": "prod"})     # raises ParameterError
    preset.settings_for(values)                        # the options of its source

A parameter becomes a part of one argument or of one environment variable. No shell gets to parse
it: a command is a list, and what would put a parameter into the text of a shell's or an
interpreter's program is refused when the config is read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tornado_logs.arguments import Template, is_code_variable, read_template, refuse_code
from tornado_logs.config import (
    MAX_EXCLUSIVE_CHARS,
    WAIT,
    ConfigError,
    PresetConfig,
    check_exclusive,
    check_if_busy,
    check_settings,
    check_start_role,
    check_value,
    check_when_log_full,
    shorten,
    unknown_name,
)
from tornado_logs.parameters import (
    Parameter,
    ParameterError,
    Value,
    read_parameter,
)
from tornado_logs.source import Command, Environment, Option

RESERVED_FIELDS = ("preset", "parameters", "name", "source", "secrets", "exclusive", "if_busy")
"""Fields of a form that starts a preset; no parameter may have such a name."""

PRESET_OPTIONS: tuple[Option, ...] = (
    Option("help", str, None, "What it does, for who chooses it."),
    Option("source", str, None, "The source that runs it; default: the first with a command."),
    Option("start_role", str, "operator", "The least role that may start it by a request."),
    Option(
        "exclusive", str, None, "Of all that have this name, one runs at a time; may have `{…}`."
    ),
    Option("if_busy", str, WAIT, "What if that name is another's: `wait`, or `refuse` to start."),
    Option(
        "max_log_bytes", int, None, "As the source's setting; default: that.", minimum=1_048_576
    ),
    Option("when_log_full", str, None, "As the source's setting; default: that."),
)
"""What each `[commands.NAME]` section takes beside `command`, `env`, `parameters` and the options
of its source."""

_TEMPLATED = ("command", "env", "parameters")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class Preset:
    """One `[commands.NAME]` section, checked."""

    def __init__(
        self,
        config: PresetConfig,
        source: str,
        settings: Mapping[str, Any],
        templates: tuple[Sequence[Template], Mapping[str, Template], Template],
        parameters: Sequence[Parameter],
    ) -> None:
        """`settings` are those of PRESET_OPTIONS and of its source that the section gives."""
        own = {option.name for option in PRESET_OPTIONS}
        self.name = config.name
        self.source = source
        self.help: str = settings["help"] or ""
        self.start_role: str = settings["start_role"]
        self.if_busy: str = settings["if_busy"]
        self.max_log_bytes: int | None = settings["max_log_bytes"]
        self.when_log_full: str | None = settings["when_log_full"]
        self.parameters = parameters
        # The options of its source that are the same whatever its parameters are.
        self.settings = {key: value for key, value in settings.items() if key not in own}
        self._command, self._environment, self._exclusive = templates

    def check(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """The value of each parameter that has one: given, or its default.

        Null and the empty text stand for "not given". Raises ParameterError.
        """
        names = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in names:
                clause = unknown_name(name, names, "parameter")
                raise ParameterError(f"preset {self.name!r}: {clause}")
        values = {}
        for parameter in self.parameters:
            value = _value(parameter, given.get(parameter.name))
            if value is not None:
                values[parameter.name] = value
        return values

    def parse_form(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """What the fields of a form stand for, to be checked."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        return {
            name: by_name[name].parse(text) if name in by_name and text else text
            for name, text in texts.items()
        }

    def settings_for(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The options of its source, for values that were checked; `env` is the preset's alone."""
        arguments = self._arguments(values)
        command = [template.text(arguments) for template in self._command]
        environment = {
            name: template.text(arguments) for name, template in self._environment.items()
        }
        settings = {**self.settings, "command": _without_none(command)}
        if environment:
            settings["env"] = {key: text for key, text in environment.items() if text is not None}
        return settings

    def _arguments(self, values: Mapping[str, Value]) -> dict[str, str | None]:
        return {
            parameter.name: parameter.argument(values.get(parameter.name))
            for parameter in self.parameters
        }

    def exclusive(self, values: Mapping[str, Value]) -> str:
        """Its exclusive name for these values, or empty."""
        given = {name: text or "" for name, text in self._arguments(values).items()}
        # One that is cut short is shared with more, which is safe.
        return (self._exclusive.text(given) or "")[:MAX_EXCLUSIVE_CHARS].strip()

    def title(self, values: Mapping[str, Value]) -> str:
        """One line that tells this start of it from others: "deploy environment=prod verbose"."""
        words = [self.name]
        for name, value in values.items():
            if value is True:
                words.append(name)
            elif value is not False:
                words.append(f"{name}={shlex.quote(str(value))}")
        return " ".join(words)

    def describe(self) -> dict[str, Any]:
        """What a client has to know to ask for it. Looks at folders: not for the event loop."""
        return {
            "name": self.name,
            "help": self.help,
            "source": self.source,
            "start_role": self.start_role,
            "parameters": [parameter.describe() for parameter in self.parameters],
        }


def _value(parameter: Parameter, given: Any) -> Value | None:
    if given is not None and given != "":
        return parameter.check(given)
    if parameter.is_required:
        raise ParameterError(f"{parameter.name}: expected {parameter.expected()}, found nothing")
    return parameter.default


def _without_none(texts: Iterable[str | None]) -> list[str]:
    return [text for text in texts if text is not None]


def read_preset(config: PresetConfig, source: str, options: Sequence[Option]) -> Preset:
    """The preset of one section, for a source with these options. Raises ConfigError."""
    if not _NAME.fullmatch(config.name):
        raise ConfigError(
            f"{config.where}: expected a name of letters, digits, '.', '_' and '-', "
            f"found {shorten(config.name)}"
        )
    settings = _read_settings(config, source, options)
    parameters = _read_parameters(config)
    command = _read_command(config, parameters)
    environment = _read_environment(config, parameters)
    exclusive = _read_exclusive(config, settings, parameters)
    _refuse_unused(config, parameters, (*command, *environment.values()))
    _mark_begins(command, parameters)
    for parameter in parameters.values():
        _refuse_default(parameter)
    templates = (command, environment, exclusive)
    return Preset(config, source, settings, templates, tuple(parameters.values()))


def _read_settings(config: PresetConfig, source: str, options: Sequence[Option]) -> dict[str, Any]:
    by_name = {option.name: option for option in options}
    if "command" not in by_name or by_name["command"].type is not Command:
        raise ConfigError(
            f"{config.where}: source: expected a source that runs a command, found {source!r}"
        )
    if "env" in config.section and by_name.get("env", PRESET_OPTIONS[0]).type is not Environment:
        raise ConfigError(f"{config.where}: env: expected none, for source {source!r} takes none")
    own = {option.name: option for option in PRESET_OPTIONS}
    known = {**by_name, **own}
    given = {key: value for key, value in config.section.items() if key not in _TEMPLATED}
    for key in given:
        if key not in known:
            raise ConfigError(f"{config.where}: {unknown_name(key, {*known, *_TEMPLATED})}")
    settings = check_settings(
        own.values(), {key: value for key, value in given.items() if key in own}, config.where
    )
    check_start_role(settings["start_role"], config.where)
    check_when_log_full(settings["when_log_full"], config.where)
    for key in given.keys() - own.keys():
        settings[key] = check_value(by_name[key], given[key], f"{config.where}: {key}")
    return settings


def _read_parameters(config: PresetConfig) -> dict[str, Parameter]:
    sections = config.section.get("parameters", {})
    if not isinstance(sections, dict):
        raise ConfigError(
            f"{config.where}: parameters: expected sections "
            f"[commands.{config.name}.parameters.NAME], found {shorten(sections)}"
        )
    for name in sections:
        if name in RESERVED_FIELDS:
            raise ConfigError(
                f"{config.where}.parameters.{name}: expected another name, for {name!r} is a field "
                "of every request"
            )
    return {
        name: read_parameter(name, section, f"{config.where}.parameters.{name}")
        for name, section in sections.items()
    }


def _read_command(config: PresetConfig, known: Mapping[str, Parameter]) -> list[Template]:
    where = f"{config.where}: command"
    example = '["./deploy.sh", "{environment}"]'
    given = config.section.get("command")
    if given is None:
        raise ConfigError(f"{where} is missing; it takes a list such as {example}")
    if not (isinstance(given, list) and given and all(isinstance(item, str) for item in given)):
        raise ConfigError(
            f"{where}: expected a list of a program and its arguments, such as {example}, which "
            f"no shell gets to parse; found {shorten(given)}"
        )
    templates = [read_template(item, known, where) for item in given]
    if templates[0].names or not templates[0].literal:
        raise ConfigError(
            f"{where}: expected the name of a program as its first text, which no parameter may "
            f"stand in; found {shorten(given[0])}"
        )
    refuse_code(templates, given, known, where)
    return templates


def _read_environment(config: PresetConfig, known: Mapping[str, Parameter]) -> dict[str, Template]:
    where = f"{config.where}: env"
    given = config.section.get("env", {})
    check_value(Option("env", Environment, {}, ""), given, where)
    templates = {
        name: read_template(text, known, f"{where}.{name}") for name, text in given.items()
    }
    for name, template in templates.items():
        if template.names and is_code_variable(name):
            raise ConfigError(
                f"{where}.{name}: expected a text without parameters, for programs run what this "
                f"variable says; found {shorten(given[name])}"
            )
    return templates


def _read_exclusive(
    config: PresetConfig, settings: Mapping[str, Any], known: Mapping[str, Parameter]
) -> Template:
    where = f"{config.where}: exclusive"
    check_if_busy(settings["if_busy"], f"{config.where}: if_busy")
    return read_template(check_exclusive(settings["exclusive"] or "", where), known, where)


def _refuse_unused(
    config: PresetConfig, known: Mapping[str, Parameter], templates: Iterable[Template]
) -> None:
    used = {name for template in templates for name in template.names}
    for name in known:
        if name not in used:
            raise ConfigError(
                f"{config.where}.parameters.{name}: expected {{{name}}} in command or env, "
                "found none"
            )


def _mark_begins(command: Sequence[Template], known: Mapping[str, Parameter]) -> None:
    """Tell the parameters that stand where a program looks for options.

    That isn't so after "--", but only as long as nothing else follows: in `sudo -- rm {name}` it
    ends the options of sudo, and rm goes on to look for its own.
    """
    are_over = False
    for template in command:
        if not template.names:
            are_over = template.literal == "--"
        elif not template.parts[0] and not are_over:
            known[template.names[0]].begins_argument = True


def _refuse_default(parameter: Parameter) -> None:
    """A default that isn't taken any more, now that it is known where it stands."""
    try:
        if parameter.default is not None:
            parameter.check(parameter.default)
    except ParameterError as error:
        problem = str(error).removeprefix(f"{parameter.name}: ")
        raise ConfigError(f"{parameter.where}: default: {problem}") from error
