"""The command line: `tornado-logs serve`.

Exit status: 0 after TERM or INT, 100 for a usage or config error, 111 where the system refuses,
each with one sentence on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import errno
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from typing import NoReturn

from tornado.httpserver import HTTPServer
from tornado.log import enable_pretty_logging
from tornado.netutil import bind_sockets

from tornado_logs import __version__
from tornado_logs.app import Services, make_app
from tornado_logs.config import Config, ConfigError, read_config
from tornado_logs.registry import RegistryError

EXIT_USAGE = 100
EXIT_SYSTEM = 111
_MOST_DESCRIPTORS = 65536


class SystemRefusalError(Exception):
    """The system refuses what the server needs. The message says what and why."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"tornado-logs: {message}; try: tornado-logs --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tornado-logs", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"tornado-logs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument(
        "--config", metavar="FILE", help="default: tornado_logs.toml, if it is there"
    )
    serve.add_argument("--host", metavar="HOST", help="the loopback address or name to listen on")
    serve.add_argument("--port", metavar="N", type=int, help="the port; 0: any free one")
    serve.add_argument("--data-dir", metavar="DIR", help="the folder for logs and records")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    args = _parser().parse_args(argv)
    try:
        flags = {"host": args.host, "port": args.port, "data_dir": args.data_dir}
        config = read_config(args.config, os.environ, flags)
        check_host(config.host)
        services = Services(config)
    except (ConfigError, RegistryError) as error:
        print(f"tornado-logs: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        asyncio.run(_serve(config, services))
    except SystemRefusalError as error:
        print(f"tornado-logs: {error}", file=sys.stderr)
        return EXIT_SYSTEM
    return 0


def check_host(host: str) -> None:
    """Refuse any address that other machines can reach. Raises ConfigError."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost":
        raise ConfigError(
            f"host: expected a loopback address (localhost, 127.0.0.1, ::1), found {host!r}; "
            "whoever reaches this server can run commands, and it has no access control yet"
        )


async def _serve(config: Config, services: Services) -> None:
    check_data_dir(config.data_dir)
    sockets = _bind(config)
    enable_pretty_logging()
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    services.start()
    # After the fork server has started: commands shall get the limit that this shell had.
    _raise_descriptor_limit()
    _keep_freed_memory()
    server = HTTPServer(
        make_app(services),
        max_header_size=65536,
    )
    server.add_sockets(sockets)
    print(f"tornado-logs {__version__} at {_url(config.host, sockets)}", flush=True)
    await stopped.wait()
    server.stop()
    services.close()
    await server.close_all_connections()


def check_data_dir(data_dir: str) -> None:
    """Make the folder if need be, and see that it can be written. Raises SystemRefusalError."""
    try:
        os.makedirs(data_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise SystemRefusalError(
            f"cannot write to the data folder {data_dir}: {error.strerror}; "
            "name another with --data-dir"
        ) from error


def _bind(config: Config) -> list[socket.socket]:
    try:
        return bind_sockets(config.port, config.host, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = ""
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            reason, hint = "the port is taken", "; name another with --port, or 0 for any free one"
        raise SystemRefusalError(
            f"cannot listen on {config.host}:{config.port}: {reason}{hint}"
        ) from error


def _url(host: str, sockets: Sequence[socket.socket]) -> str:
    port = sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _keep_freed_memory() -> None:
    """Have malloc keep what a block's buffers took, instead of handing it back each time.

    glibc gives buffers this large to the system and takes fresh pages for the next, block by block;
    that alone took four fifths of the time of a replay in batches. See mallopt(3).
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 4 * 1024 * 1024)
        libc.mallopt(m_trim_threshold, 8 * 1024 * 1024)


def _raise_descriptor_limit() -> None:
    """A viewer is a descriptor: take as many as the system allows this user."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        # Where there is no hard limit, the system may still have one that it doesn't tell.
        wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
