from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from source_control import PipeControl, RunningSource, defaults
from tornado_logs.sources.mock import MockSource

from tornado_logs.source import Ending, SourceError

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}: .+\n")


def mock(**changes: Any) -> MockSource:
    return MockSource(defaults(MockSource, **{"lines": 120, "interval_seconds": 0.0} | changes))


def lines_of(source: MockSource) -> list[bytes]:
    with PipeControl() as control:
        return b"".join(source.run(control)).splitlines(keepends=True)


def text_of(line: bytes) -> bytes:
    return line.partition(b": ")[2]


def test_each_line_has_the_time_in_plain_text_then_its_text() -> None:
    began = datetime.now(UTC).replace(tzinfo=None)
    lines = lines_of(mock())
    ended = datetime.now(UTC).replace(tzinfo=None)
    assert len(lines) == 120
    assert all(LINE.fullmatch(line) for line in lines)
    times = [datetime.fromisoformat(line[:26].decode()) for line in lines]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= ended


def test_colours_end_with_their_line() -> None:
    lines = lines_of(mock())
    assert any(b"\x1b[" in line for line in lines)
    assert all(line.rfind(b"\x1b[") == line.rfind(b"\x1b[0m") for line in lines)


def test_the_texts_vary_and_are_the_same_each_time() -> None:
    first, second = (list(map(text_of, lines_of(mock()))) for _ in range(2))
    assert first == second
    assert len(set(first)) > 60


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_errors_have_their_share_of_the_lines_spread_evenly(share: float) -> None:
    lines = lines_of(mock(lines=1000, error_share=share))
    errors = [b"ERROR" in line for line in lines]
    assert sum(errors) == 1000 * share
    assert abs(sum(errors[:500]) - 500 * share) <= 1


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_beyond_all_lines_is_refused(share: float) -> None:
    with pytest.raises(SourceError, match="has to be from 0 to 1"):
        mock(error_share=share)


def test_lines_come_at_their_times_without_drift() -> None:
    began = time.monotonic()
    lines = lines_of(mock(lines=51, interval_seconds=0.01))
    assert time.monotonic() - began >= 0.5
    times = [datetime.fromisoformat(line[:26].decode()) for line in lines]
    late = [at - times[0] - timedelta(seconds=0.01 * n) for n, at in enumerate(times)]
    assert min(late) >= timedelta(milliseconds=-5)
    # A sleep is always a little too long: if that added up, the last would be the latest by far.
    assert min(late[-10:]) < timedelta(milliseconds=5)


def test_it_ends_by_itself_with_success() -> None:
    with PipeControl() as control:
        run = mock(lines=1).run(control)
        assert LINE.fullmatch(next(run))
        with pytest.raises(StopIteration) as end:
            next(run)
    assert end.value.value == Ending(exit_status=0)


@pytest.mark.parametrize("interval_seconds", [0.0, 3600.0])
def test_lines_without_end_stop_at_once_when_asked(interval_seconds: float) -> None:
    with RunningSource(mock(lines=0, interval_seconds=interval_seconds)) as running:
        running.wait_until(lambda log: len(log) > 0)
        asked = time.monotonic()
        running.stop()
        assert time.monotonic() - asked < 2
        assert running.ending == Ending()
        assert LINE.match(running.log)


def test_without_interval_lines_come_in_big_pieces() -> None:
    with PipeControl() as control:
        pieces = list(mock(lines=2000).run(control))
    assert len(pieces) < 10
    assert b"".join(pieces).count(b"\n") == 2000


def test_the_title_says_how_many_lines_there_will_be() -> None:
    titles = [mock(lines=lines).title() for lines in (0, 1, 100)]
    assert titles == ["demo without end", "demo of 1 line", "demo of 100 lines"]
