"""The log view of a deployment that drops the oldest part of its log."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from .helpers import (
    Server,
    launch,
    launch_to_end,
    open_log,
    press_to_scroll,
    row,
    scroll_to_share,
    search,
    text_of,
    wait_until,
)

CONFIG = """
max_log_bytes = 1048576
when_log_full = "drop_oldest"
[sources.shell]
type = "subprocess"
tty = false
"""
COUNT = "awk 'BEGIN { for (n = %d; n <= %d; n++) printf \"line %%09d ................\\n\", n }'"
NOTE = re.compile(r"^[\d,]+ older lines were dropped to keep this log within 1 MB$")


@pytest.fixture
def server(make_server: Callable[[str], Server]) -> Server:
    """A server whose logs are kept within a MiB."""
    return make_server(CONFIG)


def kept_from(server: Server, deployment: str) -> int:
    """The number of the first line that is left."""
    return int(server.http.get(f"/logs/{deployment}/lines?count=1").json()["kept_from"])


def expect_line(page: Page, number: int) -> None:
    """Line `number` is in sight, with its text."""
    expect(row(page, number)).to_be_in_viewport()
    expect(text_of(page, number)).to_have_text(re.compile(rf"^line {number:09d} "))


def test_what_is_left_of_a_log_is_shown_with_its_true_numbers(page: Page, server: Server) -> None:
    deployment = launch_to_end(server, COUNT % (1, 100_000))
    first = kept_from(server, deployment)
    assert first > 60_000
    open_log(page, server, deployment)
    expect_line(page, 100_000)
    expect(page.locator('[data-fact="Log"]')).to_have_text(
        re.compile(r"^3\.2 MB, the last (1|0\.\d|\d{3}) [MK]B kept$")
    )
    scroll_to_share(page, 0)
    expect_line(page, first)
    expect_line(page, first + 1)
    note = page.locator(".log-gap.is-dropped .log-gap-label")
    text = str(note.get_attribute("data-text"))
    assert NOTE.match(text)
    assert text.startswith(f"{first - 1:,} ")
    scroll_to_share(page, 0.5)
    middle = (first + 100_000) // 2
    page.wait_for_function(
        """middle => [...document.querySelectorAll(".log-lines .log-line")].some(
          ({ dataset, textContent }) => Math.abs(dataset.number - middle) < 300
            && textContent.startsWith(`line ${String(dataset.number).padStart(9, "0")} `))""",
        arg=middle,
    )


def test_a_link_to_a_dropped_line_says_so_and_leads_to_the_first_that_is_left(
    page: Page, server: Server
) -> None:
    deployment = launch_to_end(server, COUNT % (1, 100_000))
    first = kept_from(server, deployment)
    page.goto(f"{server.url}/deployments/{deployment}#L5")
    sentence = f"Line 5 isn't there any more: lines before {first:,} were dropped."
    expect(page.locator(".log-toast")).to_have_text(sentence)
    expect_line(page, first)
    status = search(page, "line 000000007")
    expect(status).to_have_text("No matches")
    search(page, "line 000090007")
    expect_line(page, 90_007)


def test_who_reads_what_is_being_dropped_is_told_and_can_read_on(
    page: Page, server: Server
) -> None:
    gate = "read go < gate"
    command = f"mkfifo gate; {COUNT % (1, 40_000)}; {gate}; {COUNT % (40_001, 100_000)}; {gate}"
    deployment = launch(server, command, cwd=str(server.data_dir))
    wait_until(lambda: kept_from(server, deployment) > 1 and total(server, deployment) == 40_000)
    first = kept_from(server, deployment)
    open_log(page, server, deployment)
    expect_line(page, 40_000)
    scroll_to_share(page, 0)
    expect_line(page, first)
    page.get_by_role("log").focus()
    press_to_scroll(page, "PageDown")
    expect(row(page, first)).not_to_be_in_viewport()
    (server.data_dir / "gate").write_text("go\n")
    expect(page.locator(".log-toast")).to_have_text(
        "The lines that were here have been dropped from the log."
    )
    wait_until(lambda: total(server, deployment) == 100_000)
    first = kept_from(server, deployment)
    expect_line(page, first)
    page.get_by_role("log").press("End")
    expect_line(page, 100_000)
    (server.data_dir / "gate").write_text("go\n")


def test_a_page_that_was_away_while_lines_were_dropped_goes_on_at_the_end(
    page: Page, server: Server
) -> None:
    gate = "read go < gate"
    command = f"mkfifo gate; {COUNT % (1, 10_000)}; {gate}; {COUNT % (10_001, 100_000)}; {gate}"
    deployment = launch(server, command, cwd=str(server.data_dir))
    open_log(page, server, deployment)
    expect_line(page, 10_000)
    server.kill()
    log = server.data_dir / f"{deployment}.log"
    (server.data_dir / "gate").write_text("go\n")
    wait_until(lambda: log.stat().st_size == 100_000 * 32)
    server.start()
    expect_line(page, 100_000)
    scroll_to_share(page, 0)
    expect_line(page, kept_from(server, deployment))
    page.get_by_role("log").press("End")
    expect_line(page, 100_000)
    (server.data_dir / "gate").write_text("go\n")


def total(server: Server, deployment: str) -> int:
    """How many lines the log has had."""
    return int(server.http.get(f"/logs/{deployment}/lines?count=1").json()["total_lines"])
