"""What the tests of the pages share: the server's calls, and looks into the log view."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tornado_logs.journal import JournalWriter

DEADLINE_SECONDS = 20.0
START_SECONDS = 1_790_000_000  # September 2026


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
        time.sleep(0.02)  # between two looks


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


def finished_log(server: Server, name: str, *pieces: bytes) -> str:
    """A log of an hour ago, as a capture process would have written it: a piece each second."""
    path = server.data_dir.parent / f"{name}.log"
    assert not (server.data_dir / path.name).exists(), "each log of a server has its own name"
    clock = iter(range(START_SECONDS, START_SECONDS + 10_000))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    writer = JournalWriter(fd, str(path.with_suffix(".idx")), clock=lambda: float(next(clock)))
    for piece in pieces:
        writer.append(piece)
    writer.close()
    os.close(fd)
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    path.with_suffix(".idx").rename(server.data_dir / f"{name}.idx")
    path.rename(server.data_dir / path.name)
    return name


def lines(count: int, make: Callable[[int], str] = str) -> bytes:
    """`count` lines, each as `make` gives it from its number."""
    return "".join(f"{make(number)}\n" for number in range(1, count + 1)).encode()


def row(page: Page, number: int) -> Locator:
    """The row of line `number`."""
    return page.locator(f'.log-lines .log-line[data-number="{number}"]')


def text_of(page: Page, number: int) -> Locator:
    """The text of line `number`."""
    return row(page, number).locator(".log-text")


def scroll_to_share(page: Page, share: float) -> None:
    """Scroll as one does who drags the thumb."""
    page.get_by_role("log").evaluate(
        "(log, share) => { log.scrollTop = share * (log.scrollHeight - log.clientHeight); }", share
    )


def press_to_scroll(page: Page, key: str) -> None:
    """Press a key that scrolls, and wait until the browser has: it does so over some frames."""
    page.get_by_role("log").evaluate(
        "log => { log.dataset.rests = ''; log.onscrollend = () => (log.dataset.rests = 'yes'); }"
    )
    page.keyboard.press(key)
    expect(page.get_by_role("log")).to_have_attribute("data-rests", "yes")


def first_in_sight(page: Page) -> dict[str, Any]:
    """The number of the row at the top of the view and where it begins, once there is one."""
    found: list[dict[str, Any]] = []

    def is_found() -> bool:
        found[:] = page.get_by_role("log").evaluate(
            """log => {
              const top = log.getBoundingClientRect().top;
              return [...log.querySelectorAll('.log-lines .log-line:not(.is-pinned)')]
                .map(row => ({ row, ...row.getBoundingClientRect().toJSON() }))
                .filter(({ bottom }) => bottom > top + 1)
                .slice(0, 1)
                .map(({ row, y }) => ({ number: Number(row.dataset.number), y: y - top }));
            }"""
        )
        return bool(found)

    wait_until(is_found)
    return found[0]


def wait_for_place(page: Page, px: float) -> None:
    """Wait until the view begins `px` pixels below the top of a log whose rows are 20 px high."""

    def is_there() -> bool:
        at = first_in_sight(page)
        return bool(abs(at["number"] * 20 - at["y"] - px) <= 2)

    wait_until(is_there)


def search(page: Page, text: str) -> Locator:
    """Search for `text`; what tells of what was found."""
    page.keyboard.press("Control+f")
    page.get_by_role("textbox", name="Search the whole log").fill(text)
    return page.locator(".search-status")


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {[node['html'] for node in rule['nodes']]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
