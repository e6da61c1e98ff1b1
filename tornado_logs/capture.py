"""Runs one source into one journal, in a process of its own that outlives the server.

`python -m tornado_logs.capture FD` is the fork server: it reads requests from a socket and forks
one detached capture process for each, within milliseconds, the imports being done and their memory
shared. It ends with its server; the capture processes go on. Of a deployment's files the capture
process alone writes the journal, and from its start the record.

All of it is single-threaded and blocks only in `CaptureControl.wait`.
"""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from setproctitle import setproctitle

from tornado_logs import processes
from tornado_logs.deployment import (
    Record,
    State,
    exit_state,
    process_start,
    read_record,
    timestamp,
    write_record,
)
from tornado_logs.journal import JournalError, JournalWriter
from tornado_logs.mask import Masker
from tornado_logs.run_queue import WAKE_SIGNAL, RunQueue
from tornado_logs.source import Ending, LeftProcess, LogSource, SourceError

READY = b"+"
"""What the fork server says once it has imported what its children need, and to each request."""

_LENGTH = struct.Struct("!I")
_MAX_POLL_SECONDS = 86400.0
_MAX_LOOKS = 50
_RETRY_SECONDS = 1.0
_REST_SECONDS = 0.003
_GATHERED_BYTES = 4000  # a terminal gives 4,095 at most, however much there is
_HURRY_SECONDS = 0.2
_MOST_FDS = 2
_NEVER_RAN = "It was stopped while it waited in the queue: it never ran."


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What the fork server is asked for; the log's descriptor, already held, comes beside it.

    The settings as they are, and the secrets in them: they travel from memory to memory. Of one
    that `is_queued`, the descriptor of its entry in the queue comes too.
    """

    data_dir: str
    deployment_id: str
    source_class: str  # "package.module:Class"
    settings: dict[str, Any] = field(repr=False)
    secrets: list[str] = field(repr=False)
    is_queued: bool = False

    def path(self, suffix: str) -> str:
        """The deployment's file of this kind, as `.log`."""
        return os.path.join(self.data_dir, self.deployment_id + suffix)


