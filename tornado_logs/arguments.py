"""Texts with parameters in them, and where a program would run what stands in a parameter.

    template = read_template("--env={environment}", {"environment": parameter}, "conf.toml: here")
    template.text({"environment": "prod"})      # "--env=prod"

A parameter that becomes an argument is safe from a shell's parsing unless the program is a shell
itself, or something like it, and takes that argument for code. Such a command is refused when the
config is read: there is no way to quote for every one of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tornado_logs.config import ConfigError, check_value, shorten, unknown_name
from tornado_logs.parameters import ChoiceParameter, FlagParameter, NumberParameter, Parameter
from tornado_logs.source import Option

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with placeholders: literal text and parameters' names by turns, text at both ends."""

    parts: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that stand in it, in order."""
        return self.parts[1::2]

    @property
    def literal(self) -> str:
        """Its text without the parameters."""
        return "".join(self.parts[::2])

    def text(self, arguments: Mapping[str, str | None]) -> str | None:
        """What it says with these in place; None if one of them isn't there."""
        pieces = [arguments[part] if index % 2 else part for index, part in enumerate(self.parts)]
        return None if None in pieces else "".join(piece or "" for piece in pieces)


def read_template(text: str, known: Mapping[str, Parameter], where: str) -> Template:
    """A text of the config with {parameters} in it. Raises ConfigError that begins with `where`."""
    check_value(Option("text", str, "", ""), text, where)
    parts, end = [""], 0
    for match in _BRACES.finditer(text):
        parts[-1] += text[end : match.start()]
        end = match.end()
        if match[0] in ("{{", "}}"):
            parts[-1] += match[0][0]
        elif match[1] is None:
            raise ConfigError(
                f"{where}: expected a parameter as in {{name}}, or {match[0] * 2} for the "
                f"character {match[0]} itself; found {shorten(text)}"
            )
        elif match[1] not in known:
            clause = unknown_name(match[1], known, "parameter")
            raise ConfigError(f"{where}: {clause}; found in {shorten(text)}")
        else:
            parts += [match[1], ""]
    parts[-1] += text[end:]
    return Template(tuple(parts))


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """How a program takes code as an argument."""

    letters: str  # of the short options whose argument is code
    words: tuple[str, ...] = ()  # of the long ones
    with_argument: str = ""  # other short options that take an argument of their own
    operands_before: int = 0  # how many operands may stand before such an option

    def brings_code(self, template: Template) -> bool:
        """Whether this may be an option that makes code of what follows, or has some in it."""
        text = template.literal
        if text.startswith("--"):
            # A long option may be cut short.
            word = text.partition("=")[0]
            return len(word) > 2 and any(known.startswith(word) for known in self.words)
        if text[:1] not in ("-", "+"):
            return False
        return bool(template.names) or any(letter in text for letter in self.letters)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHELL = _Interpreter("c", ("--command",), "oO")
_ANYWHERE = 1000
_OTHER_USER = _Interpreter("c", ("--command", "--session-command"), "", _ANYWHERE)
_INTERPRETERS: Mapping[str, _Interpreter] = {
    **dict.fromkeys(_words("sh bash dash zsh ksh mksh ash yash rbash fish csh tcsh"), _SHELL),
    **dict.fromkeys(("su", "runuser", "script"), _OTHER_USER),
    **dict.fromkeys(("flock", "sg"), _Interpreter("c", ("--command",), "wE", 1)),
    **dict.fromkeys(("python", "pypy"), _Interpreter("c", (), "WX")),
    "perl": _Interpreter("eE", (), "I"),
    "ruby": _Interpreter("e", (), "ICr"),
    "lua": _Interpreter("e", (), "l"),
    "php": _Interpreter("rBRE", ("--run",), "dc"),
    **dict.fromkeys(("node", "bun"), _Interpreter("ep", ("--eval", "--print"), "r")),
    "env": _Interpreter("S", ("--split-string",), "uC"),
}
# They give their arguments to a shell, here or at the other end.
_SHELL_PASSERS = frozenset(("ssh", "rsh", "watch"))
_HARMLESS = re.compile(r"[A-Za-z0-9_./:@%+=,-]*", re.ASCII)
# A shell expands the first, or runs what they name; the others load code into any program.
_CODE_VARIABLES = _words(
    "ENV BASH_ENV BASHOPTS SHELLOPTS PROMPT_COMMAND PS0 PS1 PS2 PS4 IFS PATH PYTHONPATH "
    "PYTHONSTARTUP PYTHONHOME PERL5OPT PERL5LIB PERL5DB RUBYOPT RUBYLIB NODE_OPTIONS NODE_PATH "
    "JAVA_TOOL_OPTIONS _JAVA_OPTIONS LUA_INIT GIT_SSH_COMMAND GIT_EXTERNAL_DIFF EDITOR VISUAL "
    "PAGER LESSOPEN"
)
_CODE_PREFIXES = ("LD_", "DYLD_", "BASH_FUNC_")


