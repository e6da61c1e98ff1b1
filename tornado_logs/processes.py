"""What the kernel knows of processes: who runs, whose child it is, what it was started with.

Read from /proc, or from ps(1) where there is no /proc.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_MAX_COMMAND_CHARS = 200


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as it was a moment ago."""

    pid: int
    parent_pid: int
    is_zombie: bool


def become_subreaper() -> None:
    """Let orphaned descendants become our children, so that none escapes by daemonising."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root_pid: int) -> list[Process]:
    """All processes below `root_pid`, zombies too; parents come before their children."""
    children: dict[int, list[Process]] = {}
    for process in _all_processes():
        children.setdefault(process.parent_pid, []).append(process)
    found: list[Process] = []
    waiting = [root_pid]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def living_children() -> list[int]:
    """Our children that have not ended, by one short look; none where the kernel can't tell."""
    pids = _proc_file(os.getpid(), f"task/{os.getpid()}/children").split()
    return [int(pid) for pid in pids if not has_ended(int(pid))]


def session_of(leader_pid: int) -> list[int]:
    """The processes of this session."""
    return [pid for pid in _proc_pids() if _stat(pid)[3:4] == [b"%d" % leader_pid]]


def with_descendants(pids: Collection[int]) -> list[int]:
    """These and all processes below them that have not ended, sorted."""
    found = set(pids)
    for pid in pids:
        found.update(process.pid for process in descendants(pid))
    return sorted(pid for pid in found if not has_ended(pid))


def with_variable(name: str, value: str) -> list[int]:
    """The processes that were started with this environment variable; ours alone to read."""
    return [pid for pid in _proc_pids() if has_variable(pid, name, value)]


def has_variable(pid: int, name: str, value: str) -> bool:
    """Whether a process was started with this variable; not once it has ended."""
    return f"{name}={value}".encode() in _proc_file(pid, "environ").split(b"\0")


def command_of(pid: int, mask: Callable[[str], str] = str) -> str:
    """The command line of a process, masked and then shortened; empty if it is gone."""
    if _has_proc():
        line = _proc_file(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")
    else:
        line = _ps("-o", "command=", "-p", str(pid))
    return mask(line.strip())[:_MAX_COMMAND_CHARS]


def program_of(pid: int) -> str:
    """The name of the program that a process runs, without what it was told; empty if unknown.

    Of its file, not of its command line: a process can write there whatever it likes.
    """
    if not _has_proc():
        return os.path.basename(_ps("-o", "comm=", "-p", str(pid)).strip())
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:  # gone meanwhile, or somebody else's
        return ""


def _all_processes() -> Iterator[Process]:
    if not _has_proc():
        for line in _ps("-axo", "pid=,ppid=,stat=").splitlines():
            pid_text, parent_text, state_text = line.split()[:3]
            yield Process(int(pid_text), int(parent_text), state_text.startswith("Z"))
        return
    for pid in _proc_pids():
        if fields := _stat(pid):
            yield Process(pid, int(fields[1]), fields[0] == b"Z")


def _stat(pid: int) -> list[bytes]:
    """State, parent, group, session and so on; empty if it is gone."""
    # proc(5): "pid (name) state ppid ...", where the name may hold anything, ")" too.
    return _proc_file(pid, "stat").rpartition(b")")[2].split()


def has_ended(pid: int) -> bool:
    """Whether it is gone, or a zombie that nobody has waited for yet."""
    return _stat(pid)[:1] in ([], [b"Z"])


def _has_proc() -> bool:
    return os.path.exists("/proc/self/stat")


def _proc_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:  # there is none, or too many files are open
        return []


def _proc_file(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # gone meanwhile, or somebody else's
        return b""


def _ps(*args: str) -> str:
    # The arguments are ours, and PATH is that of whoever started the server.
    command = ["ps", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ps:  # nosec B603
        lines = ps.communicate()[0].splitlines(keepends=True)
    # It is a child of ours, and sees itself.
    return "".join(line for line in lines if line.split()[:1] != [str(ps.pid)])
