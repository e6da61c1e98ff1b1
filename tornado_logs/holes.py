"""Drops the beginning of a file, and tells what is left of it. All offsets stay what they were.

    punch(fd, 0, 1024 * 1024)
    data_from(fd, 0)                    # 1048576

The dropped part is a hole: it takes no room, is read as zeros, and the file's size is unchanged.
Linux alone can do it (fallocate(2)), on ext4, XFS, btrfs, tmpfs and some more.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from typing import Any, cast

_KEEP_SIZE = 1
_PUNCH_HOLE = 2


def punch(fd: int, start: int, end: int) -> None:
    """Give back the room from `start` to `end`, both at the borders of blocks. Raises OSError.

    Where the system can't, or where it could but doesn't tell what is left, with EOPNOTSUPP.
    """
    fallocate = _fallocate()
    while fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, start, end - start):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    if data_from(fd, start) < end:  # it has overwritten them with zeros
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def data_from(fd: int, offset: int) -> int:
    """The first offset from `offset` on that is in no hole; the file's size if there is none.

    A file system that knows no holes says that all is data. The descriptor's position moves.
    """
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(fd).st_size
        if error.errno == errno.EINVAL:
            return offset
        raise


@cache
def _fallocate() -> Callable[..., Any]:
    library = ctypes.CDLL(None, use_errno=True)
    # The one for large files, where that has a name of its own.
    function: Any = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return cast(Callable[..., Any], function)
