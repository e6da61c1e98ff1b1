"""What the benchmarks ask of the system: processors, descriptors, and what processes use.

All figures come from Linux's /proc: see proc(5).
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

_CPUS = sorted(os.sched_getaffinity(0))
_TICKS = os.sysconf("SC_CLK_TCK")

SERVER_CPU = _CPUS[0]
"""Where a server that is measured runs, alone."""

LOAD_CPU = _CPUS[-1]
"""Where the load comes from: another processor, if there is one."""


def pin(cpu: int) -> None:
    """Keep this process, and those that it starts from now on, on one processor."""
    os.sched_setaffinity(0, {cpu})


def raise_descriptor_limit() -> None:
    """A viewer is a descriptor: take as many as the system allows this user."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """The most descriptors that a process of this user can have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def tree(roots: Iterable[int]) -> set[int]:
    """The processes that these pids name, and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, fields in _all_stats():
        children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """The processor time that the threads of these processes have had."""
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    try:
        threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
        nanoseconds = [int(thread.read_text().split()[0]) for thread in threads]
    except (OSError, ValueError):  # one of them has just ended
        nanoseconds = []
    if nanoseconds:
        return sum(nanoseconds) / 1e9
    # Without scheduling statistics in the kernel: in ticks of 10 ms.
    return sum(int(text) for text in _stat(pid)[11:13]) / _TICKS


def resident_bytes(pids: Iterable[int]) -> int:
    """The resident memory of these processes; what they share counts for each of them."""
    return sum(_kilobytes(pid, "status", "VmRSS") for pid in pids) * 1024


def proportional_bytes(pids: Iterable[int]) -> int:
    """The memory of these processes, what is shared divided by those who share it (PSS)."""
    return sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in pids) * 1024


def program(name: str) -> str | None:
    """The path of a program, also where only root looks; None if it isn't installed."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def _all_stats() -> Iterable[tuple[int, list[bytes]]]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and (fields := _stat(int(name))):
            yield int(name), fields


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; none once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _kilobytes(pid: int, file: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
