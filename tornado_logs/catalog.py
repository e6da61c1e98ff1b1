"""The sources that a server offers: its config's sections, checked against their types.

    catalog = Catalog(config, Registry())
    record, source_class = catalog.prepare("shell", {"command": "make deploy"})

The record is complete but for its id, which `Launcher.launch` gives it. `prepare_preset` does the
same for the config's presets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado_logs.config import (
    CLOSED,
    Config,
    ConfigError,
    SourceConfig,
    check_settings,
    check_value,
    shorten,
    type_name,
    unknown_name,
)
from tornado_logs.deployment import Record, short_line
from tornado_logs.parameters import ParameterError, Value
from tornado_logs.presets import Preset, read_preset
from tornado_logs.registry import Registry, RegistryError
from tornado_logs.source import LogSource, Option, SourceError

_DEMO_TYPE = "mock"


class RequestError(Exception):
    """What was asked for can't be started. The message is a sentence for whoever asked."""


class Catalog:
    """The configured sources by name."""

    def __init__(self, config: Config, registry: Registry) -> None:
        """Raises ConfigError if a section names an unknown type, or settings it doesn't have."""
        self._registry = registry
        self._sections = dict(config.sources)
        self._classes: dict[str, type[LogSource]] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        for name, section in self._sections.items():
            try:
                source_class = registry.source_class(section.type)
            except RegistryError as error:
                raise ConfigError(f"{section.where}: type: {error}") from error
            self._classes[name] = source_class
            self._settings[name] = check_settings(
                source_class.options, section.settings, section.where, may_lack_required=True
            )
        self._presets = {name: self._read_preset(name, config) for name in config.commands}

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

    def expand(self, name: str) -> list[dict[str, Any]]:
        """See `LogSource.expand`. May look at many files: not for the event loop."""
        return self._classes[name].expand(self._settings[name])

    def discovered(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """See `LogSource.discovered`."""
        return self._classes[name].discovered(change)

    def prepare(self, name: str, given: Mapping[str, Any]) -> tuple[Record, str]:
        """A record for what a request asks of source `name`, and its class. Raises RequestError."""
        if name not in self._sections:
            known = ", ".join(self._sections)
            raise RequestError(f"there is no source {name!r}; this server has: {known}")
        if self.start_role(name) == CLOSED:
            raise RequestError(
                f"source {name!r} is closed to free requests; {self._presets_hint()}"
            )
        options = {option.name: option for option in self.request_options(name)}
        checked = {}
        for key, value in given.items():
            if key not in options:
                raise RequestError(f"source {name!r}: {unknown_name(key, options)}")
            try:
                checked[key] = check_value(options[key], value, key)
            except ConfigError as error:
                raise RequestError(str(error)) from error
        try:
            self._classes[name].check_request(self._settings[name], checked)
        except SourceError as error:
            raise RequestError(str(error)) from error
        return self.make(name, checked, request=dict(given))

    def make(
        self, name: str, change: Mapping[str, Any], request: Mapping[str, Any]
    ) -> tuple[Record, str]:
        """A record for source `name` with changed settings. Raises RequestError."""
        section, source_class = self._sections[name], self._classes[name]
        settings = {**self._settings[name], **change}
        for option in source_class.options:
            if option.required and settings[option.name] is None:
                raise RequestError(
                    f"source {name!r} needs {option.name!r}, {type_name(option)}: {option.help}"
                )
        try:
            title = source_class(settings).title()
        except SourceError as error:
            raise RequestError(str(error)) from error
        record = Record(
            id="",
            name=short_line(title) or name,
            source=name,
            type=section.type,
            request=dict(request),
            settings=settings,
        )
        return record, self._registry.class_name(section.type)

    # --- Presets

    def _read_preset(self, name: str, config: Config) -> Preset:
        preset = config.commands[name]
        source = preset.section.get("source")
        if source is None:
            takers = (known for known in self._sections if self._takes_command(known))
            source = next(takers, next(iter(self._sections)))
        if not isinstance(source, str) or source not in self._sections:
            known = ", ".join(self._sections)
            raise ConfigError(
                f"{preset.where}: source: expected one of {known}, found {shorten(source)}"
            )
        return read_preset(preset, source, self._classes[source].options)

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

    def prepare_preset(self, name: str, given: Mapping[str, Any]) -> tuple[Record, str]:
        """A record for a preset with these parameters, and its class. Raises RequestError."""
        preset = self.preset(name)
        try:
            values: dict[str, Value] = preset.check(given)
        except ParameterError as error:
            raise RequestError(str(error)) from error
        change = preset.settings_for(values)
        if "env" in change:
            # Beside the source's variables, not instead of them.
            change["env"] = {**(self._settings[preset.source]["env"] or {}), **change["env"]}
        request = {"preset": name, "parameters": values}
        record, class_name = self.make(preset.source, change, request)
        record.name = short_line(preset.title(values))
        return record, class_name

    def _presets_hint(self) -> str:
        names = ", ".join(preset.name for preset in self.presets())
        return f"start one of its presets: {names}" if names else "there are no presets to start"
