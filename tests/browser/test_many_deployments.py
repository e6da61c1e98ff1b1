"""The list of a folder that holds thousands of deployments."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Server as FolderServer
from playwright.sync_api import Page, expect

from tornado_logs.deployment import Record, State, timestamp

from .helpers import Server, launch_to_end

COUNT = 3_000
FIRST_AT_SECONDS = 1_700_000_000
STATES = [State.SUCCEEDED] * 23 + [State.FAILED, State.STOPPED]
PAGE_ROWS = 50


def record_of(number: int) -> Record:
    """A deployment of long ago, as the server would have left it."""
    moment = timestamp(FIRST_AT_SECONDS + 60 * number)
    state = STATES[number % len(STATES)]
    digits = re.sub(r"\D", "", moment)
    return Record(
        id=f"{digits[:8]}-{digits[8:14]}-22k3f9qd",
        name=f"deploy {number}.",
        source="demo" if number % 1000 == 0 else "shell",
        type="subprocess",
        state=state,
        created_at=moment,
        started_at=moment,
        ended_at=moment,
        request={"command": f"deploy {number}."},
        exit_status=0 if state is State.SUCCEEDED else 1,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that finds them when it starts."""
    server = FolderServer(tmp_path)
    server.data_dir.mkdir()
    for number in range(COUNT):
        record = record_of(number)
        (server.data_dir / f"{record.id}.json").write_text(json.dumps(record.to_json()))
        (server.data_dir / f"{record.id}.log").write_text(f"last line of {number}\n")
    with contextlib.closing(server):
        server.start()
        yield server


def test_the_list_of_many_shows_its_newest_and_stays_live(page: Page, server: Server) -> None:
    """A page of them comes with the document; more are a click away."""
    page.goto(server.url, wait_until="commit")
    names = page.locator(".row-name")
    expect(names).to_have_count(PAGE_ROWS)
    expect(names.first).to_have_text(f"deploy {COUNT - 1}.")
    expect(page.locator(".row-last").first).to_have_text(f"last line of {COUNT - 1}")
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    name = f"live-{uuid.uuid4().hex[:8]}"
    launch_to_end(server, "true", name=name)
    expect(names.first).to_have_text(name)
    expect(page.locator(".row").first).to_have_attribute("data-state", "succeeded")
    expect(names.nth(1)).to_have_text(f"deploy {COUNT - 1}.")
    page.get_by_role("button", name="Show more").click()
    expect(names).to_have_count(2 * PAGE_ROWS + 1)
    expect(names.last).to_have_text(f"deploy {COUNT - 2 * PAGE_ROWS}.")


def test_filters_reach_the_oldest_of_many(page: Page, server: Server) -> None:
    """Text, state, source and time, each and together."""
    page.goto(server.url)
    names, form = page.locator(".row-name"), page.get_by_role("search", name="Filter")
    text = form.get_by_label("Name")
    text.fill("deploy 17.")
    expect(names).to_have_text(["deploy 17."])
    text.fill("")
    form.get_by_label("Filter by state").select_option("failed")
    expect(names).to_have_count(PAGE_ROWS)
    expect(names.first).to_have_text(f"deploy {COUNT - 2}.")
    for shown in (2 * PAGE_ROWS, COUNT // len(STATES)):
        page.get_by_role("button", name="Show more").click()
        expect(names).to_have_count(shown)
    expect(names.last).to_have_text("deploy 23.")
    form.get_by_label("Filter by state").select_option("")
    form.get_by_label("Filter by source").select_option("demo")
    expect(names).to_have_text([f"deploy {number}." for number in range(COUNT - 1000, -1, -1000)])
    form.get_by_label("Filter by state").select_option("stopped")
    expect(page.get_by_text("No deployment matches this filter")).to_be_visible()
    form.get_by_label("Filter by state").select_option("succeeded")
    expect(names).to_have_count(COUNT // 1000)
    form.get_by_label("Filter by time").select_option("1w")
    expect(page.get_by_text("No deployment matches this filter")).to_be_visible()
    name = f"now-{uuid.uuid4().hex[:8]}"
    form.get_by_label("Filter by source").select_option("shell")
    launch_to_end(server, "true", name=name)
    expect(names).to_have_text([name])
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(names).to_have_count(PAGE_ROWS)
    expect(names.nth(1)).to_have_text(f"deploy {COUNT - 1}.")
