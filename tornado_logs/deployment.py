"""The record of a deployment, its states, its id, and how to tell whether it is still running.

    record = read_record("data/20261122-104159-k3f9qd.json")
    record.state, record.exit_status

A record is one JSON object in one file, replaced atomically: by the server that creates it, then by
the capture process alone, and by a server again once the capture process has died.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tornado_logs.disk import write_atomically

ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # sorted; nothing that is mistyped: no 0 1 i l o
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_OUR_ID = re.compile(r"\d{8}-\d{6}-", re.ASCII)
_JUST_WRITTEN_SECONDS = 2.0
_MAX_NAME_CHARS = 300


class State(StrEnum):
    """Where a deployment stands. All but the first two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    LOST = "lost"  # its capture process died: how the command ended is not known
    FINISHED = "finished"  # a bare log that nobody writes any more: no exit status was ever known

    @property
    def is_final(self) -> bool:
        """Whether nothing more will be written to the log."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(slots=True)
class Record:
    """What was asked, by whom, and what became of it. Times are ISO 8601 in UTC."""

    id: str
    name: str = ""
    source: str = ""
    type: str = ""
    state: State = State.QUEUED
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    request: dict[str, Any] | None = None  # the options asked for; None for a bare log
    settings: dict[str, Any] = field(default_factory=dict)  # all options, those of the config too
    requested_by: dict[str, Any] | None = None
    stopped_by: dict[str, Any] | None = None
    exit_status: int | None = None
    signal: str | None = None
    note: str = ""
    error: str = ""
    # Where the log ends although there was more, and how much more, which could not be written.
    unwritten_from: int | None = None
    unwritten_bytes: int = 0
    log_bytes: int | None = None  # of the log at its end: one that has fewer now was cut since
    left_running: list[dict[str, Any]] = field(default_factory=list)
    exclusive: str = ""  # of those of one name, one runs at a time
    max_log_bytes: int | None = None  # None: without a limit
    # How much of the log was dropped, at least: what the file tells counts, but a copy of it may
    # have lost its hole. None where nothing is ever dropped.
    dropped_bytes: int | None = None
    has_secrets: bool = False  # which this record, its log and what is said of it don't show
    capture_pid: int | None = None
    # With its start (see `process_start`) a pid names one process for good, should it be reused.
    capture_started: int | None = None
    pid: int | None = None  # of the command, which leads a session of its own
    pid_started: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON object on disk."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Raises ValueError if `data` isn't a record. What a later version added is left out."""
        if not isinstance(data, dict) or not isinstance(data.get("id"), str):
            raise ValueError("not a record: a JSON object with an id was expected")
        record = cls(id=data["id"])
        for name, types in _FIELD_TYPES.items():
            value = data.get(name, getattr(record, name))
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise ValueError(f"not a record: {name} is {value!r}")
            setattr(record, name, value)
        record.state = State(record.state)
        return record


_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    name: tuple(get_origin(part) or part for part in (get_args(hint) or (hint,)))
    if get_origin(hint) is UnionType
    else (get_origin(hint) or hint,)
    for name, hint in get_type_hints(Record).items()
} | {"state": (str,)}


def new_id() -> str:
    """An id that sorts by time to the millisecond, is hard to guess, and can be typed."""
    now = time.time()
    fraction = int(now % 1 * len(ID_ALPHABET) ** 2)  # two letters hold it, as digits of base 31
    letters = [ID_ALPHABET[digit] for digit in divmod(fraction, len(ID_ALPHABET))]
    letters += [secrets.choice(ID_ALPHABET) for _ in range(6)]
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + "".join(letters)


def is_id(text: str) -> bool:
    """Whether `text` can be an id: of ours, or the name of a bare log. No path passes."""
    return _ID.fullmatch(text) is not None


