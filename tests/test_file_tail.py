from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for
from source_control import PipeControl, RunningSource, defaults
from tornado_logs.sources.file_tail import FileTailSource

from tornado_logs.source import Ending, SourceError

NOBODY = 65534


@pytest.fixture(params=["inotify", "polling"])
def notice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to hear of changes; the second as where no inotify instance is left."""
    if request.param == "polling":
        leave_no_inotify(monkeypatch)
    return str(request.param)


def leave_no_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    # Really taking all instances would take them from every other process of this user.
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if sys.platform == "linux":
        monkeypatch.setattr("inotify_simple.INotify", refuse)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def tail(path: Path, **changes: Any) -> FileTailSource:
    settings = {"path": str(path), "lines": -1, "poll_seconds": 0.05}
    return FileTailSource(defaults(FileTailSource, **(settings | changes)))


class Meanwhile(PipeControl):
    """Does something when the source has looked several times and found nothing to yield."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self._action = action
        self._waits = 0

    def wait(self, seconds: float | None = None, fds: Sequence[int] = ()) -> list[int]:
        """See `Control.wait`."""
        self._waits += 1
        if self._waits == 8:
            self._action()
        return super().wait(seconds, fds)


@contextlib.contextmanager
def stepped(
    source: FileTailSource, control: PipeControl | None = None
) -> Iterator[Generator[bytes, None, Ending]]:
    """A run that goes on only when it is asked for the next piece: what it misses is sure."""
    with control or PipeControl() as given, contextlib.closing(source.run(given)) as run:
        yield run


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def contains(line: bytes) -> Callable[[bytes], bool]:
    return lambda log: line in log[-5_000_000:]


def longer_than(size: int) -> Callable[[bytes], bool]:
    return lambda log: len(log) > size


