r"""From a file to a socket: the kernel passes its own pages on, and no byte comes by here.

    sent_bytes = send_file(sock, fd, 0, 262144, b"40000\r\n", b"\r\n")

For bytes that nobody changes any more: what is on its way shows what becomes of the file's pages.
"""

from __future__ import annotations

import contextlib
import os
import socket

PIECE_BYTES = 128 * 1024
"""How much is passed on at a time; with half or twice as much, a replay was slower."""

_MORE = getattr(socket, "MSG_MORE", 0)  # Linux: what comes next shares a segment


def send_file(
    sock: socket.socket, fd: int, offset: int, count: int, head: bytes = b"", tail: bytes = b""
) -> int:
    """Send `head`, `count` bytes of the file from `offset` on, `tail`: what is taken at once.

    How many bytes of the three that was. Fewer than all also where the file ends before, or its
    file system doesn't know how; a fault of the socket, its owner finds with the next write.
    """
    body_end = len(head) + count
    sent_bytes = 0
    with contextlib.suppress(OSError):
        if head:
            sent_bytes = sock.send(head, _MORE)
        while len(head) <= sent_bytes < body_end:
            at = offset + sent_bytes - len(head)
            passed_bytes = os.sendfile(sock.fileno(), fd, at, body_end - sent_bytes)
            if not passed_bytes:
                break
            sent_bytes += passed_bytes
        if sent_bytes == body_end and tail:
            sent_bytes += sock.send(tail, _MORE)
    return sent_bytes