def is_code_variable(name: str) -> bool:
    """Whether programs run what this environment variable says, or look there for what to run."""
    return name in _CODE_VARIABLES or name.startswith(_CODE_PREFIXES)


def refuse_code(
    templates: Sequence[Template],
    given: Sequence[str],
    known: Mapping[str, Parameter],
    where: str,
) -> None:
    """Refuse a parameter within what an interpreter takes for a program. Raises ConfigError."""
    for index, template in enumerate(templates):
        program = os.path.basename(template.literal)
        if template.names:
            continue
        if program in _SHELL_PASSERS:
            _refuse_unquoted(program, templates[index + 1 :], known, where)
        interpreter = _INTERPRETERS.get(program.rstrip("0123456789.-"))
        for position in (
            _code_positions(interpreter, templates, index + 1, known) if interpreter else ()
        ):
            if templates[position].names:
                name = templates[position].names[0]
                raise ConfigError(
                    f"{where}: {program} runs {shorten(given[position])}, so that it would run "
                    f"what a request gives for {{{name}}} as well; give it as an argument of its "
                    f'own, as in ["sh", "-c", "deploy \\"$1\\"", "sh", "{{{name}}}"]'
                )


def _code_positions(
    interpreter: _Interpreter,
    templates: Sequence[Template],
    start: int,
    known: Mapping[str, Parameter],
) -> list[int]:
    """Where its code stands, or might: the options that bring some, and the operand after them."""
    found: list[int] = []
    is_code = is_argument = False  # what the next text is: code; the argument of another option
    operands = 0
    for position in range(start, len(templates)):
        template = templates[position]
        if is_argument:
            is_argument = False
        elif interpreter.brings_code(template):
            is_code = True
            found.append(position)
            is_argument = template.literal[-1] in interpreter.with_argument
        elif template.literal[:1] in ("-", "+"):
            is_argument = template.literal[-1] in interpreter.with_argument
        else:
            found += [position] if is_code else []
            operands += not _may_be_no_operand(template, known)
            if operands > (0 if is_code else interpreter.operands_before):
                return found
    return found


def _may_be_no_operand(template: Template, known: Mapping[str, Parameter]) -> bool:
    """Whether a text may be left out, or be an option after all."""
    for name in template.names:
        parameter = known[name]
        if isinstance(parameter, FlagParameter):
            return True
        if not parameter.is_required and parameter.default is None:
            return True
    first = known[template.names[0]] if template.names and not template.parts[0] else None
    return isinstance(first, ChoiceParameter) and any(text[:1] in "-+" for text in first.choices)


def _refuse_unquoted(
    program: str, templates: Sequence[Template], known: Mapping[str, Parameter], where: str
) -> None:
    """Refuse what a shell could take for more than a word: only known, plain values pass."""
    for name in (name for template in templates for name in template.names):
        if not _is_plain(known[name]):
            raise ConfigError(
                f"{where}: {program} gives its arguments to a shell, so that {{{name}}} may only "
                "be a number, or a choice or flag of plain words; write a script that takes it as "
                "an argument, or give it by env"
            )


def _is_plain(parameter: Parameter) -> bool:
    if isinstance(parameter, ChoiceParameter):
        return all(map(_HARMLESS.fullmatch, parameter.choices))
    if isinstance(parameter, FlagParameter):
        return _HARMLESS.fullmatch(parameter.value) is not None
    return isinstance(parameter, NumberParameter)
