"""What comes of a log's escape sequences, in a real browser, beside a reference terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from level_samples import ERROR, SAMPLES
from playwright.sync_api import Browser, Page
from progress_streams import STREAMS
from terminal import Terminal

from tornado_logs.redraw import char_width
from tornado_logs.search import _ERRORS
from tornado_logs.sse import visible_line

from .helpers import Server

# Keeps what a view would: the rows by number, as the last report has them.
DRAW = """async ({ steps, style }) => {
  const { Screen, textOf } = await import('/static/screen.js');
  const screen = new Screen(style ?? '');
  const shown = new Map();
  const take = ({ rows, superseded, changed }) => {
    superseded.forEach((number) => shown.delete(number));
    [...rows, ...changed].forEach(({ number, runs }) => shown.set(number, runs));
  };
  for (const { lines, partial, keep, first } of steps) {
    if (lines) take(screen.feed(lines, first));
    if (partial !== undefined) {
      const found = screen.tentative(partial);
      if (keep) take(found);
    }
  }
  const rows = [...shown].sort(([one], [other]) => one - other);
  return { rows: rows.map(([number, runs]) => [number, textOf(runs), runs]), style: screen.style };
}"""
PROPERTY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def tab(browser: Browser, lasting_server: Server) -> Iterator[Page]:
    """One page of the server's for all tests of the module."""
    page = browser.new_page()
    page.goto(f"{lasting_server.url}/deployments/none")
    yield page
    page.close()


def wire(line: str) -> str:
    """The line as the server sends it."""
    return visible_line(line.encode(), 65536).decode()


def draw(tab: Page, steps: list[dict[str, Any]], style: str = "") -> dict[str, Any]:
    """What `DRAW` returns."""
    return dict(tab.evaluate(DRAW, {"steps": steps, "style": style}))


def shown(tab: Page, lines: list[str], first: int = 1) -> list[tuple[int, str]]:
    """Numbers and texts of the rows that come of lines as they are in the log."""
    found = draw(tab, [{"lines": [wire(line) for line in lines], "first": first}])
    return [(number, text) for number, text, _ in found["rows"]]


def runs(tab: Page, *lines: str) -> list[dict[str, Any]]:
    """The runs of lines as they come over the wire, one after the other."""
    found = draw(tab, [{"lines": list(lines)}])
    return [run for _, _, row in found["rows"] for run in row]


def steps_of(text: str, cuts: list[int]) -> list[dict[str, Any]]:
    """A log that is read in pieces: whole lines as they come, and the one that is being written."""
    steps: list[dict[str, Any]] = []
    read = 0
    for end in [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]:
        whole = text.rfind("\n", 0, end) + 1
        lines = text[read:whole].split("\n")[:-1] if whole > read else []
        read = max(read, whole)
        steps.append({"lines": [wire(line) for line in lines], "partial": wire(text[read:end])})
    return [*steps, {"partial": wire(text[read:]), "keep": read < len(text)}]


def expanded(rows: list[str]) -> list[str]:
    """Composed rows without tabs and blanks at their ends, down to the last that isn't blank."""
    found = [unicodedata.normalize("NFC", without_tabs(row)).rstrip() for row in rows]
    while found and not found[-1]:
        found.pop()
    return found


def without_tabs(row: str) -> str:
    """Blanks up to the next stop in place of each tab, as a browser shows them too."""
    *parts, last = row.split("\t")
    shown = ""
    for part in parts:
        shown += part
        shown += " " * (8 - sum(map(char_width, shown)) % 8)
    return shown + last


