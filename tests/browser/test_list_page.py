"""The page with all deployments."""

from __future__ import annotations

import json
import os
import re
import time
import uuid

from playwright.sync_api import Browser, BrowserContext, Page, expect

from .helpers import Server, launch, launch_to_end, overflow_px, stop


def unique(prefix: str) -> str:
    """A name that no other deployment has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def test_a_deployment_shows_live_in_every_open_tab(context: BrowserContext, server: Server) -> None:
    """It appears, changes its state and nothing is reloaded for it."""
    tabs = [context.new_page() for _ in range(3)]
    for tab in tabs:
        tab.goto(server.url)
        expect(tab.locator("#light")).to_have_attribute("data-state", "live")
        tab.evaluate("window.neverReloaded = true")

    name = unique("live")
    deployment_id = launch(server, "sleep 600", name=name)
    for tab in tabs:
        row = tab.get_by_role("listitem").filter(has_text=name)
        expect(row).to_have_attribute("data-state", "running")
        expect(row).to_contain_text("Running")

    stop(server, deployment_id)
    for tab in tabs:
        row = tab.get_by_role("listitem").filter(has_text=name)
        expect(row).to_have_attribute("data-state", "stopped")
        assert tab.evaluate("window.neverReloaded") is True


def test_the_newest_deployment_stands_first(page: Page, server: Server) -> None:
    """Those that come live too."""
    page.goto(server.url)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    names = [unique("order") for _ in range(3)]
    for name in names:
        launch_to_end(server, "true", name=name)
    expect(page.locator(".row-name").first).to_have_text(names[-1])
    expect(page.locator(".row-name").nth(2)).to_have_text(names[0])


def test_new_deployment_starts_the_demo_and_shows_it_live(page: Page, server: Server) -> None:
    """One click leads to lines on a page of their own."""
    page.goto(server.url)
    page.get_by_role("button", name="New Deployment").click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    page.wait_for_function("() => document.querySelectorAll('.log-lines .log-line').length >= 2")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_have_text("Stopped")


def test_new_deployment_works_without_javascript(browser: Browser, server: Server) -> None:
    """The button is a plain form, and the page it leads to links to the raw log."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="New Deployment").click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    expect(page.get_by_role("link", name="Raw log", exact=True)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_url(re.compile(r"/deployments/[^/]+$"))
    context.close()


def test_a_typed_command_runs_to_its_end_with_its_exit_status(page: Page, server: Server) -> None:
    """On its page first, then in the list."""
    word = unique("typed")
    page.goto(server.url)
    page.get_by_role("textbox", name="Command").fill(f"echo {word}; exit 3")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/deployments/.+"))
    expect(page.locator("#state")).to_have_text("Failed")
    expect(page.locator(".log-lines")).to_have_text(word)
    expect(page.locator('[data-fact="Exit status"]')).to_have_text("3")
    expect(page.get_by_role("log")).to_contain_text("Failed with exit status 3")

    page.get_by_role("link", name="All deployments").click()
    row = page.get_by_role("listitem").filter(has_text=word)
    expect(row).to_have_attribute("data-state", "failed")
    expect(row).to_contain_text("exit 3")


def test_what_was_stopped_says_so_in_the_list_as_on_its_page(page: Page, server: Server) -> None:
    """By its shape and its word: the signal that ended it is no exit status of its own."""
    name = unique("stopped")
    deployment_id = launch(server, "sleep 600", name=name)
    timed_out = unique("late")
    launch_to_end(server, "sleep 600", name=timed_out, timeout_seconds=0.2)
    stop(server, deployment_id)
    server.wait_for_end(deployment_id)
    page.goto(server.url)
    for which, word, shape in ((name, "stopped", "stopped"), (timed_out, "timed out", "timed_out")):
        row = page.get_by_role("listitem").filter(has_text=which)
        expect(row.locator(".row-outcome")).to_have_text(word)
        expect(row.locator(".row-state use")).to_have_attribute(
            "href", f"/static/states.svg#{shape}"
        )
        expect(row).not_to_contain_text("exit")
    page.get_by_role("link", name=name).click()
    expect(page.locator("#state")).to_have_text("Stopped")
    expect(page.locator("#state use")).to_have_attribute("href", "/static/states.svg#stopped")