def open_files(folder: Path) -> list[str]:
    """What this process has open below a folder, deleted files too, by its present names."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in names if name.startswith(str(folder))]


# Where it begins


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 10**9, b"a\nb\nc\n"),
        (b"a\nb\nc\n", -1, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 0, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"a", 1, b"a"),
        (b"\n", 1, b"\n"),
        (b"", 5, b""),
    ],
)
def test_begins_with_the_last_lines(
    path: Path, content: bytes, lines: int, expected: bytes
) -> None:
    path.write_bytes(content)
    with RunningSource(tail(path, lines=lines)) as running:
        running.wait_until_idle()
        append(path, b"more\n")
        assert running.wait_for(b"more\n") == expected + b"more\n"


@pytest.mark.parametrize("line_bytes", [1, 79, 100_000, 300_000, 262_144, 262_143])
def test_last_lines_are_right_wherever_blocks_of_a_big_file_meet(
    path: Path, line_bytes: int
) -> None:
    lines = [b"%d:%s\n" % (n, b"x" * line_bytes) for n in range(2_000_000 // line_bytes + 5)]
    path.write_bytes(b"".join(lines))
    for count in (1, 2, 3, len(lines) - 1, len(lines), len(lines) + 1):
        expected = b"".join(lines[-count:])
        with RunningSource(tail(path, lines=count)) as running:
            assert running.wait_for(expected) == expected


@pytest.mark.usefixtures("notice")
def test_a_file_that_is_not_there_yet_is_read_from_its_start(path: Path) -> None:
    with RunningSource(tail(path, lines=0)) as running:
        running.wait_until_idle()
        path.write_bytes(b"first\n")
        running.wait_for(b"first\n")
        append(path, b"second\n")
        assert running.wait_for(b"second\n") == b"first\nsecond\n"


@pytest.mark.usefixtures("notice")
def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "app.log"
    with RunningSource(tail(path)) as running:
        running.wait_until_idle()
        path.parent.mkdir()
        path.write_bytes(b"first\n")
        running.wait_for(b"first\n")
        path.parent.rename(tmp_path / "old")
        path.parent.mkdir()
        path.write_bytes(b"second\n")
        assert running.wait_for(b"second\n") == b"first\nsecond\n"


@pytest.mark.usefixtures("notice")
def test_bytes_come_as_they_are_with_unfinished_lines_at_once(path: Path) -> None:
    odd = b"\x00\xff\r\n\xe2\x80\xa8\x1b[31m half of a li"
    with RunningSource(tail(path)) as running:
        append(path, odd)
        running.wait_for(odd)
        append(path, b"ne\n")
        assert running.wait_for(b"ne\n") == odd + b"ne\n"


# Rotation


@pytest.mark.usefixtures("notice")
def test_a_renamed_file_is_read_to_its_end_before_the_new_one(path: Path) -> None:
    path.write_bytes(b"1\n")
    with stepped(tail(path)) as run:
        assert next(run) == b"1\n"
        append(path, b"2\n")
        path.rename(path.with_suffix(".1"))
        append(path.with_suffix(".1"), b"3\n")
        path.write_bytes(b"4\n")
        assert next(run) + next(run) == b"2\n3\n4\n"


def test_a_name_that_now_stands_for_another_file_is_not_read(path: Path) -> None:
    path.write_bytes(b"0\n")
    with stepped(tail(path)) as run:
        assert next(run) == b"0\n"
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"deleted unread\n")
        path.unlink()
        path.with_suffix(".tmp").write_bytes(b"1\n")
        path.with_suffix(".tmp").rename(path)
        assert next(run) == b"1\n"


@pytest.mark.usefixtures("notice")
def test_late_lines_in_the_old_file_are_put_between_lines_of_the_new(path: Path) -> None:
    old = path.with_suffix(".1")
    path.write_bytes(b"old 1\n")
    with RunningSource(tail(path)) as running:
        running.wait_for(b"old 1\n")
        path.rename(old)
        path.write_bytes(b"new 1\nnew")
        running.wait_for(b"new 1\nnew")
        append(old, b"old 2\nold")
        append(path, b" 2\n")
        running.wait_for(b"new 2\nold 2\n")
        append(path, b"new 3\n")
        running.wait_for(b"new 3\n")
        append(old, b" 3\n")
        assert running.wait_for(b"old 3\n") == (b"old 1\nnew 1\nnew 2\nold 2\nnew 3\nold 3\n")


@pytest.mark.usefixtures("notice")
def test_a_late_line_waits_for_the_end_of_the_line_in_the_new_file(path: Path) -> None:
    path.write_bytes(b"old 1\n")
    with stepped(tail(path), Meanwhile(lambda: append(path, b" 1\n"))) as run:
        assert next(run) == b"old 1\n"
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"new")
        assert next(run) == b"new"
        append(path.with_suffix(".1"), b"old 2\n")
        assert next(run) + next(run) == b" 1\nold 2\n"


def test_a_file_quiet_for_long_before_it_is_renamed_is_still_read_for_late_lines(
    path: Path,
) -> None:
    path.write_bytes(b"old 1\n")
    with RunningSource(tail(path, late_seconds=2.0)) as running:
        running.wait_for(b"old 1\n")
        time.sleep(2.1)  # not for luck: that this time has passed is the point
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"new\n")
        running.wait_for(b"new\n")
        append(path.with_suffix(".1"), b"old 2\n")
        assert running.wait_for(b"old 2\n") == b"old 1\nnew\nold 2\n"


@pytest.mark.usefixtures("notice")
def test_a_late_line_without_its_end_is_put_in_after_late_seconds(path: Path) -> None:
    path.write_bytes(b"old\n")
    with RunningSource(tail(path, late_seconds=0.2)) as running:
        running.wait_for(b"old\n")
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"new\n")
        running.wait_for(b"new\n")
        append(path.with_suffix(".1"), b"late")
        running.wait_for(b"late\n")
        wait_for(lambda: open_files(path.parent) == [str(path)], "the new file alone to be open")
        append(path, b"newer\n")
        assert running.wait_for(b"newer\n") == b"old\nnew\nlate\nnewer\n"


def test_what_is_late_when_it_stops_is_put_in_too(path: Path) -> None:
    path.write_bytes(b"old\n")
    with RunningSource(tail(path)) as running:
        running.wait_for(b"old\n")
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"new")
        running.wait_for(b"new")
        append(path.with_suffix(".1"), b"late")
        assert running.stop() == b"old\nnew\nlate\n"


@pytest.mark.usefixtures("notice")
def test_the_old_file_is_followed_as_long_as_the_new_one_is_empty(path: Path) -> None:
    path.write_bytes(b"a li")
    with RunningSource(tail(path, late_seconds=0.0)) as running:
        running.wait_for(b"a li")
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"")
        append(path.with_suffix(".1"), b"ne\nand a half")
        running.wait_for(b"and a half")
        append(path, b"new\n")
        assert running.wait_for(b"new\n") == b"a line\nand a half\nnew\n"


def test_a_line_in_the_making_is_waited_for_before_the_new_file(path: Path) -> None:
    path.write_bytes(b"a li")
    with stepped(tail(path)) as run:
        assert next(run) == b"a li"
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"new\n")
        append(path.with_suffix(".1"), b"n")
        assert next(run) == b"n"
        append(path.with_suffix(".1"), b"e\n")
        assert next(run) + next(run) == b"e\nnew\n"


@pytest.mark.usefixtures("notice")
def test_a_file_moved_away_and_back_repeats_nothing(path: Path) -> None:
    away = path.with_suffix(".away")
    path.write_bytes(b"1\n")
    with RunningSource(tail(path)) as running:
        running.wait_for(b"1\n")
        path.rename(away)
        append(away, b"2\n")
        running.wait_for(b"2\n")
        path.write_bytes(b"between")
        running.wait_for(b"between")
        away.rename(path)
        append(path, b"3\n")
        assert running.wait_for(b"3\n") == b"1\n2\nbetween\n3\n"


@pytest.mark.usefixtures("notice")
def test_a_file_behind_a_link_may_be_rotated_and_the_link_changed(tmp_path: Path) -> None:
    (tmp_path / "pods").mkdir()
    target, link = tmp_path / "pods" / "0.log", tmp_path / "app.log"
    target.write_bytes(b"1\n")
    link.symlink_to(target)
    with RunningSource(tail(link)) as running:
        running.wait_for(b"1\n")
        target.rename(tmp_path / "pods" / "0.log.1")
        target.write_bytes(b"2\n")
        running.wait_for(b"2\n")
        (tmp_path / "pods" / "1.log").write_bytes(b"3\n")
        (tmp_path / "new").symlink_to(tmp_path / "pods" / "1.log")
        (tmp_path / "new").rename(link)
        assert running.wait_for(b"3\n") == b"1\n2\n3\n"


@pytest.mark.usefixtures("notice")
def test_a_truncated_file_is_read_from_its_start_again(path: Path) -> None:
    path.write_bytes(b"a long first line\n")
    with RunningSource(tail(path)) as running:
        running.wait_for(b"line\n")
        for number in range(5):
            os.truncate(path, 0)
            append(path, b"%d\n" % number)
            running.wait_for(b"%d\n" % number)
        assert running.log == b"a long first line\n0\n1\n2\n3\n4\n"


@pytest.mark.usefixtures("notice")
def test_a_line_cut_by_truncation_is_not_glued_to_the_next(path: Path) -> None:
    path.write_bytes(b"unfinished")
    with RunningSource(tail(path)) as running:
        running.wait_for(b"unfinished")
        os.truncate(path, 0)
        append(path, b"new\n")
        assert running.wait_for(b"new\n") == b"unfinished\nnew\n"


def test_a_truncated_file_that_has_outgrown_its_old_size_is_noticed(path: Path) -> None:
    path.write_bytes(b"10:00 short\n")
    with stepped(tail(path)) as run:
        assert next(run) == b"10:00 short\n"
        os.truncate(path, 0)
        append(path, b"10:01 this is more than there was\n")
        assert next(run) == b"10:01 this is more than there was\n"


def test_bytes_changed_in_place_do_not_bring_the_file_again(path: Path) -> None:
    path.write_bytes(b"start %s\nprogress 10%%" % (b"x" * 100))
    with stepped(tail(path)) as run:
        assert next(run).endswith(b"progress 10%")
        with open(path, "r+b") as file:
            file.seek(-3, os.SEEK_END)
            file.write(b"20%\ndone\n")
        assert next(run) == b"\ndone\n"


@pytest.mark.usefixtures("notice")
def test_the_hole_of_a_writer_that_does_not_append_is_left_out(path: Path) -> None:
    with RunningSource(tail(path)) as running, open(path, "wb", buffering=0) as writer:
        first = b"x" * 10_000_000 + b"\n"
        writer.write(first)
        running.wait_until(lambda log: log == first)
        os.truncate(path, 0)
        writer.write(b"second\n")
        assert running.wait_for(b"second\n") == first + b"second\n"


@pytest.mark.usefixtures("notice")
def test_a_deleted_file_is_let_go_and_its_successor_read(path: Path) -> None:
    path.write_bytes(b"1\n")
    with RunningSource(tail(path, late_seconds=0.1)) as running:
        running.wait_for(b"1\n")
        path.unlink()
        wait_for(lambda: not open_files(path.parent), "all files to be closed")
        path.write_bytes(b"2\n")
        running.wait_for(b"2\n")
        path.unlink()
        path.write_bytes(b"3\n")
        assert running.wait_for(b"3\n") == b"1\n2\n3\n"


WRITER = """
import os, signal, sys, time

