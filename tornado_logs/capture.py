"""Runs one source into one journal, in a process of its own that outlives the server.

`python -m tornado_logs.capture FD` is the fork server: it reads requests from a socket and forks
one detached capture process for each, within milliseconds, the imports being done and their memory
shared. It ends with its server; the capture processes go on. Of a deployment's files the capture
process alone writes the journal, and from its start the record.

It blocks in `CaptureControl.wait`, and on a full disk in `_Output`. All of it is single-threaded,
but for one thread that puts the beginning through to the disk.
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
import threading
import time
from collections.abc import Generator, Iterable, Sequence
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
    record_bytes,
    timestamp,
)
from tornado_logs.disk import KeptFile, is_full, reason, sync
from tornado_logs.journal import JournalWriter, LogFullError, LogLimit
from tornado_logs.mask import Masker
from tornado_logs.run_queue import WAKE_SIGNAL, RunQueue
from tornado_logs.source import Ending, LeftProcess, LogSource, SourceError

READY = b"+"
"""What the fork server says once it has imported what its children need, and to each request."""

REFUSED = b"-"
"""What it says instead where it can't fork; the error's number follows, in ANSWER_BYTES in all."""

ANSWER_BYTES = 5

_LENGTH = struct.Struct("!I")
_MAX_POLL_SECONDS = 86400.0
_MAX_LOOKS = 50
_ROOM_SECONDS = 0.2  # how often a full disk is asked for room
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
    disk_full_seconds: float = 0.0  # how long output waits for room

    def path(self, suffix: str) -> str:
        """The deployment's file of this kind, as `.log`."""
        return os.path.join(self.data_dir, self.deployment_id + suffix)


