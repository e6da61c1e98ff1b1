"""What a preset asks for: typed parameters, and the check of every value that a request gives.

    version = read_parameter("version", {"type": "text", "pattern": "v[0-9.]+"}, "conf.toml: here")
    version.check("v1.2")       # "v1.2"; raises ParameterError for anything else
    version.argument("v1.2")    # the text that stands in an argument; None: it is left out

A value reaches a program as (a part of) one argument or environment variable. What could be taken
for more than that is refused here: control characters, and texts that a program would take for
options.
"""

from __future__ import annotations

import math
import os
import re
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from tornado_logs.config import (
    BOOLEANS,
    MAX_NUMBER,
    ConfigError,
    check_settings,
    is_text,
    shorten,
    unknown_name,
)
from tornado_logs.source import Option, Texts

MAX_FILES = 1000
"""How many names of a folder are offered; the others may be given all the same."""

_MAX_ENTRIES = 20_000  # of a folder that is looked through for them
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,16}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,16}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_CONTROLS = ("Cc", "Zl", "Zp")  # line and paragraph separators end a line in many programs
# They make a text look like another: in the list, in the record, in an audit.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Value = str | int | float | bool


class ParameterError(Exception):
    """A value is none that this parameter takes. The message begins with the parameter's name."""


class Parameter(ABC):
    """One parameter. `default` and `is_required` say what stands where a request gives nothing."""

    options: ClassVar[tuple[Option, ...]] = ()
    """What its section takes beside type, help, required and default."""

    begins_argument = False
    """Whether it stands where a program looks for options, so that "-x" would be one."""

    def __init__(self, name: str, settings: Mapping[str, Any], where: str) -> None:
        """Raises ConfigError."""
        self.name = name
        self.settings = settings
        self.where = where
        self.help: str = settings["help"] or ""
        self.default: Value | None = None
        self.is_required = True

    def check(self, value: Any) -> Value:
        """The value that a request gave as JSON. Raises ParameterError."""
        if self.begins_argument and isinstance(value, str) and self._may_be_option(value):
            raise ParameterError(
                f"{self.name}: {shorten(value)} begins with '-', which the program would take for "
                "an option; give it another beginning, such as './'"
            )
        problem = self.problem(value)
        if problem:
            raise ParameterError(f"{self.name}: {problem}")
        return self.canonical(value)

    def parse(self, text: str) -> Any:
        """What `text` of a form stands for, to be checked."""
        return text

    def canonical(self, value: Any) -> Value:
        """A value that passed `problem`, as it is kept."""
        return value  # type: ignore[no-any-return]

    def argument(self, value: Value | None) -> str | None:
        """What stands in an argument or a variable; None where there is nothing to stand there."""
        return None if value is None else str(value)

    @abstractmethod
    def expected(self) -> str:
        """What a value has to be, in words."""

    @abstractmethod
    def problem(self, value: Any) -> str:
        """Why this isn't such a value; empty if it is."""

    def describe(self) -> dict[str, Any]:
        """What a client has to know to ask for it."""
        return {
            "name": self.name,
            "type": TYPE_NAMES[type(self)],
            "help": self.help,
            "required": self.is_required,
            "default": self.default,
        }

    def not_expected(self, value: Any) -> str:
        """The clause of `problem` that says both."""
        return f"expected {self.expected()}, found {shorten(value)}"

    def _may_be_option(self, value: str) -> bool:
        return False


