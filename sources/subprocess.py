"""Runs a shell command, or a program with arguments, and yields what it prints.

The command gets no input, so one that asks a question fails at once instead of waiting for ever. It
leads a session and process group of its own, without a controlling terminal for the same reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import pwd
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tornado_logs.source import (
    DEPLOYMENT_VARIABLE,
    Command,
    Control,
    Ending,
    Environment,
    LeftProcess,
    LogSource,
    Option,
    SourceError,
    Texts,
)

_READ_BYTES = 256 * 1024
_PIPE_BYTES = 1024 * 1024
_ROWS = 50
_SETTLE_SECONDS = 0.1  # what was about to end with the command anyway isn't worth a word
_CHECK_SECONDS = 0.05
_UNKILLABLE_SECONDS = 5.0  # a process in an uninterruptible system call outlives even KILL
_OWN_VARIABLES = "TORNADO_LOGS_"  # of the server's settings; no affair of a command's
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # the exit statuses that a shell has for these


PASS_ENV = [
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "XDG_*"),
    *("LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "COLORTERM"),
    # Without these nothing reaches the network in many a place, and says something else about it.
    *("*_proxy", "*_PROXY", "SSL_CERT_*"),
]
"""What programs need to find themselves at home. No SSH_AUTH_SOCK: it lends out the keys."""


class SubprocessSource(LogSource):
    """A command with its stdout and stderr, by a pseudo-terminal or by a pipe."""

    options = (
        Option(
            "command",
            Command,
            None,
            "What to run: text for `sh -c`, or a list of a program and its arguments.",
            request=True,
            required=True,
        ),
        Option("cwd", str, None, "The folder to run in; default: the server's.", request=True),
        Option(
            "env",
            Environment,
            None,
            "Environment variables to set beside those of `pass_env`.",
            request=True,
        ),
        Option(
            "secrets",
            Environment,
            None,
            "Environment variables whose values no log, record or page shows.",
            request=True,
            secret=True,
        ),
        Option(
            "pass_env",
            Texts,
            PASS_ENV,
            'Which of the server\'s own environment variables it gets; `["*"]`: all of them.',
        ),
        Option("user", str, None, "The user to run as; the server has to be root for that."),
        Option(
            "tty",
            bool,
            True,
            "Whether it prints to a pseudo-terminal, line by line and in colour, or to a pipe.",
            request=True,
        ),
        Option(
            "timeout_seconds",
            float,
            None,
            "After how long it is stopped; default: never.",
            request=True,
            minimum=0.0,
        ),
        Option(
            "stop_grace_seconds",
            float,
            10.0,
            "How long after TERM what still runs is sent KILL.",
            minimum=0.0,
        ),
        Option(
            "linger_seconds",
            float,
            2.0,
            "How long after its end the output of what it left running is still taken.",
            minimum=0.0,
        ),
        Option("columns", int, 120, "The width of the pseudo-terminal.", minimum=1),
    )

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        cwd = settings["cwd"]
        if cwd is not None and not os.path.isdir(cwd):
            raise SourceError(f"the folder to run in does not exist: cwd is {cwd!r}")

    @classmethod
    def check_config(cls, configured: Mapping[str, Any]) -> None:
        """Refuse a user that commands can't be run as."""
        if configured["user"] is not None:
            _account(configured["user"])

    def title(self) -> str:
        """The command, as one would type it."""
        command = self.settings["command"]
        text = command if isinstance(command, str) else shlex.join(command)
        return " ".join(text.split())

    def run(self, control: Control) -> Generator[bytes, None, Ending]:
        """Yield the output until the command has ended; see `LogSource`."""
        try:
            started = self._start(control)
        except FileNotFoundError as error:
            return Ending(_NOT_FOUND, note=f"cannot run {error.filename!r}: {error.strerror}")
        except OSError as error:
            return Ending(_NOT_EXECUTABLE, note=f"cannot run {self.title()!r}: {error.strerror}")
        command = _RunningCommand(started, self.settings, control)
        try:
            return (yield from command.output())
        finally:
            command.close()

    def _start(self, control: Control) -> tuple[subprocess.Popen[bytes], int]:
        command = self.settings["command"]
        account = self._account()
        read_fd, write_fd = self._open_output()
        try:
            if account:  # else it could write there, but not open /dev/stdout
                os.fchown(write_fd, account.pw_uid, account.pw_gid)
            # To run what an operator asks for is the purpose; who may ask was checked before.
            process = subprocess.Popen(  # nosec B603
                command if isinstance(command, list) else ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                cwd=self.settings["cwd"],
                env=self._environment(control.deployment_id, account),
                start_new_session=True,
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=account and os.getgrouplist(account.pw_name, account.pw_gid),
            )
        except OSError:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        os.set_blocking(read_fd, False)
        return process, read_fd

    def _open_output(self) -> tuple[int, int]:
        if self.settings["tty"]:
            return _open_terminal(self.settings["columns"])
        read_fd, write_fd = os.pipe()
        if sys.platform == "linux":
            # Fewer, larger reads; a user over the kernel's limit for pipes keeps the small one.
            with contextlib.suppress(OSError):
                fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return read_fd, write_fd

    def _account(self) -> pwd.struct_passwd | None:
        return None if self.settings["user"] is None else _account(self.settings["user"])

    def _environment(self, deployment_id: str, account: pwd.struct_passwd | None) -> dict[str, str]:
        environment = {
            name: text
            for name, text in os.environ.items()
            if any(fnmatchcase(name, pattern) for pattern in self.settings["pass_env"])
            and not name.startswith(_OWN_VARIABLES)
        }
        if account:
            environment = _as_user(environment, account)
        if self.settings["tty"] and environment.get("TERM", "dumb") == "dumb":
            environment["TERM"] = "xterm-256color"
        environment.update(self.settings["env"] or {})
        environment.update(self.settings["secrets"] or {})
        environment[DEPLOYMENT_VARIABLE] = deployment_id
        return environment


