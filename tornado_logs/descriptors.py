"""Whether descriptors are left, for whom.

The system lets a process have so many open at a time (RLIMIT_NOFILE, `ulimit -n`): connections,
logs, pipes to `grep`. Who comes last must not take what those before still need, so connections
leave a reserve, and viewers, who open logs, half of it: what is left then is for records and pipes.

How many are open needs no counting: the system gives the lowest number that is free (POSIX, 2.14),
so where that is `n`, at least n descriptors are open.
"""

from __future__ import annotations

import os
import resource

_RESERVE_SHARE = 8
_LEAST_RESERVE, _MOST_RESERVE = 32, 1024


def reserve() -> int:
    """How many of them connections leave free."""
    return max(_LEAST_RESERVE, min(_limit() // _RESERVE_SHARE, _MOST_RESERVE))


def is_for_a_connection(fd: int) -> bool:
    """Whether a connection may keep this descriptor, which it was just given."""
    return fd < _limit() - reserve()


def has_room_for_a_viewer() -> bool:
    """Whether one more viewer may open a log."""
    try:
        fd = os.dup(0)
    except OSError:
        return False
    os.close(fd)
    return fd < _limit() - reserve() // 2


def _limit() -> int:
    # Asked for each time: it can be changed from outside, by prlimit(1).
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30
