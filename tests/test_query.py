"""What a query finds, in a log as a reader sees it: grep against Python's own `re`."""

from __future__ import annotations

import re
import subprocess

import pytest

from tornado_logs.query import MAX_QUERY_CHARS, QueryError, compile_query

SHOWN = [
    ("error: foo", "error: foo"),
    ("\x1b[31mERROR\x1b[0m: foo", "ERROR: foo"),
    ("x31m", "x31m"),
    ("Überfall", "Überfall"),
    ("ÜBERFALL straße", "ÜBERFALL straße"),
    ("a.c", "a.c"),
    ("abc", "abc"),
    ("aéc", "aéc"),
    ("a😀c", "a😀c"),
    ("", ""),
    ("   ", "   "),
    ("foo\r", "foo"),
    ("a-b]c[d^e", "a-b]c[d^e"),
    ("tab\there", "tab\there"),
    ("terror", "terror"),
    ("an_error x", "an_error x"),
    ("10%", "10%"),
    ("\x1b[1;38;5;9merror\x1b[m\x1b[K", "error"),
    ("\x1b]8;;http://example.com\x07link\x1b]8;;\x1b\\ text", "link text"),
    ("(a)", "(a)"),
    ("aaaa", "aaaa"),
    ("a{2}", "a{2}"),
    ("-v", "-v"),
    ("back\\slash", "back\\slash"),
]
LOG = "".join(line + "\n" for line, _ in SHOWN).encode()


def grep(pattern: bytes, log: bytes) -> list[int]:
    """The numbers of the lines that match."""
    done = subprocess.run(
        [b"grep", b"-anE", b"-e", pattern],
        input=log,
        capture_output=True,
        env={"LC_ALL": "C"},
        timeout=60,
        check=False,
    )
    assert done.stderr == b"", done.stderr
    assert done.returncode in (0, 1)
    return [int(line.partition(b":")[0]) for line in done.stdout.split(b"\n")[:-1]]


@pytest.mark.parametrize("case", [False, True])
@pytest.mark.parametrize(
    "text",
    ["error: foo", "31", "m", "über", "É", "😀", "a.c", "a-b]c[d^e", "-v", "\\", "(a)", "a{2}"],
)
def test_text_is_found_as_it_is_shown(text: str, case: bool) -> None:
    query = compile_query(text, case=case)
    found = [
        number
        for number, (_, shown) in enumerate(SHOWN, 1)
        if (text in shown if case else text.lower() in shown.lower())
    ]
    assert grep(query.exact, LOG) == found


@pytest.mark.parametrize("case", [False, True])
@pytest.mark.parametrize(
    "regex",
    [
        "a.c",
        "^error",
        "foo$",
        r"\berror\b",
        r"^\s*$",
        "^$",
        "a[^b]c",
        "[é😀]",
        r"\d+%",
        "^.{3}$",
        "(error|a.c)$",
        r"[]x]",
        r"[x\]\[]",
        r"\(a\)",
        "^a{2,}$",
        "^a{4}$",
        "a+?",
        "a{x",
        r"\\s",
        r"[^ -~\t\x0b-\x1f]",
        "(?:foo|bar)",
        "x*",
        "[a-]b",
        r"[^\d\sa-z]",
        r"[\w.]+:",
        r"\S",
        "(a|b){2,3}c?",
        "exam",
        r"\u00e9",
        "[à-ÿ]",
        r"t\there",
        "^(é|a).*[c😀]$",
    ],
)
def test_a_regular_expression_finds_what_that_of_python_finds(regex: str, case: bool) -> None:
    query = compile_query(regex, regex=True, case=case)
    ours = re.compile(re.sub(r"^\[]", r"[\\]", regex), re.NOFLAG if case else re.IGNORECASE)
    found = [number for number, (_, shown) in enumerate(SHOWN, 1) if ours.search(shown)]
    assert grep(query.exact, LOG) == found
    coloured = {number for number, (line, _) in enumerate(SHOWN, 1) if "\x1b" in line}
    assert {*grep(query.loose, LOG)} - coloured == {*found} - coloured
    assert {*grep(query.loose, LOG)} >= {*found}


@pytest.mark.parametrize("regex", [False, True])
def test_bytes_that_are_no_utf8_hide_nothing(regex: bool) -> None:
    log = b"\xff\xfe needle \x80\ncaf\xe9 needle\n\xe2\x82needle\nnone\n"
    assert grep(compile_query("NEEDLE", regex=regex).exact, log) == [1, 2, 3]
    assert grep(compile_query("caf. n", regex=True).exact, log) == [2]
    assert grep(compile_query("b.d", regex=True).exact, b"a\0b\0d\n") == [1]


@pytest.mark.parametrize(
    ("regex", "sentence"),
    [
        ("(", "never closed"),
        ("a)", "closes nothing"),
        ("[a", "never closed"),
        ("[a\\", "middle of an escape"),
        ("*a", "nothing for * to repeat"),
        ("a**", "nothing for * to repeat"),
        ("(|*)", "nothing for * to repeat"),
        ("(?=a)", "look around"),
        ("(?P<a>a)", "look around"),
        (r"(a)\1", "refer back"),
        (r"\q", "not known"),
        ("\\", "middle of an escape"),
        ("[b-a]", "ends before it begins"),
        ("a{3,2}", "ends below"),
        (r"a\nb", "each line by"),
        (r"\x00", "each line by"),
        (r"\ud83d", "half a character"),
        (r"[^\s\S]", "no character"),
        ("[[:alpha:]]", "written \\d"),
        ("(((a{1,99}){1,99}){1,99}){1,99}", "too large"),
        ("(){999999}", "too large"),
        ("[a-\U0001f000]" * 20 + "[éà" + "ß" * 900, "at most"),
    ],
)
def test_what_no_regular_expression_can_be_is_refused_with_a_sentence(
    regex: str, sentence: str
) -> None:
    with pytest.raises(QueryError, match=re.escape(sentence)):
        compile_query(regex, regex=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "nothing"), ("a\nb", "line end"), ("a\0b", "NUL"), ("x" * 100_000, "1,000 characters")],
)
@pytest.mark.parametrize("regex", [False, True])
def test_what_is_no_query_is_refused_with_a_sentence(text: str, sentence: str, regex: bool) -> None:
    with pytest.raises(QueryError, match=sentence):
        compile_query(text, regex=regex)


@pytest.mark.parametrize(
    "regex",
    [
        "x" * MAX_QUERY_CHARS,
        "é" * MAX_QUERY_CHARS,
        "(a{1,50}){1,99}",
        ".{1600}",
        "(a+)+$",
        "(a*)*b",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x",
        "(|a)()a||b",
        "[à-\uffff]" * 20,
        "((((((((((a?){9}){9}){9})?)?)?)?)?)?)b$",
    ],
)
def test_what_is_accepted_can_be_searched_for_in_no_time(regex: str) -> None:
    query = compile_query(regex, regex=True)
    log = (b"a" * 30_000 + b"\n") * 3
    assert grep(query.exact, log) is not None
    assert grep(query.loose, log) is not None