class TextParameter(Parameter):
    """A text on one line."""

    options = (
        Option("pattern", str, None, "A regular expression that all of the text has to match."),
        Option("max_chars", int, 200, "How long it may be.", minimum=1, maximum=10_000),
    )

    def __init__(self, name: str, settings: Mapping[str, Any], where: str) -> None:
        super().__init__(name, settings, where)
        try:
            # ASCII, so that \d and \w mean what they mean in the browser, and no more.
            self._pattern = re.compile(settings["pattern"] or ".*", re.ASCII)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f"{where}: pattern: expected a regular expression, "
                f"found {shorten(settings['pattern'])}: {error}"
            ) from error

    def expected(self) -> str:
        """Its length and its pattern."""
        pattern = self.settings["pattern"]
        matching = f" that matches {pattern}" if pattern else ""
        return f"text of at most {self.settings['max_chars']} characters{matching}"

    def problem(self, value: Any) -> str:
        """Refuses control characters before the pattern is asked: "." matches most of them."""
        if not isinstance(value, str):
            return self.not_expected(value)
        if problem := _control_problem(value):
            return problem
        # The length first: it bounds what a pattern can be made to do.
        is_short = len(value) <= self.settings["max_chars"] and is_text(value)
        return "" if is_short and self._pattern.fullmatch(value) else self.not_expected(value)

    def describe(self) -> dict[str, Any]:
        """With its pattern and its length."""
        own = {name: self.settings[name] for name in ("pattern", "max_chars")}
        return super().describe() | own

    def _may_be_option(self, value: str) -> bool:
        return value.startswith("-")


class ChoiceParameter(Parameter):
    """One of some texts."""

    options = (Option("choices", Texts, None, "The texts to choose from.", required=True),)

    def __init__(self, name: str, settings: Mapping[str, Any], where: str) -> None:
        super().__init__(name, settings, where)
        choices: list[str] = settings["choices"]
        if not choices:
            raise ConfigError(f"{where}: choices: expected one text or more, found none")
        for choice in choices:
            if problem := _control_problem(choice):
                raise ConfigError(f"{where}: choices: {problem}")
            if choices.count(choice) > 1:
                raise ConfigError(f"{where}: choices: {shorten(choice)} stands there twice")
        self.choices = choices

    def expected(self) -> str:
        """All choices, or as many as a sentence can hold."""
        return _listed("one of", self.choices)

    def problem(self, value: Any) -> str:
        """Exactly one of them: neither in another case nor with a space around it."""
        is_choice = isinstance(value, str) and value in self.choices
        return "" if is_choice else self.not_expected(value)

    def describe(self) -> dict[str, Any]:
        """With its choices."""
        return super().describe() | {"choices": self.choices}


class NumberParameter(Parameter):
    """A number; it stands in an argument in plain decimal digits."""

    options = (
        Option("minimum", float, None, "The smallest that is taken."),
        Option("maximum", float, None, "The largest that is taken."),
        Option("whole", bool, True, "Whether it has to be a whole number."),
    )

    def __init__(self, name: str, settings: Mapping[str, Any], where: str) -> None:
        super().__init__(name, settings, where)
        low, high = settings["minimum"], settings["maximum"]
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"{where}: maximum: expected {number_text(low)} or more, which is the minimum, "
                f"found {number_text(high)}"
            )

    def expected(self) -> str:
        """Its kind and its bounds."""
        kind = "a whole number" if self.settings["whole"] else "a number"
        low, high = self.settings["minimum"], self.settings["maximum"]
        if low is not None and high is not None:
            return f"{kind} from {number_text(low)} to {number_text(high)}"
        if low is not None:
            return f"{kind} of {number_text(low)} or more"
        return kind if high is None else f"{kind} of {number_text(high)} or less"

    def problem(self, value: Any) -> str:
        """True is no number here, though it is one in Python."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) >= MAX_NUMBER or not math.isfinite(value):
            return self.not_expected(value)
        low, high = self.settings["minimum"], self.settings["maximum"]
        is_low, is_high = low is not None and value < low, high is not None and value > high
        is_whole = value == int(value)
        if is_low or is_high or (self.settings["whole"] and not is_whole):
            return self.not_expected(value)
        return ""

    def parse(self, text: str) -> Any:
        """Python would take "0x10", "1_000" and "nan" for numbers; a form doesn't send them."""
        text = text.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        return float(text) if _DECIMAL.fullmatch(text) else text

    def canonical(self, value: Any) -> Value:
        """3.0 is 3."""
        number: int | float = value
        return int(number) if number == int(number) else number

    def argument(self, value: Value | None) -> str | None:
        """Without an exponent, which few programs read."""
        return number_text(value) if isinstance(value, int | float) else None

    def describe(self) -> dict[str, Any]:
        """With its bounds."""
        bounds = {
            name: None if self.settings[name] is None else self.canonical(self.settings[name])
            for name in ("minimum", "maximum")
        }
        return super().describe() | bounds | {"whole": self.settings["whole"]}


