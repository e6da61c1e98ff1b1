"""Any escape sequences in a real browser: nothing breaks, nothing becomes markup of its own.

Many inputs in each example, as the way to the browser and back costs most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page
from terminal import Terminal

from .helpers import Server
from .test_terminal import PIECES, UPS, expanded, steps_of, wire

# For each log: its rows as elements of the log view, and what of them nobody but the view may make.
SHOW = """async (logs) => {
  const { Screen, textOf } = await import('/static/screen.js');
  const { LogRow } = await import('/static/log_row.js');
  const { structuresOf } = await import('/static/levels.js');
  const known = new Set(['A', 'BUTTON', 'DIV', 'MARK', 'SPAN', 'SVG', 'USE']);
  const raw = { href: '/logs/x/raw', download: 'x.log' };
  return logs.map(({ lines, partial, ranges }) => {
    const screen = new Screen('');
    const shown = new Map();
    const reports = [screen.feed(lines, 1), screen.tentative(partial)];
    for (const { rows, superseded, changed } of reports) {
      superseded.forEach((number) => shown.delete(number));
      [...rows, ...changed].forEach(({ number, runs }) => shown.set(number, runs));
    }
    const wrong = [];
    for (const [number, runs] of shown) {
      const text = textOf(runs);
      structuresOf(text);
      for (const model of [{ ranges }, { ranges: [], fold: { title: text, count: 1, errors: 0 } }]) {
        const row = new LogRow(number, raw);
        row.show({ runs, time: '', timeTitle: '', flags: '', depth: 0, ...model });
        const body = row.element.querySelector('.log-text');
        if (!model.fold && body.textContent !== `${text}\\n`) wrong.push(['text', text, body.textContent]);
        for (const element of row.element.querySelectorAll('*')) {
          const names = element.getAttributeNames();
          if (!known.has(element.tagName.toUpperCase())) wrong.push(['element', element.tagName, text]);
          if (names.some((name) => name.startsWith('on') || name === 'src')) wrong.push(['attribute', names, text]);
          const { protocol } = element.tagName === 'A' ? element : { protocol: 'http:' };
          if (!['http:', 'https:', 'mailto:', 'ftp:'].includes(protocol)) wrong.push(['link', element.href, text]);
        }
      }
      if (/[\\x1b\\r\\n\\x00-\\x08]/.test(text)) wrong.push(['control', text]);
    }
    return wrong;
  });
}"""  # noqa: E501

# For each log, which is a list of steps: the texts of its rows.
DRAW_ALL = """async (logs) => {
  const { Screen, textOf } = await import('/static/screen.js');
  return logs.map((steps) => {
    const screen = new Screen('');
    const shown = new Map();
    for (const { lines, partial, keep } of steps) {
      const reports = [lines ? screen.feed(lines) : null, partial === undefined ? null : screen.tentative(partial)];
      if (!keep) reports.pop();
      for (const report of reports.filter(Boolean)) {
        report.superseded.forEach((number) => shown.delete(number));
        [...report.rows, ...report.changed].forEach(({ number, runs }) => shown.set(number, runs));
      }
    }
    return [...shown].sort(([one], [other]) => one - other).map(([, runs]) => textOf(runs));
  });
}"""  # noqa: E501

_ADDRESSES = st.one_of(
    st.sampled_from(
        [
            *("https://example.org/", "javascript:alert(1)", " javascript:alert(1)", "JAVASCRIPT:"),
            *("data:text/html,<b>", "vbscript:x", "file:///etc", "//x", "https:x", ""),
            *("blob:http://x", "https://a\\u0000b", "java\\tscript:x", "https://x/\" onclick=\"x"),
        ]
    ),
    st.text(max_size=10),
)  # fmt: skip
_ANYTHING = st.one_of(
    st.builds(
        "\x1b[{}{}{}".format,
        st.text("0123456789;:?<=>", max_size=10),
        st.text(" !\"#$%&'()*+,-./", max_size=1),
        st.characters(min_codepoint=0x40, max_codepoint=0x7E),
    ),
    st.builds("\x1b]8;{};{}{}".format, st.text(max_size=4), _ADDRESSES,
              st.sampled_from(["\x07", "\x1b\\"])),
    st.builds("\x1b]{};{}{}".format, st.integers(0, 1400), st.text(max_size=8),
              st.sampled_from(["\x07", "\x1b\\", ""])),
    st.builds("\x1b{}{}{}".format, st.sampled_from("PX^_"), st.text(max_size=8),
              st.sampled_from(["\x1b\\", "\x07", ""])),
    st.builds("\x1b{}".format, st.characters()),
    st.sampled_from(
        [
            *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;", "</div>", "-->"),
            *("::group::<b>", "::error::x", "##[endgroup]", "section_start:1:a\r", '{"a": "<b>"}'),
            *("\u202e", "\u2028", "\x9b31m", "\ufeff", "\U000e0041", "[1, 2]", "\x7f", "\x00"),
        ]
    ),
    st.text(max_size=10),
    PIECES,
    UPS,
).map(lambda text: text.replace("\n", ""))  # fmt: skip
_LINES = st.lists(st.lists(_ANYTHING, max_size=6).map("".join), min_size=1, max_size=4)
_LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "lines": _LINES,
            "partial": st.lists(_ANYTHING, max_size=3).map("".join),
            "ranges": st.sampled_from([[], [[0, 1]], [[0, 2], [3, 9]]]),
            "is_wire": st.booleans(),
        }
    ),
    min_size=30,
    max_size=60,
)


@pytest.fixture(scope="module")
def tab(browser: Browser, lasting_server: Server) -> Iterator[Page]:
    """One page of the server's for all tests of the module; it must have nothing to complain of."""
    page = browser.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(f"{lasting_server.url}/deployments/none")
    yield page
    page.close()
    assert failures == []


