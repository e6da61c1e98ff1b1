"""Starts and stops deployments, and finds out which have lost their capture process.

The server owns no command. It asks the fork server for a capture process (`tornado_logs.capture`)
and from then on knows only files: the record, and the lock on the log that says "still captured".
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tornado_logs import processes
from tornado_logs.capture import (
    ANSWER_BYTES,
    READY,
    REFUSED,
    CaptureRequest,
    send_request,
    take_stop_request,
)
from tornado_logs.catalog import Job
from tornado_logs.config import ENVIRONMENT_PREFIX
from tornado_logs.deployment import (
    Record,
    State,
    hold,
    is_held,
    new_id,
    process_start,
    read_record,
    timestamp,
    write_record,
)
from tornado_logs.disk import EXHAUSTED, free_bytes, is_full, reason, spare_of, write_atomically
from tornado_logs.run_queue import QueueError, RunQueue
from tornado_logs.source import DEPLOYMENT_VARIABLE

_STOP_GRACE_SECONDS = 10.0
_UNKILLABLE_SECONDS = 5.0
_CHECK_SECONDS = 0.1
_READY_SECONDS = 5.0
_FORK_SERVER_SECONDS = 2.0

logger = logging.getLogger("tornado_logs")


class LaunchError(Exception):
    """A deployment could not be started or stopped. The message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Queuing:
    """How a deployment is queued. `may_wait`: whether also for its exclusive name."""

    max_queued: int
    may_wait: bool = True


class NoRoomError(LaunchError):
    """It could not be started, for the disk is full or almost full."""


class ExhaustedError(LaunchError):
    """It could not be started now: the system has no more processes, descriptors or memory."""


def _launch_error(what: str, error: OSError) -> LaunchError:
    sentence = f"{what}: {reason(error)}"
    if is_full(error):
        return NoRoomError(f"{sentence}; make room there, and start it again")
    if error.errno in EXHAUSTED:
        return ExhaustedError(f"{sentence}; start it again when less is going on")
    return LaunchError(sentence)