def test_what_is_refused_is_told_in_a_sentence_beside_the_field(page: Page, server: Server) -> None:
    """And what was typed still stands there."""
    page.goto(server.url)
    page.get_by_role("combobox", name="Source", exact=True).select_option("tail")
    field = page.get_by_role("textbox", name="File to follow")
    field.fill("/no/such/file.log")
    page.get_by_role("button", name="Run", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_have_text(re.compile(r"^[A-Z/].{10,}\.$"))
    expect(field).to_have_value("/no/such/file.log")
    expect(field).to_be_focused()
    assert page.url.rstrip("/") == server.url
    field.press("x")
    expect(alert).to_be_hidden()


def test_the_box_asks_for_what_the_source_needs(page: Page, server: Server) -> None:
    """A command for a shell, a path for a file, nothing that is a must for the demo."""
    page.goto(server.url)
    expect(page.get_by_role("textbox", name="Command")).to_be_visible()
    page.get_by_role("combobox", name="Source", exact=True).select_option("demo")
    expect(page.get_by_role("textbox", name="Command")).to_have_count(0)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_have_text("Stopped")


def test_the_list_comes_back_by_itself_after_the_server_was_killed(
    page: Page, server: Server
) -> None:
    """And has what it missed."""
    page.goto(server.url)
    light = page.locator("#light")
    expect(light).to_have_attribute("data-state", "live")
    server.kill()
    expect(light).to_have_attribute("data-state", "reconnecting")
    expect(light).to_contain_text(re.compile(r"Reconnecting in \d+ s"))
    server.start()
    name = unique("missed")
    launch(server, "true", name=name)
    expect(light).to_have_attribute("data-state", "live")
    expect(page.get_by_role("listitem").filter(has_text=name)).to_be_visible()


def test_show_more_pages_through_all_deployments(page: Page, server: Server) -> None:
    """A page at a time, and none twice."""
    for number in range(60):
        (server.data_dir / f"bare-{number:02}.log").write_text("one line\n")
    page.goto(server.url)
    rows = page.locator(".list .row", has_text="bare-")
    more = page.get_by_role("button", name="Show more")
    expect(more).to_be_visible()
    while rows.count() < 60:
        before = rows.count()
        more.click()
        page.wait_for_function(
            "count => document.querySelectorAll('.row').length > count", arg=before
        )
    expect(rows).to_have_count(60)
    expect(more).to_be_hidden()


def test_a_deleted_deployment_leaves_the_list(page: Page, server: Server) -> None:
    """As soon as its files are gone."""
    name = unique("gone")
    path = server.data_dir / f"{name}.log"
    path.write_text("one line\n")
    page.goto(server.url)
    row = page.get_by_role("listitem").filter(has_text=name)
    expect(row).to_be_visible()
    path.unlink()
    expect(row).to_have_count(0)


def test_the_list_fits_a_phone(browser: Browser, server: Server) -> None:
    """Nothing is wider than the window, however long a command is."""
    launch_to_end(server, f"true {'x' * 200}; exit 1")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("listitem").first).to_be_visible()
    assert overflow_px(page) == 0
    context.close()


