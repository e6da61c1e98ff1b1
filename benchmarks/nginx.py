"""nginx serving a folder of static files, to compare with: one worker, sendfile, nothing else.

with Nginx(folder) as nginx:
    ... GET http://127.0.0.1:{nginx.port}/{name}
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.system import SERVER_CPU, program

MISSING = "nginx isn't installed (on Debian: apt install nginx-light)"
_START_SECONDS = 10.0
_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""


def is_installed() -> bool:
    """Whether there is an nginx to compare with."""
    return program("nginx") is not None


class Nginx:
    """A process of nginx on the server's processor, until the end of the `with` block."""

    def __init__(self, root: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tornado-logs-nginx-")
        folder = Path(self._folder.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, port=self.port, root=root))
        self._command = [program("nginx") or "nginx", "-p", str(folder), "-c", str(config)]
        self._command += ["-e", str(folder / "error.log")]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CPU})
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()
