"""The view of a log, of any size: what can be seen, found, linked, copied and folded in it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from terminal import Terminal

from .helpers import (
    Server,
    copied_text,
    finished_log,
    first_in_sight,
    launch,
    lines,
    open_log,
    row,
    scroll_to_share,
    search,
    serious,
    stop,
    text_of,
    wait_for_line,
    wait_for_place,
    wait_until,
)

BLOCK_LINES = 10_000
BLOCKS = 300
TOTAL = BLOCKS * BLOCK_LINES


def block() -> bytes:
    """A megabyte of lines, each with its number in the block."""
    return b"".join(b"%-98d.\n" % number for number in range(1, BLOCK_LINES + 1))


def expect_big(page: Page, number: int) -> None:
    """Line `number` of the big log is in sight, with the text that stands in the file there."""
    expect(row(page, number)).to_be_in_viewport()
    in_block = (number - 1) % BLOCK_LINES + 1
    expect(text_of(page, number)).to_have_text(re.compile(rf"^{in_block} +\.\n?$"))


def wait_for_move(page: Page, number: int) -> int:
    """Wait until another row than that of line `number` is at the top; the number of its line."""
    wait_until(lambda: first_in_sight(page)["number"] != number)
    return int(first_in_sight(page)["number"])


def go_to(page: Page, place: str) -> None:
    """Type a place into the box that asks for one."""
    page.get_by_role("log").focus()
    page.keyboard.press("g")
    page.get_by_label("Go to a line number or a time").fill(place)
    page.keyboard.press("Enter")


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """One for all tests of this module: they leave it as it was, each beside its own logs."""
    return lasting_server


@pytest.fixture(scope="module")
def big(lasting_server: Server) -> str:
    """A log of 300 MB: three million lines."""
    return finished_log(lasting_server, "big", *[block()] * BLOCKS)


def is_in_sight(page: Page, share: float) -> bool:
    """Whether what is in sight is the line at this share of the big log, to a thousandth of it."""
    return bool(abs(first_in_sight(page)["number"] - share * TOTAL) < TOTAL / 1000)


def test_a_big_log_opens_at_its_end_and_every_line_can_be_reached(
    page: Page, server: Server, big: str
) -> None:
    """By the thumb, by number and by keys; and few rows exist at any time."""
    open_log(page, server, big)
    expect_big(page, TOTAL)
    expect(page.locator(".tools-count")).to_have_text(f"{TOTAL:,} lines")
    for share in (0.5, 0.123, 0.9):
        scroll_to_share(page, share)
        wait_until(partial(is_in_sight, page, share))  # a scroll is heard of with the next frame
        page.wait_for_function("() => !document.querySelector('.log-line.is-loading')")
        expect_big(page, first_in_sight(page)["number"] + 1)
        assert is_in_sight(page, share)
    scroll_to_share(page, 0)
    expect_big(page, 1)
    scroll_to_share(page, 1)
    expect_big(page, TOTAL)
    go_to(page, "1,234,567")
    expect_big(page, 1_234_567)
    page.keyboard.press("Home")
    expect_big(page, 1)
    page.keyboard.press("End")
    expect_big(page, TOTAL)
    assert page.locator(".log-line").count() < 300


def test_a_leap_is_not_undone_by_the_rest_after_the_last(
    page: Page, server: Server, big: str
) -> None:
    """A scroll is told of with the next frame; what is due before that takes it into account."""
    page.add_init_script(
        """const { setTimeout: set } = window;
           window.setTimeout = (callback, ms, ...rest) => {
             if (ms === 150) window.atRest = callback;
             return set(callback, ms, ...rest);
           };"""
    )
    open_log(page, server, big)
    expect_big(page, TOTAL)
    scroll_to_share(page, 0.5)
    wait_until(partial(is_in_sight, page, 0.5))
    page.get_by_role("log").evaluate(
        "log => { log.scrollTop = 0.25 * (log.scrollHeight - log.clientHeight); window.atRest(); }"
    )
    wait_until(partial(is_in_sight, page, 0.25))


def test_small_steps_pass_over_no_line_of_a_big_log(page: Page, server: Server, big: str) -> None:
    """Though one pixel of the scrolled space stands for many lines, a wheel moves by its pixels."""
    open_log(page, server, f"{big}#L1500000")
    expect_big(page, 1_500_000)
    page.get_by_role("log").hover()
    before = first_in_sight(page)
    place = before["number"] * 20 - before["y"]
    for step in (300, 300, -200, 4000, -1000):
        page.mouse.wheel(0, step)
        place += step
        wait_for_place(page, place)
    expect_big(page, first_in_sight(page)["number"] + 1)


def test_a_link_to_lines_opens_there_and_marks_them(page: Page, server: Server, big: str) -> None:
    """Also where nothing between there and the end was ever loaded."""
    open_log(page, server, f"{big}#L2000005-L2000007")
    expect_big(page, 2_000_006)
    expect(page.locator(".log-line.is-target")).to_have_count(3)
    expect(page.get_by_role("group", name="Marked lines")).to_contain_text("2,000,005")
    page.evaluate("location.hash = '#L42'")
    expect_big(page, 42)
    expect(row(page, 42)).to_have_class(re.compile("is-target"))


def test_a_link_works_while_the_log_is_written(page: Page, server: Server) -> None:
    """And the reader stays there."""
    deployment_id = launch(
        server, "seq 1 3000; i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo $i; sleep 0.05; done"
    )
    wait_until(lambda: server.log(deployment_id).count(b"\n") > 3000)
    open_log(page, server, f"{deployment_id}#L1200")
    expect(row(page, 1200)).to_be_in_viewport()
    place = first_in_sight(page)
    expect(page.locator(".log-pill")).to_have_text(re.compile(r"\d\d+ new lines"))
    assert first_in_sight(page) == place
    stop(server, deployment_id)


def test_a_link_beyond_the_end_is_told_in_a_sentence(page: Page, server: Server) -> None:
    """And the log is shown all the same."""
    open_log(page, server, f"{finished_log(server, 'short', lines(10))}#L5000")
    expect(page.locator(".log-toast")).to_have_text("Line 5,000 isn't there: the log has 10 lines.")
    wait_for_line(page, "10")


def test_clicks_on_numbers_make_the_link(page: Page, server: Server) -> None:
    """One for a line, a second with Shift for all between; and its text can be copied."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_log(page, server, finished_log(server, "links", lines(20, lambda n: f"text {n}")))
    row(page, 7).locator(".log-number").click()
    wait_until(lambda: page.url.endswith("#L7"))
    row(page, 4).locator(".log-number").click(modifiers=["Shift"])
    wait_until(lambda: page.url.endswith("#L4-L7"))
    expect(page.locator(".log-line.is-target")).to_have_count(4)
    page.get_by_role("button", name="Copy these lines").click()
    expect(page.locator(".log-toast")).to_have_text("Copied 4 lines.")
    assert page.evaluate("navigator.clipboard.readText()") == "text 4\ntext 5\ntext 6\ntext 7\n"
    page.get_by_role("button", name="Copy a link to these lines").click()
    expect(page.locator(".log-toast")).to_have_text("Copied the link.")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    page.get_by_role("button", name="Unmark").click()
    expect(page.locator(".log-line.is-target")).to_have_count(0)
    assert "#" not in page.url