# --- Against a terminal


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
def test_progress_ends_up_as_a_terminal_leaves_it(
    tab: Page, stream: Callable[[], Iterator[str]]
) -> None:
    text = "".join(stream())
    terminal = Terminal().feed(text)
    for cuts in ([], list(range(0, len(text), 97)), list(range(5, len(text), 331))):
        found = draw(tab, steps_of(text, cuts))["rows"]
        assert expanded([row for _, row, _ in found]) == terminal.text, cuts
        numbers = [number for number, _, _ in found]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] <= text.count("\n") + (not text.endswith("\n"))


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
def test_every_moment_of_progress_is_shown_as_a_terminal_does(
    tab: Page, stream: Callable[[], Iterator[str]]
) -> None:
    text = "".join(stream())
    for end in range(0, len(text), max(1, len(text) // 25)):
        begun = text[:end].rpartition("\x1b")
        so_far = begun[0] if re.fullmatch(r"(\[[0-9;?]*)?|[78]?", begun[2]) else text[:end]
        terminal = Terminal().feed(so_far)
        found = draw(tab, steps_of(so_far, [end // 2]))["rows"]
        # apt's bar stands where no row of the log is.
        reference = [row for row in terminal.text if not row.startswith("Progr")]
        assert expanded([row for _, row, _ in found]) == expanded(reference), end


PIECES = st.one_of(
    st.text("abc xyz", min_size=1, max_size=12),
    st.text("日本語📦a", min_size=1, max_size=5),
    st.sampled_from(["e\u0301", "█▌", "\r", "\b", "\t", "\x1b[?25l", "\x1b]0;title\x07", "\n"]),
    st.builds("\x1b[{}{}".format, st.sampled_from(["", 1, 2]), st.just("K")),
    st.builds("\x1b[{}{}".format, st.integers(0, 12), st.sampled_from("CDGX")),
    st.sampled_from(["\x1b[0m", "\x1b[31m", "\x1b[1;44m", "\x1b[22m", "\x1b[m", "\x1b[38;5;208m"]),
)
UPS = st.one_of(
    st.builds("\x1b[{}{}".format, st.integers(0, 1), st.sampled_from("AF")),
    st.sampled_from(["\x1b[J", "\x1bM", "\x1b[2A\r", "\x1b[2A\x1b[J"]),
)
OLD_ROWS = "".join(f"old row {n} {'日本' * (n % 4)} {'.' * n}\n" for n in range(20))


@PROPERTY
@given(pieces=st.lists(PIECES | UPS, max_size=16), cuts=st.lists(st.integers(0, 900), max_size=3))
def test_whatever_is_drawn_over_is_as_on_a_terminal(
    tab: Page, pieces: list[str], cuts: list[int]
) -> None:
    text = OLD_ROWS + "".join(pieces)
    found = draw(tab, steps_of(text, cuts))["rows"]
    assert expanded([row for _, row, _ in found]) == Terminal().feed(text).text


COLOURS = ["black", "red", "green", "brown", "blue", "magenta", "cyan", "white"]
CODES = st.one_of(
    st.sampled_from([0, 1, 3, 4, 7, 9, 22, 23, 24, 27, 29, 39, 49]),
    *(st.integers(base, base + 7) for base in (30, 40, 90, 100)),
    st.integers(16, 255).map("38;5;{}".format),
    st.integers(16, 255).map("48;5;{}".format),
    st.tuples(*[st.integers(0, 255)] * 3).map("38;2;{0[0]};{0[1]};{0[2]}".format),
)


@PROPERTY
@given(st.lists(st.tuples(st.lists(CODES, min_size=1, max_size=4), st.text("ab\n", min_size=1))))
def test_colours_and_weights_are_those_of_a_terminal(
    tab: Page, pieces: list[tuple[list[Any], str]]
) -> None:
    text = "".join(f"\x1b[{';'.join(map(str, codes))}m{part}" for codes, part in pieces)
    found = draw(tab, steps_of(text, []))["rows"]
    ours = [[look(run) for run in row for _ in run["text"]] for _, _, row in found]
    screen = Terminal(rows=200).feed(text)
    assert [row for row in ours if row] == [
        [
            (cell.bold, cell.italics, cell.underscore, cell.reverse, cell.strikethrough,
             *(name.replace("bfight", "bright") for name in (cell.fg, cell.bg)))
            for cell in row
        ]
        for row in screen.styles if row
    ]  # fmt: skip


def look(run: dict[str, Any]) -> tuple[Any, ...]:
    """How a run looks, in pyte's words."""
    weights = (run[name] for name in ("bold", "italic", "underline", "inverse", "strike"))
    return (*weights, colour(run["fg"]), colour(run["bg"]))


def colour(name: str | None) -> str:
    """A colour in pyte's words."""
    if name and name.startswith("rgb"):
        return "".join(f"{int(part):02x}" for part in re.findall(r"\d+", name))
    return (name or "default").replace("-", "").replace("yellow", "brown")


# --- Colours and links


@pytest.mark.parametrize(
    ("codes", "field", "value"),
    [
        ("31", "fg", "red"), ("97", "fg", "bright-white"), ("44", "bg", "blue"),
        ("38;5;9", "fg", "bright-red"), ("38;5;208", "fg", "rgb(255 135 0)"),
        ("48;5;255", "bg", "rgb(238 238 238)"), ("38:5:208", "fg", "rgb(255 135 0)"),
        ("38:2:1:2:3", "fg", "rgb(1 2 3)"), ("38:2::1:2:3", "fg", "rgb(1 2 3)"),
        ("48:2:0:1:2:3", "bg", "rgb(1 2 3)"), ("48;2;1;2;3", "bg", "rgb(1 2 3)"),
        ("2", "faint", True), ("4:3", "underline", True), ("4:0", "underline", False),
        ("58;5;1;31", "fg", "red"), ("38;5;300", "fg", None), ("38;2;1;2;999", "fg", None),
        ("38;5", "fg", None), ("99999999999999999999", "fg", None),
    ],
)  # fmt: skip
def test_an_sgr_code_does_what_it_says(tab: Page, codes: str, field: str, value: Any) -> None:
    (run,) = runs(tab, f"\x1b[{codes}mtext")
    assert (run["text"], run[field]) == ("text", value)


def test_the_style_goes_on_over_lines_and_can_be_handed_on(tab: Page) -> None:
    lines = ["\x1b[1;38;5;208;44mone", "two\x1b]8;;https://a.example/x\x1b\\", "three"]
    one = draw(tab, [{"lines": lines}])
    assert one["style"] == "\x1b[1;38;2;255;135;0;44m\x1b]8;;https://a.example/x\x1b\\"
    (row,) = draw(tab, [{"lines": ["next"]}], one["style"])["rows"]
    (run,) = row[2]
    assert run["bold"]
    assert (run["fg"], run["bg"]) == ("rgb(255 135 0)", "blue")
    assert run["href"] == "https://a.example/x"


@pytest.mark.parametrize("end", ["\x1b\\", "\x07"])
def test_links_lead_to_the_web_alone(tab: Page, end: str) -> None:
    for address, href in [
        ("https://example.org/?a=1&b=2", "https://example.org/?a=1&b=2"),
        ("HTTP://example.org", "HTTP://example.org"),
        ("javascript:alert(1)", None),
        ("data:text/html,<script>alert(1)</script>", None),
        ("file:///etc/passwd", None),
        ("//example.org", None),
        (" https://example.org", None),
        ('https://example.org/\u2028"onclick=x', None),
        ("https://e/" + "x" * 5000, None),
    ]:
        (first, *rest) = runs(tab, f"\x1b]8;id=1;{address}{end}link\x1b]8;;{end} text")
        assert first["href"] == href
        assert first["text"] + "".join(run["text"] for run in rest) == "link text"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("a\x1b]0;title\x07b", "ab"), ("a\x1b]0;title\x1b\\b", "ab"), ("a\x1b]0;no end", "a"),
        ("a\x1bPdcs\x1b\\b", "ab"), ("a\x1b_apc\x1b\\b", "ab"), ("a\x1b(Bb", "ab"),
        ("a\x1b[?25lb", "ab"), ("a\x1b[>4;1mb", "ab"), ("a\x1b=b", "ab"), ("a\x1b", "a"),
        ("a\x1b[", "a"), ("a\x1b[31", "a"), ("a\x1b\u00e9b", "a\u00e9b"), ("a\x07\x00\x7fb", "ab"),
        ("a\x1b[3\u00e9b", "a\u00e9b"), ("\x1b[999999999999Cx", " " * 1000 + "x"),
    ],
)  # fmt: skip
def test_what_is_not_for_a_reader_is_not_shown(tab: Page, line: str, text: str) -> None:
    assert "".join(run["text"] for run in runs(tab, line)) == text
    rows = draw(tab, [{"lines": [line, "next"]}])["rows"]
    assert rows[1][1] == "next"


COLOURED = "\x1b[1;31mred\x1b[0m and \x1b[38;2;1;2;3mexact\x1b[m, \x1b[4:3mwaves\x1b[24m\x1b[K end"
COLOURED_TEXT = "red and exact, waves end"


def test_a_sequence_cut_by_a_line_end_loses_no_text(tab: Page) -> None:
    for at in range(len(COLOURED) + 1):
        rows = draw(tab, [{"lines": [COLOURED[:at], COLOURED[at:], "next"]}])["rows"]
        assert [text for _, text, _ in rows][2] == "next"
        assert "".join(text for _, text, _ in rows[:2]) == COLOURED_TEXT, at


@PROPERTY
@given(st.lists(st.integers(0, len(COLOURED)), max_size=6))
def test_text_cut_anywhere_into_lines_is_all_there(tab: Page, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(COLOURED)]
    lines = [COLOURED[start:end] for start, end in pairwise(ends)]
    rows = draw(tab, [{"lines": lines}])["rows"]
    text = iter("".join(row for _, row, _ in rows))
    assert all(char in text for char in COLOURED_TEXT)  # in this order
    assert len(rows) == len(lines)


@PROPERTY
@given(st.lists(st.text("\x1b[]()\\;:0123478mKJHABCDPX_^<\x07\b\tab日\u0301\u200d", max_size=30)))
def test_no_line_breaks_the_screen(tab: Page, lines: list[str]) -> None:
    found = draw(tab, [{"lines": lines, "partial": lines[-1] if lines else ""}, {"lines": ["end"]}])
    numbers = [number for number, _, _ in found["rows"]]
    assert numbers == sorted(set(numbers))
    assert not any("\x1b" in text for _, text, _ in found["rows"])


def test_a_megabyte_of_escapes_is_an_empty_row(tab: Page) -> None:
    for piece in [
        "\x1b[31m",
        "\x1b",
        "\x1b]",
        "\x1b[",
        "\x1bP",
        "\x1b[1;",
        "\x1b[A",
        "\x1b[2K\x1b[5C",
    ]:
        count = 1_000_000 // len(piece)
        found = tab.evaluate(
            """async ({ piece, count }) => {
              const { Screen, textOf } = await import('/static/screen.js');
              const screen = new Screen();
              const rows = screen.feed([piece.repeat(count), 'next'], 1).rows;
              return textOf(rows.at(-1).runs);
            }""",
            {"piece": piece, "count": count},
        )
        assert found == "next"


# --- Rows and their numbers


def test_a_line_that_draws_over_others_takes_their_place(tab: Page) -> None:
    lines = ["start", "a 0%", "b 0%", "\x1b[2Aa 50%", "b 50%", "\x1b[2Aa done", "b done", "end"]
    assert shown(tab, lines) == [(1, "start"), (6, "a done"), (7, "b done"), (8, "end")]


def test_rows_that_one_line_draws_have_numbers_that_ascend(tab: Page) -> None:
    found = shown(tab, ["", "", "\x1b[2A\rone\x1b[B\rtwo\x1b[B\rthree", "end"])
    assert found == [(1, "one"), (2, "two"), (3, "three"), (4, "end")]


def test_what_is_erased_below_has_no_rows(tab: Page) -> None:
    assert shown(tab, ["a", "b", "c", "\x1b[3A\x1b[Jnew"]) == [(4, "new")]


def test_a_window_that_begins_within_a_redraw_knows_what_it_supersedes(tab: Page) -> None:
    report = tab.evaluate(
        """async () => {
          const { Screen, textOf } = await import('/static/screen.js');
          const found = new Screen().feed(['\\x1b[3Aa', 'b', 'c', 'd'], 500);
          const texts = found.rows.map(({ number, runs }) => [number, textOf(runs)]);
          return { ...found, rows: texts };
        }"""
    )
    assert report["rows"] == [[500, "a"], [501, "b"], [502, "c"], [503, "d"]]
    assert report["superseded"] == [497, 498, 499]


def test_the_line_being_written_changes_nothing_for_good(tab: Page) -> None:
    found = tab.evaluate(
        """async () => {
          const { Screen, textOf } = await import('/static/screen.js');
          const screen = new Screen();
          screen.feed(['a', 'b'], 1);
          const seen = screen.tentative('\\x1b[2A\\x1b[31mnew');
          const after = screen.feed(['c'], 3);
          return [seen.changed.map(({ number, runs }) => [number, textOf(runs)]), seen.superseded,
                  after.rows.map(({ number, runs }) => [number, textOf(runs), runs[0].fg]),
                  after.changed.length, screen.style];
        }"""
    )
    assert found == [[[1, "new"]], [3], [[3, "c", None]], 0, ""]


def test_only_as_many_rows_are_kept_as_a_terminal_has(tab: Page) -> None:
    lines = [f"{n}" for n in range(1, 1001)] + ["\x1b[999Atop"]
    rows = shown(tab, lines)
    # The cursor's own row is the last of the hundred.
    assert [text for _, text in rows[899:903]] == ["900", "901", "top", "903"]


# --- Columns

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def test_characters_take_as_many_columns_as_on_the_server(tab: Page) -> None:
    # But for those that one of the two doesn't know yet: versions of Unicode differ.
    widths = tab.evaluate(
        """async () => {
          const { charWidth } = await import('/static/cells.js');
          const codes = Array.from({ length: 0x20000 - 32 }, (_, index) => index + 32);
          const known = /^[^\\p{Cn}\\p{Cs}\\p{Co}\\p{Cc}]$/u;
          return codes.map((code) => [code, String.fromCodePoint(code)])
            .filter(([, char]) => known.test(char))
            .map(([code, char]) => [code, charWidth(char)]);
        }"""
    )
    differing = [
        (hex(code), width)
        for code, width in widths
        if unicodedata.category(chr(code)) != "Cn" and char_width(chr(code)) != width
    ]
    assert len(differing) < 100, differing


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("日本\x1b[1Gx", "x 本"), ("日本\x1b[4Gx", "日 x"), ("a\tb\x1b[1Gx", "x\tb"),
        ("a\tb\x1b[3Gx", "a x     b"), ("e\u0301x\x1b[2Gy", "e\u0301y"),
        (f"{FAMILY}x\x1b[3Gy", f"{FAMILY}y"), ("abc\b\b\bxy", "xyc"),
        ("ab\tc\x1b[9Gd", "ab\td"), ("a\u202eb\x1b[2Gx", "a\u202ex"),
    ],
)  # fmt: skip
def test_columns_count_wide_and_combining_characters_and_tabs(
    tab: Page, line: str, text: str
) -> None:
    assert [row for _, row in shown(tab, [line])] == [text]


# --- Nodes


def nodes(tab: Page, lines: list[str], highlight: list[list[int]] | None = None) -> str:
    """The HTML that the DOM makes of rendered lines."""
    return str(
        tab.evaluate(
            """async ({ lines, highlight }) => {
              const { Screen } = await import('/static/screen.js');
              const { renderRuns } = await import('/static/ansi_lines.js');
              const element = document.createElement('div');
              for (const { runs } of new Screen().feed(lines, 1).rows) {
                renderRuns(runs, element, { highlight });
              }
              document.body.append(element);
              const html = element.innerHTML;
              element.remove();
              return html;
            }""",
            {"lines": lines, "highlight": highlight or []},
        )
    )


def test_plain_text_is_a_text_node(tab: Page) -> None:
    assert nodes(tab, ["a <b> & c"]) == "a &lt;b&gt; &amp; c"


def test_colours_are_classes_or_styles(tab: Page) -> None:
    assert nodes(tab, ["\x1b[1;31mred\x1b[0m \x1b[7;32;44minv\x1b[0m\x1b[38;2;1;2;3mexact"]) == (
        '<span class="ansi-bold ansi-red-fg">red</span> '
        '<span class="ansi-inverse ansi-blue-fg ansi-green-bg">inv</span>'
        '<span class="ansi-exact-fg" style="color: rgb(1, 2, 3);">exact</span>'
    )


def test_nothing_in_a_log_becomes_markup_or_script(tab: Page) -> None:
    nasty = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    html = nodes(
        tab,
        [
            nasty,
            f"\x1b[1m{nasty}\x1b[0m",
            f"\x1b]8;;https://e/{nasty}\x07{nasty}\x1b]8;;\x07",
            "\x1b]8;;https://e/'onclick='window.hacked=1\x07click\x1b]8;;\x07",
            "\x1b]8;;javascript:window.hacked=1\x07click\x1b]8;;\x07",
            '\x1b[31";onclick="window.hacked=1mtext',
        ],
        [[0, 4]],
    )
    assert not re.search(r"<(?!/?(span|mark|a)\b)", html)
    assert "javascript" not in html
    assert tab.evaluate("window.hacked") is None


def test_links_open_apart_and_tell_nothing(tab: Page) -> None:
    html = nodes(tab, ["\x1b]8;;https://e.example/\x1b\\\x1b[1mli\x1b[0mnk\x1b]8;;\x1b\\"])
    assert html.count("<a ") == 2
    assert html.count('rel="noopener noreferrer" target="_blank"') == 2


@pytest.mark.parametrize(
    ("highlight", "html"),
    [
        ([[0, 2]], "<mark>ab</mark><span>cd</span>ef"),
        ([[1, 5]], "a<mark>b</mark><mark><span>cd</span></mark><mark>e</mark>f"),
        ([[3, 4]], "ab<span>c</span><mark><span>d</span></mark>ef"),
        ([[0, 1], [1, 2], [5, 9]], "<mark>a</mark><mark>b</mark><span>cd</span>e<mark>f</mark>"),
        ([[2, 2]], "ab<span>cd</span>ef"),
    ],
)
def test_what_was_searched_for_is_marked(tab: Page, highlight: list[list[int]], html: str) -> None:
    found = nodes(tab, ["ab\x1b[1mcd\x1b[0mef"], highlight)
    assert found.replace(' class="ansi-bold"', "") == html


# --- Levels and structure


def levels(tab: Page, texts: list[str]) -> list[str | None]:
    """What levels.js says of each text."""
    return list(
        tab.evaluate(
            "async (texts) => texts.map((await import('/static/levels.js')).levelOf)", texts
        )
    )


def test_levels_are_told_in_common_formats_and_false_alarms_are_few(tab: Page) -> None:
    found = levels(tab, [text for text, _ in SAMPLES])
    wrong = [(text, level) for (text, expected), level in zip(SAMPLES, found, strict=True)
             if level != expected]  # fmt: skip
    assert wrong == []


def test_the_server_searches_for_the_errors_that_the_page_marks(tab: Page) -> None:
    forms = tab.evaluate("async () => (await import('/static/levels.js')).ERROR_FORMS")
    assert forms == list(_ERRORS)


def test_many_lines_can_be_tested_at_once_for_errors(tab: Page) -> None:
    found = tab.evaluate(
        """async (texts) => {
          const { MAY_BE_ERROR } = await import('/static/levels.js');
          return texts.map((text) => MAY_BE_ERROR.test(`a\\n${text}\\nb`));
        }""",
        [text for text, level in SAMPLES if level == ERROR],
    )
    assert all(found)


def test_json_is_told_and_shown_on_several_lines(tab: Page) -> None:
    found = tab.evaluate(
        """async (texts) => {
          const { isJson, prettyJson } = await import('/static/levels.js');
          return texts.map((text) => isJson(text) && prettyJson(text));
        }""",
        ['{"a":[1,{}],"b":"x, {y}"}', "[]", "[INFO] no", '"text"', "{broken}", "12", '{"n":1e400}'],
    )
    assert found == [
        '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": "x, {y}"\n}', "[]", False, False, False, False,
        '{\n  "n": 1e400\n}',
    ]  # fmt: skip


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=4), values),
        max_leaves=10,
    )
)
@PROPERTY
def test_expanded_json_is_the_same_json(tab: Page, value: Any) -> None:
    text = json.dumps({"value": value})
    pretty = tab.evaluate(
        "async (text) => (await import('/static/levels.js')).prettyJson(text)", text
    )
    assert json.loads(pretty) == {"value": value}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("::group::Install", [("start", None, "Install", False)]),
        ("2026-11-22T10:41:59.1234567Z ##[group]Run make", [("start", None, "Run make", False)]),
        ("::endgroup::", [("end", None, "", False)]),
        ("##[endgroup]", [("end", None, "", False)]),
        ("echo ::group::x", []),
        ("my group", []),
        (
            "\x1b[0Ksection_start:1700000000:build[collapsed=true]\r\x1b[0K\x1b[36;1mBuild\x1b[0;m",
            [("start", "build", "Build", True)],
        ),
        ("\x1b[0Ksection_end:1700000001:build\r\x1b[0K", [("end", "build", "", False)]),
        (
            "section_end:1:get_sources\r\x1b[0Ksection_start:2:step_script\r\x1b[0KExecuting",
            [("end", "get_sources", "", False), ("start", "step_script", "Executing", False)],
        ),
    ],
)
def test_groups_are_found_on_the_wire(
    tab: Page, line: str, expected: list[tuple[str, str | None, str, bool]]
) -> None:
    found = tab.evaluate(
        """async (line) => {
          const { structuresOf, structureOf } = await import('/static/levels.js');
          return [structuresOf(line), structureOf(line)];
        }""",
        wire(line),
    )
    told = [(one["kind"], one["id"], one["title"], one["collapsed"]) for one in found[0]]
    assert told == expected
    assert found[1] == (found[0][-1] if found[0] else None)
    (row,) = shown(tab, [line])
    assert "section_" not in row[1]
