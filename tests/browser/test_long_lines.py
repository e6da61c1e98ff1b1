"""Lines far longer than a tab could hold: shown as far as it goes, with a way to the rest."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .helpers import (
    Server,
    finished_log,
    launch,
    lines,
    open_log,
    row,
    search,
    stop,
    text_of,
    wait_for_line,
    wait_until,
)

LONG_BYTES = 200_000_000
SHOWN_BYTES = 65_536  # what the server sends of a line, unless it is told otherwise
PIECE = b"x" * 1_000_000
MOST_CHARS = 1_000_000


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """One for all tests of this module: they leave it as it was, each beside its own logs."""
    return lasting_server


def expect_alive(page: Page) -> None:
    """The tab answers to keys, and holds no more than it shows."""
    page.get_by_role("log").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.body.textContent.length") < MOST_CHARS


def download(page: Page, name: str) -> Path:
    """Click on the link of that name; the file that it saves."""
    with page.expect_download() as started:
        page.get_by_role("link", name=name).click()
    return started.value.path()


@pytest.mark.parametrize("end", [b"\n", b""], ids=["ended", "cut"])
def test_a_log_of_one_long_line_shows_its_beginning_and_offers_the_rest(
    page: Page, server: Server, end: bytes
) -> None:
    """As a file, byte for byte: no tab could show it."""
    name = finished_log(
        server, "ended" if end else "cut", *[PIECE] * (LONG_BYTES // len(PIECE)), end
    )
    open_log(page, server, name)
    expect(text_of(page, 1)).to_have_text(re.compile("^x{20000}\n?$"))
    expect(page.locator(".tools-count")).to_have_text("1 line")
    left_out = f"{LONG_BYTES - SHOWN_BYTES:,} bytes"
    link = f"Download the raw log, with {left_out} more"
    assert download(page, link).stat().st_size == LONG_BYTES + len(end)
    page.get_by_role("button", name=re.compile("more characters$")).click()
    expect(text_of(page, 1)).to_contain_text(f"[{left_out} left out; the raw log has them]")
    expect_alive(page)


def test_a_long_line_that_draws_over_itself_shows_what_stands_at_its_end(
    page: Page, server: Server
) -> None:
    """As a terminal would, and no more than that."""
    bar = b"".join(b"\rprogress %6d of 999999 [####  ]" % number for number in range(20_000))
    name = finished_log(server, "bar", *[bar] * (LONG_BYTES // len(bar)), b"\rdone\x1b[K\nafter\n")
    open_log(page, server, name)
    wait_for_line(page, "after")
    expect(text_of(page, 1)).to_have_text(re.compile("^done\n?$"))
    assert page.get_by_role("link", name=re.compile("^Download the raw log, with")).count() == 0
    expect_alive(page)


def test_many_long_lines_scroll_and_are_searched_to_their_ends(page: Page, server: Server) -> None:
    """Also where the match is in what isn't sent."""
    texts = [
        b"%d " % number + PIECE * 10 + (b"needle\n" if number == 7 else b"\n")
        for number in range(1, 21)
    ]
    open_log(page, server, finished_log(server, "many", *texts))
    expect(page.locator(".tools-count")).to_have_text("20 lines")
    page.get_by_role("log").focus()
    page.keyboard.press("Home")
    expect(row(page, 1)).to_be_in_viewport()
    expect(search(page, "needle")).to_have_text("1 of 1")
    expect(row(page, 7)).to_be_in_viewport()
    page.keyboard.press("Escape")
    page.get_by_role("log").focus()
    page.keyboard.press("End")
    expect(page.get_by_role("link", name=re.compile("^Download the raw log")).last).to_be_visible()
    expect_alive(page)


def test_a_line_that_grows_without_end_leaves_the_tab_alive(page: Page, server: Server) -> None:
    """It shows the beginning while the line is written; what comes after it is shown too."""
    gate = server.data_dir.parent / "gate"
    os.mkfifo(gate)
    script = (
        "import os, signal\n"
        "for _ in range(200): os.write(1, b'y' * 1_000_000)\n"
        f"open({str(gate)!r}).close()\n"  # waits until it is opened for writing
        "os.write(1, b'\\nafter\\n')\n"
        "signal.pause()\n"
    )
    command = f"echo before; {shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    deployment_id = launch(server, command, tty=False)
    open_log(page, server, deployment_id)
    wait_for_line(page, "before")
    path = server.data_dir / f"{deployment_id}.log"
    wait_until(lambda: path.stat().st_size >= LONG_BYTES)
    expect_alive(page)
    gate.open("w").close()
    wait_for_line(page, "after")
    expect(text_of(page, 2)).to_have_text(re.compile("^y{20000}\n?$"))
    expect_alive(page)
    stop(server, deployment_id)


def test_another_log_is_followed_while_a_long_line_is_read(page: Page, server: Server) -> None:
    """Line by line: to look for the end of a line holds nobody up."""
    finished_log(server, "one", *[PIECE] * (LONG_BYTES // len(PIECE)))
    deployment_id = launch(server, "for i in $(seq 1 100); do echo $i; sleep 0.02; done")
    tab = page.context.new_page()
    open_log(tab, server, deployment_id)
    open_log(page, server, "one")
    wait_for_line(tab, "100")
    assert server.log(deployment_id).replace(b"\r", b"") == lines(100)
    expect(text_of(page, 1)).to_have_text(re.compile("^x{20000}\n?$"))