path, total, late = sys.argv[1], int(sys.argv[2]), 0

def reopen_soon(number, frame):
    global late
    late = 50

def open_log():
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

signal.signal(signal.SIGHUP, reopen_soon)
log = open_log()
print("ready", flush=True)
for number in range(total):
    os.write(log, b"line %d\\n" % number)
    if number % 200 == 0:
        time.sleep(0.003)
    if late:
        late -= 1
        if not late:
            os.close(log)
            log = open_log()
print("done", flush=True)
signal.pause()
"""


@contextlib.contextmanager
def started_writer(path: Path, total: int) -> Iterator[subprocess.Popen[str]]:
    """A process that writes numbered lines to `path`; killed in the end, whatever happens."""
    command = [sys.executable, "-c", WRITER, str(path), str(total)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == "ready\n"
            yield writer
        finally:
            writer.kill()


def rotate(path: Path) -> None:
    """As logrotate does it: each old file one name on, the current one to the first of them."""
    olds = sorted(path.parent.glob(f"{path.name}.*"), key=lambda old: -int(old.suffix[1:]))
    for old in olds:
        old.rename(f"{path}.{int(old.suffix[1:]) + 1}")
    path.rename(f"{path}.1")


@pytest.mark.usefixtures("notice")
def test_a_log_renamed_twenty_times_in_a_flood_has_every_line_once(path: Path) -> None:
    total = 200_000
    with RunningSource(tail(path)) as running, started_writer(path, total) as writer:
        for number in range(20):
            reached = number * total // 25
            running.wait_until(contains(b"line %d\n" % reached))
            rotate(path)
            writer.send_signal(signal.SIGHUP)
            # By polling one may be missed.
            wait_for(lambda: str(path) in open_files(path), "the new file to be open")
        assert writer.stdout
        assert writer.stdout.readline() == "done\n"
        log = running.wait_for(b"line %d\n" % (total - 1))
        assert len(list(path.parent.iterdir())) == 21
    assert log == b"".join(b"line %d\n" % number for number in range(total))


@pytest.mark.usefixtures("notice")
def test_with_two_writers_that_reopen_apart_every_line_comes_once_and_whole(path: Path) -> None:
    total = 150_000

    def moved_on_from(size: int) -> Callable[[bytes], bool]:
        # On a busy machine the writers may be done before we have rotated five times.
        return lambda log: len(log) > size or log.count(b"\n") >= 2 * total

    with contextlib.ExitStack() as stack:
        running = stack.enter_context(RunningSource(tail(path)))
        writers = [stack.enter_context(started_writer(path, total)) for _ in range(2)]
        for number in range(5):
            running.wait_until(longer_than(number * 50_000))
            rotate(path)
            for writer in writers:
                size = len(running.log)
                writer.send_signal(signal.SIGHUP)
                running.wait_until(moved_on_from(size))
            if running.log.count(b"\n") >= 2 * total:
                break
            wait_for(lambda: str(path) in open_files(path), "the new file to be open")
        for writer in writers:
            assert writer.stdout
            assert writer.stdout.readline() == "done\n"
        log = running.wait_until(lambda log: log.count(b"\n") >= 2 * total)
    lines = log.splitlines(keepends=True)
    assert sorted(lines) == sorted(b"line %d\n" % number for number in range(total) for _ in "ab")


@pytest.mark.usefixtures("notice")
def test_copytruncate_of_an_idle_log_loses_nothing(path: Path) -> None:
    expected = b""
    with RunningSource(tail(path)) as running:
        for round_number in range(10):
            for number in range(100):
                line = b"round %d line %d\n" % (round_number, number)
                append(path, line)
                expected += line
            running.wait_for(b"round %d line 99\n" % round_number)
            path.with_suffix(".1").write_bytes(path.read_bytes())
            os.truncate(path, 0)
        assert running.stop() == expected


# What only inotify can tell

if sys.platform == "linux":

    def test_a_change_is_told_long_before_the_next_look(path: Path) -> None:
        path.write_bytes(b"there\n")
        with RunningSource(tail(path, poll_seconds=3600.0, late_seconds=0.0)) as running:
            running.wait_for(b"there\n")
            append(path, b"more\n")
            running.wait_for(b"more\n")
            path.rename(path.with_suffix(".1"))
            path.write_bytes(b"new\n")
            running.wait_for(b"new\n")
            append(path, b"newer\n")
            assert running.wait_for(b"newer\n") == b"there\nmore\nnew\nnewer\n"

    def test_a_change_while_a_piece_is_handed_over_is_read_at_once(path: Path) -> None:
        path.write_bytes(b"1\n")
        with stepped(tail(path, poll_seconds=3600.0)) as run:
            assert next(run) == b"1\n"
            append(path, b"2\n")
            assert next(run) == b"2\n"

    def test_a_line_never_finished_holds_up_the_new_file_for_a_moment_only(path: Path) -> None:
        path.write_bytes(b"1")
        with stepped(tail(path, poll_seconds=3600.0)) as run:
            assert next(run) == b"1"
            path.rename(path.with_suffix(".1"))
            path.write_bytes(b"2\n")
            append(path.with_suffix(".1"), b"1")
            assert next(run) + next(run) + next(run) == b"1\n2\n"

    def test_changes_where_a_changed_link_leads_to_are_told(tmp_path: Path) -> None:
        link = tmp_path / "app.log"
        for number in (1, 2):
            (tmp_path / f"pod{number}").mkdir()
            (tmp_path / f"pod{number}" / "0.log").write_bytes(b"%d\n" % number)
        link.symlink_to(tmp_path / "pod1" / "0.log")
        with stepped(tail(link, poll_seconds=3600.0, late_seconds=0.0)) as run:
            assert next(run) == b"1\n"
            (tmp_path / "new").symlink_to(tmp_path / "pod2" / "0.log")
            (tmp_path / "new").rename(link)
            assert next(run) == b"2\n"
            (tmp_path / "pod2" / "0.log").rename(tmp_path / "pod2" / "0.log.1")
            (tmp_path / "pod2" / "0.log").write_bytes(b"3\n")
            assert next(run) == b"3\n"

    def test_a_file_renamed_just_as_it_is_opened_is_not_taken_for_its_successor(
        path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_bytes(b"0\n")
        open_now = os.open

        def rename_and_open(name: str, mode: int) -> int:
            monkeypatch.undo()
            path.rename(path.with_suffix(".1"))
            path.write_bytes(b"2\n")
            return open_now(name, mode)

        with stepped(tail(path)) as run:
            assert next(run) == b"0\n"
            path.unlink()
            path.write_bytes(b"1\n")
            monkeypatch.setattr(
                os, "open", rename_and_open
            )  # this moment can't be hit from outside
            assert next(run) + next(run) == b"1\n2\n"

    def test_of_many_renames_at_once_no_file_is_lost(path: Path) -> None:
        path.write_bytes(b"0\n")
        with stepped(tail(path)) as run:
            assert next(run) == b"0\n"
            for number in range(1, 21):
                for old in range(number, 0, -1):
                    name = path if old == 1 else path.with_suffix(f".{old - 1}")
                    name.rename(path.with_suffix(f".{old}"))
                path.write_bytes(b"%d\n" % number)
            assert [next(run) for _ in range(20)] == [b"%d\n" % number for number in range(1, 21)]


# Size


MEMORY = """
import resource, sys
from source_control import PipeControl, defaults
from tornado_logs.sources.file_tail import FileTailSource

