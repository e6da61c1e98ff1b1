"""The sources that a server offers: its config's sections, checked against their types.

    catalog = Catalog(config, Registry())
    record, source_class = catalog.prepare("shell", {"command": "make deploy"})

The record is complete but for its id, which `Launcher.launch` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado_logs.config import (
    Config,
    ConfigError,
    SourceConfig,
    check_settings,
    check_value,
    type_name,
    unknown_name,
)
from tornado_logs.deployment import Record, short_line
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

    def class_names(self) -> list[str]:
        """The classes of all sources, as "package.module:Class"."""
        return sorted({self._registry.class_name(s.type) for s in self._sections.values()})

    def default_name(self) -> str:
        """The source of a request that names none: the first that takes a command, or the first."""
        for name in self._sections:
            if any(option.name == "command" for option in self.request_options(name)):
                return name
        return next(iter(self._sections))

    def demo_name(self) -> str | None:
        """The source behind the demo button, if one is configured."""
        names = (name for name, s in self._sections.items() if s.type == _DEMO_TYPE)
        return next(names, None)

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
