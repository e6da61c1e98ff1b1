"""Masking: whatever the pieces, the bytes that come out are the same, and no secret is in them."""

from __future__ import annotations

import json
import urllib.parse
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_logs.mask import MASK, MAX_COMMAND_BYTES, Masker, spellings

SECRET = "hunter22-p4ss"


def masked(values: list[str], *pieces: bytes) -> bytes:
    masker = Masker(values)
    return b"".join(masker.feed(piece) for piece in pieces) + masker.finish()


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def reference(values: list[str], data: bytes) -> bytes:
    """Masking by the definition: every byte that a spelling covers, overlapping ones as one run."""
    spans = sorted(
        (at, at + len(needle))
        for value in values
        for needle in spellings(value)
        for at in range(len(data))
        if data.startswith(needle, at)
    )
    out, reached = b"", 0
    for start, stop in spans:
        if start >= reached:
            out += data[reached:start] + b"***"
        reached = max(reached, stop)
    return out + data[reached:]


few_letters = st.text(alphabet="ab\nc", min_size=4, max_size=12)
secrets_of_few_letters = st.lists(few_letters, max_size=4)


@st.composite
def texts_with_secrets(draw: st.DrawFn) -> tuple[list[str], list[bytes]]:
    """Secrets that overlap each other, and pieces of a text that is full of their parts."""
    values = draw(secrets_of_few_letters)
    parts = st.sampled_from([*values, "a", "b", "\n", "\r\n", "::add-mask::", "\x1b[32m"])
    text = "".join(draw(st.lists(parts | few_letters, max_size=30))).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    edges = [0, *cuts, len(text)]
    return values, [text[start:stop] for start, stop in pairwise(edges)]


@given(texts_with_secrets())
def test_any_pieces_give_what_the_whole_gives(drawn: tuple[list[str], list[bytes]]) -> None:
    values, pieces = drawn
    whole = masked(values, b"".join(pieces))
    assert masked(values, *pieces) == whole
    assert masked(values, *byte_by_byte(b"".join(pieces))) == whole


@given(texts_with_secrets())
def test_no_secret_comes_out(drawn: tuple[list[str], list[bytes]]) -> None:
    values, pieces = drawn
    out = masked(values, *pieces)
    for value in values:
        for needle in spellings(value):
            assert needle not in out


@given(secrets_of_few_letters, st.text(alphabet="ab\nc", max_size=60))
def test_what_is_masked_is_what_a_secret_covers_and_nothing_else(
    values: list[str], text: str
) -> None:
    data = text.encode() + b"|"  # so that nothing at the end is the beginning of a secret
    assert masked(values, data) == reference(values, data)
    assert Masker(values).text(data.decode()).encode() == reference(values, data)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_without_a_secret_every_byte_comes_through(pieces: list[bytes]) -> None:
    if b"::add-mask::" not in b"".join(pieces):
        assert masked([], *pieces) == b"".join(pieces)


def test_without_a_secret_the_very_piece_is_passed_on() -> None:
    piece = b"a line\n" * 1000
    assert Masker().feed(piece) is piece


def test_a_secret_in_two_reads_is_never_shown_in_part() -> None:
    masker = Masker([SECRET])
    assert masker.feed(b"password: hunter") == b"password: "
    assert masker.feed(b"22-p4") == b""
    assert masker.feed(b"ss\n") == b"***\n"


@pytest.mark.parametrize("distance", [0, 1, 4000, 5000, 300_000])
def test_a_secret_is_found_anywhere_in_a_piece_of_any_size(distance: int) -> None:
    data = b"\0" * distance + SECRET.encode() + b"\0" * 5000
    assert masked([SECRET], data) == b"\0" * distance + b"***" + b"\0" * 5000
    declared = b"\n" * distance + b"::add-mask::hunter22\n" + b"\0" * 5000 + b"hunter22"
    assert masked([], declared).count(b"***") == 2


def test_what_only_began_like_a_secret_comes_with_what_follows() -> None:
    masker = Masker([SECRET])
    assert masker.feed(b"the hunter") == b"the "
    assert masker.feed(b" is here\n") == b"hunter is here\n"


@pytest.mark.parametrize(
    ("cut", "shown"), [(b"the hun", b"the hun"), (b"the hunt", b"the ***"), (b"h", b"h")]
)
def test_the_beginning_of_a_secret_that_a_kill_has_cut_is_masked(cut: bytes, shown: bytes) -> None:
    assert masked([SECRET], cut) == shown


def test_a_secret_that_overlaps_itself_is_covered_to_its_end() -> None:
    assert masked(["abcab"], b"x abcabcabcab y") == b"x *** y"
    assert masked(["aaaa"], b"a" * 10_000 + b"\n") == b"***\n"


def test_two_secrets_side_by_side_are_two_masks() -> None:
    assert masked([SECRET], f"{SECRET}{SECRET}".encode()) == b"******"


def test_the_longer_secret_hides_the_shorter_one_in_it() -> None:
    assert masked(["hunter22", "hunter22-and-more"], b"hunter22-and-more hunter22-and\n") == (
        b"*** ***-and\n"
    )


KEY = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA7\nshort\nb1c2d3e4f5g6h7\n-----END KEY-----"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_secret_of_many_lines_is_masked_as_a_whole(line_end: str) -> None:
    printed = KEY.replace("\n", line_end) + line_end
    assert masked([KEY], *byte_by_byte(printed.encode())) == b"***" + line_end.encode()