def created_at_of(deployment_id: str) -> str | None:
    """When an id of ours was made, to the second; None for another's."""
    if not _OUR_ID.match(deployment_id):
        return None
    day, time_of_day = deployment_id[:8], deployment_id[9:15]
    hours, minutes, seconds = time_of_day[:2], time_of_day[2:4], time_of_day[4:]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{hours}:{minutes}:{seconds}.000Z"


def short_line(text: str) -> str:
    """`text` on one line and short enough to be shown in a list."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_NAME_CHARS else line[: _MAX_NAME_CHARS - 1] + "…"


def timestamp(seconds: float | None = None) -> str:
    """ISO 8601 in UTC with milliseconds; of now, or of `seconds` since 1970."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_record(path: str) -> Record:
    """Raises OSError (FileNotFoundError), or ValueError for a file that isn't its record."""
    with open(path, "rb") as file:
        try:
            record = Record.from_json(json.loads(file.read()))
        except RecursionError:
            raise ValueError("not a record: nested too deeply") from None
    if f"{record.id}.json" != os.path.basename(path):
        raise ValueError(f"the record of another deployment: {record.id!r}")
    return record


def write_record(path: str, record: Record) -> None:
    """Replace the record atomically: a reader sees the old one or the new one, whole."""
    write_atomically(path, record_bytes(record))


def record_bytes(record: Record) -> bytes:
    """The record as it stands in its file."""
    return json.dumps(record.to_json(), indent=1).encode() + b"\n"


def hold(log_fd: int) -> None:
    """Take the lock that says "this log is being captured", for the life of the descriptor."""
    fcntl.flock(log_fd, fcntl.LOCK_EX)


def is_held(log_path: str) -> bool:
    """Whether a capture process holds this log: it lives. The kernel lets go when it dies."""
    try:
        fd = os.open(log_path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at the same time don't take each other for a capture process.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_being_written(log_path: str) -> bool:
    """Whether somebody has a bare log open for writing, or has just written to it."""
    try:
        fd = os.open(log_path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # A clock set back puts the last write in the future, hence abs().
        just_written = abs(time.time() - os.fstat(fd).st_mtime) < _JUST_WRITTEN_SECONDS
        return just_written or _has_writer(fd)
    finally:
        os.close(fd)


def _has_writer(fd: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        # Whoever opens the file while we hold the lease has it broken by this signal; SIGIO, the
        # default, would end the process. SIGURG is ignored unless somebody handles it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # not our file, or a file system without leases: the time of writing decides
        return False
    return False


def process_start(pid: int) -> int | None:
    """When the process began, in ticks since boot; with its pid it names a process for good.

    None where there is no such process, or no /proc.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def exit_state(*, stopping: bool, timed_out: bool, exit_status: int | None) -> State:
    """The final state of a source that came to its end."""
    if timed_out:
        return State.TIMED_OUT
    if stopping:
        return State.STOPPED
    return State.SUCCEEDED if not exit_status else State.FAILED


def _cut_note(ended_with_bytes: int | None, log_bytes: int) -> str:
    return (
        f"The log was cut since it ended, by a power loss or by somebody: of {ended_with_bytes:,} "
        f"bytes it has the first {log_bytes:,}."
    )


def summary(record: Record, log_bytes: int, dropped_bytes: int | None) -> Mapping[str, Any]:
    """The record as clients get it: with its log's size, without what only the server needs.

    `log_bytes` counts what was dropped of its oldest part, too; `dropped_bytes` is None for a log
    that never drops any.
    """
    data = record.to_json()
    for name in ("capture_started", "pid_started", "settings"):
        del data[name]
    data["log_bytes"] = log_bytes
    data["lost_bytes"] = max(0, (record.log_bytes or 0) - log_bytes)
    if data["lost_bytes"]:
        data["error"] = f"{record.error} {_cut_note(record.log_bytes, log_bytes)}".lstrip()
    data["dropped_bytes"] = dropped_bytes
    data["can_stop"] = not record.state.is_final or bool(
        record.state is State.LOST and record.left_running
    )
    if record.request is None:
        data["can_stop"] = False
    return data