class Launcher:
    """Starts, stops and adopts the capture processes of one data folder."""

    def __init__(
        self,
        data_dir: str,
        preload: Sequence[str] = (),
        secret_variables: Collection[str] = (),
        *,
        min_free_bytes: int = 0,
        disk_full_seconds: float = 0.0,
    ) -> None:
        """`preload`: source classes ("package.module:Class") for the fork server to import.

        `secret_variables`: environment variables of ours that it doesn't get, nor any command.
        `min_free_bytes`, `disk_full_seconds`: see the settings.
        """
        self.queue = RunQueue(data_dir)
        self._data_dir = data_dir
        self._preload = preload
        self._secret_variables = secret_variables
        self._min_free_bytes = min_free_bytes
        self._disk_full_seconds = disk_full_seconds
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_ready = False  # whether the fork server has said so, and we have heard it

    def start(self) -> None:
        """Start the fork server, so that the first deployment finds it ready."""
        self._is_ready = False
        ours, theirs = socket.socketpair()
        with theirs:
            # Of ours and of the config's alone: no request has a part in it.
            self._fork_server = subprocess.Popen(  # nosec B603
                [
                    sys.executable,
                    "-P",  # the folder that the server stands in may hold a json.py
                    "-m",
                    "tornado_logs.capture",
                    str(theirs.fileno()),
                    *self._preload,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                start_new_session=True,  # a ^C in the server's terminal is for the server alone
            )
        self._socket = ours

    def _environment(self) -> dict[str, str]:
        """Ours without what is the server's own affair: it would be there for commands to read."""
        return {
            name: text
            for name, text in os.environ.items()
            if name not in self._secret_variables
            and (not name.startswith(ENVIRONMENT_PREFIX) or name == DEPLOYMENT_VARIABLE)
        }

    def wait_until_ready(self) -> None:
        """Wait for the fork server's imports, so that the first deployment needn't; a moment."""
        if self._socket is not None and not self._is_ready:
            self._socket.settimeout(_READY_SECONDS)
            with contextlib.suppress(OSError):  # it is asked again, or anew, when it is needed
                self._is_ready = self._socket.recv(len(READY)) == READY
            self._socket.settimeout(None)

    def close(self) -> None:
        """Let the fork server end. What it has forked goes on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._fork_server is not None:
            try:
                self._fork_server.wait(_FORK_SERVER_SECONDS)
            except subprocess.TimeoutExpired:  # somebody has stopped it (signal(7): STOP)
                self._fork_server.kill()
                self._fork_server.wait()
            self._fork_server = None

    def launch(self, record: Record, job: Job, queuing: Queuing | None = None) -> None:
        """Give the record its id, write it, and start its capture process.

        Without `queuing` it runs at once, however many do. Raises LaunchError, QueueError.
        """
        self._check_room()
        record.id = new_id()
        record.created_at = timestamp()
        # It becomes a log only with its record and its lock, so whatever kills the server, and
        # whoever looks meanwhile: no log of ours is taken for a bare one, or for a lost one.
        new_log = self._path(record.id, ".log.new")
        try:
            log_fd = os.open(new_log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise _launch_error(f"cannot create a log in {self._data_dir}", error) from error
        fds = [log_fd]
        try:
            hold(log_fd)  # the lock travels with the descriptor
            if queuing is not None:
                fds.append(self._enter(record, queuing))
            write_record(self._path(record.id, ".json"), record)
            os.rename(new_log, self._path(record.id, ".log"))
            self._request(self._capture_request(record.id, job, queuing), fds)
        except (OSError, QueueError) as error:
            for suffix in (".log.new", ".log", ".json"):
                with contextlib.suppress(OSError):
                    os.unlink(self._path(record.id, suffix))
            if isinstance(error, QueueError):
                raise
            if queuing is not None:
                self.queue.leave(record.id)
            raise _launch_error("cannot start a deployment", error) from error
        finally:
            for fd in fds:
                os.close(fd)

    def _enter(self, record: Record, queuing: Queuing) -> int:
        return self.queue.enter(
            record.id, record.exclusive, may_wait=queuing.may_wait, max_queued=queuing.max_queued
        )

    def _check_room(self) -> None:
        """Raises NoRoomError. What runs already goes on: its output has the room that is kept."""
        if not self._min_free_bytes:
            return
        try:
            free = free_bytes(self._data_dir)
        except OSError as error:
            raise _launch_error(f"cannot look at the disk of {self._data_dir}", error) from error
        if free < self._min_free_bytes:
            raise NoRoomError(
                f"the disk is almost full: {self._data_dir} has {free:,} bytes free, and "
                f"{self._min_free_bytes:,} are kept for what runs already; remove logs that nobody "
                "needs, or set min_free_bytes lower"
            )

    def _capture_request(
        self, deployment_id: str, job: Job, queuing: Queuing | None
    ) -> CaptureRequest:
        return CaptureRequest(
            self._data_dir,
            deployment_id,
            job.source_class,
            dict(job.settings),
            list(job.secrets),
            is_queued=queuing is not None,
            disk_full_seconds=self._disk_full_seconds,
        )

    def _request(self, request: CaptureRequest, fds: Sequence[int]) -> None:
        """Ask the fork server; if it has died, ask a new one. Raises OSError, also its own."""
        for _ in range(2):
            if self._socket is None:
                self.start()
            self.wait_until_ready()
            answer = b""
            with contextlib.suppress(OSError):
                answer = self._ask(request, fds)
            if answer == READY:
                return
            if answer.startswith(REFUSED):
                number = int(answer.removeprefix(REFUSED))
                raise OSError(number, os.strerror(number))
            if self._fork_server is not None:
                self._fork_server.kill()  # one that is stopped would have us wait for its end
            self.close()
        raise OSError("the fork server does not stay alive")

    def _ask(self, request: CaptureRequest, fds: Sequence[int]) -> bytes:
        """The fork server's answer, or that of the capture process that it has become."""
        assert self._socket is not None
        self._socket.settimeout(_FORK_SERVER_SECONDS)
        send_request(self._socket, request, fds)
        if not self._is_ready:  # it was slow to begin; that it has, comes before the answer
            self._is_ready = self._socket.recv(len(READY)) == READY
        try:
            return self._socket.recv(ANSWER_BYTES)
        except TimeoutError:
            # An answer that is there by now counts; none can come from here on.
            self._socket.shutdown(socket.SHUT_RDWR)
            return self._socket.recv(ANSWER_BYTES)

    def stop(self, record: Record, requested_by: Mapping[str, Any]) -> None:
        """Ask the capture process to end its source; it says itself when that is done.

        Raises LaunchError if there is no capture process.
        """
        pid = record.capture_pid
        if record.state.is_final or pid is None:
            raise LaunchError(f"{record.id} is not running: its state is {record.state}")
        with _Handle(pid) as handle:
            # Only now that the handle is open does the check hold for what the signal will reach.
            held = is_held(self._path(record.id, ".log"))
            if not held or process_start(pid) != record.capture_started:
                raise LaunchError(f"{record.id} has lost its capture process; nothing to stop")
            try:
                write_atomically(
                    self._path(record.id, ".stop"), json.dumps(dict(requested_by)).encode()
                )
            except OSError as error:  # it is to end all the same, the more so on a full disk
                logger.error("cannot write who stops %s: %s", record.id, reason(error))
            handle.signal(signal.SIGTERM)

    async def end_left_running(self, record: Record, requested_by: Mapping[str, Any]) -> Record:
        """End what still runs of a lost deployment: TERM, after the grace KILL. The new record."""
        loop = asyncio.get_running_loop()
        grace_seconds = float(record.settings.get("stop_grace_seconds") or _STOP_GRACE_SECONDS)
        kill_at = loop.time() + grace_seconds
        number = signal.SIGTERM
        found = _Survivors(record)
        while left := await loop.run_in_executor(None, found.look):
            found.signal(number)
            if loop.time() > kill_at + _UNKILLABLE_SECONDS:
                break
            number = signal.SIGKILL if loop.time() >= kill_at else signal.SIGTERM
            await asyncio.sleep(_CHECK_SECONDS)
        record.left_running = left
        record.stopped_by = dict(requested_by)
        record.note = _lost_note(never_began=False, left=left)
        self._write_lost(record)
        return record

    def find_lost(self, deployment_id: str) -> Record | None:
        """If its capture process has died, write and return the record that says so, else None.

        Reads all of /proc: not for the event loop.
        """
        # Gone meanwhile, or no record any more: the store sees that for itself. What can't be read
        # just now (too many open files) is looked at again.
        unclear = (OSError, ValueError)
        with contextlib.suppress(*unclear), self._claim(deployment_id) as claimed:
            if not claimed:
                return None
            record = read_record(self._path(deployment_id, ".json"))
            if record.state.is_final:
                return None
            self._mark_lost(record)
            self.queue.pass_on()
            return record
        return None

    @contextlib.contextmanager
    def _claim(self, deployment_id: str) -> Any:
        """The lock of a dead capture process: whether we have it, so no other server writes too."""
        fd = os.open(self._path(deployment_id, ".log"), os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(fd)

    def _mark_lost(self, record: Record) -> None:
        log = os.stat(self._path(record.id, ".log"))
        # Its record may not say so for want of room. The index is made before the command starts.
        is_trace = log.st_size > 0 or os.path.exists(self._path(record.id, ".idx"))
        never_began = record.state is State.QUEUED and not is_trace
        record.left_running = _Survivors(record).look()
        record.stopped_by = take_stop_request(self._path(record.id, ".stop"))
        record.state = State.LOST
        record.ended_at = timestamp(log.st_mtime)
        record.note = _lost_note(never_began=never_began, left=record.left_running)
        self._write_lost(record)
        with contextlib.suppress(OSError):
            os.unlink(spare_of(self._path(record.id, ".json")))

    def _write_lost(self, record: Record) -> None:
        try:
            write_record(self._path(record.id, ".json"), record)
        except OSError as error:  # said to the viewers all the same; the next server says it again
            logger.error("cannot write the record of %s: %s", record.id, reason(error))

    def _path(self, deployment_id: str, suffix: str) -> str:
        return os.path.join(self._data_dir, deployment_id + suffix)


class _Handle:
    """A process that can be signalled without the danger that its pid means another by now."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd = -1

    def __enter__(self) -> _Handle:
        if hasattr(os, "pidfd_open"):
            try:
                self._fd = os.pidfd_open(self._pid)
            except ProcessLookupError:
                raise LaunchError("its capture process has just ended; nothing to stop") from None
            except OSError:  # a sandbox that doesn't know pidfds: the pid has to do
                pass
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._fd >= 0:
                signal.pidfd_send_signal(self._fd, number)
            else:
                os.kill(self._pid, number)


class _Survivors:
    """What still runs of a deployment that has lost its capture process.

    Told by a variable that its command was started with; by the command's session; and by being
    below either, for what clears its environment (sudo, env -i). Once seen, a process is known
    by its start, for it may lose the parent that it was found by.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._known: dict[int, int | None] = {}

    def look(self) -> list[dict[str, Any]]:
        """All that runs now, with pid and command. Reads all of /proc."""
        seeds = set(processes.with_variable(DEPLOYMENT_VARIABLE, self._record.id))
        leader, started = self._record.pid, self._record.pid_started
        if leader is not None and started is not None and process_start(leader) == started:
            seeds.update(processes.session_of(leader))
        seeds.update(self._alive())
        for pid in processes.with_descendants(seeds):
            self._known.setdefault(pid, process_start(pid))
        # What secrets it had, died with its capture process: they may stand in any command line.
        name_of = processes.program_of if self._record.has_secrets else processes.command_of
        return [{"pid": pid, "command": name_of(pid)} for pid in self._alive()]

    def signal(self, number: signal.Signals) -> None:
        """To all that the last look has found."""
        for pid in self._alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _alive(self) -> list[int]:
        return [
            pid
            for pid, started in self._known.items()
            if started and process_start(pid) == started and not processes.has_ended(pid)
        ]


def _lost_note(*, never_began: bool, left: Sequence[Mapping[str, Any]]) -> str:
    if never_began:
        return "What was to start the command had ended before it could: it never ran."
    note = "Its capture process died, so how the command ended is not known; the log goes as far"
    note += " as it was written."
    if not left:
        return note + " Nothing of the command was found running."
    names = ", ".join(f"{process['pid']} ({process['command']})" for process in left)
    return note + f" Still running: {names}. Stop ends them."