def test_all_of_a_log_is_copied_also_what_has_no_row(page: Page, server: Server) -> None:
    """The text alone, as it stands in the file."""
    text = lines(30_000, lambda n: f"  {n} → ünïcode" if n % 3 else "")
    open_log(page, server, finished_log(server, "all", text))
    wait_for_line(page, "")
    assert copied_text(page) == text.decode()
    expect(page.locator(".log-toast")).to_have_text("Copied 30,000 lines.")


def test_too_much_to_copy_is_told_in_a_sentence(page: Page, server: Server) -> None:
    """With a way to have it all the same."""
    open_log(page, server, finished_log(server, "much", lines(100_001)))
    wait_for_line(page, "100001")
    page.get_by_role("log").focus()
    page.keyboard.press("Control+A")
    page.keyboard.press("Control+C")
    expect(page.locator(".log-toast")).to_contain_text("100,001 lines; up to 100,000 can be copied")


def test_a_selection_outlasts_the_rows_that_it_began_in(page: Page, server: Server) -> None:
    """From within one line to within another, a thousand lines further on."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    name = finished_log(server, "select", lines(5000, lambda n: f"abcdef {n}"))
    open_log(page, server, f"{name}#L100")
    expect(text_of(page, 100)).to_have_text(re.compile("abcdef 100"))
    box = text_of(page, 100).bounding_box()
    assert box is not None
    character = page.evaluate(
        "parseFloat(getComputedStyle(document.querySelector('.log-text')).fontSize) * 0.602"
    )
    page.mouse.click(box["x"] + 3 * character, box["y"] + 10)
    page.evaluate("location.hash = '#L1100'")
    expect(row(page, 1100)).to_be_in_viewport()
    expect(text_of(page, 1100)).to_have_text(re.compile("abcdef 1100"))
    box = text_of(page, 1100).bounding_box()
    assert box is not None
    page.keyboard.down("Shift")
    page.mouse.click(box["x"] + 6 * character, box["y"] + 10)
    page.keyboard.up("Shift")
    page.keyboard.press("Control+C")
    expected = "".join(f"abcdef {n}\n" for n in range(100, 1100))[3:] + "abcdef"
    wait_until(lambda: page.evaluate("navigator.clipboard.readText()") == expected)


@pytest.mark.parametrize("gesture", ["PageUp", "ArrowUp", "Home", "thumb"])
def test_any_gesture_upwards_stops_following_and_end_starts_it(
    page: Page, server: Server, gesture: str
) -> None:
    """Keys and the thumb, as the wheel does."""
    deployment_id = launch(server, "seq 1 300; while sleep 0.05; do date; done")
    open_log(page, server, deployment_id)
    log = page.get_by_role("log")
    expect(log).to_have_attribute("aria-live", "polite")
    wait_for_line(page, "300")
    log.focus()
    if gesture == "thumb":
        scroll_to_share(page, 0.5)
    else:
        page.keyboard.press(gesture)
    expect(page.locator(".log-pill")).to_have_text(re.compile("new line"))
    expect(log).to_have_attribute("aria-live", "off")
    page.keyboard.press("End")
    expect(page.locator(".log-pill")).to_be_hidden()
    expect(log).to_have_attribute("aria-live", "polite")
    stop(server, deployment_id)


def test_rows_of_any_height_pass_without_a_jump(page: Page, server: Server) -> None:
    """Up through lines that wrap, of which nothing was known before: no line is passed over."""
    text = lines(4000, lambda n: f"{n} " + "word " * (n * 7 % 90))
    open_log(page, server, finished_log(server, "heights", text))
    page.get_by_role("log").hover()
    wait_until(lambda: first_in_sight(page)["number"] > 3900)
    for _ in range(25):
        before = first_in_sight(page)["number"]
        page.mouse.wheel(0, -240)
        assert 0 < before - wait_for_move(page, before) <= 12
    place = first_in_sight(page)
    page.wait_for_timeout(400)  # what is put right once scrolling rests must not be seen
    assert first_in_sight(page) == place


def test_search_finds_all_and_goes_through_it(page: Page, server: Server) -> None:
    """With total and position, forth and back, marked where it stands."""
    text = lines(20_000, lambda n: f"needle {n}" if n % 1000 == 0 else f"hay {n}")
    open_log(page, server, finished_log(server, "hay", text))
    wait_for_line(page, "hay 19999")
    status = search(page, "NEEDLE")
    expect(status).to_have_text("20 of 20")  # from what is in sight on: the last
    page.keyboard.press("Enter")
    expect(status).to_have_text("1 of 20")
    expect(row(page, 1000)).to_be_in_viewport()
    expect(text_of(page, 1000).locator("mark")).to_have_text("needle")
    page.keyboard.press("Enter")
    expect(status).to_have_text("2 of 20")
    page.keyboard.press("Shift+Enter")
    expect(status).to_have_text("1 of 20")
    page.get_by_role("button", name="Match case").click()
    expect(status).to_have_text("No matches")
    page.get_by_role("textbox", name="Search the whole log").fill("needle [0-9]*[37]000$")
    expect(status).to_have_text("No matches")
    page.get_by_role("button", name="Regular expression").click()
    expect(status).to_have_text(re.compile("of 4$"))
    expect(page.locator("mark").first).to_have_text(re.compile("needle"))
    page.get_by_role("textbox", name="Search the whole log").press("Escape")
    expect(page.locator(".search").first).to_be_hidden()
    expect(page.locator("mark")).to_have_count(0)


def test_a_search_goes_on_while_the_log_grows(page: Page, server: Server) -> None:
    """What is written later is found as well."""
    gate = server.data_dir.parent / "gate"
    deployment_id = launch(
        server, f"seq 1 100; while [ ! -e '{gate}' ]; do sleep 0.05; done; seq 101 200; sleep 600"
    )
    open_log(page, server, deployment_id)
    wait_for_line(page, "100")
    status = search(page, "9")
    expect(status).to_have_text(re.compile("of 19$"))
    gate.touch()
    expect(status).to_have_text(re.compile("of 38$"))
    stop(server, deployment_id)


def test_a_pattern_that_is_none_is_told_in_the_box(page: Page, server: Server) -> None:
    """In a sentence; and the next try works."""
    open_log(page, server, finished_log(server, "pattern", lines(100)))
    wait_for_line(page, "100")
    search(page, "(")
    page.get_by_role("button", name="Regular expression").click()
    alert = page.locator(".search-message.is-error").first
    expect(alert).to_have_text(re.compile(r"^.{10,}"))
    page.get_by_role("textbox", name="Search the whole log").fill("(99|100)")
    expect(page.locator(".search-status")).to_have_text(re.compile("of 2$"))
    expect(alert).to_be_hidden()


def test_a_pattern_that_explodes_leaves_the_tab_alive(page: Page, server: Server) -> None:
    """It is searched without backtracking, and marked by a worker that may be ended."""
    open_log(page, server, finished_log(server, "explode", ("a" * 40 + "!\n").encode() * 50))
    expect(row(page, 50)).to_be_in_viewport()
    status = search(page, "(a+)+$|!")
    page.get_by_role("button", name="Regular expression").click()
    expect(status).to_have_text(re.compile("of 50$"))
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    expect(row(page, 50)).to_be_in_viewport()


def test_matching_lines_alone_with_lines_around_them(page: Page, server: Server) -> None:
    """Gaps say how many are left out; closing the search brings all lines back."""
    text = lines(5000, lambda n: f"needle {n}" if n % 1000 == 0 else f"hay {n}")
    open_log(page, server, finished_log(server, "filter", text))
    wait_for_line(page, "hay 4999")
    expect(search(page, "needle")).to_have_text(re.compile("of 5$"))
    page.get_by_role("button", name="Only matching lines").click()
    page.get_by_label("Lines around each match").select_option("2")
    expect(page.locator(".log-line.is-match")).to_have_count(5)
    expect(page.locator(".log-line.is-context")).to_have_count(18)
    expect(page.locator(".log-gap-label").nth(1)).to_have_attribute("data-text", "⋯ 995 lines")
    page.get_by_label("Lines around each match").select_option("0")
    expect(page.locator(".log-line.is-context")).to_have_count(0)
    page.get_by_role("button", name="Close the search").click()
    expect(page.locator(".log-gap")).to_have_count(0)
    expect(page.locator(".log-line.is-context")).to_have_count(0)


def test_times_come_from_the_index_in_every_way(page: Page, server: Server) -> None:
    """Off, local, UTC, since the start, since the line before; and a time can be gone to."""
    pieces = [
        "".join(f"second {second} line {number}\n" for number in range(1, 11)).encode()
        for second in range(100)
    ]
    open_log(page, server, finished_log(server, "times", *pieces))
    wait_for_line(page, "second 99 line 10")
    cell = row(page, 991).locator(".log-time")
    expect(cell).to_be_hidden()
    choice = page.get_by_label("Times", exact=True)
    choice.select_option("utc")
    expect(cell).to_have_attribute("data-time", re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    choice.select_option("before")
    expect(cell).to_have_attribute("data-time", "+1.000")
    expect(row(page, 992).locator(".log-time")).to_have_attribute("data-time", "+0.000")
    choice.select_option("start")
    expect(cell).to_have_attribute("data-time", re.compile(r"^\+1:(38|39)\.000$"))
    page.get_by_role("log").focus()
    page.keyboard.press("t")
    page.keyboard.press("t")
    expect(cell).to_be_hidden()
    go_to(page, "+50s")
    expect(page.locator(".log-line.is-target .log-text")).to_have_text(
        re.compile(r"^second (49|50|51) line 1\n?$")
    )
    go_to(page, "no place")
    expect(page.get_by_text("That is neither a line number nor a time.")).to_be_visible()


GROUPS = """before
::group::Install
one
two
::endgroup::
::group::Build
ERROR: it does not compile
::endgroup::
::group::Outer
::group::Inner
three
::endgroup::
::endgroup::
after
"""


def test_groups_fold_and_those_with_an_error_stay_open(page: Page, server: Server) -> None:
    """A click opens one; so does a link to a line within."""
    name = finished_log(server, "groups", GROUPS.encode())
    open_log(page, server, name)
    install = page.get_by_role("button", name="Install")
    expect(install).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_role("button", name="Build")).to_have_attribute("aria-expanded", "true")
    expect(row(page, 7)).to_have_class(re.compile("is-error"))
    expect(row(page, 3)).to_have_count(0)
    install.click()
    expect(text_of(page, 3)).to_have_text(re.compile("one"))
    expect(install).to_have_attribute("aria-expanded", "true")
    install.click()
    expect(row(page, 3)).to_have_count(0)
    page.evaluate("location.hash = '#L11'")
    expect(text_of(page, 11)).to_have_text(re.compile("three"))
    expect(row(page, 11)).to_have_class(re.compile("is-target"))
    open_log(page, server, f"{name}#L4")
    page.reload()
    expect(row(page, 4)).to_be_in_viewport()
    expect(row(page, 4)).to_have_class(re.compile("is-target"))


def test_a_leap_is_not_undone_by_groups_that_are_opened_right_after_it(
    page: Page, server: Server
) -> None:
    """Before the browser has told of the scroll."""
    text = GROUPS + "".join(f"line {n}\n" for n in range(5000))
    open_log(page, server, finished_log(server, "leap", text.encode()))
    expect(page.get_by_role("button", name="Install")).to_have_count(0)
    button = page.get_by_role("button", name="Shut or open all groups")
    expect(button).to_be_visible()
    scroll_to_share(page, 0.9)
    wait_until(lambda: 4000 < first_in_sight(page)["number"] < 4800)
    log = page.get_by_role("log").element_handle()
    button.evaluate(
        "(button, log) => { log.scrollTop = log.scrollHeight / 2; button.click(); }", log
    )
    wait_until(lambda: 2000 < first_in_sight(page)["number"] < 3000)


def test_keys_lead_from_error_to_error(page: Page, server: Server) -> None:
    """Which are marked by a shape, and counted."""
    text = lines(9000, lambda n: f"{n} ERROR broken" if n % 3000 == 500 else f"{n} fine")
    open_log(page, server, finished_log(server, "errors", text))
    expect(page.get_by_role("button", name="3 errors: to the next")).to_be_visible()
    page.get_by_role("log").focus()
    for number in (500, 3500, 6500, 500):
        page.keyboard.press("e")
        expect(row(page, number)).to_be_in_viewport()
        expect(row(page, number)).to_have_class(
            re.compile("is-error.*is-target|is-target.*is-error")
        )
    page.keyboard.press("E")
    expect(row(page, 6500)).to_be_in_viewport()


def test_a_json_line_can_be_expanded(page: Page, server: Server) -> None:
    """And what is copied of it is the line."""
    line = '{"level": "info", "message": "hello", "count": 3}'
    open_log(page, server, finished_log(server, "json", f"{line}\nplain\n".encode()))
    page.get_by_role("button", name="Show JSON expanded").click()
    expect(text_of(page, 1)).to_contain_text('"count": 3')
    assert str(text_of(page, 1).text_content()).count("\n") >= 5
    assert copied_text(page) == f"{line}\nplain\n"
    page.get_by_role("button", name="Show as one line").click()
    expect(text_of(page, 1)).to_have_text(re.compile(r"^\{\"level"))


def test_choices_are_remembered(page: Page, server: Server) -> None:
    """Wrapping, times and theme, for the next log too."""
    open_log(page, server, finished_log(server, "one", lines(10)))
    wait_for_line(page, "10")
    page.get_by_role("log").focus()
    page.keyboard.press("w")
    page.keyboard.press("t")
    page.keyboard.press("d")
    page.keyboard.press("d")
    open_log(page, server, finished_log(server, "other", lines(10)))
    wait_for_line(page, "10")
    expect(page.get_by_role("button", name="Wrap long lines")).to_have_attribute(
        "aria-pressed", "false"
    )
    expect(page.get_by_label("Times", exact=True)).to_have_value("local")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_a_question_mark_lists_the_keys(page: Page, server: Server) -> None:
    """Until Escape; keys typed into a field are text."""
    open_log(page, server, finished_log(server, "keys", lines(10)))
    wait_for_line(page, "10")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    search(page, "")
    page.keyboard.type("w?e")
    expect(page.get_by_role("textbox", name="Search the whole log")).to_have_value("w?e")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one_long_line", b"x" * 3_000_000),
        ("a_million_empty_lines", b"\n" * 1_000_000),
        ("only_carriage_returns", b"\r" * 500_000),
        ("only_escapes", b"\x1b[31m\x1b[" * 100_000),
        ("binary", bytes(range(256)) * 4000),
        ("many_long_lines", (b"y" * 60_000 + b"\n") * 300),
    ],
)
def test_the_tab_lives_whatever_a_log_holds(
    page: Page, server: Server, name: str, content: bytes
) -> None:
    """It answers to keys, and goes to the first line and the last."""
    open_log(page, server, finished_log(server, name, content, b"\nend\n"))
    wait_for_line(page, "end")
    page.get_by_role("log").focus()
    page.keyboard.press("Home")
    expect(row(page, 1)).to_be_in_viewport()
    page.keyboard.press("w")
    page.keyboard.press("End")
    wait_for_line(page, "end")


def test_of_a_very_long_row_the_rest_is_a_click_away(page: Page, server: Server) -> None:
    """As far as the server gives it."""
    open_log(page, server, finished_log(server, "long", b"z" * 30_000 + b"\n"))
    page.get_by_role("button", name="Show 10,000 more characters").click()
    expect(text_of(page, 1)).to_have_text(re.compile("^z{30000}\n?$"))


def test_a_log_that_is_cut_while_open_begins_anew(page: Page, server: Server) -> None:
    """With search and marks of the new one alone."""
    path = server.data_dir / "cut.log"
    with path.open("w") as writer:
        writer.write("".join(f"ERROR old {number}\n" for number in range(500)))
        writer.flush()
        open_log(page, server, "cut")
        wait_for_line(page, "ERROR old 499")
        writer.seek(0)
        writer.truncate()
        writer.write("new one\nnew two\n")
        writer.flush()
        wait_for_line(page, "new two")
        expect(page.locator(".tools-count")).to_have_text("2 lines")
        expect(page.locator(".log-lines .log-line")).to_have_count(2)


def test_a_search_forgets_what_it_found_in_a_log_that_is_cut(page: Page, server: Server) -> None:
    """And counts anew what the log has then, also what comes later."""
    path = server.data_dir / "found.log"
    with path.open("wb", buffering=0) as writer:
        writer.write(b"old needle\n" * 100)
        open_log(page, server, "found")
        wait_for_line(page, "old needle")
        status = search(page, "needle")
        expect(status).to_have_text(re.compile("of 100$"))
        writer.truncate(0)
        writer.seek(0)
        writer.write(b"hay\nnew needle\nnew needle\n")
        expect(status).to_have_text("2 found")
        writer.write(b"needle\n")
        expect(status).to_have_text("3 found")
    expect(page.locator(".log-line.is-match")).to_have_count(3)


FOUND_ANEW = """async () => {
  const { LogSearch } = await import('/static/log_search.js');
  const heard = [];
  async function* events() {
    yield { type: 'matches', data: { lines: [1, 2, 3] } };
    const far = { matches: 3, lines_searched: 9, lines_total: 20, done: false };
    yield { type: 'progress', data: far };
    yield { type: 'reset', data: { reason: 'it has colours' } };
    yield { type: 'matches', data: { lines: [2] } };
    yield { type: 'end', data: { matches: 1, lines_searched: 20, lines_total: 20 } };
  }
  await new Promise((resolve) => {
    const search = new LogSearch({ search: events, onChange: () => {
      const { matches, count, searched, of, done } = search;
      heard.push([matches, count, searched, of, done]);
      if (done) resolve();
    } });
    search.start({ q: 'a' });
  });
  return heard;
}"""


def test_a_search_that_starts_over_keeps_nothing(page: Page, server: Server) -> None:
    """Neither lines nor counts, however far it had come."""
    page.goto(server.url)
    assert page.evaluate(FOUND_ANEW) == [
        [[], 0, 0, 0, False],
        [[1, 2, 3], 3, 0, 0, False],
        [[1, 2, 3], 3, 9, 20, False],
        [[], 0, 0, 0, False],
        [[2], 1, 0, 0, False],
        [[2], 1, 20, 20, True],
    ]


def test_lines_that_cannot_be_had_are_told_of_once(page: Page, server: Server) -> None:
    """Not with each attempt; and again only after something was loaded."""
    open_log(page, server, finished_log(server, "away", lines(5000)))
    wait_for_line(page, "5000")
    page.evaluate(
        """() => {
          window.told = 0;
          const toast = document.querySelector('.log-toast');
          new MutationObserver(() => (window.told += 1)).observe(toast, { childList: true });
        }"""
    )
    attempts: list[str] = []

    def refuse(route: Route) -> None:
        attempts.append(route.request.url)
        route.abort()

    for number in (1, 2):
        attempts.clear()
        page.route("**/lines?*", refuse)
        go_to(page, str(number * 1500))
        while len(attempts) < 2:
            page.wait_for_timeout(50)  # no sleep: what refuses them runs meanwhile
        expect(page.locator(".log-toast")).to_contain_text("could not be loaded")
        assert page.evaluate("window.told") == number
        page.unroute("**/lines?*")
        expect(text_of(page, number * 1500)).to_have_text(re.compile(f"^{number * 1500}"))
        assert page.evaluate("window.told") == number


def shown_rows(page: Page) -> list[str]:
    """The texts of the rows that can be seen, also of the one that is being written."""
    texts: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('.log-line:not(.is-hidden, [hidden]) .log-text')]
          .map(text => text.textContent.replace(/\\n$/, ''))"""
    )
    return texts[:-1] if texts and not texts[-1] else texts