source = FileTailSource(defaults(FileTailSource, path=sys.argv[1], lines=int(sys.argv[2])))
with PipeControl() as control:
    run = source.run(control)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 0
    while size < 200_000_000:
        size += len(next(run))
    run.close()
print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("lines", [1, -1])
def test_a_huge_file_without_a_newline_needs_no_memory(path: Path, lines: int) -> None:
    with open(path, "wb") as file:
        file.truncate(200_000_000)
    command = [sys.executable, "-c", MEMORY, str(path), str(lines)]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    size, grown = map(int, found.stdout.split())
    assert size == 200_000_000
    kib = grown // 1024 if sys.platform == "darwin" else grown
    assert kib < 20 * 1024


# The end


@pytest.mark.usefixtures("notice")
def test_a_stop_first_brings_what_is_there(path: Path) -> None:
    path.write_bytes(b"1\n")
    with PipeControl() as control:
        run = tail(path).run(control)
        assert next(run) == b"1\n"
        append(path, b"2\n")
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"3")
        control.stop()
        assert next(run) + next(run) == b"2\n3"
        with pytest.raises(StopIteration) as end:
            next(run)
        assert end.value.value == Ending(exit_status=None)


def test_a_stop_is_heard_though_there_is_more_to_read_than_time(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)
    with RunningSource(tail(path)) as running:
        running.wait_until(lambda log: len(log) > 0)
        running.stop()
        assert running.ending
        assert "before all" in running.ending.note


