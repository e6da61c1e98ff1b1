"""Source type to class, by entry points: how plugins are found, the built-in ones too."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from tornado_logs.source import LogSource

GROUP = "tornado_logs.sources"


class RegistryError(Exception):
    """A source type is unknown, double or broken. The message says which and what to do."""


class Registry:
    """The source types that are installed. Classes are imported when they are asked for."""

    def __init__(self, found: Iterable[EntryPoint] | None = None) -> None:
        """Takes the installed entry points unless given others. Raises RegistryError."""
        self._entry_points: dict[str, EntryPoint] = {}
        for entry_point in entry_points(group=GROUP) if found is None else found:
            known = self._entry_points.setdefault(entry_point.name, entry_point)
            if known.value != entry_point.value:
                raise RegistryError(
                    f"two plugins register the source type {entry_point.name!r}: "
                    f"{_describe(known)} and {_describe(entry_point)}; uninstall one of them"
                )

    def types(self) -> list[str]:
        """The names of all types, sorted."""
        return sorted(self._entry_points)

    def class_name(self, type_name: str) -> str:
        """The class as "package.module:Class", for another process to import."""
        return self._entry_points[type_name].value

    def source_class(self, type_name: str) -> type[LogSource]:
        """The class of a type. Raises RegistryError."""
        if type_name not in self._entry_points:
            raise RegistryError(
                f"no source type {type_name!r} is installed; there are: {', '.join(self.types())}"
            )
        try:
            found = self._entry_points[type_name].load()
        except (ImportError, AttributeError) as error:
            place = _describe(self._entry_points[type_name])
            raise RegistryError(
                f"the source type {type_name!r} can't be loaded from {place}: {error}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, LogSource)):
            raise RegistryError(
                f"{_describe(self._entry_points[type_name])} is no LogSource, "
                "but registered as a source type"
            )
        return found


def _describe(entry_point: EntryPoint) -> str:
    package = entry_point.dist.name if entry_point.dist else "an unknown package"
    return f"{entry_point.value} ({package})"