def _account(user: str) -> pwd.struct_passwd:
    """The account to run as. Raises SourceError."""
    if os.geteuid() != 0:
        raise SourceError(
            f"only a server that is root can run commands as another user: user is {user!r}"
        )
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise SourceError(f"there is no such user on this machine: user is {user!r}") from None


def _as_user(environment: Mapping[str, str], account: pwd.struct_passwd) -> dict[str, str]:
    """The environment as it is in this account; the folders of XDG_* are root's own."""
    kept = {name: text for name, text in environment.items() if not name.startswith("XDG_")}
    name = account.pw_name
    return kept | {"HOME": account.pw_dir, "USER": name, "LOGNAME": name}


def _open_terminal(columns: int) -> tuple[int, int]:
    read_fd, write_fd = pty.openpty()
    attributes = termios.tcgetattr(write_fd)
    attributes[1] &= ~termios.OPOST  # LF stays LF: the log gets the bytes that the program wrote
    termios.tcsetattr(write_fd, termios.TCSANOW, attributes)
    fcntl.ioctl(write_fd, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    return read_fd, write_fd


def _open_pid_fd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # macOS; a sandbox that doesn't let it through
        return -1


class _RunningCommand:
    """A started command: its output, its deadlines, its end."""

    def __init__(
        self,
        started: tuple[subprocess.Popen[bytes], int],
        settings: Mapping[str, Any],
        control: Control,
    ) -> None:
        self.process, self.output_fd = started
        self.settings = settings
        self.control = control
        self.has_output = True
        self.timed_out = False
        self.done = False
        # Readable once the process has ended; without it (macOS) we look every now and then.
        self.pid_fd = _open_pid_fd(self.process.pid)
        timeout_seconds = settings["timeout_seconds"]
        self.timeout_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def output(self) -> Generator[bytes, None, Ending]:
        """Yield the output to the command's end, and what it left running a moment longer."""
        left: list[LeftProcess] = []
        self.control.started(self.process.pid)
        yield from self._until_exit()
        if not self.control.stopping and not self.timed_out:
            left = yield from self._linger()
        if self.control.stopping or self.timed_out:
            left = yield from self._end_all()
        self.done = True
        return self._ending(left)

    def close(self) -> None:
        """Close what is open; if the output isn't wanted to its end, end the command at once."""
        if not self.done:
            self._signal_all(signal.SIGKILL)
            self.process.wait()
        os.close(self.output_fd)
        if self.pid_fd >= 0:
            os.close(self.pid_fd)

    def _until_exit(self) -> Generator[bytes, None, None]:
        while self.process.poll() is None and not self.control.stopping:
            yield from self._wait(self._seconds_to_timeout(), self.pid_fd)
            if self.timeout_at is not None and time.monotonic() >= self.timeout_at:
                self.timed_out = self.process.poll() is None
                return

    def _seconds_to_timeout(self) -> float | None:
        seconds = None if self.pid_fd >= 0 else _CHECK_SECONDS
        if self.timeout_at is not None:
            left = max(0.0, self.timeout_at - time.monotonic())
            seconds = left if seconds is None else min(seconds, left)
        return seconds

    def _linger(self) -> Generator[bytes, None, list[LeftProcess]]:
        """After the command's end: what others still print, for a while."""
        linger_until = time.monotonic() + self.settings["linger_seconds"]
        while self.has_output and time.monotonic() < linger_until and not self.control.stopping:
            yield from self._wait(linger_until - time.monotonic())
        # What is there by now was printed in time. A pipe's worth: who prints on would never end.
        for _ in range(_PIPE_BYTES // _READ_BYTES):
            if not self.has_output or not (piece := self._read()):
                break
            yield piece
        settled_at = time.monotonic() + _SETTLE_SECONDS
        while (left := self.control.left_running()) and time.monotonic() < settled_at:
            yield from self._wait(_CHECK_SECONDS / 5)
        return left

    def _end_all(self) -> Generator[bytes, None, list[LeftProcess]]:
        """TERM to all, KILL after the grace, until nothing runs. What is printed is still taken."""
        self._signal_all(signal.SIGTERM)
        self._signal_all(signal.SIGCONT)  # a stopped process hears of nothing before
        kill_at = time.monotonic() + self.settings["stop_grace_seconds"]
        while left := self.control.left_running():
            now = time.monotonic()
            if now > kill_at + _UNKILLABLE_SECONDS:
                return left
            if now >= kill_at:
                self._signal_all(signal.SIGKILL)
            yield from self._wait(
                _CHECK_SECONDS, self.pid_fd if self.process.poll() is None else -1
            )
        while (piece := self._read()) is not None and piece:
            yield piece
        return []

    def _signal_all(self, number: signal.Signals) -> None:
        """To the whole group, and to those below us that have left it."""
        # Once its leader was waited for, the group's number may be another's.
        group = self.process.pid if self.process.poll() is None else None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group is not None:
                os.killpg(group, number)
        for process in self.control.left_running():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(process.pid) != group:
                    os.kill(process.pid, number)

    def _wait(self, seconds: float | None, pid_fd: int = -1) -> Generator[bytes, None, None]:
        """Wait for output, for `pid_fd`, or for the time to pass; yield output if there is some."""
        fds = [fd for fd in (self.output_fd if self.has_output else -1, pid_fd) if fd >= 0]
        if self.output_fd in self.control.wait(seconds, fds) and (piece := self._read()):
            yield piece

    def _read(self) -> bytes | None:
        """What is there to read, up to a bound; None for nothing, and at the end."""
        pieces: list[bytes] = []
        room = _READ_BYTES
        try:
            # A terminal gives 4 KiB at a time at most; one write for many reads is what pays.
            while room > 0 and (piece := os.read(self.output_fd, room)):
                pieces.append(piece)
                room -= len(piece)
            self.has_output = room <= 0
        except BlockingIOError:
            pass
        except OSError:  # EIO: nobody has the terminal open any more
            self.has_output = False
        return b"".join(pieces) if pieces else None

    def _ending(self, left: Sequence[LeftProcess]) -> Ending:
        status = self.process.poll()
        name = None
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-status).name
            status = 128 - status
        return Ending(status, name, self.timed_out, self._note(left), tuple(left))

    def _note(self, left: Sequence[LeftProcess]) -> str:
        notes = []
        if self.timed_out:
            notes.append(f"Stopped after its timeout of {self.settings['timeout_seconds']:g} s.")
        if left:
            names = ", ".join(f"{process.pid} ({process.command})" for process in left)
            verb = "could not be ended" if self.timed_out or self.control.stopping else "still run"
            if self.has_output and verb == "still run":
                verb += ", and what they print is no longer taken"
            notes.append(f"Processes that it started {verb}: {names}.")
        return " ".join(notes)
