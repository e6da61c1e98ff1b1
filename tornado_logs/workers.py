"""Runs several workers behind one address, and puts another in the place of one that dies.

Each worker is a whole server in a process of its own. The files are all that they share, so any of
them serves any log from any cursor: a viewer whose worker was killed goes on at the next one that
it meets.

    supervisor = Supervisor(bind_workers(bind, 2), serve, print_url)
    status = supervisor.run()
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from setproctitle import setproctitle

_AGAIN_SECONDS = 1.0
_STOPS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger("tornado_logs")


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker is given. `number` counts from 0; its successor has the same.

    `is_successor`: whether it takes the place of one that has died. `life_fd` becomes readable when
    the supervisor has died; a byte to `ready_fd` tells it that the worker accepts connections.
    """

    number: int
    sockets: Sequence[socket.socket]
    is_successor: bool
    life_fd: int
    ready_fd: int

    def tell_ready(self) -> None:
        """Say that connections are accepted."""
        os.write(self.ready_fd, bytes([self.number]))


def bind_workers(
    bind: Callable[[int | None, bool], list[socket.socket]], count: int
) -> list[list[socket.socket]]:
    """The listening sockets of each of `count` workers, all of one address.

    `bind(port, reuse_port)` binds; with port None the one that is configured. On Linux each worker
    has sockets of its own (SO_REUSEPORT), among which the kernel deals out connections. They stay
    open in the supervisor: what waits in the queue of a worker that dies, its successor takes.
    """
    sockets = bind(None, False)  # finds out whether anybody else is there, which sharing hides
    if not sys.platform.startswith("linux"):
        return [sockets] * count
    port = sockets[0].getsockname()[1]
    for sock in sockets:
        sock.close()
    return [bind(port, True) for _ in range(count)]


class Supervisor:
    """Forks the workers and waits for their end. Serves nothing itself, and has no event loop."""

    def __init__(
        self,
        sockets: Sequence[Sequence[socket.socket]],
        serve: Callable[[Worker], int],
        on_ready: Callable[[], None],
        stop_seconds: float = 10.0,
    ) -> None:
        """`serve` runs a worker to its end, its exit status; `on_ready`: all of them accept.

        A worker that has not ended `stop_seconds` after it was told to is killed.
        """
        self._sockets = sockets
        self._serve = serve
        self._on_ready = on_ready
        self._stop_seconds = stop_seconds
        self._unready = set(range(len(sockets)))
        self._numbers: dict[int, int] = {}  # by pid
        self._forked_at: dict[int, float] = {}  # by number
        self._due_at: dict[int, float] = {}  # by number: when its successor is started
        self._stops_asked = 0
        self._kill_at: float | None = None
        self._status = 0
        self._life_fds = os.pipe()
        self._ready_fds = os.pipe()
        self._wake_fds = os.pipe()

    def run(self) -> int:
        """Run until TERM or INT, or until a worker can't begin; the exit status.

        A second TERM or INT kills the workers at once.
        """
        for fd in (*self._ready_fds, *self._wake_fds):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._wake_fds[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for name in _STOPS:
            signal.signal(name, self._ask_to_stop)
        for number in range(len(self._sockets)):
            self._fork(number)
        while self._numbers or self._due_at:
            self._wait()
            if self._stops_asked:
                self._stop()
            if self._stops_asked > 1:
                self._kill_at = time.monotonic()
            self._reap()
            self._start_successors()
            self._kill_the_slow()
        return self._status

    def _ask_to_stop(self, number: int, _frame: object) -> None:
        self._stops_asked += 1
        if self._stops_asked > 1:
            self._status = 128 + number  # as a shell tells of one that was killed by it

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _fork(self, number: int) -> None:
        is_successor = number in self._forked_at
        self._forked_at[number] = time.monotonic()
        # One that comes between the fork and the child's own handlers must not fall to ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if pid:
            self._numbers[pid] = number
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            return
        status = 1
        try:
            status = self._be_worker(number, is_successor)
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(status)

    def _be_worker(self, number: int, is_successor: bool) -> int:
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGCHLD, *_STOPS):
            signal.signal(name, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        for fd in (self._life_fds[1], self._ready_fds[0], *self._wake_fds):
            os.close(fd)
        for other in self._sockets:
            if other is not self._sockets[number]:
                for sock in other:
                    sock.close()
        setproctitle(f"tornado-logs worker {number}")
        sockets = self._sockets[number]
        fds = (self._life_fds[0], self._ready_fds[1])
        return self._serve(Worker(number, sockets, is_successor, *fds))

    def _wait(self) -> None:
        times = [*self._due_at.values(), *([self._kill_at] if self._kill_at else [])]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        readable, _, _ = select.select([self._wake_fds[0], self._ready_fds[0]], [], [], timeout)
        if self._wake_fds[0] in readable:
            os.read(self._wake_fds[0], 4096)
        if self._ready_fds[0] in readable:
            self._note_ready(os.read(self._ready_fds[0], 4096))

    def _note_ready(self, numbers: bytes) -> None:
        were_all_ready = not self._unready
        self._unready.difference_update(numbers)
        if not (were_all_ready or self._unready or self._stopping):
            self._on_ready()

    def _reap(self) -> None:
        for pid, number in tuple(self._numbers.items()):
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._numbers[pid]
                self._on_end(pid, number, os.waitstatus_to_exitcode(wait_status))

    def _on_end(self, pid: int, number: int, status: int) -> None:
        if self._stopping:
            return
        if number in self._unready:  # it has said why; another would fare no better
            self._status = abs(status)
            self._stop()
            return
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else "has ended"
        logger.warning("worker %d (pid %d) %s; another takes its place", number, pid, how)
        # One that lives for a moment only must not keep the machine busy with its successors.
        self._due_at[number] = max(time.monotonic(), self._forked_at[number] + _AGAIN_SECONDS)

    def _start_successors(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due_at.items() if due <= now]:
            del self._due_at[number]
            self._fork(number)

    def _stop(self) -> None:
        if self._stopping:
            return
        self._kill_at = time.monotonic() + self._stop_seconds
        self._due_at.clear()
        # Else the kernel would go on dealing out connections, to sockets that nobody reads.
        for sock in {sock for sockets in self._sockets for sock in sockets}:
            sock.close()
        self._signal_all(signal.SIGTERM)

    def _kill_the_slow(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at += self._stop_seconds
            self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._numbers:  # none of them was reaped, so none means another process
            os.kill(pid, number)