class FlagParameter(Parameter):
    """On or off: on, its text stands in the argument; off, the argument is left out."""

    options = (Option("value", str, None, "What stands there when on; default: --its-name."),)

    def __init__(self, name: str, settings: Mapping[str, Any], where: str) -> None:
        super().__init__(name, settings, where)
        self.value: str = f"--{name.replace('_', '-')}"
        if settings["value"] is not None:
            self.value = settings["value"]
        problem = _control_problem(self.value) if self.value else "expected text, found none"
        if problem:
            raise ConfigError(f"{where}: value: {problem}")
        self.default = False
        self.is_required = False

    def expected(self) -> str:
        """As JSON has it."""
        return "true or false"

    def problem(self, value: Any) -> str:
        """Nothing else counts as one of them."""
        return "" if isinstance(value, bool) else self.not_expected(value)

    def parse(self, text: str) -> Any:
        """The last of its lines: a form's checkbox stands after the hidden field that says off."""
        last = text.rpartition("\n")[2].strip()
        return BOOLEANS.get(last.lower(), text)

    def argument(self, value: Value | None) -> str | None:
        """Its text, or nothing."""
        return self.value if value else None


class FileParameter(Parameter):
    """An existing file of a folder, by its name relative to that, "/" between its parts."""

    options = (
        Option("folder", str, None, "The folder that holds the files, and others.", required=True),
    )

    def __init__(self, name: str, settings: Mapping[str, Any], where: str) -> None:
        super().__init__(name, settings, where)
        if not os.path.isdir(settings["folder"]):
            raise ConfigError(
                f"{where}: folder: expected an existing folder, found {shorten(settings['folder'])}"
            )
        self._folder = os.path.realpath(settings["folder"])

    def expected(self) -> str:
        """Without the folder: where it is isn't everybody's business."""
        return "the name of an existing file of the preset's folder"

    def problem(self, value: Any) -> str:
        """Says the same of a file elsewhere as of none: it tells nothing of what there is."""
        if not isinstance(value, str):
            return self.not_expected(value)
        return _control_problem(value) or ("" if self._is_file(value) else self.not_expected(value))

    def _is_file(self, name: str) -> bool:
        if not is_text(name) or not _is_plain_path(name):
            return False
        try:
            path = os.path.realpath(os.path.join(self._folder, name), strict=True)
            # Where a symbolic link leads counts as well, both its folder and its name.
            is_below = os.path.commonpath([path, self._folder]) == self._folder
            is_shown = _is_plain_path(os.path.relpath(path, self._folder))
            return is_below and is_shown and stat.S_ISREG(os.stat(path).st_mode)
        except (OSError, ValueError):
            return False

    def files(self) -> tuple[list[str], bool]:
        """Names that may be given, sorted, and whether there may be more. Not for the event loop.

        Those of linked folders aren't listed: a link may lead in a circle.
        """
        found: list[str] = []
        for number, name in enumerate(_walk(self._folder)):
            if len(found) == MAX_FILES or number == _MAX_ENTRIES:
                return sorted(found), True
            if self._is_offered(name):
                found.append(name)
        return sorted(found), False

    def _is_offered(self, name: str) -> bool:
        try:
            self.check(name)
        except ParameterError:
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """With the names of its files. Not for the event loop."""
        files, has_more = self.files()
        return super().describe() | {"files": files, "more_files": has_more}

    def _may_be_option(self, value: str) -> bool:
        return value.startswith("-")