def test_the_list_says_nothing_to_the_console(page: Page, server: Server) -> None:
    """No error and no warning."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(server.url)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    name = unique("quiet")
    launch_to_end(server, "true", name=name)
    expect(page.get_by_role("listitem").filter(has_text=name)).to_contain_text("Succeeded")
    assert said == []


def test_a_filter_stands_in_the_url_and_the_url_opens_it(page: Page, server: Server) -> None:
    """Text, state, source and time; what comes later is filtered too."""
    word = unique("wanted")
    launch_to_end(server, "false", name=f"{word} bad")
    launch_to_end(server, "true", name=f"{word} good")
    launch_to_end(server, "true", name="another")
    page.goto(server.url)
    rows = page.get_by_role("listitem")
    expect(rows).to_have_count(3)
    form = page.get_by_role("search")
    form.get_by_role("searchbox", name="Name").fill(word.upper())
    expect(rows).to_have_count(2)
    form.get_by_role("combobox", name="Filter by state").select_option("failed")
    form.get_by_role("combobox", name="Filter by source").select_option("shell")
    form.get_by_role("combobox", name="Filter by time").select_option("1h")
    expect(rows).to_have_count(1)
    asked = f"q={word.upper()}&state=failed&source=shell&since=1h"
    expect(page).to_have_url(f"{server.url}/?{asked}")

    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("listitem")).to_have_count(1)
    expect(other.get_by_role("searchbox", name="Name")).to_have_value(word.upper())
    for tab in (page, other):
        expect(tab.locator("#light")).to_have_attribute("data-state", "live")
    launch_to_end(server, "true", name=f"{word} good again")
    launch_to_end(server, "false", name=f"{word} bad again")
    for tab in (page, other):
        expect(tab.get_by_role("listitem")).to_have_count(2)
        expect(tab.locator(".row-name").first).to_have_text(f"{word} bad again")

    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page).to_have_url(f"{server.url}/")
    expect(rows).to_have_count(5)


def test_a_filter_by_two_times_is_one_of_the_reader_s_clock(page: Page, server: Server) -> None:
    """The URL has it in UTC."""
    path = server.data_dir / "old.log"
    path.write_text("one line\n")
    at = time.mktime((2024, 5, 6, 12, 30, 0, 0, 0, -1))
    os.utime(path, (at, at))
    launch_to_end(server, "true", name="new")
    server.kill()
    server.start()
    page.goto(server.url)
    page.get_by_role("combobox", name="Filter by time").select_option(label="From … to …")
    page.get_by_label("From", exact=True).fill("2024-05-01T00:00")
    page.get_by_label("to", exact=True).fill("2024-06-01T00:00")
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect(page.locator(".row-name")).to_have_text("old.log")
    expect(page).to_have_url(re.compile(r"since=2024-[^&]*Z&until=2024-[^&]*Z$"))
    page.reload()
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_label("From", exact=True)).to_have_value("2024-05-01T00:00")


def test_a_filter_that_nothing_matches_says_so(page: Page, server: Server) -> None:
    """And what matches later appears in its place."""
    word = unique("later")
    launch_to_end(server, "true", name="before")
    page.goto(f"{server.url}/?q={word}")
    sentence = page.get_by_text("No deployment matches this filter")
    expect(sentence).to_be_visible()
    expect(page.get_by_text("Nothing has run yet")).to_be_hidden()
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    launch(server, "true", name=word)
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect(sentence).to_be_hidden()


def test_a_filter_that_the_server_refuses_is_told_in_a_sentence(page: Page, server: Server) -> None:
    """A link may have been typed by hand."""
    page.goto(f"{server.url}/?since=yesterday")
    expect(page.get_by_text(re.compile("since takes a time such as"))).to_be_visible()


def test_each_row_shows_the_last_line_of_its_log_live(page: Page, server: Server) -> None:
    """Without its colours; nothing in it is markup."""
    ended = launch_to_end(server, "printf 'one\\n\\033[31m<b>two</b>\\033[0m\\n\\n'")
    page.goto(server.url)
    row = page.locator(f'[data-id="{ended}"]')
    expect(row.locator(".row-last")).to_have_text("<b>two</b>")
    go = server.data_dir.parent / "go"
    command = f"echo first; while [ ! -e {go} ]; do sleep 0.1; done; echo second; sleep 0.1"
    running = launch(server, command)
    last = page.locator(f'[data-id="{running}"] .row-last')
    expect(last).to_have_text("first")
    go.touch()
    expect(last).to_have_text("second")


def test_the_theme_is_changed_by_a_button_and_by_a_key(page: Page, server: Server) -> None:
    """As on the page of a log; in a field a letter is a letter."""
    page.goto(server.url)
    root = page.locator("html")
    page.get_by_role("button", name="Theme").click()
    expect(root).to_have_attribute("data-theme", "light")
    page.keyboard.press("d")
    expect(root).to_have_attribute("data-theme", "dark")
    page.keyboard.press("/")
    page.keyboard.type("d")
    expect(page.get_by_role("searchbox", name="Name")).to_have_value("d")
    expect(root).to_have_attribute("data-theme", "dark")


def test_an_ended_deployment_that_left_processes_running_is_marked(
    page: Page, server: Server
) -> None:
    """How many, and which."""
    (server.data_dir / "left.log").write_text("one line\n")
    record: dict[str, object] = {
        "id": "left",
        "name": "a daemon",
        "state": "succeeded",
        "created_at": "2024-05-06T12:30:00.000Z",
        "request": {},
        "capture_pid": None,
        "left_running": [{"pid": 7, "command": "daemon --x"}],
    }
    (server.data_dir / "left.json").write_text(json.dumps(record))
    server.kill()
    server.start()
    page.goto(server.url)
    mark = page.get_by_text("1 process left running")
    expect(mark).to_have_attribute("title", "7 daemon --x")


def test_one_that_waits_for_another_says_so_on_both_pages(
    context: BrowserContext, server: Server
) -> None:
    """Until that has ended; and it can be stopped while it waits."""
    held = unique("prod")
    first = launch(server, "sleep 600", name=unique("holder"), exclusive=held)
    second = launch(server, "echo ran", name=unique("second"), exclusive=held)
    third = launch(server, "echo ran", name=unique("third"), exclusive=held)
    list_page, page = context.new_page(), context.new_page()
    list_page.goto(server.url)
    expect(list_page.locator(f'[data-id="{second}"]')).to_contain_text("waits for holder-")
    page.goto(f"{server.url}/deployments/{third}")
    expect(page.locator("#log")).to_contain_text(
        re.compile(f"(1st|2nd) in the queue: .* has held {held} for")
    )
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_have_text("Stopped")
    expect(page.locator("#notices")).to_contain_text("it never ran")
    page.goto(f"{server.url}/deployments/{second}")
    stop(server, first)
    expect(page.locator("#state")).to_have_text("Succeeded")
    expect(page.locator("#log")).to_contain_text("ran")
    expect(list_page.locator(f'[data-id="{second}"]')).to_have_attribute("data-state", "succeeded")


def test_a_log_that_is_not_complete_is_marked(page: Page, server: Server) -> None:
    """In the list and, in full, on its page."""
    (server.data_dir / "cut.log").write_text("one line\n")
    error = "The log is not complete: from byte 9 on, 7 bytes could not be written (no room)."
    record: dict[str, object] = {
        "id": "cut",
        "name": "a run",
        "state": "succeeded",
        "created_at": "2024-05-06T12:30:00.000Z",
        "request": {},
        "capture_pid": None,
        "unwritten_from": 9,
        "unwritten_bytes": 7,
        "log_bytes": 9,
        "error": error,
    }
    (server.data_dir / "cut.json").write_text(json.dumps(record))
    server.kill()
    server.start()
    page.goto(server.url)
    expect(page.get_by_text("log incomplete")).to_have_attribute("title", error)
    page.goto(f"{server.url}/deployments/cut")
    expect(page.locator(".notice-error")).to_have_text(error)
