"""A browser for each module, and for each test a fresh page that may not misbehave unseen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from .helpers import DEADLINE_SECONDS, Server

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Not for the session: as long as Playwright runs, its event loop counts as running in this thread,
# and an asyncio test in another module would refuse to start.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: the system's where there is one, else Playwright's own."""
    expect.set_options(timeout=DEADLINE_SECONDS * 1000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=_ARGUMENTS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """A fresh profile. At its end no script may have failed and no other host been asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(DEADLINE_SECONDS * 1000)
    failures: list[str] = []
    foreign: list[str] = []
    context.on("weberror", lambda error: failures.append(str(error.error)))
    context.on(
        "request",
        lambda request: (
            None if request.url.startswith(server.url + "/") else foreign.append(request.url)
        ),
    )
    yield context
    context.close()
    assert failures == []
    assert foreign == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page in a fresh profile."""
    return context.new_page()
