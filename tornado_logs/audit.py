"""Who did what: one line of JSON for each start, stop, share and sign-in, added to one file.

audit = Audit("data/.access/audit.jsonl")
audit.add("start", {"user": "alice", "address": "10.0.0.1"}, deployment="20261122-104159-k3f9qd")
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from tornado_logs.deployment import timestamp
from tornado_logs.disk import reason
from tornado_logs.tokens import private_folder

_MAX_ENTRY_BYTES = 65536
_TAIL_BYTES = 4 * 1024 * 1024

logger = logging.getLogger("tornado_logs")


class Audit:
    """The file, which is only ever added to. All workers add to the same."""

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, action: str, by: Mapping[str, Any], **what: Any) -> None:
        """Put down that somebody did something; in the server's log where the file can't be."""
        entry = {"time": timestamp(), "action": action, **by, **what}
        data = json.dumps(entry).encode()
        if len(data) > _MAX_ENTRY_BYTES:  # the record has it all
            entry["request"] = "too long to stand here; see the record"
            data = json.dumps(entry).encode()
        try:
            os.close(private_folder(os.path.dirname(self._path)))
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _add_line(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            logger.error(
                "cannot add to the audit file: %s; the entry: %s", reason(error), data.decode()
            )

    def last(self, count: int) -> list[dict[str, Any]]:
        """The newest entries (those in the last 4 MiB), newest first."""
        try:
            with open(self._path, "rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(start)
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        entries: list[dict[str, Any]] = []
        for line in reversed(lines[1:] if start else lines):
            if len(entries) == count:
                break
            with contextlib.suppress(ValueError, RecursionError):  # cut by a full disk
                if isinstance(entry := json.loads(line), dict):
                    entries.append(entry)
        return entries


def _add_line(fd: int, data: bytes) -> None:
    """Raises OSError, also where it could be written only in part."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":  # after one that was cut by a full disk
        data = b"\n" + data
    data += b"\n"
    if os.write(fd, data) < len(data):  # at once, so that entries of two workers never mingle
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