class CaptureControl:
    """`tornado_logs.source.Control` for a source in this process."""

    def __init__(
        self, request: CaptureRequest, record: Record, journal: JournalWriter, masker: Masker
    ) -> None:
        self.deployment_id = request.deployment_id
        self._request = request
        self._record = record
        self._journal = journal
        self._masker = masker
        self._stopping = False
        self._told = False
        self._wake_fd, signal_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(signal_fd, False)
        signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        # Not SIG_IGN: the command would inherit it through exec, and no shell can trap it then.
        # The others to be woken: see `wait` and `doze`.
        for number in (signal.SIGHUP, signal.SIGCHLD, WAKE_SIGNAL):
            signal.signal(number, lambda _number, _frame: None)

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopping

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def wait(self, seconds: float | None = None, fds: Sequence[int] = ()) -> list[int]:
        """See `Control.wait`. The journal's due checkpoints are written here too."""
        poll = select.poll()
        for fd in (*fds, self._wake_fd):
            poll.register(fd, select.POLLIN)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            if self._stopping and not self._told:
                self._told = True
                return []
            ready = {fd for fd, _ in poll.poll(self._timeout_ms(deadline))}
            self._journal.settle()
            if self._wake_fd in ready:
                os.read(self._wake_fd, 4096)
                self._reap_orphans()
            if found := [fd for fd in fds if fd in ready]:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                return []

    def doze(self, seconds: float) -> None:
        """Wait until the time has passed or any signal comes, also one that has come just now."""
        if select.select([self._wake_fd], [], [], seconds)[0]:
            os.read(self._wake_fd, 4096)

    def _timeout_ms(self, deadline: float | None) -> float | None:
        idle = self._journal.idle_seconds()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        times = [seconds for seconds in (idle, left) if seconds is not None]
        # poll(2) takes a C int; who waits longer than a day is woken once a day to wait on.
        return min(*times, _MAX_POLL_SECONDS) * 1000 if times else None

    def started(self, pid: int) -> None:
        """See `Control.started`."""
        self._record.pid = pid
        self._record.pid_started = process_start(pid)
        write_record(self._request.path(".json"), self._record)

    def left_running(self) -> list[LeftProcess]:
        """See `Control.left_running`. Reaps the orphans that came to us and have ended."""
        for _ in range(_MAX_LOOKS):
            left = self._look()
            # A look takes time: one that ends just after it forked may hide itself and its child.
            if left or not self._reap_orphans():
                break
        return left

    def _reap_orphans(self) -> bool:
        """Let those go that came to us and have ended; for the command its source waits.

        Whether a child still runs: the kernel's word, with no race.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if ended is None or ended.si_pid == self._record.pid:
                return ended is None
            os.waitpid(ended.si_pid, 0)

    def _look(self) -> list[LeftProcess]:
        left = {}
        for process in processes.descendants(os.getpid()):
            if not process.is_zombie:
                left[process.pid] = processes.command_of(process.pid, self._masker.text)
        for pid in processes.living_children():
            left.setdefault(pid, processes.command_of(pid, self._masker.text))
        return [LeftProcess(pid, command) for pid, command in left.items()]


def capture(request: CaptureRequest, log_fd: int) -> None:
    """Run the deployment to its end. The log's descriptor carries the lock: it stays open."""
    processes.become_subreaper()
    record = read_record(request.path(".json"))
    journal = JournalWriter(log_fd, request.path(".idx"))
    masker = Masker(request.secrets)
    control = CaptureControl(request, record, journal, masker)
    record.capture_pid = os.getpid()
    record.capture_started = process_start(os.getpid())
    queue = RunQueue(request.data_dir)
    if not request.is_queued or _wait_for_turn(queue, request, record, control):
        record.state = State.RUNNING
        record.started_at = timestamp()
        write_record(request.path(".json"), record)
        output = _Output(request, record, journal, masker)
        ending = _run_source(request, record, control, output)
    else:
        journal.close()
        ending = Ending(note=_NEVER_RAN)
    if request.is_queued:
        queue.leave(request.deployment_id)
    ending = _mask_record(record, ending, masker)
    _finish(_moved(request, log_fd), record, ending, stopping=control.stopping)


def _moved(request: CaptureRequest, log_fd: int) -> CaptureRequest:
    """The request as it would be now, if the data folder was moved: the kernel knows where."""
    if os.path.exists(request.path(".log")) or not os.fstat(log_fd).st_nlink:
        return request
    with contextlib.suppress(OSError):  # no /proc
        found = os.readlink(f"/proc/self/fd/{log_fd}")
        if os.path.basename(found) == os.path.basename(request.path(".log")):
            return replace(request, data_dir=os.path.dirname(found))
    return request


def _wait_for_turn(
    queue: RunQueue, request: CaptureRequest, record: Record, control: CaptureControl
) -> bool:
    """Wait in the queue; False if it was stopped there."""
    if queue.has_turn(request.deployment_id):
        return True
    write_record(request.path(".json"), record)  # who is to be woken, and to be stopped
    while not queue.has_turn(request.deployment_id):
        if control.stopping:
            return False
        control.doze(queue.look_again_seconds(request.deployment_id))
        queue.pass_on()
    return not control.stopping


def _run_source(
    request: CaptureRequest, record: Record, control: CaptureControl, output: _Output
) -> Ending:
    try:
        source = load_class(request.source_class)(request.settings)
        return _copy(source.run(control), output)
    except (SourceError, JournalError) as error:
        record.error = str(error)
    except Exception as error:  # a plugin's fault ends its deployment with a word, not silently
        record.error = f"the source {record.type!r} failed: {type(error).__name__}: {error}"
    finally:
        with contextlib.suppress(OSError):
            output.close()
    return Ending()