# What is refused


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of a user whom file modes hold back, as whom the test goes on: root is not."""
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        os.seteuid(user)


def test_a_file_that_may_not_be_read_is_refused_with_its_path_and_cause(own_folder: Path) -> None:
    path = own_folder / "app.log"
    path.write_bytes(b"secret\n")
    path.chmod(0)
    with stepped(tail(path)) as run, pytest.raises(SourceError) as refused:
        next(run)
    assert str(refused.value) == f"cannot read {path}: Permission denied"


@pytest.mark.usefixtures("notice")
def test_a_new_file_that_may_not_be_read_yet_is_tried_again(own_folder: Path) -> None:
    path = own_folder / "app.log"

    path.write_bytes(b"1\n")
    with stepped(tail(path), Meanwhile(lambda: path.chmod(0o600))) as run:
        assert next(run) == b"1\n"
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"2\n")
        path.chmod(0)
        assert next(run) == b"2\n"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (None, "there is no file to follow: `path` has to name one"),
        ("", "there is no file to follow: `path` has to name one"),
        ("a\0b", "a file's path cannot have a NUL character in it"),
        ("{folder}", "{folder} is a folder: name a file in it"),
        ("{folder}/*.log", "{folder}/*.log matches 2 files: name one of them"),
        ("{folder}/a*.log", "{folder}/a*.log matches 1 file: name one of them"),
        ("{folder}/[x]", "{folder}/[x] matches 0 files: name one of them"),
        ("{folder}/pipe", "{folder}/pipe is not a regular file"),
    ],
)
def test_what_is_no_file_is_refused_with_a_sentence(
    tmp_path: Path, path: str | None, reason: str
) -> None:
    (tmp_path / "a.log").touch()
    (tmp_path / "b.log").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError) as refused:
        FileTailSource(defaults(FileTailSource, path=path and path.format(folder=tmp_path)))
    assert str(refused.value) == reason.format(folder=tmp_path)


@pytest.mark.usefixtures("notice")
def test_a_pipe_put_in_the_place_of_the_file_is_not_read(path: Path) -> None:
    path.write_bytes(b"1\n")
    with RunningSource(tail(path)) as running:
        running.wait_for(b"1\n")
        path.rename(path.with_suffix(".1"))
        os.mkfifo(path)
        append(path.with_suffix(".1"), b"2\n")
        running.wait_for(b"2\n")
        path.unlink()
        path.write_bytes(b"3\n")
        assert running.wait_for(b"3\n") == b"1\n2\n3\n"


@pytest.mark.parametrize(
    "name", ["../secret", "logs/../../secret", "link", "linked/secret", "/etc/passwd", "../logs2/x"]
)
def test_no_way_leads_out_of_the_folder_that_files_are_to_be_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "logs2").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (logs / "link").symlink_to(tmp_path / "secret")
    (logs / "linked").symlink_to(tmp_path)
    monkeypatch.chdir(logs)
    with pytest.raises(SourceError, match=f"is not below {logs}: name a file in that folder"):
        tail(Path(name), below=".")


def test_files_below_the_folder_may_be_named_by_whatever_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "logs")
    monkeypatch.chdir(tmp_path / "logs")
    for name in ("a.log", "./a.log", "sub/a.log", tmp_path / "way" / "a.log"):
        tail(Path(name), below=str(tmp_path / "way"))
    assert tail(Path("a.log")).title() == str(tmp_path / "logs" / "a.log")


def test_a_link_that_later_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "app.log"
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(b"secret\n")
    path.write_bytes(b"1\n")
    with stepped(tail(path, below=str(path.parent))) as run:
        assert next(run) == b"1\n"
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        with pytest.raises(SourceError, match="is not below"):
            next(run)


# Globs and requests


def test_a_glob_stands_for_a_deployment_per_file(tmp_path: Path) -> None:
    for name in ("b.log", "a.log", "c.txt", "[1].log"):
        (tmp_path / name).touch()
    (tmp_path / "folder.log").mkdir()
    settings = defaults(FileTailSource, path=f"{tmp_path}/*.log")
    names = ["[1].log", "a.log", "b.log"]
    assert FileTailSource.expand(settings) == [{"path": f"{tmp_path}/{name}"} for name in names]
    for change in FileTailSource.expand(settings):
        FileTailSource(settings | change)
    (tmp_path / "aa.log").touch()
    assert {"path": f"{tmp_path}/aa.log"} in FileTailSource.expand(settings)


def test_a_glob_leaves_out_what_is_not_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").touch()
    (tmp_path / "secret").touch()
    (tmp_path / "logs" / "b.log").symlink_to(tmp_path / "secret")
    settings = defaults(FileTailSource, path=f"{tmp_path}/*/*.log", below=f"{tmp_path}/logs")
    assert FileTailSource.expand(settings) == [{"path": f"{tmp_path}/logs/a.log"}]


def test_a_single_path_stands_for_itself_whether_it_is_there_or_not(path: Path) -> None:
    assert FileTailSource.expand({"path": str(path)}) == [{"path": str(path)}]
    assert FileTailSource.expand({"path": None}) == []


def test_a_file_discovered_later_is_read_from_its_start(path: Path) -> None:
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100)))
    change = FileTailSource.discovered({"path": str(path)})
    with RunningSource(FileTailSource(defaults(FileTailSource, **change))) as running:
        assert running.wait_for(b"99\n") == path.read_bytes()


def test_a_request_may_name_only_what_the_configured_path_names(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    (tmp_path / "a.txt").touch()
    globbed = {"path": f"{tmp_path}/*.log", "below": None}
    FileTailSource.check_request(globbed, {"path": f"{tmp_path}/a.log"})
    FileTailSource.check_request(globbed, {"lines": 3})
    FileTailSource.check_request({"path": f"{tmp_path}/a.txt"}, {"path": f"{tmp_path}/a.txt"})
    FileTailSource.check_request({"below": str(tmp_path)}, {"path": f"{tmp_path}/a.txt"})
    for configured, requested in (
        (globbed, "a.txt"),
        (globbed, "b.log"),
        (globbed, "sub/../a.txt"),
        ({"path": f"{tmp_path}/a.log"}, "a.txt"),
    ):
        with pytest.raises(SourceError, match="is not among the files of"):
            FileTailSource.check_request(configured, {"path": f"{tmp_path}/{requested}"})
    with pytest.raises(SourceError, match="set `below` in the config"):
        FileTailSource.check_request({"path": None}, {"path": f"{tmp_path}/a.txt"})


def test_the_title_is_one_line_whatever_the_file_is_called() -> None:
    assert tail(Path("/var/log/a\nb\x1b\udcff.log")).title() == "/var/log/a?b??.log"