PARAMETER_TYPES: Mapping[str, type[Parameter]] = {
    "text": TextParameter,
    "choice": ChoiceParameter,
    "number": NumberParameter,
    "flag": FlagParameter,
    "file": FileParameter,
}
"""What `type` in a `[commands.NAME.parameters.NAME]` section may name."""

TYPE_NAMES = {parameter_type: name for name, parameter_type in PARAMETER_TYPES.items()}

COMMON_OPTIONS: tuple[Option, ...] = (
    Option("type", str, None, "One of: text, choice, number, flag, file.", required=True),
    Option("help", str, None, "What it is, for who fills it in."),
    Option("required", bool, None, "Whether it has to be given; default: if it has no default."),
)
"""What every parameter's section takes, beside `default`, whose type is the parameter's."""


def read_parameter(name: str, section: Any, where: str) -> Parameter:
    """The parameter of one section. Raises ConfigError that begins with `where`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: expected a name of letters, digits and _ that begins with a letter, "
            f"found {shorten(name)}"
        )
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: expected a section with a type, found {shorten(section)}")
    type_name = section.get("type")
    if not isinstance(type_name, str) or type_name not in PARAMETER_TYPES:
        found = "nothing" if type_name is None else shorten(type_name)
        expected = ", ".join(PARAMETER_TYPES)
        raise ConfigError(f"{where}: type: expected one of {expected}, found {found}")
    parameter_type = PARAMETER_TYPES[type_name]
    options = (*COMMON_OPTIONS, *parameter_type.options)
    for key in section.keys() - {"default"} - {option.name for option in options}:
        known = ["default", *(option.name for option in options)]
        raise ConfigError(f"{where}: {unknown_name(key, known)}")
    given = {key: value for key, value in section.items() if key != "default"}
    parameter = parameter_type(name, check_settings(options, given, where), where)
    _read_default(parameter, section)
    return parameter


def _read_default(parameter: Parameter, section: Mapping[str, Any]) -> None:
    required = parameter.settings["required"]
    has_default = "default" in section or parameter.default is not None
    if required is not None and has_default:
        raise ConfigError(
            f"{parameter.where}: required: expected none, for what has a default is never missing "
            f"(a flag is off by default), found {required!r}"
        )
    if "default" in section:
        try:
            parameter.default = parameter.check(section["default"])
        except ParameterError as error:
            problem = str(error).removeprefix(f"{parameter.name}: ")
            raise ConfigError(f"{parameter.where}: default: {problem}") from error
    parameter.is_required = not has_default and required is not False


def number_text(value: float) -> str:
    """A number in plain decimal digits."""
    return str(int(value)) if value == int(value) else format(Decimal(repr(value)), "f")


def _listed(before: str, items: Sequence[str]) -> str:
    shown = ", ".join(items[:20])
    return f"{before} {shown}" + (f" and {len(items) - 20} more" if len(items) > 20 else "")


def _control_problem(text: str) -> str:
    """Why `text` can't be a part of one argument on one line; empty if it can."""
    for char in text:
        if unicodedata.category(char) in _CONTROLS or char in _REORDERING:
            name = {"\n": "a newline", "\0": "a NUL character"}.get(
                char, f"the control character U+{ord(char):04X}"
            )
            return f"expected text on one line without control characters, found {name}"
    return ""


def _is_plain_path(path: str) -> bool:
    """Whether it is relative, stays where it is, and no part of it is hidden."""
    return all(part and not part.startswith(".") for part in path.split("/"))


def _walk(folder: str) -> Iterator[str]:
    """Every name below, relative to `folder`; hidden folders aren't looked into."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield os.path.relpath(base, folder)  # that who counts sees an end of empty folders too
        for name in sorted(names):
            yield os.path.relpath(os.path.join(base, name), folder)