def _copy(run: Generator[bytes, None, Ending], output: _Output) -> Ending:
    """Every piece that the source yields, into the journal; the source's own word at the end."""
    rest = _Rest()
    with contextlib.closing(run), output:
        while True:
            try:
                piece = next(run)
            except StopIteration as end:
                return end.value if isinstance(end.value, Ending) else Ending()
            output.write(piece)
            rest.after(len(piece))


class _Output:
    """Writes what a source yields, masked, into its journal."""

    def __init__(
        self, request: CaptureRequest, record: Record, journal: JournalWriter, masker: Masker
    ) -> None:
        self._record_path = request.path(".json")
        self._record = record
        self._journal = journal
        self._masker = masker

    def write(self, piece: bytes) -> None:
        """Write all of it that can be shown by now. Raises JournalError."""
        shown = self._masker.feed(piece)
        if self._masker and not self._record.has_secrets:
            self._tell_of_secrets()
        self._append(shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what was held back, however the source came to its end. Raises JournalError."""
        self._append(self._masker.finish())

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _append(self, shown: bytes) -> None:
        if not shown:
            return
        try:
            self._journal.append(shown)
        except OSError as error:
            raise JournalError(f"cannot go on writing the log: {error.strerror}") from error

    def _tell_of_secrets(self) -> None:
        """The output has declared one: if we die, nobody else knows it, only that there is one."""
        self._record.has_secrets = True
        _mask_asked(self._record, self._masker)
        with contextlib.suppress(OSError):  # the disk may be full; at the end we wait for room
            write_record(self._record_path, self._record)


def _mask_asked(record: Record, masker: Masker) -> None:
    """Take what the output has declared out of what was asked for."""
    record.name = masker.text(record.name)
    record.request = masker.value(record.request)
    record.settings = masker.value(record.settings)


def _mask_record(record: Record, ending: Ending, masker: Masker) -> Ending:
    """Take the secrets out of what the record has, and is to have."""
    _mask_asked(record, masker)
    record.error = masker.text(record.error)
    left = [LeftProcess(p.pid, masker.text(p.command)) for p in ending.left_running]
    return replace(ending, note=masker.text(ending.note), left_running=left)


class _Rest:
    """Lets small pieces that follow each other quickly gather, for a few milliseconds.

    Each piece wakes us, and then the server: lines that come one by one, a thousand a second, would
    cost both many times what they cost by threes. The first ones never wait. A source that gives
    more than a trickle is never kept waiting: it would soon have to wait for us to read.
    """

    def __init__(self) -> None:
        self._last_at = 0.0
        self._hurry_until = 0.0

    def after(self, piece_bytes: int) -> None:
        """A piece was written: rest, if more are about to come."""
        now = time.monotonic()
        if piece_bytes > _GATHERED_BYTES:
            self._hurry_until = now + _HURRY_SECONDS
        elif now < self._last_at + 2 * _REST_SECONDS and now > self._hurry_until:
            time.sleep(_REST_SECONDS)
        self._last_at = time.monotonic()


def _finish(request: CaptureRequest, record: Record, ending: Ending, *, stopping: bool) -> None:
    record.exit_status = ending.exit_status
    record.signal = ending.signal
    record.note = ending.note
    record.left_running = [asdict(process) for process in ending.left_running]
    record.ended_at = timestamp()
    record.state = exit_state(
        stopping=stopping, timed_out=ending.timed_out, exit_status=ending.exit_status
    )
    if record.error:
        record.state = State.FAILED
    stopped_by = take_stop_request(request.path(".stop"))  # one that came too late goes too
    if record.state is State.STOPPED:
        record.stopped_by = stopped_by
    if os.path.exists(request.path(".log")):
        _write_when_there_is_room(request.path(".json"), record)
    else:  # somebody removed the deployment while it ran: leave nothing behind
        with contextlib.suppress(FileNotFoundError):
            os.unlink(request.path(".idx"))


def _write_when_there_is_room(path: str, record: Record) -> None:
    """How it ended is known here alone: a full disk must not make it be forgotten."""
    while True:
        try:
            return write_record(path, record)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        time.sleep(_RETRY_SECONDS)


def take_stop_request(path: str) -> dict[str, Any] | None:
    """Who asked for the stop, as the server wrote it before its signal; None if nobody signed."""
    try:
        with open(path, "rb") as file:
            request = json.loads(file.read())
        os.unlink(path)
    except (FileNotFoundError, ValueError):
        return None
    return request if isinstance(request, dict) else None


def load_class(name: str) -> type[LogSource]:
    """The class that "package.module:Class" names. Raises SourceError."""
    module, _, qualified_name = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified_name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"cannot load the source class {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, LogSource)):
        raise SourceError(f"{name} is not a LogSource")
    return found


def send_request(sock: socket.socket, request: CaptureRequest, fds: Sequence[int]) -> None:
    """Ask the fork server at the other end of `sock` for a capture process. Raises OSError.

    `fds`: the descriptor of the log, and that of the entry in the queue if there is one.
    """
    body = json.dumps(asdict(request)).encode()
    socket.send_fds(sock, [_LENGTH.pack(len(body))], list(fds))
    sock.sendall(body)  # apart from the descriptors: what goes with them may be sent in part


def _receive_request(sock: socket.socket) -> tuple[CaptureRequest, list[int]] | None:
    """The next request and its descriptors; None once the server has gone."""
    fds = array.array("i")
    try:
        room = socket.CMSG_SPACE(_MOST_FDS * fds.itemsize)
        head, ancillary, _, _ = sock.recvmsg(_LENGTH.size, room)
    except ConnectionResetError:  # it died before it had read our last word
        return None
    if len(head) < _LENGTH.size:
        return None
    fds.frombytes(ancillary[0][2])
    for fd in fds:
        os.set_inheritable(fd, False)
    (length,) = _LENGTH.unpack(head)
    body = _receive(sock, length)
    if len(body) < length:
        return None
    return CaptureRequest(**json.loads(body)), list(fds)


def _receive(sock: socket.socket, length: int) -> bytearray:
    """So many bytes; fewer if the other end goes."""
    body = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while len(body) < length and (piece := sock.recv(length - len(body))):
            body += piece
    return body


def serve_forks(sock: socket.socket, preload: Sequence[str]) -> None:
    """Fork a capture process for each request, until the server at the other end is gone."""
    for name in preload:
        with contextlib.suppress(SourceError):  # said in full when somebody asks for it
            load_class(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for our children
    gc.freeze()  # what all share stays shared
    sock.sendall(READY)
    while received := _receive_request(sock):
        request, fds = received
        # Before the fork: whoever doesn't hear it may ask again, and nothing runs twice.
        try:
            sock.sendall(READY)
        except OSError:  # the server died in asking; the next one says that it never ran
            return
        if os.fork() == 0:
            sock.close()
            _be_capture_process(request, fds[0])
        for fd in fds:
            os.close(fd)


def _be_capture_process(request: CaptureRequest, log_fd: int) -> None:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform != "darwin":  # where it crashes in a process that was forked
            setproctitle(f"tornado-logs capture {request.deployment_id}")
        # Whoever waits for the end of the server's own output must not wait for us.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        capture(request, log_fd)
        status = 0
    finally:
        os._exit(status)  # the locks go with the descriptors: from here on we are dead


def main(argv: Sequence[str]) -> None:
    """The fork server: a socket's descriptor, then the source classes to import at once."""
    setproctitle("tornado-logs fork server")
    serve_forks(socket.socket(fileno=int(argv[1])), argv[2:])


if __name__ == "__main__":
    main(sys.argv)