@pytest.mark.parametrize("before", [0, 100, 251, 252, 253, 254, 255, 256])
def test_a_bar_over_several_lines_is_right_at_every_moment(
    page: Page, server: Server, before: int
) -> None:
    """Redrawn line by line, with rows that have no line in between and get one again later."""
    steps = [f"line {number}\n" for number in range(1, before + 1)]
    steps = ["".join(steps) + "one 0\ntwo 0\nthree 0\n"]
    for turn in (1, 2):
        steps += [f"\x1b[3Aone {turn}\x1b[K\n", f"two {turn}\n", f"three {turn}\n"]
    steps += ["\x1b[2A", "two 3\n", "three 3", "\n", "end\n"]
    path = server.data_dir / f"bar-{before}.log"
    terminal = Terminal()
    with path.open("wb", buffering=0) as writer:
        open_log(page, server, path.stem)
        for step in steps:
            writer.write(step.encode())
            rows = terminal.feed(step).text[-5:]
            wait_until(lambda rows=rows: shown_rows(page)[-len(rows) :] == rows)  # type: ignore[misc]
    page.reload()
    wait_for_line(page, "end")
    assert shown_rows(page)[-4:] == ["one 2", "two 3", "three 3", "end"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, server: Server, scheme: Any) -> None:
    """Neither at rest, nor with all that can be open."""
    text = GROUPS + '{"level": "warn", "message": "careful"}\nWARN slow\n' + "line\n" * 100
    name = finished_log(server, f"axe-{scheme}", text.encode())
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    open_log(page, server, f"{name}#L5-L7")
    expect(row(page, 5)).to_be_in_viewport()
    assert serious(page) == []
    expect(search(page, "line")).to_have_text(re.compile("of 10"))
    page.get_by_role("button", name="Only matching lines").click()
    page.get_by_label("Times", exact=True).select_option("utc")
    assert serious(page) == []
    page.get_by_role("button", name="Close the search").click()
    page.keyboard.press("?")
    assert serious(page) == []
    context.close()