class _Run:
    """What a capture process has in its hands. The log's descriptor carries the lock."""

    def __init__(self, request: CaptureRequest, log_fd: int) -> None:
        """Raises OSError or ValueError where there is no record to go by."""
        record = read_record(request.path(".json"))
        self.request = request
        self.log_fd = log_fd
        self.record = record
        self.kept = KeptFile(request.path(".json"), lambda: record_bytes(record))
        self.journal: JournalWriter
        self.masker = Masker(request.secrets)
        self._settling: threading.Thread | None = None
        record.capture_pid = os.getpid()
        record.capture_started = process_start(os.getpid())

    def begin(self) -> None:
        """It runs from here on. That there is an index, tells so too if the record can't."""
        self.journal = JournalWriter(
            self.log_fd, self.request.path(".idx"), limit=_log_limit(self.record)
        )
        self.record.state = State.RUNNING
        self.record.started_at = timestamp()
        self.kept.save()

    def settle_in(self) -> None:
        """Once, when the command has begun: see to it that a power loss leaves a trace of it.

        In a thread, so that its output needn't wait for the disk.
        """
        if self._settling is None:
            self._settling = threading.Thread(target=self._settle_in, daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads can be started
                self._settling.start()

    def _settle_in(self) -> None:
        self.kept.reserve()
        with contextlib.suppress(OSError):  # said at the end, if it is still so
            sync(self.request.path(".log"), self.kept.path, self.request.data_dir)

    def settle_down(self) -> None:
        """At the end, which viewers know of by now: put all of it through to the disk."""
        if self._settling is not None and self._settling.ident is not None:
            self._settling.join()
        self.kept.release()
        try:
            os.fsync(self.log_fd)
        except OSError as error:  # it was taken, and could not be written after all
            self.record.error = (
                f"{self.record.error} The disk says that it could not keep all of the log: "
                f"{reason(error)}."
            ).lstrip()
            self.kept.save_at_last(self.is_wanted)
        with contextlib.suppress(OSError):
            sync(self.request.path(".idx"), self.kept.path, self.request.data_dir)

    def follow_folder(self) -> None:
        """If the data folder was moved, go on where it is now: the kernel knows of the log."""
        path = self.request.path(".log")
        if os.path.exists(path) or not os.fstat(self.log_fd).st_nlink:
            return
        with contextlib.suppress(OSError):  # no /proc
            folder, name = os.path.split(os.readlink(f"/proc/self/fd/{self.log_fd}"))
            if name == os.path.basename(path):
                self.request = replace(self.request, data_dir=folder)
                self.kept.path = self.request.path(".json")

    def is_wanted(self) -> bool:
        """Whether nobody has removed the log meanwhile, and the deployment with it."""
        return os.path.exists(self.request.path(".log"))


class CaptureControl:
    """`tornado_logs.source.Control` for a source in this process."""

    def __init__(self, run: _Run) -> None:
        """Raises OSError."""
        self.deployment_id = run.request.deployment_id
        self._run = run
        self._record = run.record
        self._kept = run.kept
        self._masker = run.masker
        self._stopping = False
        self._told = False
        self._wake_fd, self._signal_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self._signal_fd, False)
        signal.set_wakeup_fd(self._signal_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        # Not SIG_IGN: the command would inherit it through exec, and no shell can trap it then.
        # The others to be woken: see `wait` and `doze`.
        for number in (signal.SIGHUP, signal.SIGCHLD, WAKE_SIGNAL):
            signal.signal(number, lambda _number, _frame: None)

    def close(self) -> None:
        """Nothing is waited for any more; its descriptors may be what the last record takes."""
        signal.set_wakeup_fd(-1)
        _close((self._wake_fd, self._signal_fd))

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopping

    def _on_stop(self, _number: int, _frame: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Have the source end, as if somebody had asked for it."""
        self._stopping = True

    def wait(self, seconds: float | None = None, fds: Sequence[int] = ()) -> list[int]:
        """See `Control.wait`. What is due of the journal and the record is written here too."""
        self._run.settle_in()
        poll = select.poll()
        for fd in (*fds, self._wake_fd):
            poll.register(fd, select.POLLIN)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            if self._stopping and not self._told:
                self._told = True
                return []
            ready = {fd for fd, _ in poll.poll(self._timeout_ms(deadline))}
            self._run.journal.settle()
            self._kept.retry()
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
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        dues = (self._run.journal.idle_seconds(), self._kept.retry_seconds(), left)
        times = [seconds for seconds in dues if seconds is not None]
        # poll(2) takes a C int; who waits longer than a day is woken once a day to wait on.
        return min(*times, _MAX_POLL_SECONDS) * 1000 if times else None

    def pause(self, seconds: float) -> None:
        """Wait for ourselves, not for the source: until a stop is asked for, or less."""
        if not self._stopping:
            self.doze(seconds)
            self._reap_orphans()

    def started(self, pid: int) -> None:
        """See `Control.started`."""
        self._record.pid = pid
        self._record.pid_started = process_start(pid)
        self._kept.save()

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
    run = _Run(request, log_fd)
    queue = RunQueue(request.data_dir)
    ending, failure, loss, stopping = Ending(note=_NEVER_RAN), "", "", False
    try:
        control = CaptureControl(run)
    except OSError as error:
        ending = Ending()
        failure = f"cannot start the source {run.record.type!r}: {reason(error)}"
    else:
        if not request.is_queued or _wait_for_turn(queue, run, control):
            run.begin()
            output = _Output(run, control)
            ending, failure = _run_source(run, control, output)
            failure = output.failure or failure
            loss = output.loss()
            if run.record.dropped_bytes is not None:
                run.record.dropped_bytes = run.journal.dropped_bytes
        stopping = control.stopping
        control.close()
    if request.is_queued:
        queue.leave(request.deployment_id)
    run.follow_folder()
    _finish(run, ending, failure, loss, stopping=stopping)


def _wait_for_turn(queue: RunQueue, run: _Run, control: CaptureControl) -> bool:
    """Wait in the queue; False if it was stopped there."""
    deployment_id = run.request.deployment_id
    if queue.has_turn(deployment_id):
        return True
    run.kept.save()  # who is to be woken, and to be stopped
    while not queue.has_turn(deployment_id):
        if control.stopping:
            return False
        seconds = run.kept.retry_seconds()
        with contextlib.suppress(OSError):  # too many open files: look again soon
            seconds = seconds or queue.look_again_seconds(deployment_id)
        control.doze(1.0 if seconds is None else seconds)
        run.kept.retry()
        queue.pass_on()
    return not control.stopping


def _log_limit(record: Record) -> LogLimit | None:
    if record.max_log_bytes is None:
        return None
    return LogLimit(record.max_log_bytes, drops_oldest=record.dropped_bytes is not None)


def _run_source(run: _Run, control: CaptureControl, output: _Output) -> tuple[Ending, str]:
    """How it ended, and what it failed by; empty if it didn't."""
    try:
        source = load_class(run.request.source_class)(run.request.settings)
        return _copy(source.run(control), output), ""
    except SourceError as error:
        failure = str(error)
    except Exception as error:  # a plugin's fault ends its deployment with a word, not silently
        name = type(error).__name__
        failure = f"the source {run.record.type!r} failed: {name}: {error}".removesuffix(": ")
    finally:
        with contextlib.suppress(OSError):
            run.journal.close()
    return Ending(), failure


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
    """Writes what a source yields, masked, into its journal.

    On a full disk it waits for room, and the source with it. What can't be written then, or for
    another reason, is counted and thrown away: the command runs on, and the log ends there for
    good, so that what it has is the beginning of the output and nothing else.

    Once the log is as large as it may get, the source is stopped, and what it still yields let go.
    """

    def __init__(self, run: _Run, control: CaptureControl) -> None:
        self._run = run
        self._record = run.record
        self._control = control
        self._give_up_at: float | None = None  # while it waits
        self._because = ""
        self.failure = ""  # a sentence, once the log is full

    def write(self, piece: bytes) -> None:
        """Write all of it that can be shown by now."""
        self._run.settle_in()
        try:
            shown = self._run.masker.feed(piece)
        except MemoryError as error:  # what was held back is lost, so nothing may follow
            self._end_log(error)
            shown = piece
        if self._run.masker and not self._record.has_secrets:
            self._tell_of_secrets()
        self._append(shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what was held back, however the source came to its end; that waits for nothing."""
        self._append(self._run.masker.finish(), may_wait=False)

    def loss(self) -> str:
        """A sentence that says what could not be written; empty if all of it was."""
        record = self._record
        if record.unwritten_from is None or not record.unwritten_bytes:
            return ""
        return (
            f"The log is not complete: from byte {record.unwritten_from:,} on, "
            f"{record.unwritten_bytes:,} bytes could not be written ({self._because})."
        )

    def _append(self, shown: bytes, *, may_wait: bool = True) -> None:
        if self._record.unwritten_from is None and not self.failure:
            shown = self._write(shown, may_wait=may_wait)
        if shown and not self.failure:
            self._record.unwritten_bytes += len(shown)
            self._record.error = self.loss()
            self._run.kept.save_soon()

    def _write(self, shown: bytes, *, may_wait: bool) -> bytes:
        """Write it; what is returned is what can't be written."""
        while shown:
            try:
                shown = shown[self._run.journal.write(shown) :]
            except LogFullError as error:
                self.failure = self._record.error = str(error)
                self._run.kept.save_soon()
                self._control.stop()
                break
            except OSError as error:
                if not (may_wait and self._wait_for_room(error)):
                    self._end_log(error)
                    break
            else:
                self._go_on()
        return shown

    def _wait_for_room(self, error: OSError) -> bool:
        """Whether it is worth another try."""
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._run.request.disk_full_seconds
        left = self._give_up_at - now
        if not is_full(error) or self._control.stopping or left <= 0:
            return False
        if not self._record.note:
            self._record.note = (
                f"The disk is full ({reason(error)}): the output waits for room, and the command "
                f"with it, for {self._run.request.disk_full_seconds:g} s from {timestamp()} on."
            )
            self._run.kept.save()
        self._control.pause(min(_ROOM_SECONDS, left))
        self._run.kept.retry()
        return not self._control.stopping

    def _go_on(self) -> None:
        """Some of it was written: whatever we waited for is there."""
        if self._give_up_at is not None:
            self._give_up_at = None
            self._record.note = ""
            self._run.kept.save()

    def _end_log(self, error: OSError | MemoryError) -> None:
        """Write nothing more: what followed a gap would look as if there were none."""
        if self._record.unwritten_from is None:
            self._record.unwritten_from = self._run.journal.offset
            self._because = reason(error)
            self._record.note = ""
            self._run.kept.save_soon()

    def _tell_of_secrets(self) -> None:
        """The output has declared one: if we die, nobody else knows it, only that there is one."""
        self._record.has_secrets = True
        _mask_asked(self._record, self._run.masker)
        self._run.kept.save()


def _mask_asked(record: Record, masker: Masker) -> None:
    """Take what the output has declared out of what was asked for."""
    record.name = masker.text(record.name)
    record.request = masker.value(record.request)
    record.settings = masker.value(record.settings)


def _mask_record(record: Record, ending: Ending, masker: Masker) -> Ending:
    """Take the secrets out of what the record has, and is to have."""
    _mask_asked(record, masker)
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


def _finish(run: _Run, ending: Ending, failure: str, loss: str, *, stopping: bool) -> None:
    record = run.record
    ending = _mask_record(record, ending, run.masker)
    record.exit_status = ending.exit_status
    record.signal = ending.signal
    record.note = ending.note
    record.left_running = [asdict(process) for process in ending.left_running]
    record.ended_at = timestamp()
    # Its own state, also where its log isn't complete: that is said beside it.
    record.state = exit_state(
        stopping=stopping, timed_out=ending.timed_out, exit_status=ending.exit_status
    )
    if failure:
        record.state = State.FAILED
    record.error = " ".join(text for text in (run.masker.text(failure), loss) if text)
    record.log_bytes = os.fstat(run.log_fd).st_size
    stopped_by = take_stop_request(run.request.path(".stop"))  # one that came too late goes too
    if record.state is State.STOPPED:
        record.stopped_by = stopped_by
    # How it ended is known here alone: a full disk must not make it be forgotten.
    run.kept.save_at_last(run.is_wanted)
    if run.is_wanted():
        run.settle_down()
    else:  # somebody removed the deployment while it ran: leave nothing behind
        run.kept.release()
        for suffix in (".idx", ".json"):
            with contextlib.suppress(OSError):
                os.unlink(run.request.path(suffix))


def take_stop_request(path: str) -> dict[str, Any] | None:
    """Who asked for the stop, as the server wrote it before its signal; None if nobody signed."""
    try:
        with open(path, "rb") as file:
            request = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        request = None
    with contextlib.suppress(OSError):
        os.unlink(path)
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
    """The next request and its descriptors; None once the server has gone.

    Raises OSError where there is no room for more descriptors.
    """
    fds = array.array("i")
    try:
        room = socket.CMSG_SPACE(_MOST_FDS * fds.itemsize)
        head, ancillary, _, _ = sock.recvmsg(_LENGTH.size, room)
    except ConnectionResetError:  # it died before it had read our last word
        return None
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = _receive(sock, length)
    for _, _, data in ancillary:
        fds.frombytes(data)
    for fd in fds:
        os.set_inheritable(fd, False)
    if len(body) < length:
        return None
    request = CaptureRequest(**json.loads(body))
    if len(fds) < 1 + request.is_queued:  # recvmsg(2): MSG_CTRUNC
        _close(fds)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return request, list(fds)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


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
    # Whoever doesn't hear an answer may ask again, and nothing runs twice: see the child's.
    answer = READY
    with contextlib.suppress(OSError):  # the server has gone
        while True:
            if answer:
                sock.sendall(answer)
            try:
                received = _receive_request(sock)
                if received is None:
                    return
                answer = _fork(sock, *received)
            except OSError as error:
                answer = b"%s%04d" % (REFUSED, error.errno or 0)


def _fork(sock: socket.socket, request: CaptureRequest, fds: Sequence[int]) -> bytes:
    """What is left to be answered: nothing, for the capture process does that. Raises OSError."""
    try:
        if os.fork() == 0:
            _be_capture_process(sock, request, fds[0])
    finally:
        _close(fds)
    return b""


def _be_capture_process(sock: socket.socket, request: CaptureRequest, log_fd: int) -> None:
    status = 1
    try:
        sock.sendall(READY)  # fails if the server has given us up, and asks another
        sock.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform != "darwin":  # where it crashes in a process that was forked
            setproctitle(f"tornado-logs capture {request.deployment_id}")
        # Whoever waits for the end of the server's own output must not wait for us.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        if null > 2:
            os.close(null)
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
