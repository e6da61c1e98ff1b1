"""The log on a phone, by real touches, told to Chromium as a touch screen tells them.

Gestures go through the browser's own recogniser, so that taps, long presses, flings and what they
make of the scrolling are Chromium's, not ours.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, CDPSession, Locator, Page, expect

from .helpers import (
    Server,
    finished_log,
    first_in_sight,
    launch,
    lines,
    open_log,
    overflow_px,
    row,
    stop,
    wait_for_line,
    wait_until,
)

LEAST_PX = 40
BIG_LINES = 5_000_000
MIDDLE = 195
_FRAME_SECONDS = 0.016


class Finger:
    """One finger on the screen of a page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session: CDPSession = page.context.new_cdp_session(page)
        self._moment: float | None = None  # of the next touch, in seconds since 1970; None: now

    def swipe(
        self, px: float, *, x: float = MIDDLE, y: float = 500, rest_seconds: float = 0.2
    ) -> None:
        """Move by `px`, downwards if that is positive, rest, and let go: nothing goes on after."""
        self._move(x, y, px, steps=20)
        time.sleep(rest_seconds)  # the rest itself: a finger that is let go at once flings
        self._send("touchMove", x, y + px + 0.5)
        self._send("touchEnd")

    def fling(self, px: float, *, y: float = 500) -> None:
        """The same without a rest: what was moved goes on by itself for a while.

        How fast that is, the browser tells by when the finger was where: said here, or it would be
        slow on a busy machine.
        """
        steps = 5
        self._moment = time.time() - steps * _FRAME_SECONDS
        self._move(MIDDLE, y, px, steps)
        self._send("touchEnd")
        self._moment = None

    def hold(self, target: Locator) -> None:
        """Press `target` until that has changed the page's link."""
        target.tap(trial=True)  # it stands still, and nothing lies over it
        url = self._page.url
        box = target.bounding_box()
        assert box is not None
        self._send("touchStart", box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        wait_until(lambda: self._page.evaluate("location.href") != url)
        self._send("touchEnd")

    def _move(self, x: float, y: float, px: float, steps: int) -> None:
        self._send("touchStart", x, y)
        for step in range(1, steps + 1):
            self._send("touchMove", x, y + px * step / steps)

    def _send(self, kind: str, *point: float) -> None:
        points = [{"x": point[0], "y": point[1]}] if point else []
        event: dict[str, Any] = {"type": kind, "touchPoints": points}
        if self._moment is not None:
            event["timestamp"] = self._moment
            self._moment += _FRAME_SECONDS
        self._session.send("Input.dispatchTouchEvent", event)


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """One for all tests of this module: they leave it as it was, each beside its own logs."""
    return lasting_server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on a phone."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844},
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    failures: list[str] = []
    context.on("weberror", lambda error: failures.append(str(error.error)))
    yield page
    context.close()
    assert failures == []


@pytest.fixture
def finger(page: Page) -> Finger:
    """What touches it."""
    return Finger(page)


BLOCK_LINES = 100_000


def block() -> bytes:
    """A hundred thousand short lines, each with its number."""
    return b"".join(b"%-18d.\n" % number for number in range(1, BLOCK_LINES + 1))


@pytest.fixture(scope="module")
def big(lasting_server: Server) -> str:
    """A log of five million lines, whose index knows the place of every hundred thousandth."""
    return finished_log(lasting_server, "big", *[block()] * (BIG_LINES // BLOCK_LINES))


def expect_line(page: Page, number: int) -> None:
    """Line `number` of the big log is in sight, with the text that stands in the file there."""
    expect(row(page, number)).to_be_in_viewport()
    in_block = (number - 1) % BLOCK_LINES + 1
    expect(row(page, number).locator(".log-text")).to_have_text(re.compile(rf"^{in_block} +\.\n?$"))


def place_px(page: Page) -> float:
    """How far the top of the view is from that of the log, whose rows are 20 px high."""
    at = first_in_sight(page)
    return float(at["number"] * 20 - at["y"])


def watch_places(page: Page) -> None:
    """Note with each frame where the view is, for `passed_places`."""
    page.evaluate(
        """() => {
          const log = document.querySelector('[role=log]');
          window.places = [];
          const next = () => {
            const top = log.getBoundingClientRect().top;
            const rows = [...log.querySelectorAll('.log-lines .log-line:not(.is-pinned)')];
            const row = rows.find(row => row.getBoundingClientRect().bottom > top + 1);
            const y = row.getBoundingClientRect().top - top;
            window.places.push(Number(row.dataset.number) * 20 - y);
            requestAnimationFrame(next);
          };
          next();
        }"""
    )


def passed_places(page: Page) -> list[float]:
    """Where the view was, frame by frame, since `watch_places` or the last call."""
    places: list[float] = page.evaluate("window.places.splice(0, window.places.length - 1)")
    return places


def wait_for_rest(page: Page) -> None:
    """Wait until nothing has moved for longer than a view takes to put itself right."""
    page.evaluate(
        """() => new Promise(resolve => {
          const log = document.querySelector('[role=log]');
          let timer = setTimeout(resolve, 500);
          log.addEventListener('scroll', () => {
            clearTimeout(timer);
            timer = setTimeout(resolve, 500);
          });
        })"""
    )


def test_a_swipe_stops_following_and_one_to_the_bottom_starts_it(
    page: Page, server: Server, finger: Finger
) -> None:
    """While lines come all the time, nothing moves under the reader's eyes in between."""
    deployment_id = launch(server, "seq 1 300; while sleep 0.05; do echo more; done")
    open_log(page, server, deployment_id)
    wait_for_line(page, "300")
    log, pill = page.get_by_role("log"), page.locator(".log-pill")
    finger.swipe(200)
    expect(log).to_have_attribute("aria-live", "off")
    place = first_in_sight(page)
    expect(pill).to_have_text(re.compile(r"^\d\d+ new lines$"))
    assert first_in_sight(page) == place
    finger.fling(150)
    wait_for_rest(page)
    place = first_in_sight(page)
    expect(pill).to_have_text(re.compile(r"^\d{3,} new lines$"))
    assert first_in_sight(page) == place
    for _ in range(50):
        finger.fling(-250, y=700)
        if pill.is_hidden():
            break
    expect(pill).to_be_hidden()
    expect(log).to_have_attribute("aria-live", "polite")
    finger.swipe(200)
    pill.tap()
    expect(log).to_have_attribute("aria-live", "polite")
    stop(server, deployment_id)


def test_a_big_log_moves_as_far_as_the_finger_and_never_back(
    page: Page, server: Server, big: str, finger: Finger
) -> None:
    """In its middle, where a pixel of the scrolled space stands for a dozen of its own."""
    open_log(page, server, f"{big}#L2500000")
    expect_line(page, 2_500_000)
    wait_for_rest(page)
    for px in (250, 250, -200):
        before = place_px(page)
        finger.swipe(px)
        wait_for_rest(page)
        # The browser keeps the first pixels, by which it tells a swipe from a tap: those of a frame
        # or two, hence more of them on a busy machine.
        assert abs(px) - 60 <= abs(before - place_px(page)) <= abs(px)
        expect_line(page, first_in_sight(page)["number"] + 3)
    watch_places(page)
    finger.fling(250)
    wait_for_rest(page)
    places = passed_places(page)
    steps = [after - before for before, after in pairwise(places)]
    assert sum(steps) < -300, "it went on after the finger had left"
    assert max(steps) <= 1, "it never went back"
    assert min(steps) > -844, "no screen was passed over"


def test_the_grip_reaches_every_part_of_a_big_log(
    page: Page, server: Server, big: str, finger: Finger
) -> None:
    """It comes with scrolling, tells the line, and goes to either end; at the last it follows."""
    open_log(page, server, big)
    expect_line(page, BIG_LINES)
    grip = page.locator(".log-grip")
    expect(grip).to_be_hidden()
    for share in (0.5, 0.05, 0.83):
        finger.swipe(60)
        expect(grip).to_be_visible()
        move_grip(page, finger, share)
        page.wait_for_function("() => !document.querySelector('.log-line.is-loading')")
        number = first_in_sight(page)["number"]
        assert abs(number - share * BIG_LINES) < BIG_LINES / 200
        expect_line(page, number + 1)
        expect(grip).to_be_hidden()
    finger.swipe(60)
    move_grip(page, finger, -0.2)
    expect_line(page, 1)
    expect(page.locator(".log-pill")).to_be_visible()
    finger.swipe(-60)
    move_grip(page, finger, 1.2)
    expect_line(page, BIG_LINES)
    expect(page.locator(".log-pill")).to_be_hidden()


def move_grip(page: Page, finger: Finger, share: float) -> None:
    """Hold the grip and move it to that share of its way."""
    grip, log = page.locator(".log-grip").bounding_box(), page.get_by_role("log").bounding_box()
    assert grip is not None
    assert log is not None
    to = log["y"] + share * (log["height"] - grip["height"])
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    finger.swipe(to - grip["y"], x=x, y=y)


def test_a_short_log_has_no_grip(page: Page, server: Server, finger: Finger) -> None:
    """A few swipes go through it."""
    open_log(page, server, finished_log(server, "short", lines(100)))
    wait_for_line(page, "100")
    finger.swipe(60)
    expect(page.locator(".log-pill")).to_be_visible()
    expect(page.locator(".log-grip")).to_be_hidden()


def test_a_tap_marks_a_line_and_a_held_number_all_between(
    page: Page, server: Server, finger: Finger
) -> None:
    """Each makes the link; what is held selects no text and opens no menu."""
    open_log(page, server, finished_log(server, "links", lines(30, lambda n: f"text {n}")))
    wait_for_line(page, "text 30")
    number = page.locator(".log-line .log-number")
    number.nth(11).tap()
    wait_until(lambda: page.url.endswith("#L12"))
    expect(page.locator(".log-toast")).to_have_text(re.compile("^Press and hold another number"))
    finger.hold(number.nth(17))
    wait_until(lambda: page.url.endswith("#L12-L18"))
    expect(page.locator(".log-line.is-target")).to_have_count(7)
    finger.hold(number.nth(9))
    wait_until(lambda: page.url.endswith("#L10-L12"))
    assert page.evaluate("String(getSelection())") == ""
    page.get_by_role("button", name="Copy these lines").tap()
    expect(page.locator(".log-toast")).to_have_text("Copied 3 lines.")
    assert page.evaluate("navigator.clipboard.readText()") == "text 10\ntext 11\ntext 12\n"
    number.nth(20).tap()
    wait_until(lambda: page.url.endswith("#L21"))
    page.get_by_role("button", name="Unmark").tap()
    expect(page.locator(".log-line.is-target")).to_have_count(0)


def test_a_swipe_that_begins_on_a_number_marks_nothing(
    page: Page, server: Server, finger: Finger
) -> None:
    """However long it lasts: it scrolls."""
    open_log(page, server, finished_log(server, "swipe", lines(300)))
    wait_for_line(page, "300")
    finger.swipe(200, x=12, rest_seconds=0.6)  # a number is held by then
    expect(page.locator(".log-pill")).to_be_visible()
    expect(page.locator(".log-line.is-target")).to_have_count(0)


SMALL = """least => [...document.querySelectorAll('button, a, select, input, .log-grip')]
  .filter(element => element.offsetParent && !element.closest('.log-lines, .facts'))
  .map(element => [element.getAttribute('aria-label') || element.textContent || element.className,
    element.getBoundingClientRect()])
  .filter(([, { width, height }]) => Math.min(width, height) < least)
  .map(([name, { width, height }]) => `${name.trim()}: ${width} x ${height}`)"""


def test_all_that_a_thumb_uses_is_large_enough_for_it(
    page: Page, server: Server, finger: Finger
) -> None:
    """At rest, with marked lines, with the search and its filter; and the page fits its width."""
    text = lines(2000, lambda n: f"ERROR {n}" if n % 500 == 0 else f"::group::{n}\n::endgroup::")
    open_log(page, server, f"{finished_log(server, 'thumb', text)}")
    expect(page.get_by_role("button", name=re.compile("errors: to the next"))).to_be_visible()
    expect(page.get_by_role("button", name="Shut or open all groups")).to_be_visible()
    finger.swipe(200)
    expect(page.locator(".log-pill")).to_be_visible()
    assert page.evaluate(SMALL, LEAST_PX) == []
    assert overflow_px(page) == 0
    page.get_by_role("button", name="Go to a line or a time").tap()
    assert page.evaluate(SMALL, LEAST_PX) == []
    page.get_by_label("Go to a line number or a time").fill("1500")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Marked lines")).to_be_visible()
    assert page.evaluate(SMALL, LEAST_PX) == []
    assert overflow_px(page) == 0
    page.get_by_role("button", name="Search").tap()
    page.get_by_role("textbox", name="Search the whole log").fill("error")
    expect(page.locator(".search-status")).to_have_text(re.compile("of 4$"))
    page.get_by_role("button", name="Only matching lines").tap()
    expect(page.get_by_label("Lines around each match")).to_be_visible()
    page.get_by_role("button", name="Next match").tap()
    assert page.evaluate(SMALL, LEAST_PX) == []
    assert overflow_px(page) == 0
    page.get_by_role("button", name="Close the search").tap()
    expect(page.get_by_role("textbox", name="Search the whole log")).to_be_hidden()


def test_the_list_too_is_large_enough_for_a_thumb(
    page: Page, make_server: Callable[..., Server]
) -> None:
    """Its rows are links as a whole."""
    server = make_server()
    launch(server, "true")
    page.goto(server.url)
    expect(page.locator(".row")).to_have_count(1)
    height = page.locator(".row").evaluate("row => row.offsetHeight")
    assert height >= LEAST_PX
    small = page.evaluate(SMALL, LEAST_PX)
    assert [name for name in small if not name.startswith("true: ")] == []
    assert overflow_px(page) == 0
