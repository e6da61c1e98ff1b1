"""What tests run a source with: a real `Control`, and a run whose output can be waited for."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Self

from tornado_logs import processes
from tornado_logs.source import Ending, LeftProcess, LogSource

DEADLINE_SECONDS = 20.0
"""How long a test waits for what has to happen; none takes that long when all is well."""


class PipeControl:
    """`tornado_logs.source.Control` with a stop that any thread may ask for."""

    deployment_id = "20261122-104159-k3f9qd"

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.idle = threading.Event()
        """Set once the source waits for something, having read what there was."""
        self._stopping = False
        self._told = False
        self._others = {process.pid for process in processes.descendants(os.getpid())}
        self._wake_fd, self._stop_fd = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._wake_fd)
        os.close(self._stop_fd)

    def stop(self) -> None:
        """Ask the source to stop; from any thread."""
        self._stopping = True
        os.write(self._stop_fd, b"s")

    @property
    def stopping(self) -> bool:
        """See `Control.stopping`."""
        return self._stopping

    def wait(self, seconds: float | None = None, fds: Sequence[int] = ()) -> list[int]:
        """See `Control.wait`."""
        if self._stopping and not self._told:
            self._told = True
            return []
        if seconds != 0:
            self.idle.set()
        watched = list(fds) if self._told else [*fds, self._wake_fd]
        poll = select.poll()
        for fd in watched:
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
        self._told = self._told or self._wake_fd in ready
        return [fd for fd in fds if fd in ready]

    def started(self, pid: int) -> None:
        """See `Control.started`."""
        self.pids.append(pid)

    def left_running(self) -> list[LeftProcess]:
        """See `Control.left_running`."""
        return [
            LeftProcess(process.pid, processes.command_of(process.pid))
            for process in processes.descendants(os.getpid())
            if process.pid not in self._others and not process.is_zombie
        ]


class RunningSource:
    """A source that runs in a thread; a context manager that stops it and raises what it raised."""

    def __init__(self, source: LogSource) -> None:
        self.ending: Ending | None = None
        self.pieces: list[bytes] = []
        self._control = PipeControl()
        self._generator: Generator[bytes, None, Ending] = source.run(self._control)
        self._error: Exception | None = None
        self._news = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> Self:
        self._control.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._control.__exit__(kind, error, trace)

    @property
    def log(self) -> bytes:
        """All bytes so far."""
        with self._news:
            self.pieces[:] = [b"".join(self.pieces)]
            return self.pieces[0]

    def wait_until(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Wait until the log is as wanted, and return it; fails after the deadline."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self._news:
            while not wanted(self.log):
                if self._error:
                    raise self._error
                left = deadline - time.monotonic()
                assert left > 0, (
                    f"not within {DEADLINE_SECONDS} s; the log ends {self.log[-500:]!r}"
                )
                self._news.wait(left)
            return self.log

    def wait_until_idle(self) -> None:
        """Wait until it has begun and waits for something to happen."""
        assert self._control.idle.wait(DEADLINE_SECONDS)

    def wait_for(self, text: bytes) -> bytes:
        """Wait until the log ends with `text`, and return the log."""
        return self.wait_until(lambda log: log.endswith(text))

    def stop(self) -> bytes:
        """Ask for a stop, wait for the ending; return the whole log."""
        if self._thread.is_alive():
            self._control.stop()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the source did not stop"
        if self._error:
            raise self._error
        return self.log

    def _collect(self) -> None:
        try:
            while True:
                piece = next(self._generator)
                with self._news:
                    self.pieces.append(piece)
                    self._news.notify_all()
        except StopIteration as end:
            self.ending = end.value
        except Exception as error:  # it is the test's thread that is to fail
            self._error = error
        finally:
            self._generator.close()
            with self._news:
                self._news.notify_all()


def defaults(source: type[LogSource], **changes: Any) -> dict[str, Any]:
    """The settings of a source with its defaults, but for the changes."""
    return {option.name: option.default for option in source.options} | changes