@fuzz(8, 20)
@given(_LOGS)
def test_no_text_of_a_log_becomes_markup_of_its_own(tab: Page, logs: list[dict[str, Any]]) -> None:
    for log in logs:
        if log.pop("is_wire"):  # else what no server of ours would send
            log["lines"] = [wire_of(line) for line in log["lines"]]
            log["partial"] = wire_of(log["partial"])
        log["lines"] = [valid(line) for line in log["lines"]]
        log["partial"] = valid(log["partial"])
    found = tab.evaluate(SHOW, logs)
    for log, wrong in zip(logs, found, strict=True):
        assert wrong == [], log


def valid(text: str) -> str:
    """Without lone surrogates, which no UTF-8 holds."""
    return text.encode(errors="replace").decode()


def wire_of(line: str) -> str:
    """The line as the server sends it."""
    return wire(valid(line))


_UNSEEN = st.sampled_from(
    [
        *("\x1b[?25h", "\x1b[?1049h", "\x1b[?2004l", "\x1b]2;title\x1b\\", "\x1b[0;0m"),
        *("\x1b[5n", "\x1b=", "\x1b>", "\x1b]8;;https://a/\x1b\\", "\x1b]8;;\x1b\\", "\x07"),
    ]
)  # fmt: skip


@fuzz(8, 20)
@given(
    st.lists(
        st.tuples(
            st.lists(PIECES | UPS | _UNSEEN, max_size=16), st.lists(st.integers(0, 900), max_size=3)
        ),
        min_size=30,
        max_size=60,
    )
)
def test_any_redraws_leave_what_a_terminal_shows(
    tab: Page, logs: list[tuple[list[str], list[int]]]
) -> None:
    rows = "".join(f"old row {n} {'.' * n}\n" for n in range(20))
    texts = [rows + "".join(pieces) for pieces, _ in logs]
    steps = [steps_of(text, cuts) for text, (_, cuts) in zip(texts, logs, strict=True)]
    for text, found in zip(texts, tab.evaluate(DRAW_ALL, steps), strict=True):
        assert expanded(found) == Terminal().feed(text).text, text
