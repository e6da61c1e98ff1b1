"""The documents are held to the code: settings, options, calls, modules, commands."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from conftest import Server

import tornado_logs.sse
from tornado_logs.app import make_app
from tornado_logs.config import SETTINGS
from tornado_logs.parameters import PARAMETER_TYPES
from tornado_logs.presets import PRESET_OPTIONS
from tornado_logs.registry import Registry
from tornado_logs.source import Option

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def section(name: str) -> str:
    return README.split(f"<!-- {name}: begin -->\n")[1].split(f"<!-- {name}: end -->")[0]


def default_text(option: Option) -> str:
    if isinstance(option.default, list):
        return " ".join(f"`{text}`" for text in option.default)
    return "" if option.default is None else f"`{str(option.default).lower()}`"


def rows(options: Iterable[Option], first: str = "") -> str:
    return "".join(
        f"|{first} `{option.name}`{'*' if option.request else ''} | {default_text(option)} "
        f"| {option.help} |\n"
        for option in options
    )


def test_the_readme_has_every_setting() -> None:
    assert section("settings") == rows(SETTINGS)


def test_the_readme_has_every_option_of_the_built_in_sources() -> None:
    registry = Registry()
    expected = "".join(
        rows(registry.source_class(name).options, f" `{name}` |")
        for name in ("subprocess", "file_tail", "mock")
    )
    assert section("options") == expected


def test_the_readme_has_every_setting_of_presets_and_parameters() -> None:
    assert section("preset") == rows(PRESET_OPTIONS)
    assert section("parameters") == "".join(
        rows(parameter_type.options, f" `{name}` |")
        for name, parameter_type in PARAMETER_TYPES.items()
    )


def test_the_readme_has_every_call() -> None:
    documented = set(re.findall(r"`(?:GET|POST) (/[^`]*)`", README))
    source = ast.parse((ROOT / "tornado_logs" / "app.py").read_text())
    (function,) = (
        node
        for node in source.body
        if isinstance(node, ast.FunctionDef) and node.name == make_app.__name__
    )
    urls = {
        node.value.replace("([^/]+)", "<id>")
        for node in ast.walk(function)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("/")
    }
    assert urls - {"/static/(.*)"} == documented


def test_the_architecture_has_every_module_in_the_order_of_imports() -> None:
    listed = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", ARCHITECTURE, re.MULTILINE)
    package = ROOT / "tornado_logs"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"} | {"handlers"}
    assert set(listed) == modules
    for position, name in enumerate(listed):
        paths = [package / f"{name}.py"] if name != "handlers" else package.glob("handlers/*.py")
        for path in paths:
            imported = {module for module in imports_of(path) if module != name}
            assert imported <= set(listed[:position]), f"{path.name} imports from below"


def imports_of(path: Path) -> set[str]:
    """The modules of the core that a file imports, but for those it needs for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            if node.module == "tornado_logs":
                found |= {alias.name for alias in node.names} - {"__version__"}
            elif node.module and node.module.startswith("tornado_logs."):
                found.add(node.module.split(".")[1])
    return found


def test_sources_import_the_contract_alone() -> None:
    for path in (ROOT / "sources").glob("*.py"):
        assert imports_of(path) <= {"source"}


def test_nothing_in_the_core_names_a_source_module() -> None:
    for path in (ROOT / "tornado_logs").rglob("*.py"):
        assert "tornado_logs.sources." not in path.read_text().replace('"tornado_logs.sources"', "")


def test_the_examples_in_docstrings_are_true() -> None:
    assert doctest.testmod(tornado_logs.sse).failed == 0


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/promises.md"])
def test_the_tests_that_a_page_names_are_there(page: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / page).read_text())
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text()


CURLS = re.findall(r"`(curl [^`]*localhost:5000[^`]*)`", README) + re.findall(
    r"^(curl .*localhost:5000.*)$", README, re.MULTILINE
)


def test_the_readme_shows_curl() -> None:
    assert len(CURLS) >= 10


(PRESET_EXAMPLE,) = re.findall(r"```toml\n(\[commands\..*?)```", README, re.DOTALL)


@pytest.mark.parametrize("command", CURLS)
def test_every_curl_of_the_readme_works(make_server: Callable[..., Server], command: str) -> None:
    server = make_server(PRESET_EXAMPLE)
    (server.folder / "deploy.sh").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (server.folder / "deploy.sh").chmod(0o755)
    (server.folder / "Makefile").write_text("deploy:\n\t@echo deployed\n")
    (server.folder / "logs").mkdir()
    (server.folder / "logs" / "app.log").write_text("a line of the file\n")
    (server.data_dir / "mine.log").write_text("mine\n")
    needs_running = "/stop" in command
    deployment = server.deploy("sleep 1000" if needs_running else "echo a line")["id"]
    if not needs_running:
        server.wait_for_end(deployment)
    command = command.replace("<id>", deployment).replace(
        "localhost:5000", f"127.0.0.1:{server.port}"
    )
    follows_for_ever = "source=tail" in command
    arguments = [*shlex.split(command), "--silent", "--fail"]
    arguments += ["--max-time", "3"] if follows_for_ever else []
    done = subprocess.run(
        arguments, cwd=server.folder, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == (28 if follows_for_ever else 0), done
    if "-o" in arguments:
        assert (server.folder / f"{deployment}.log").read_bytes() == b"a line\n"
    else:
        assert done.stdout
