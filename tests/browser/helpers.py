"""What the tests of the pages share: the server's calls, and looks into the log view."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
from playwright.sync_api import Page

DEADLINE_SECONDS = 20.0


class Server(Protocol):
    """What these tests use of the `server` fixture: a process with its folder."""

    url: str
    data_dir: Path
    http: httpx.Client

    def start(self) -> None:
        """Start it again, at the same port with the same folder."""

    def kill(self) -> None:
        """End it as `kill -9` does."""

    def deploy(self, command: str | list[str] | None = None, **fields: Any) -> dict[str, Any]:
        """Start a deployment; its record."""
        ...

    def wait_for_end(self, deployment_id: str) -> dict[str, Any]:
        """Wait until the deployment has ended; its record."""
        ...

    def log(self, deployment_id: str) -> bytes:
        """The log's bytes, from the disk."""
        ...


def launch(server: Server, command: str, **options: Any) -> str:
    """Start a command; the id of its deployment."""
    return str(server.deploy(command, **options)["id"])


def launch_to_end(server: Server, command: str, **options: Any) -> str:
    """Start a command and wait until it has ended; the id of its deployment."""
    deployment_id = launch(server, command, **options)
    server.wait_for_end(deployment_id)
    return deployment_id


def stop(server: Server, deployment_id: str) -> None:
    """Stop a deployment, as another reader would."""
    server.http.post(f"/deployments/{deployment_id}/stop").raise_for_status()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that the browser can't be asked to wait for."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true in time")
        time.sleep(0.02)


def open_log(page: Page, server: Server, deployment_id: str) -> None:
    """Go to the page of a deployment."""
    page.goto(f"{server.url}/deployments/{deployment_id}")


def shown_text(page: Page) -> str:
    """The text of the complete lines that have rows: those in sight, and some around them."""
    return str(page.locator(".log-lines").evaluate("element => element.textContent"))


def wait_for_line(page: Page, text: str) -> None:
    """Wait until a line that is exactly `text` is in the view."""
    page.wait_for_function(
        """text => {
          const rows = document.querySelectorAll('.log-lines .log-line');
          return [...rows].some(row => row.textContent === text + '\\n');
        }""",
        arg=text,
        timeout=DEADLINE_SECONDS * 1000,
    )


def wait_for_text(page: Page, text: str) -> None:
    """Wait until the complete lines in the view, few enough to have rows, are exactly `text`."""
    try:
        page.wait_for_function(
            "text => document.querySelector('.log-lines').textContent === text",
            arg=text,
            timeout=DEADLINE_SECONDS * 1000,
        )
    except Exception:
        assert shown_text(page) == text
        raise


def copied_text(page: Page) -> str:
    """The whole log as the view gives it to a reader who selects and copies all of it."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('')")
    page.get_by_role("log").focus()
    page.keyboard.press("Control+A")
    page.keyboard.press("Control+C")
    wait_until(lambda: page.evaluate("navigator.clipboard.readText()") != "")
    return str(page.evaluate("navigator.clipboard.readText()"))


def overflow_px(page: Page) -> int:
    """By how much the page is wider than its window."""
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )
