"""Follows a file as it grows, through every way in which logs are rotated.

    [sources.nginx]
    type = "file_tail"
    path = "/var/log/nginx/*.log"      # a glob: one deployment per file
    autostart = true

The bytes come as they stand in the file, with one exception: where a file ends without a newline
and another takes its place (or it is truncated), one newline is put between the two, so that two
lines never become one.

What happens to the file, and what is read:

- *Renamed*: the old file to its end, then the new one from its start. The old one stays open for
  `late_seconds` after its last byte: a writer may not have turned to the new one yet. Such late
  lines are put in whole, between two lines. As long as the new file is empty the old one is simply
  followed on. Files that come and go between two looks are found by replaying the renames.
- *Truncated* (logrotate's copytruncate): from the start again. What was written between the copy
  and the truncation is lost to every reader. A file that has grown to its old size before
  anybody looked is known by its bytes, which are no longer those that were read.
- *Deleted*: let go after `late_seconds` without a byte, for it holds its disk space till then.
- *Not there* (yet, or any more): waited for, and then read from its start.

Linux tells of changes at once (inotify(7)); elsewhere, on network file systems, and where inotify
has no instance left, the file is looked at every `poll_seconds`. Two renames between two such looks
lose the file in the middle: only inotify knows of it.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from tornado_logs.source import Control, Ending, LogSource, Option, SourceError

if sys.platform == "linux":
    import inotify_simple
    from inotify_simple import flags
else:
    flags: Any = None  # there is no inotify that would ask for them

PIECE_BYTES = 256 * 1024
MARK_BYTES = 64
GRACE_SECONDS = 0.5
"""How long a new file waits for the old one's last line to be finished."""
STOP_SECONDS = 1.0
"""How long a stopped source goes on reading what is there."""