def test_each_longer_line_of_a_secret_is_masked_by_itself() -> None:
    printed = "".join(f"  {line}\n" for line in KEY.splitlines()).encode()
    assert masked([KEY], printed) == b"  ***\n  ***\n  short\n  ***\n  ***\n"


def test_the_line_end_around_a_secret_is_no_part_of_it() -> None:
    assert masked([f"{SECRET}\n"], f"<{SECRET}>".encode()) == b"<***>"


TRICKY = "p\"a's\\s w/ö&rd"


@pytest.mark.parametrize(
    "spelled",
    [
        TRICKY,
        json.dumps(TRICKY),
        json.dumps(TRICKY, ensure_ascii=False),
        urllib.parse.quote(TRICKY),
        urllib.parse.quote(TRICKY, safe=""),
        urllib.parse.urlencode({"q": TRICKY}),
        repr(TRICKY),
        "'" + TRICKY.replace("'", "'\\''") + "'",
    ],
)
def test_a_secret_is_known_as_programs_write_it(spelled: str) -> None:
    out = masked([TRICKY], f"before {spelled} after".encode())
    assert b"s w/" not in out
    assert b"***" in out
    assert b"rd" not in out


def test_a_value_that_is_too_short_hides_nothing() -> None:
    assert masked(["abc", "", "  "], b"abcabc\n") == b"abcabc\n"
    assert not Masker(["abc"])


@pytest.mark.parametrize(
    "line",
    [
        "::add-mask::hunter22",
        "::add-mask::hunter22\r",
        "  ::add-mask::hunter22  ",
        "\x1b[1;32m::add-mask::hunter22\x1b[0m",
        "\x1b[1m\x1b[32m\t::add-mask::\x1b[7mhunter22",
        "50 %\r::add-mask::hunter22",
        "::add-mask::hunt%65r22\n::add-mask::hunter22",
        "::add-mask::hunter22%0Aanother",
    ],
)
def test_the_output_declares_a_secret_from_there_on(line: str) -> None:
    data = f"hunter22 before\n{line}\nafter: hunter22\nhunter22".encode()
    for pieces in ([data], byte_by_byte(data)):
        out = masked([], *pieces)
        before, _, after = out.partition(b"\n")
        assert before == b"hunter22 before"
        assert b"hunter22" not in after
        assert b"::add-mask::***" in after
        assert after.endswith(b"\nafter: ***\n***")


def test_the_colours_and_the_end_of_the_line_that_declares_stay() -> None:
    out = masked([], b"\x1b[32m::add-mask::hunter22\x1b[0m\r\nhunter22\r\n")
    assert out == b"\x1b[32m::add-mask::***\x1b[0m\r\n***\r\n"


def test_escaped_characters_of_a_declared_secret_are_meant_as_characters() -> None:
    out = masked([], b"::add-mask::100%25 secret%0Asecond line\n100% secret\nsecond line 100%25\n")
    assert out == b"::add-mask::***\n*** 100%25\n"


def test_a_marker_within_a_line_declares_nothing() -> None:
    line = b"say ::add-mask::hunter22 to hide hunter22\n"
    assert masked([], line) == masked([], *byte_by_byte(line)) == line
    long_line = b" " * 1000 + line
    assert masked([], long_line) == long_line


def test_a_short_or_empty_declared_value_hides_its_own_line_alone() -> None:
    assert masked([], b"::add-mask::abc\n::add-mask::\nabc\n") == (
        b"::add-mask::***\n::add-mask::***\nabc\n"
    )


def test_what_is_not_utf8_can_be_declared() -> None:
    assert masked([], b"::add-mask::\xff\xfe\xfd\xfc\n<\xff\xfe\xfd\xfc>") == (
        b"::add-mask::***\n<***>"
    )


def test_a_declared_value_without_end_is_hidden_and_bounded_in_memory() -> None:
    masker = Masker()
    out = masker.feed(b"::add-mask::") + masker.feed(b"0123456789abcdef" * 4096)
    for _ in range(64):
        out += masker.feed(b"s" * 65536)
    out += masker.feed(b"\n0123456789abcdef" + b"0123456789abcdef" * 4095 + b"\n")
    assert out + masker.finish() == b"::add-mask::***\n***\n"
    assert len(b"0123456789abcdef" * 4096) == MAX_COMMAND_BYTES


def test_a_declared_secret_is_masked_beside_the_known_ones() -> None:
    assert masked([SECRET], b"::add-mask::other-one\n", SECRET.encode(), b" other-one") == (
        b"::add-mask::***\n*** ***"
    )


def test_a_masker_tells_once_it_knows_a_secret() -> None:
    masker = Masker()
    masker.feed(b"::add-mask::hunter22")
    assert not masker
    masker.feed(b"\n")
    assert masker


def test_texts_and_names_of_a_value_are_masked_and_numbers_kept() -> None:
    value = {"a": [f"x{SECRET}", 1, None, True], SECRET: {"b": SECRET}, "c": (SECRET,)}
    assert Masker([SECRET]).value(value) == {
        "a": [f"x{MASK}", 1, None, True],
        MASK: {"b": MASK},
        "c": [MASK],
    }
    assert Masker().value(value) is value


def test_a_text_with_lone_surrogates_is_masked_too() -> None:
    assert Masker([SECRET]).text(f"\ud800{SECRET}").endswith(MASK)
    assert Masker([SECRET]).text("\ud800") == "\ud800"


def test_masking_a_text_does_not_disturb_the_stream() -> None:
    masker = Masker([SECRET])
    assert masker.feed(b"hunter") == b""
    assert masker.text(SECRET) == MASK
    assert masker.feed(b"22-p4ss\n") == b"***\n"
