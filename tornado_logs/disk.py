"""Small files that stay whole, full disks, and what is put through to the disk when.

    write_atomically("data/x.json", data)     # a reader sees the old one or the new one
    sync("data/x.log", "data/x.json", "data")

A file is written in three steps that can fail each by itself: its bytes, its name, and that both
stand on the disk itself, where a power loss leaves them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that say that there is no room: somebody can make some."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""Errors that say no more than that too much is going on just now."""

RETRY_SECONDS = 0.1
_MOST_TRIES = 300
_SPARE_BYTES = 4096


def free_bytes(folder: str) -> int:
    """How much its disk has free for us. Raises OSError."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def is_full(error: BaseException) -> bool:
    """Whether it says that there is no room."""
    return isinstance(error, OSError) and error.errno in FULL


def reason(error: BaseException) -> str:
    """What it says, in words: "No space left on device"."""
    if isinstance(error, MemoryError):
        return os.strerror(errno.ENOMEM)
    return (isinstance(error, OSError) and error.strerror) or str(error)


def write_atomically(path: str, data: bytes, mode: int = 0o666, *, synced: bool = False) -> None:
    """Write a file that never stands half-written under its name; `synced`: nor after a power loss.

    Raises OSError; then all is as it was, unless that says only that it couldn't be synced.
    """
    temporary = _beside(path, f"{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, MemoryError):
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if synced:
        sync(os.path.dirname(path))


def sync(*paths: str) -> None:
    """Have these files, or the names in these folders, stand on the disk itself.

    Raises OSError for the first that can't, but does the others.
    """
    errors = []
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _beside(path: str, suffix: str) -> str:
    """A hidden file in the same folder, hence on the same disk."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{suffix}")


def spare_of(path: str) -> str:
    """The file that keeps room for the next version of a `KeptFile`."""
    return _beside(path, "spare")


class KeptFile:
    """A small file that is replaced as its content changes, on a full disk too.

    For that, `reserve` sets aside the room that one more version takes. What can't be written all
    the same is tried again, by `retry` or with the next change.
    """

    def __init__(self, path: str, content: Callable[[], bytes]) -> None:
        self.path = path
        self._content = content
        self._retry_at: float | None = None

    def save(self) -> None:
        """Write the content as it is now, or later if that can't be done now."""
        try:
            self._save()
        except (OSError, MemoryError):
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def save_soon(self) -> None:
        """Write the content with what else comes within a moment: it changes often."""
        if self._retry_at is None:
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def retry_seconds(self) -> float | None:
        """After how long `retry` has something to do, None if it has nothing."""
        return None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def retry(self) -> None:
        """Write what could not be written, if it is time for that."""
        if self.retry_seconds() == 0.0:
            self.save()

    def save_at_last(self, is_wanted: Callable[[], bool]) -> None:
        """Write the content for good, as long as it is wanted: waits for room on a full disk.

        Other errors may pass too; one that does not is raised.
        """
        tries = 0
        while is_wanted():
            try:
                self._save()
                return
            except (OSError, MemoryError) as error:
                tries += not is_full(error)
                if tries == _MOST_TRIES:
                    raise
            time.sleep(RETRY_SECONDS)

    def reserve(self) -> None:
        """Set room aside, where the system can do that and there is some. From any thread."""
        temporary = _beside(self.path, f"{threading.get_ident()}.spare.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.posix_fallocate(fd, 0, len(self._content()) + _SPARE_BYTES)
            finally:
                os.close(fd)
            os.replace(temporary, spare_of(self.path))
        except (OSError, AttributeError, MemoryError):  # AttributeError: macOS
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def release(self) -> None:
        """Give the room back."""
        for path in (spare_of(self.path), _beside(self.path, "before")):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _save(self) -> None:
        data = self._content()
        try:
            write_atomically(self.path, data)
        except OSError as error:
            if not is_full(error) or not self._save_in_spare(data):
                raise
        self._retry_at = None

    def _save_in_spare(self, data: bytes) -> bool:
        """Whether there was room for it. What stood there until now is the spare from here on."""
        spare, before = spare_of(self.path), _beside(self.path, "before")
        try:
            fd = os.open(spare, os.O_WRONLY)
            try:
                # Padded, so that there will be as much room the next time.
                data = data.ljust(os.fstat(fd).st_size)
                if os.pwrite(fd, data, 0) < len(data):
                    return False
            finally:
                os.close(fd)
            with contextlib.suppress(OSError):
                os.link(self.path, before)
            os.replace(spare, self.path)
        except OSError:
            return False
        with contextlib.suppress(OSError):
            os.replace(before, spare)
        return True
