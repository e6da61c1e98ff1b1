"""Pages that find the server full: they say so, come back by themselves, and miss nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from .helpers import (
    Server,
    finished_log,
    launch,
    lines,
    open_log,
    search,
    wait_for_line,
    wait_for_text,
)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server that has one seat."""
    return make_server("max_viewers = 1")


def test_a_page_that_finds_the_server_full_comes_back_by_itself(page: Page, server: Server) -> None:
    """An EventSource would give up for good on the 503."""
    gate = server.data_dir.parent / "gate"
    with server.http.stream("GET", "/events"):
        deployment_id = launch(
            server, f"seq 1 3; while [ ! -e '{gate}' ]; do sleep 0.05; done; seq 4 6"
        )
        open_log(page, server, deployment_id)
        light = page.locator("#light")
        expect(light).to_have_attribute("data-state", "full")
        expect(light).to_have_attribute("data-light", "wait")
        expect(light).to_contain_text(re.compile(r"Full: trying again in \d+ s"))
        wait_for_line(page, "3")  # what was there is shown
    expect(light).to_have_attribute("data-state", "live")
    gate.touch()
    wait_for_text(page, "1\n2\n3\n4\n5\n6\n")
    expect(light).to_have_attribute("data-state", "ended")


def test_the_list_and_a_search_come_back_too(page: Page, server: Server) -> None:
    """A search says so in words."""
    name = finished_log(server, "hay", lines(1000, lambda n: f"needle {n}" if n == 500 else "hay"))
    with server.http.stream("GET", "/events"):
        page.goto(server.url)
        expect(page.locator("#light")).to_have_attribute("data-state", "full")
        open_log(page, server, name)
        status = search(page, "needle")
        message = page.locator(".search-message").first
        expect(message).to_have_text(re.compile(r"^The server is full\. The search begins again"))
        expect(message).not_to_have_class(re.compile("is-error"))
    expect(status).to_have_text(re.compile(r"1 of 1$"))
    expect(message).to_be_hidden()
    page.goto(server.url)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