class FileTailSource(LogSource):
    """Follows a file, or each of the files that a glob names, as `tail -F` does."""

    options = (
        Option(
            "path",
            str,
            None,
            "The file to follow, or a glob that stands for many (config only).",
            request=True,
            required=True,
        ),
        Option(
            "below",
            str,
            None,
            "A request may name files below this folder only, and no hidden ones.",
        ),
        Option(
            "lines",
            int,
            10,
            "How many of its last lines to begin with; 0: from its end; -1: from its start.",
            request=True,
            minimum=-1,
        ),
        Option(
            "poll_seconds",
            float,
            1.0,
            "How often to look where the system does not tell of changes.",
            minimum=0.01,
        ),
        Option(
            "late_seconds",
            float,
            5.0,
            "How long a renamed file is read on after its last byte, for late writers.",
            minimum=0,
        ),
    )

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.path = _absolute(settings.get("path"))
        below = settings.get("below")
        self.below = None if below is None else os.path.realpath(below)
        _refuse_outside(self.path, self.below)
        _refuse_no_file(self.path)

    @classmethod
    def expand(cls, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`path` for each file that the glob names now, sorted; those outside `below` left out.

        A path that is no glob stands for itself, whether there is such a file or not.
        """
        if not settings.get("path"):
            return []
        path = _absolute(settings["path"])
        if not _is_glob(path):
            return [{"path": path}]
        return [{"path": name} for name in _matches(path) if _accepts(cls, settings, name)]

    @classmethod
    def discovered(cls, change: Mapping[str, Any]) -> dict[str, Any]:
        """From its start: all that is in a file that appeared was written after we looked."""
        return {**change, "lines": -1}

    @classmethod
    def check_request(cls, configured: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
        """Refuse a path that the config does not allow to be asked for; raises SourceError.

        With `below` the constructor decides. Without it a request may name what the configured
        path names: that file, or one that the glob matches now.
        """
        if "path" not in requested or configured.get("below") is not None:
            return
        if not configured.get("path"):
            raise SourceError(
                "no file may be asked for here: set `below` in the config to the folder of those "
                "that may"
            )
        pattern, path = _absolute(configured["path"]), _absolute(requested["path"])
        if path != pattern and not (_is_glob(pattern) and path in _matches(pattern)):
            raise SourceError(f"{_shown(path)} is not among the files of {_shown(pattern)}")

    def title(self) -> str:
        """The whole path, on one line whatever is in it."""
        return _shown(self.path)

    def run(self, control: Control) -> Generator[bytes, None, Ending]:
        """Yield the file's bytes until a stop is asked for, and then what is there.

        The ending has no exit status. Raises SourceError if the file is there and can't be opened,
        or can't be read on.
        """
        follower = _Follower(self.path, self.below, self.settings["late_seconds"])
        try:
            follower.begin(control, self.settings["lines"])
            return (yield from self._follow(control, follower))
        except OSError as error:
            raise SourceError(f"cannot read {_shown(self.path)}: {error.strerror}") from error
        finally:
            follower.close()

    def _follow(self, control: Control, follower: _Follower) -> Generator[bytes, None, Ending]:
        stopped: float | None = None
        while True:
            last, idle = control.stopping, True
            for piece in follower.trail.news(last):
                idle = False
                yield piece
                follower.look(control, 0)
                if control.stopping:
                    stopped = stopped or monotonic()
                    if monotonic() - stopped > STOP_SECONDS:
                        return Ending(note="Stopped before all that was in the file had been read.")
            if last:
                return Ending()
            if idle:  # else there may be more, of which inotify has already told
                follower.look(control, self._pause(follower.trail))

    def _pause(self, trail: _Trail) -> float:
        seconds: float = self.settings["poll_seconds"]
        return min(seconds, GRACE_SECONDS) if len(trail.files) > 1 else seconds


class _Follower:
    """The names and the open files of one path, kept in step."""

    def __init__(self, path: str, below: str | None, late_seconds: float) -> None:
        self.path = path
        self.below = below
        self.trail = _Trail(late_seconds)
        self.watch = _Watch(path)
        self._next_check = 0.0

    def begin(self, control: Control, lines: int) -> None:
        """Open the file if it is there and go to where its last `lines` begin; raises OSError."""
        self.watch.folders()  # before the file is opened: whatever comes later is told
        with suppress(FileNotFoundError):
            descriptor = self._open(self.path)
            file = _File(descriptor)
            self.trail.files.append(file)
            self.trail.live = file
            self.watch.file(descriptor)
            size = os.fstat(descriptor).st_size
            file.go_to(_start(control, descriptor, size, lines))

    def look(self, control: Control, seconds: float) -> None:
        """Wait until something may have happened; open the files that have come to the path."""
        readable = control.wait(seconds, self.watch.descriptors())
        self.watch.hear()  # readable or not: when told of a stop, wait() says nothing else
        if (seconds and not readable) or monotonic() >= self._next_check:
            self._check(seconds)
        while self.watch.arrived:
            self._take(control)

    def close(self) -> None:
        """Close everything; may be called at any time."""
        for file in self.trail.files:
            os.close(file.descriptor)
        self.trail.files.clear()
        self.watch.close()

    def _check(self, seconds: float) -> None:
        """Look at the path itself: for what inotify does not tell, and without it."""
        self._next_check = monotonic() + max(seconds, GRACE_SECONDS)
        self.watch.folders()
        with suppress(OSError):
            found = os.stat(self.path)
            newest = self.trail.is_newest((found.st_dev, found.st_ino))
            if not newest and stat.S_ISREG(found.st_mode):
                self.watch.arrive(self.path)

    def _take(self, control: Control) -> None:
        """Open the oldest arrival, unless it was renamed meanwhile: another may have its name."""
        if self.watch.arrived[0] in self.watch.moving:
            control.wait(0.01, self.watch.descriptors())  # its new name is told just after the old
            self.watch.hear()
        version, name = self.watch.version, self.watch.arrived[0]
        descriptor = None
        with suppress(OSError, ValueError):
            descriptor = self._open(name)
        self.watch.hear()
        if self.watch.version != version:
            if descriptor is not None:
                os.close(descriptor)
            return
        self.watch.arrived.pop(0)
        if descriptor is not None and self.trail.add(_File(descriptor)):
            self.watch.file(descriptor)
            self.watch.folders()

    def _open(self, name: str) -> int:
        """Open a regular file; a FIFO or a device would block or never end. Raises OSError."""
        real = os.path.realpath(name)
        _refuse_outside(real, self.below)  # a link may have been put there since the request
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(0, "it is not a regular file")


class _Trail:
    """The files that have stood at the path, oldest first.

    `live` is followed; those before it are read for late lines; those after it are empty so far.
    """

    def __init__(self, late_seconds: float) -> None:
        self.files: list[_File] = []
        self.live: _File | None = None
        self._late_seconds = late_seconds
        self._mid_line = False

    def is_newest(self, identity: tuple[int, int]) -> bool:
        """Whether the newest is this file; its inode can't be another's as long as it is open."""
        return bool(self.files) and self.files[-1].identity == identity

    def add(self, file: _File) -> bool:
        """Take the file that stands at the path now; False (and closed) if it was open already."""
        for known in self.files:
            if known.identity == file.identity:
                os.close(file.descriptor)
                self.files.remove(
                    known
                )  # it may have been moved away and back: it is the newest now
                self.files.append(known)
                return False
        self.files.append(file)
        return True

    def news(self, last: bool) -> Iterator[bytes]:
        """Yield what has been written since; with `last` also lines without an end."""
        while True:
            if self.live:
                yield from self._give(self.live, self.live.end())
            successor = self._successor()
            if not successor:
                break
            if self.live:
                # Once more: a writer turns to the new file only when it is done with the old.
                yield from self._give(self.live, self.live.end())
                if self._mid_line and not last and self.live.quiet_seconds() < GRACE_SECONDS:
                    break
            self._turn_to(successor)
        yield from self._late(last)
        self._let_go_of_deleted()

    def _successor(self) -> _File | None:
        following = self.files.index(self.live) + 1 if self.live else 0
        return next((file for file in self.files[following:] if file.end() > file.position), None)

    def _turn_to(self, successor: _File) -> None:
        """Make this one live; the time for late lines in those before it begins."""
        begin = self.files.index(self.live) if self.live else 0
        for file in self.files[begin : self.files.index(successor)]:
            file.changed = monotonic()
        successor.fresh = True
        self.live = successor

    def _late(self, last: bool) -> Iterator[bytes]:
        old = self.files[: self.files.index(self.live)] if self.live else []
        for file in old:
            size = file.end()
            over = last or file.quiet_seconds() > self._late_seconds
            end = size if over else file.last_line_end(size)
            if file.position < end:
                if self._mid_line and not last:
                    continue  # never within a line of the live file
                file.fresh = True
                yield from self._give(file, end)
                if self._mid_line:
                    self._mid_line = False
                    yield b"\n"
            elif over:
                self._let_go(file)

    def _give(self, file: _File, end: int) -> Iterator[bytes]:
        """Yield a file up to `end`, beginning a line if it does not go on from what came before."""
        if file.fresh and file.position < end:
            file.fresh = False
            if self._mid_line:
                self._mid_line = False
                yield b"\n"
        for piece in file.pieces(end):
            self._mid_line = not piece.endswith(b"\n")
            yield piece

    def _let_go_of_deleted(self) -> None:
        live = self.live
        if live and live.is_deleted() and live.quiet_seconds() > self._late_seconds:
            if live.end() > live.position:
                return
            self._let_go(live)
            self.live = None

    def _let_go(self, file: _File) -> None:
        os.close(file.descriptor)  # its inotify watch ends with the file or is told of nothing new
        self.files.remove(file)


class _File:
    """An open file and how far it was read."""

    def __init__(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self.descriptor = descriptor
        self.identity = (found.st_dev, found.st_ino)
        self.position = 0
        self.fresh = True
        """Whether its next byte begins a line, whatever came before it."""
        self.changed = monotonic()
        self._size = found.st_size
        self._scanned = self._line_end = 0
        self._head = self._before = b""
        self._truncated = False

    def go_to(self, position: int) -> None:
        """Read on from `position`."""
        self.position = self._scanned = position
        self._before = self._read(max(0, position - MARK_BYTES), min(MARK_BYTES, position))
        self._head = self._read(0, min(MARK_BYTES, position))

    def end(self) -> int:
        """Its size now; from the start again if what was read is no longer in it."""
        size = os.fstat(self.descriptor).st_size
        if size != self._size:
            self._size, self.changed = size, monotonic()
        if size < self.position or self._is_rewritten():
            self._truncated = self.fresh = True
            self._line_end = 0
            self.go_to(0)
        if self._truncated and size:
            self._truncated = False
            self.position = self._after_hole(size)
        return size

    def pieces(self, end: int) -> Iterator[bytes]:
        """Yield the bytes up to the offset `end`; fewer if it is truncated meanwhile."""
        while self.position < end:
            piece = self._read(self.position, min(PIECE_BYTES, end - self.position))
            if not piece:
                return
            self.position += len(piece)
            self._before = (self._before + piece[-MARK_BYTES:])[-MARK_BYTES:]
            if len(self._head) < MARK_BYTES:
                self._head = self._read(0, min(MARK_BYTES, self.position))
            yield piece

    def last_line_end(self, size: int) -> int:
        """The offset after its last newline, if that is beyond what was read."""
        found = _find_newline_before(self.descriptor, max(self._scanned, self.position), size)
        self._scanned = size
        if found is not None:
            self._line_end = found + 1
        return self._line_end

    def is_deleted(self) -> bool:
        """Whether no name is left for it."""
        return os.fstat(self.descriptor).st_nlink == 0

    def quiet_seconds(self) -> float:
        """The time since it was seen to change its size."""
        return monotonic() - self.changed

    def _is_rewritten(self) -> bool:
        """Whether it was truncated and has already grown to the place where we were, or beyond.

        Both the bytes before that place and its first ones have to differ: a program may change
        the end of its file in place, which must not bring the whole file again.
        """
        marked = len(self._before)
        if self._read(self.position - marked, marked) == self._before:
            return False
        return self._read(0, len(self._head)) != self._head

    def _after_hole(self, size: int) -> int:
        """Where data begins: a writer without O_APPEND goes on at its old offset, after a hole."""
        start = 0
        with suppress(OSError):
            start = os.lseek(self.descriptor, 0, os.SEEK_DATA)
        block = self._read(start, min(PIECE_BYTES, size - start))
        return start + len(block) - len(block.lstrip(b"\0"))

    def _read(self, offset: int, count: int) -> bytes:
        return os.pread(self.descriptor, count, offset)


class _Watch:
    """Tells which files have come to a path, in order, by their present names: it replays inotify.

    Without inotify it tells nothing by itself. `arrived` has the names that are still to be opened;
    `version` changes with them.
    """

    def __init__(self, path: str) -> None:
        self.arrived: list[str] = []
        self.moving: set[str] = set()
        """Stand-ins in `arrived` for files that have lost a name and are yet to get another."""
        self.version = 0
        self._path = path
        self._targets: set[str] = set()
        self._folders: dict[int, str] = {}
        self._inotify = _new_inotify()

    def descriptors(self) -> list[int]:
        """What to wait for."""
        return [self._inotify.fileno()] if self._inotify else []

    def folders(self) -> None:
        """Watch the folders of the path and of what it links to, as they are now."""
        if not self._inotify:
            return
        changes = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
        watched: dict[int, str] = {}
        self._targets = set()
        for target in (self._path, os.path.realpath(self._path)):
            folder, name = os.path.split(target)
            with suppress(OSError):
                number = self._inotify.add_watch(folder, changes)
                self._targets.add(os.path.join(watched.setdefault(number, folder), name))
        for number in self._folders.keys() - watched.keys():
            with suppress(OSError):
                self._inotify.rm_watch(number)
        self._folders = watched

    def file(self, descriptor: int) -> None:
        """Wake when this open file is written to or truncated, whatever it is called by then."""
        if self._inotify:
            with suppress(OSError):
                self._inotify.add_watch(f"/proc/self/fd/{descriptor}", flags.MODIFY)

    def hear(self) -> None:
        """Replay what has happened so far; does not wait."""
        if self._inotify:
            for event in self._inotify.read(0):
                if event.mask & flags.Q_OVERFLOW:
                    self._forget()
                elif event.wd in self._folders and event.name:
                    name = os.path.join(self._folders[event.wd], event.name)
                    self._replay(event.mask, f"\0{event.cookie}", name)

    def arrive(self, name: str) -> None:
        """Put down that a new file stands at this name."""
        self._rename(name, None)
        self.arrived.append(name)
        self.version += 1

    def close(self) -> None:
        """Let go of inotify."""
        if self._inotify:
            self._inotify.close()

    def _forget(self) -> None:
        """Too much happened to be told: only the path itself can still be relied on."""
        self.arrived.clear()
        self.arrive(self._path)

    def _replay(self, mask: int, cookie: str, name: str) -> None:
        """Take in one change of a name; the cookie joins the two halves of a rename."""
        if mask & flags.MOVED_FROM:
            if self._rename(name, cookie):
                self.moving.add(cookie)
        elif mask & flags.MOVED_TO and cookie in self.moving:
            self.moving.discard(cookie)
            self._rename(name, None)
            self._rename(cookie, name)
        elif mask & (flags.CREATE | flags.MOVED_TO) and name in self._targets:
            self.arrive(name)
        else:
            self._rename(name, None)

    def _rename(self, old: str, new: str | None) -> bool:
        """Give an arrival its new name, or take it out: it is gone or something took its name."""
        if old not in self.arrived:
            return False
        index = self.arrived.index(old)
        self.arrived[index : index + 1] = [] if new is None else [new]
        self.version += 1
        return True


def _new_inotify() -> Any:
    """An inotify instance; None where there is none (or none left, 128 per user by default)."""
    if sys.platform == "linux":
        with suppress(OSError):
            return inotify_simple.INotify()
    return None


def _start(control: Control, descriptor: int, size: int, lines: int) -> int:
    """The offset at which the last `lines` lines begin; an unfinished last line counts as one."""
    if lines < 0:
        return 0
    if lines == 0 or not size:
        return size
    end = size - 1 if os.pread(descriptor, 1, size - 1) == b"\n" else size
    missing = lines
    for start, block in _blocks_before(descriptor, 0, end):
        found = block.count(b"\n")
        if found >= missing:
            for _ in range(missing):
                block = block[: block.rindex(b"\n")]
            return start + len(block) + 1
        missing -= found
        control.wait(0)
        if control.stopping:
            return size
    return 0


def _find_newline_before(descriptor: int, start: int, end: int) -> int | None:
    """The offset of the last newline from `start` up to `end`."""
    for offset, block in _blocks_before(descriptor, start, end):
        found = block.rfind(b"\n")
        if found >= 0:
            return offset + found
    return None


def _blocks_before(descriptor: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of blocks from `end` back to `start`."""
    while end > start:
        offset = max(start, end - PIECE_BYTES)
        yield offset, os.pread(descriptor, end - offset, offset)
        end = offset


def _absolute(path: object) -> str:
    """Make a path whole, relative to the current folder; raises SourceError if it can't be one."""
    if not isinstance(path, str) or not path:
        raise SourceError("there is no file to follow: `path` has to name one")
    if "\0" in path:
        raise SourceError("a file's path cannot have a NUL character in it")
    return os.path.abspath(path)


def _refuse_outside(path: str, below: str | None) -> None:
    """Raise SourceError unless the path, with all links followed, is within `below`, unhidden."""
    if below is None:
        return
    real, folder = os.path.realpath(path), os.path.join(below, "")
    if not real.startswith(folder):
        raise SourceError(
            f"{_shown(path)} is not below {_shown(below)}: name a file in that folder"
        )
    # Where programs keep what is nobody else's affair, this server too.
    if any(name.startswith(".") for name in real.removeprefix(folder).split(os.sep)):
        raise SourceError(
            f"{_shown(path)} is hidden: name a file that neither begins with a dot nor is in a "
            "folder that does"
        )


def _refuse_no_file(path: str) -> None:
    """Raise SourceError for what can't be followed; a file that isn't there yet can."""
    if os.path.isdir(path):
        raise SourceError(f"{_shown(path)} is a folder: name a file in it")
    if _is_glob(path):
        count = len(_matches(path))
        raise SourceError(
            f"{_shown(path)} matches {count} file{'s'[: count != 1]}: name one of them"
        )
    if os.path.exists(path) and not os.path.isfile(path):
        raise SourceError(f"{_shown(path)} is not a regular file")


def _is_glob(path: str) -> bool:
    return glob.has_magic(path) and not os.path.lexists(path)


def _matches(pattern: str) -> list[str]:
    return sorted(name for name in set(glob.glob(pattern, recursive=True)) if os.path.isfile(name))


def _accepts(source: type[LogSource], settings: Mapping[str, Any], path: str) -> bool:
    try:
        source({**settings, "path": path})
    except SourceError:
        return False
    return True


def _shown(path: str) -> str:
    """A path as one line of text: a file name may hold a newline or bytes that are no text."""
    return "".join(character if character.isprintable() else "?" for character in path)
