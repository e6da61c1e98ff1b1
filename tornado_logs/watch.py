"""Tells which files of one folder have changed: by inotify, or by looking again and again.

    watch = FolderWatch("data", on_change)

Call it on the event loop; from then on it calls `on_change` with `Changes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tornado_logs.ticks import Ticks

_POLL_SECONDS = 0.2
_FOLDER_SECONDS = 1.0
_REST_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Changes:
    """What has happened to the files of a folder since the last time.

    `written`: names of followed files that were written. `changed`: names whose file was created,
    replaced or removed, or closed by somebody who had it open for writing. `overflow`: the kernel's
    queue ran over, so anything may have changed.
    """

    written: set[str]
    changed: set[str]
    overflow: bool = False


class FolderWatch:
    """Calls `on_change` on the event loop, once for all that has happened since the last call.

    It tells of what is written to the files that are followed alone: a flood that nobody reads
    costs nothing here. Where the system lets us watch no further file, it is looked at instead.

    `tells_closing`: whether a file that is closed without being written shows as changed.
    """

    def __init__(self, path: str, on_change: Callable[[Changes], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._inotify: Any = None
        self._poll: Ticks | None = None
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._followed: dict[int, str] = {}
        self._unwatched: set[str] = set()  # followed, but for them there was no watch left
        self._folder = _identity(path)
        self._folder_watch = 0
        self._folder_looks = Ticks(self._look_for_the_folder, _FOLDER_SECONDS)
        self._folder_looks.start()
        self._told_at = 0.0
        self._rest: asyncio.TimerHandle | None = None
        self.tells_closing = False
        if sys.platform == "linux" and self._start_inotify():
            return
        self._seen = self._look()
        self._start_to_poll(self._on_poll)

    def follow(self, name: str) -> None:
        """Tell of writes to this file too; again once another file has its name."""
        if self._inotify is None:
            return
        try:
            descriptor = self._inotify.add_watch(os.path.join(self._path, name), self._modify)
            self._followed[descriptor] = name
        except FileNotFoundError:  # which is told anyway
            pass
        except OSError:  # ENOSPC: the user's limit of inotify watches is reached
            self._unwatched.add(name)
            if self._poll is None:
                self._start_to_poll(self._tell_of_the_unwatched)

    def unfollow(self, name: str) -> None:
        """Tell of writes to this file no longer."""
        self._unwatched.discard(name)
        for descriptor in [wd for wd, known in self._followed.items() if known == name]:
            del self._followed[descriptor]
            with contextlib.suppress(OSError):  # its file is gone, and so is the watch
                self._inotify.rm_watch(descriptor)

    def _look_for_the_folder(self) -> None:
        """If it was away, or another has its name: watch that, and tell that all may be new."""
        found = _identity(self._path)
        if found is None:
            self._folder = None
        elif found != self._folder:
            if self._inotify is not None:
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(self._folder_watch)
                self._folder_watch = self._inotify.add_watch(self._path, self._folder_mask)
            self._folder = found
            self._on_change(Changes(set(), set(), overflow=True))

    def note_absence(self) -> None:
        """The folder was not there a moment ago, so that something may have been missed."""
        self._folder = None

    def close(self) -> None:
        """Stop watching."""
        self._folder_looks.stop()
        if self._inotify is not None:
            if self._rest is None:
                self._loop.remove_reader(self._inotify.fileno())
            else:
                self._rest.cancel()
            self._inotify.close()
            self._inotify = None
            self._followed.clear()  # whoever follows a file yet lets go of it later
        if self._poll is not None:
            self._poll.stop()

    def _start_inotify(self) -> bool:
        from inotify_simple import INotify, flags

        mask = flags.CREATE | flags.CLOSE_WRITE | flags.DELETE
        self._folder_mask = mask | flags.MOVED_FROM | flags.MOVED_TO
        try:
            inotify = INotify(nonblocking=True)
        except OSError:  # the user's limit of inotify instances is reached
            return False
        try:
            self._folder_watch = inotify.add_watch(self._path, self._folder_mask)
        except OSError as error:
            inotify.close()
            if error.errno != errno.ENOSPC:  # the user's limit of inotify watches
                raise
            return False
        self._inotify = inotify
        self.tells_closing = True
        self._modify, self._overflow = int(flags.MODIFY), int(flags.Q_OVERFLOW)
        self._ignored = int(flags.IGNORED)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fileno(), self._on_events)
        return True

    def _start_to_poll(self, look: Callable[[], None]) -> None:
        self._poll = Ticks(look, _POLL_SECONDS)
        self._poll.start()

    def _tell_of_the_unwatched(self) -> None:
        if self._unwatched:
            self._on_change(Changes(set(self._unwatched), set()))

    def _on_events(self) -> None:
        """There are events. While a lot happens, let what follows gather for a moment each time.

        The first is told at once. Each wake-up costs some 50 µs, which thousands of short writes a
        second would add up to.
        """
        events = self._inotify.read(timeout=0)
        now = self._loop.time()
        if now < self._told_at + 2 * _REST_SECONDS:
            self._loop.remove_reader(self._inotify.fileno())
            self._take_rest()
        self._told_at = now
        self._tell_events(events)

    def _take_rest(self) -> None:
        self._rest = self._loop.call_later(_REST_SECONDS, self._after_rest)

    def _after_rest(self) -> None:
        if events := self._inotify.read(timeout=0):
            self._take_rest()
            self._tell_events(events)
        else:
            self._rest = None
            self._loop.add_reader(self._inotify.fileno(), self._on_events)

    def _tell_events(self, events: Iterable[Any]) -> None:
        written, changed, overflow = set(), set(), False
        for event in events:
            if event.mask & self._modify:
                written.add(self._followed.get(event.wd, ""))
            elif event.mask & self._ignored:  # the kernel has dropped the watch of a removed file
                self._followed.pop(event.wd, None)
            else:
                changed.add(event.name)
                overflow = overflow or bool(event.mask & self._overflow)
        self._on_change(Changes(written, changed, overflow))

    def _on_poll(self) -> None:
        if _identity(self._path) is None:  # moved away, maybe for a moment
            return
        seen = self._look()
        changed = {name for name in seen | self._seen if seen.get(name) != self._seen.get(name)}
        self._seen = seen
        if changed:
            self._on_change(Changes(changed, changed))

    def _look(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for entry in os.scandir(self._path):
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            found[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
        return found


def _identity(path: str) -> tuple[int, int] | None:
    """What tells this folder from another of its name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
