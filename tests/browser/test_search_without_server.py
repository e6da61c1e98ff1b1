"""A search whose server goes away and comes back: it begins again by itself, and counts right."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .helpers import (
    Server,
    finished_log,
    launch,
    lines,
    open_log,
    search,
    stop,
    wait_for_line,
)

GREP = """#!/bin/sh
'{grep}' "$@"
status=$?
while [ -e '{hold}' ]; do sleep 0.05; done
exit $status
"""


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file exists, a grep prints what it finds but doesn't end: as in a huge log."""
    folder, hold = tmp_path / "bin", tmp_path / "hold"
    folder.mkdir()
    script = folder / "grep"
    script.write_text(GREP.format(grep=shutil.which("grep"), hold=hold))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return hold


@pytest.fixture
def server(hold: Path, make_server: Callable[..., Server]) -> Server:
    """A server that finds that grep first."""
    assert hold.parent.exists()
    return make_server()


def test_a_search_that_loses_its_server_begins_again_and_finds_each_line_once(
    page: Page, server: Server, hold: Path
) -> None:
    """What was found stands meanwhile, with a sentence of what goes on; nothing counts twice."""
    text = lines(20_000, lambda n: f"needle {n}" if n % 100 == 0 else f"hay {n}")
    name = finished_log(server, "hay", text)
    open_log(page, server, name)
    wait_for_line(page, "hay 19999")
    hold.touch()
    status = search(page, "needle")
    # Which matches come before the end of the log is grep's to decide: some do.
    expect(status).to_have_text(re.compile(r"\d+ (found|of \d+) · "))
    server.kill()
    message = page.locator(".search-message").first
    expect(message).to_have_text(re.compile(r"^The server can't be reached\. The search begins"))
    expect(message).not_to_have_class(re.compile("is-error"))
    expect(status).to_have_text(re.compile(r"\d+ (found|of \d+) · "))
    hold.unlink()
    server.start()
    expect(status).to_have_text(re.compile(r"of 200$"))
    expect(message).to_be_hidden()
    page.get_by_role("textbox", name="Search the whole log").press("Enter")
    expect(page.locator(".log-line.is-current.is-match")).to_have_count(1)


def test_a_search_of_a_live_log_counts_on_after_its_server_has_come_back(
    page: Page, server: Server, hold: Path
) -> None:
    """What was written while it was away is found, and what was found before counts once."""
    gate = hold.with_name("gate")
    deployment_id = launch(
        server,
        f"seq 1 100; while [ ! -e '{gate}' ]; do sleep 0.05; done; seq 101 200; sleep 600",
    )
    open_log(page, server, deployment_id)
    wait_for_line(page, "100")
    status = search(page, "9")
    expect(status).to_have_text(re.compile("of 19$"))
    server.kill()
    expect(page.locator(".search-message").first).to_be_visible()
    expect(status).to_have_text(re.compile("of 19$"))
    gate.touch()
    server.start()
    expect(status).to_have_text(re.compile("of 38$"))
    expect(page.locator(".search-message").first).to_be_hidden()
    expect(page.locator(".tools-count")).to_have_text("200 lines")
    stop(server, deployment_id)


def test_a_tab_that_was_hidden_while_its_search_waited_for_the_server_searches_again(
    page: Page, server: Server, hold: Path
) -> None:
    """Hidden tabs hold no connection, and ask for none: the search goes on once it is seen."""
    assert not hold.exists()
    name = finished_log(server, "hay", lines(50, lambda n: f"needle {n}"))
    open_log(page, server, name)
    wait_for_line(page, "needle 50")
    server.kill()
    status = search(page, "needle")
    expect(page.locator(".search-message").first).to_contain_text("can't be reached")
    hide = """isHidden => {
      Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    server.start()
    page.evaluate(hide, False)
    expect(status).to_have_text(re.compile("of 50$"))
