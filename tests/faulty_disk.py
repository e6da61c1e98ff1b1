"""A disk that fails when a test says so, for a server and all its processes (see faulty_disk.c).

disk = FaultyDisk(folder, build(folder), str(server.data_dir))
server.environment = disk.environment    # before it starts
disk.fail(errno.ENOSPC, first=3)         # the third call that writes there, and all after it
disk.mend()
"""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path

OPEN_TO_WRITE, OPEN_TO_READ, WRITE, NAME, SYNC, ROOM, FORK = (1 << bit for bit in range(7))
WRITES = OPEN_TO_WRITE | WRITE | NAME | ROOM
SHORT = -1
"""Instead of an error: a write takes half of what it is given."""

FOR_EVER = 1 << 40
_SOURCE = Path(__file__).with_name("faulty_disk.c")
_PLAN = struct.Struct("@iiqqqqI256s")
_HITS_AT = 32
_BYTES = 4096


def build(folder: Path) -> Path:
    """Compile what is preloaded into the processes."""
    library = folder / "faulty_disk.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run(["cc", *flags, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


class FaultyDisk:
    """What is at paths with `match` in them; sound until `fail` is called."""

    def __init__(self, folder: Path, library: Path, match: str) -> None:
        path = folder / "faulty_disk.plan"
        path.write_bytes(bytes(_BYTES))
        self.environment = {"LD_PRELOAD": str(library), "FAULTY_DISK_PLAN": str(path)}
        self._match = match
        with path.open("r+b") as file:
            self._plan = mmap.mmap(file.fileno(), _BYTES)

    def fail(
        self,
        error: int,
        kinds: int = WRITES,
        first: int = 1,
        last: int = FOR_EVER,
        match: str | None = None,
    ) -> None:
        """Have the calls of these kinds fail, from the `first` on to the `last`, by this errno.

        As on a real disk, ENOSPC spares what only overwrites.
        """
        self.mend()
        path = (match or self._match).encode()
        _PLAN.pack_into(self._plan, 0, 0, error, first, last, 0, 0, kinds, path)
        struct.pack_into("@i", self._plan, 0, 1)

    def mend(self) -> None:
        """Have nothing fail any more."""
        struct.pack_into("@i", self._plan, 0, 0)

    @property
    def hits(self) -> int:
        """How many calls have failed since `fail`."""
        return int(struct.unpack_from("@q", self._plan, _HITS_AT)[0])
