"""One `grep` at a log, off the event loop: started, bounded, read from, and killed.

    grep = await Grep.start(log, offset, [b"-n", b"-e", b"error"])
    while (data := await grep.read()) is not None:
        ...
    status, message = await grep.finish()

It reads the log from an offset, by a descriptor of its own: no byte of the log passes through this
process, and as the descriptor's position is shared with us, it tells how far grep has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process

from tornado_logs.journal import LogFile

if sys.platform == "linux":
    import resource

_MEMORY_BYTES = 512 * 1024 * 1024  # grep holds a line whole, and twice while it grows
_SECONDS = 30.0
_BYTES_PER_SECOND = 20_000_000  # a tenth of the slowest pattern that was seen
_PIPE_BYTES = 256 * 1024
_TELL_SECONDS = 0.1  # between two events while a grep runs


class SearchError(Exception):
    """A search that can't go on. The message is a sentence for the user."""


class Grep:
    """One process that searches a log from an offset to its end."""

    def __init__(self, process: Process, log: LogFile, fd: int) -> None:
        self.log = log
        self._fd = fd
        self._process = process
        loop = asyncio.get_running_loop()
        seconds = _limit_seconds(log.size())
        self._deadline = loop.time() + 2 * seconds
        self._tell_at = loop.time() + _TELL_SECONDS
        if sys.platform == "linux":
            # From here, as a hook before the exec would have the server forked, not spawned.
            with contextlib.suppress(ProcessLookupError):
                _limit(process.pid, resource.RLIMIT_AS, _MEMORY_BYTES)
                _limit(process.pid, resource.RLIMIT_CPU, int(seconds))

    @classmethod
    async def start(
        cls, log: LogFile, offset: int, arguments: list[bytes], stdin: int | None = None
    ) -> Grep:
        """Search `log` from `offset` on, or what is sent to `stdin`. Raises SearchError."""
        fd = log.open_again()
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            process = await asyncio.create_subprocess_exec(
                *(b"grep", b"-a", *arguments),
                stdin=fd if stdin is None else stdin,
                stdout=PIPE,
                stderr=PIPE,
                # In the C locale each byte is a character, and none is invalid.
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
                limit=_PIPE_BYTES,
            )
        except OSError as error:
            raise SearchError(f"grep can't be run: {error.strerror}") from error
        else:
            grep, fd = cls(process, log, fd), -1
            return grep
        finally:
            if fd >= 0:
                os.close(fd)

    async def read(self) -> bytes | None:
        """What it prints, nothing if that takes long; None at its end. Raises SearchError."""
        assert self._process.stdout is not None
        loop = asyncio.get_running_loop()
        if loop.time() > self._deadline:
            raise SearchError(_TOO_SLOW)
        try:
            async with asyncio.timeout_at(max(self._tell_at, loop.time())):
                return await self._process.stdout.read(_PIPE_BYTES) or None
        except TimeoutError:
            return b""

    def is_time_to_tell(self) -> bool:
        """Whether the client is due to hear of what was found; counts as done then."""
        now = asyncio.get_running_loop().time()
        if now < self._tell_at:
            return False
        self._tell_at = now + _TELL_SECONDS
        return True

    def position(self) -> int:
        """Up to which offset it has read."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    async def answer(self, text: bytes) -> bytes:
        """What it prints of this text, where it reads that and not the log."""
        output, _ = await self._process.communicate(text)
        return output

    async def finish(self) -> tuple[int, str]:
        """Its exit status (with a minus: the signal that it died of), and what it complained of."""
        _, message = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, message.decode(errors="replace").strip()

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            # Not its own kill(): that polls, and takes the status away from who waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End it if it hasn't ended, and take what it leaves."""
        try:
            self.kill()
            await self._process.communicate()
        finally:
            os.close(self._fd)


_TOO_SLOW = "the search took too long; a simpler query, or one without regex, is faster"


def reason(status: int, message: str, line: int) -> str:
    """Why a grep that ended with this status could not search the log, as a sentence."""
    if status == -signal.SIGXCPU:
        return _TOO_SLOW
    if "exhausted" in message or status in (-signal.SIGSEGV, -signal.SIGABRT):
        return (
            f"the search ran out of its {_MEMORY_BYTES // 1024**2} MiB of memory at line {line}: "
            "that line is too long, or the regular expression too large"
        )
    return f"grep ended with {status} at line {line}: {message.removeprefix('grep: ')[:200]}"


def _limit_seconds(size_bytes: int) -> float:
    return _SECONDS + size_bytes / _BYTES_PER_SECOND


def _limit(pid: int, what: int, most: int) -> None:
    if sys.platform == "linux":
        resource.prlimit(pid, what, (most, most))
