"""The sources that a server offers: its config's sections, checked against their types.

    catalog = Catalog(config, Registry())
    record, job = catalog.prepare("shell", {"command": "make deploy"})

The record is complete but for its id, which `Launcher.launch` gives it. In place of secrets it has
`***`; the job, which never reaches a disk, has the settings as they are. `prepare_preset` does the
same for the config's presets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tornado_logs.config import (
    CLOSED,
    DROP_OLDEST,
    SHORT_SECRET,
    Config,
    ConfigError,
    PresetConfig,
    SourceConfig,
    check_settings,
    check_value,
    shorten,
    type_name,
    unknown_name,
)
from tornado_logs.deployment import Record, short_line
from tornado_logs.mask import MASK, MIN_SECRET_CHARS, Masker
from tornado_logs.parameters import ParameterError, Value
from tornado_logs.presets import Preset, read_preset
from tornado_logs.registry import Registry, RegistryError
from tornado_logs.source import Environment, LogSource, Option, SourceError

_DEMO_TYPE = "mock"


class RequestError(Exception):
    """What was asked for can't be started. The message is a sentence for whoever asked."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a capture process is to run. `settings` and `secrets` are for its memory alone."""

    source_class: str  # "package.module:Class"
    settings: Mapping[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def mask(self, text: str) -> str:
        """`text` as a record may have it; to be shortened only afterwards."""
        return Masker(self.secrets).text(text)


class Catalog:
    """The configured sources by name."""

    def __init__(self, config: Config, registry: Registry) -> None:
        """Raises ConfigError if a section names an unknown type, or settings it doesn't have."""
        self._registry = registry
        self._secrets = dict(config.secrets)
        self._max_log_bytes = config.max_log_bytes
        self._when_log_full = config.when_log_full
        self._sections = dict(config.sources)
        self._classes: dict[str, type[LogSource]] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        for name, section in self._sections.items():
            try:
                source_class = registry.source_class(section.type)
            except RegistryError as error:
                raise ConfigError(f"{section.where}: type: {error}") from error
            self._classes[name] = source_class
            self._settings[name] = self._section_settings(section, source_class)
        self._presets = {name: self._read_preset(one) for name, one in config.commands.items()}

    def _section_settings(
        self, section: SourceConfig, source_class: type[LogSource]
    ) -> dict[str, Any]:
        options = source_class.options
        masker = Masker((*self._secrets.values(), *_secrets_in(options, section.settings)))

        def check(given: Mapping[str, Any]) -> dict[str, Any]:
            return check_settings(options, given, section.where, may_lack_required=True)

        settings: dict[str, Any] = _checked(check, section.settings, masker)
        self._check_pass_secrets(section, options)
        _refuse_unworkable(source_class, settings, section.where, masker)
        return settings

    def _check_pass_secrets(self, section: SourceConfig, options: Sequence[Option]) -> None:
        here = f"{section.where}: pass_secrets"
        if section.pass_secrets and _secret_variables(options) is None:
            raise ConfigError(f"{here}: a source of type {section.type!r} runs no command")
        for name in section.pass_secrets:
            if name not in self._secrets:
                raise ConfigError(f"{here}: {unknown_name(name, self._secrets, 'secret')}")

    def class_names(self) -> list[str]:
        """The classes of all sources, as "package.module:Class"."""
        return sorted({self._registry.class_name(s.type) for s in self._sections.values()})

    def names(self) -> list[str]:
        """The names of all sources, in the order of the config."""
        return list(self._sections)

    def default_name(self) -> str:
        """The source of a request that names none: the first that takes a command, or the first.

        One that is open comes before one that is closed.
        """
        taking = [name for name in self._sections if self._takes_command(name)]
        names = taking or list(self._sections)
        return next((name for name in names if self.start_role(name) != CLOSED), names[0])

    def demo_name(self) -> str | None:
        """The source behind the demo button, if one is configured and open."""
        names = (name for name, s in self._sections.items() if s.type == _DEMO_TYPE)
        return next((name for name in names if self.start_role(name) != CLOSED), None)

    def start_role(self, name: str) -> str:
        """The least role that may start this source by a request: one of START_ROLES."""
        return self._sections[name].start_role

    def if_busy(self, source: str, preset: str | None = None) -> str:
        """What a deployment of these does whose exclusive name is another's: one of IF_BUSY."""
        return self._sections[source].if_busy if preset is None else self.preset(preset).if_busy

    def _takes_command(self, name: str) -> bool:
        return any(option.name == "command" for option in self.request_options(name))

    def request_options(self, name: str) -> list[Option]:
        """The options that a request may give to this source; none if there is no such source."""
        source_class = self._classes.get(name)
        return [option for option in source_class.options if option.request] if source_class else []

    def describe(self) -> list[dict[str, Any]]:
        """Every source with the options that a request may give, for the page."""
        return [
            {
                "name": name,
                "type": section.type,
                "start_role": section.start_role,
                "options": [
                    {
                        "name": option.name,
                        "type": option.type.__name__,
                        "required": option.required and self._settings[name][option.name] is None,
                        "help": option.help,
                    }
                    for option in self.request_options(name)
                ],
            }
            for name, section in self._sections.items()
        ]

    def autostarted(self) -> list[SourceConfig]:
        """The sections that are started with the server."""
        return [section for section in self._sections.values() if section.autostart]

    def masked(self, value: Any) -> Any:
        """What JSON can hold, without the config's secrets: as a record has it."""
        return Masker(self._secrets.values()).value(value)

    def expand(self, name: str) -> list[dict[str, Any]]:
        """See `LogSource.expand`. May look at many files: not for the event loop."""
        return self._classes[name].expand(self._settings[name])

    def discovered(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """See `LogSource.discovered`."""
        return self._classes[name].discovered(change)

    def prepare(self, name: str, given: Mapping[str, Any]) -> tuple[Record, Job]:
        """A record for what a request asks of source `name`, and its job. Raises RequestError."""
        if name not in self._sections:
            known = ", ".join(self._sections)
            raise RequestError(f"there is no source {name!r}; this server has: {known}")
        if self.start_role(name) == CLOSED:
            raise RequestError(
                f"source {name!r} is closed to free requests; {self._presets_hint()}"
            )
        options = {option.name: option for option in self.request_options(name)}
        masker = Masker((*self._secrets.values(), *_secrets_in(options.values(), given)))
        try:
            checked = self._checked_request(name, given, masker)
            self._classes[name].check_request(self._settings[name], checked)
        except (ConfigError, SourceError) as error:
            raise RequestError(masker.text(str(error))) from None
        return self.make(name, checked, request=dict(given))

    def _checked_request(
        self, name: str, given: Mapping[str, Any], masker: Masker
    ) -> dict[str, Any]:
        options = {option.name: option for option in self.request_options(name)}
        checked = {}
        for key, value in given.items():
            if key not in options:
                raise ConfigError(f"source {name!r}: {unknown_name(key, options)}")
            checked[key] = _checked(partial(check_value, options[key], where=key), value, masker)
            _refuse_short(options[key], value, key)
        return checked

    def make(
        self, name: str, change: Mapping[str, Any], request: Mapping[str, Any]
    ) -> tuple[Record, Job]:
        """A record for source `name` with changed settings, and its job. Raises RequestError."""
        section, source_class = self._sections[name], self._classes[name]
        settings = self._with_passed({**self._settings[name], **change}, section, source_class)
        for option in source_class.options:
            if option.required and settings[option.name] is None:
                raise RequestError(
                    f"source {name!r} needs {option.name!r}, {type_name(option)}: {option.help}"
                )
        secrets = (*self._secrets.values(), *_secrets_in(source_class.options, settings))
        masker = Masker(secrets)
        try:
            source = source_class(settings)
        except SourceError as error:
            raise RequestError(masker.text(str(error))) from None
        record = Record(
            id="",
            name=short_line(_title(source, masker)) or name,
            source=name,
            type=section.type,
            request=_hidden(source_class.options, request, masker),
            settings=_hidden(source_class.options, settings, masker),
            exclusive=section.exclusive,
            has_secrets=bool(masker),
        )
        self._limit_log(record, section.max_log_bytes, section.when_log_full)
        return record, Job(self._registry.class_name(section.type), settings, secrets)

    def _limit_log(
        self, record: Record, max_log_bytes: int | None, when_log_full: str | None
    ) -> None:
        """What isn't set here holds for the whole server."""
        record.max_log_bytes = max_log_bytes or self._max_log_bytes
        drops_oldest = (when_log_full or self._when_log_full) == DROP_OLDEST
        record.dropped_bytes = 0 if drops_oldest else None

    def _with_passed(
        self, settings: dict[str, Any], section: SourceConfig, source_class: type[LogSource]
    ) -> dict[str, Any]:
        """`settings` with the secrets that this section passes; a request's own beat them."""
        option = _secret_variables(source_class.options)
        if option is not None and section.pass_secrets:
            passed = {name: self._secrets[name] for name in section.pass_secrets}
            settings[option.name] = passed | (settings[option.name] or {})
        return settings

    # --- Presets

    def _read_preset(self, config: PresetConfig) -> Preset:
        source = self._preset_source(config)
        source_class, settings = self._classes[source], self._settings[source]
        with_own = {**settings, **config.section}
        masker = Masker((*self._secrets.values(), *_secrets_in(source_class.options, with_own)))

        def read(section: Mapping[str, Any]) -> Preset:
            return read_preset(replace(config, section=section), source, source_class.options)

        preset: Preset = _checked(read, config.section, masker)
        _refuse_unworkable(source_class, {**settings, **preset.settings}, config.where, masker)
        return preset

    def _preset_source(self, preset: PresetConfig) -> str:
        source = preset.section.get("source")
        if source is None:
            takers = (known for known in self._sections if self._takes_command(known))
            source = next(takers, next(iter(self._sections)))
        if not isinstance(source, str) or source not in self._sections:
            known = ", ".join(self._sections)
            raise ConfigError(
                f"{preset.where}: source: expected one of {known}, found {shorten(source)}"
            )
        return source

    def presets(self) -> list[Preset]:
        """Those that a request may start, in the order of the config."""
        return [preset for preset in self._presets.values() if preset.start_role != CLOSED]

    def preset(self, name: str) -> Preset:
        """The preset of this name. Raises RequestError."""
        preset = self._presets.get(name)
        if preset is None:
            raise RequestError(f"there is no preset {shorten(name)}; {self._presets_hint()}")
        if preset.start_role == CLOSED:
            raise RequestError(f"preset {name!r} is closed to requests; {self._presets_hint()}")
        return preset

    def prepare_preset(self, name: str, given: Mapping[str, Any]) -> tuple[Record, Job]:
        """A record for a preset with these parameters, and its job. Raises RequestError."""
        preset = self.preset(name)
        try:
            values: dict[str, Value] = preset.check(given)
        except ParameterError as error:
            raise RequestError(Masker(self._secrets.values()).text(str(error))) from None
        change = preset.settings_for(values)
        if "env" in change:
            # Beside the source's variables, not instead of them.
            change["env"] = {**(self._settings[preset.source]["env"] or {}), **change["env"]}
        request = {"preset": name, "parameters": values}
        record, job = self.make(preset.source, change, request)
        record.name = short_line(job.mask(preset.title(values)))
        record.exclusive = job.mask(preset.exclusive(values)) or record.exclusive
        section = self._sections[preset.source]
        self._limit_log(
            record,
            preset.max_log_bytes or section.max_log_bytes,
            preset.when_log_full or section.when_log_full,
        )
        return record, job

    def _presets_hint(self) -> str:
        names = ", ".join(preset.name for preset in self.presets())
        return f"start one of its presets: {names}" if names else "there are no presets to start"


def _title(source: LogSource, masker: Masker) -> str:
    """Made of masked settings, as a title may change how a secret is written, then masked too."""
    shown = copy.copy(source)
    shown.settings = masker.value(dict(source.settings))
    return masker.text(shown.title())


def _hidden(
    options: Iterable[Option], settings: Mapping[str, Any], masker: Masker
) -> dict[str, Any]:
    """The settings as a record may have them: of secrets only the names."""
    shown: dict[str, Any] = masker.value(dict(settings))
    for option in options:
        if option.secret and shown.get(option.name) is not None:
            given = shown[option.name]
            shown[option.name] = dict.fromkeys(given, MASK) if isinstance(given, dict) else MASK
    return shown


def _secret_variables(options: Iterable[Option]) -> Option | None:
    """The option that takes secrets as environment variables; None if a source has none."""
    return next((o for o in options if o.secret and o.type is Environment), None)


def _secrets_in(options: Iterable[Option], settings: Mapping[str, Any]) -> Iterator[str]:
    """The values of the secret options, of whatever type they may be."""
    for option in options:
        if option.secret:
            yield from _texts_in(settings.get(option.name))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(inner)


def _refuse_short(option: Option, value: Any, where: str) -> None:
    if option.secret and any(len(text.strip()) < MIN_SECRET_CHARS for text in _texts_in(value)):
        raise ConfigError(f"{where}: {SHORT_SECRET}")


def _refuse_unworkable(
    source_class: type[LogSource], settings: Mapping[str, Any], where: str, masker: Masker
) -> None:
    """Refuse, as the server starts, what could only fail, or be shown, as something is started."""
    for option in source_class.options:
        _refuse_short(option, settings[option.name], f"{where}: {option.name}")
    try:
        source_class.check_config(settings)
    except SourceError as error:
        raise ConfigError(masker.text(f"{where}: {error}")) from None


def _checked(check: Callable[[Any], Any], given: Any, masker: Masker) -> Any:
    """What `check` makes of it; the ConfigError that it raises shows no secret.

    Its sentence may show a value cut short, and half a secret is no longer found: hence it is
    made anew, of the masked value.
    """
    try:
        return check(given)
    except ConfigError as error:
        sentence = str(error)
    if masker:
        check(masker.value(given))
    raise ConfigError(masker.text(sentence))
