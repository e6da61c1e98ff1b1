"""The command line: `tornado-logs serve`, and `tornado-logs token` for who may use it.

Exit status: 0 after TERM or INT, 100 for a usage or config error, 111 where the system refuses,
the last two with one sentence on stderr. A second TERM or INT ends at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from tornado.log import enable_pretty_logging
from tornado.netutil import bind_sockets

from tornado_logs import __version__
from tornado_logs.access import ACCESS_FOLDER, AUDIT_FILE, TOKENS_FILE
from tornado_logs.app import Services, make_app
from tornado_logs.audit import Audit
from tornado_logs.config import Config, ConfigError, read_config
from tornado_logs.connections import Connections
from tornado_logs.deployment import timestamp
from tornado_logs.http_server import DrainingServer
from tornado_logs.registry import RegistryError
from tornado_logs.tokens import Role, TokenError, TokenFile
from tornado_logs.workers import Supervisor, Worker, bind_workers

EXIT_USAGE = 100
EXIT_SYSTEM = 111
_MOST_DESCRIPTORS = 65536
_MAX_TOKEN_DAYS = 36500
_STOPS = (signal.SIGTERM, signal.SIGINT)
# What a stranger may send. A request to start something has a limit of its own.
_MAX_FORM_BYTES = 65536
# Those of a worker that are none of its requests' concern: it is killed if it takes longer.
_ENDING_SECONDS = 5.0


class SystemRefusalError(Exception):
    """The system refuses what the server needs. The message says what and why."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"tornado-logs: {message}; try: tornado-logs --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tornado-logs", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"tornado-logs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _Parser(add_help=False)
    common.add_argument(
        "--config", metavar="FILE", help="default: tornado_logs.toml, if it is there"
    )
    common.add_argument("--data-dir", metavar="DIR", help="the folder for logs and records")
    serve = commands.add_parser("serve", help="run the server", parents=[common])
    serve.add_argument("--host", metavar="HOST", help="the loopback address or name to listen on")
    serve.add_argument("--port", metavar="N", type=int, help="the port; 0: any free one")
    serve.add_argument("--workers", metavar="N", type=int, help="how many processes serve; 1")
    _add_token_commands(commands, common)
    return parser


def _add_token_commands(commands: Any, common: _Parser) -> None:
    token = commands.add_parser("token", help="make, list and revoke tokens")
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a token; it is shown once", parents=[common])
    create.add_argument("name", metavar="NAME", nargs="?", help="whose it is; default: its role")
    create.add_argument("--role", choices=list(Role), required=True, help="what it lets do")
    create.add_argument("--days", metavar="N", type=float, help="after which it ends; never")
    create.add_argument(
        "--url", metavar="URL", help="the server's address: shows a link to sign in with"
    )
    actions.add_parser("list", help="list the tokens", parents=[common])
    revoke = actions.add_parser("revoke", help="end a token and its sessions", parents=[common])
    revoke.add_argument("name", metavar="NAME", help="its name or its id")


def _change_tokens(args: argparse.Namespace, config: Config) -> int:
    """Raises TokenError."""
    access_dir = os.path.join(os.path.abspath(config.data_dir), ACCESS_FOLDER)
    tokens = TokenFile(os.path.join(access_dir, TOKENS_FILE))
    audit, by = Audit(os.path.join(access_dir, AUDIT_FILE)), {"via": "command line"}
    if args.action == "list":
        for token in tokens.all():
            until = "never ends" if token.expires_at is None else timestamp(token.expires_at)
            created = timestamp(token.created_at)
            print(f"{token.id}  {token.role:8}  {created}  {until}  {token.name}")
    elif args.action == "revoke":
        token = tokens.revoke(args.name)
        audit.add("token revoke", by, token=token.id, name=token.name)
        print(f"revoked the token {token.name}; its sessions and share links have ended with it")
    else:
        if args.days is not None and not 0 < args.days <= _MAX_TOKEN_DAYS:
            raise TokenError(
                f"--days: expected a number up to {_MAX_TOKEN_DAYS}, found {args.days}"
            )
        seconds = None if args.days is None else args.days * 86400
        token, text = tokens.create(args.name or args.role, Role(args.role), seconds)
        audit.add("token create", by, token=token.id, name=token.name, role=token.role)
        print(text)
        print(_how_to_use(text, args.url), file=sys.stderr)
    return 0


def _how_to_use(text: str, url: str | None) -> str:
    """What to say beside a new token; on stderr, so that a script gets the token alone."""
    if url:
        return f"Shown only this once. To sign in, open {url.rstrip('/')}/login#{text}"
    return "Shown only this once. Sign in with it at /login, or send Authorization: Bearer TOKEN."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    args = _parser().parse_args(argv)
    try:
        names = ("host", "port", "data_dir", "workers")
        flags = {name: getattr(args, name, None) for name in names}
        config = read_config(args.config, os.environ, flags)
        if args.command == "token":
            return _change_tokens(args, config)
        services = Services(config)
        services.access.check_host()
    except (ConfigError, RegistryError, TokenError) as error:
        print(f"tornado-logs: {error}", file=sys.stderr)
        is_refused = isinstance(error, TokenError) and isinstance(error.__cause__, OSError)
        return EXIT_SYSTEM if is_refused else EXIT_USAGE
    try:
        return _serve(config, services)
    except SystemRefusalError as error:
        print(f"tornado-logs: {error}", file=sys.stderr)
        return EXIT_SYSTEM


def _serve(config: Config, services: Services) -> int:
    check_data_dir(config.data_dir)
    enable_pretty_logging()
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    if config.workers == 1:
        sockets = _bind(config)
        tell = partial(_tell, config, sockets)
        asyncio.run(_serve_requests(services, services.start, sockets, tell))
        return 0
    shared = bind_workers(partial(_bind, config), config.workers)
    serve = partial(_run_worker, services, timestamp())
    stop_seconds = config.shutdown_seconds + _ENDING_SECONDS
    return Supervisor(shared, serve, partial(_tell, config, shared[0]), stop_seconds).run()


def _tell(config: Config, sockets: Sequence[socket.socket]) -> None:
    print(f"tornado-logs {__version__} at {_url(config.host, sockets)}", flush=True)


def _run_worker(services: Services, served_since: str, worker: Worker) -> int:
    """In a process of its own. The first worker alone starts what is to be started by itself."""
    begin = partial(
        services.start,
        autostarts=worker.number == 0,
        since=served_since if worker.is_successor else None,
    )
    services_of = partial(_serve_requests, services, begin, worker.sockets, worker.tell_ready)
    try:
        asyncio.run(services_of(worker.life_fd))
    except SystemRefusalError as error:
        print(f"tornado-logs: {error}", file=sys.stderr)
        return EXIT_SYSTEM
    return 0


async def _serve_requests(
    services: Services,
    begin: Callable[[], None],
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
    life_fd: int | None = None,
) -> None:
    """Until TERM or INT, or until `life_fd` becomes readable."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    # A ^C goes to all processes of a terminal: the supervisor hears it too, and tells the workers.
    is_worker = life_fd is not None
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if is_worker else stopped.set)
    if life_fd is not None:
        loop.add_reader(life_fd, stopped.set)
    begin()
    # After the fork server has started: commands shall get the limit that this shell had.
    _raise_descriptor_limit()
    _keep_freed_memory()
    server = DrainingServer(
        make_app(services),
        max_header_size=65536,
        max_body_size=_MAX_FORM_BYTES,
        idle_connection_timeout=services.config.header_seconds,
        body_timeout=services.config.body_seconds,
    )
    connections = Connections(server, sockets, services.config.stall_seconds)
    connections.start()
    on_ready()
    await stopped.wait()
    if life_fd is not None:
        loop.remove_reader(life_fd)
    _end_at_once_if_told_again(loop, (signal.SIGTERM,) if is_worker else _STOPS)
    await _end(server, connections, services)


async def _end(server: DrainingServer, connections: Connections, services: Services) -> NoReturn:
    """Answer what was asked by now, within `shutdown_seconds`; end what has no end of its own."""
    await server.stop_accepting(connections.close)
    services.end_streams()
    await server.drain(services.config.shutdown_seconds)
    services.close()
    await server.close_all_connections()
    # Not by a return: a thread that reads a huge log for somebody, who may have gone long ago,
    # would hold us up until it has done so. Nothing is left to be saved.
    sys.stdout.flush()
    os._exit(0)


def _end_at_once_if_told_again(
    loop: asyncio.AbstractEventLoop, numbers: Sequence[signal.Signals]
) -> None:
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


def check_data_dir(data_dir: str) -> None:
    """Make the folder if need be, and see that it can be written. Raises SystemRefusalError."""
    try:
        os.makedirs(data_dir, mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise SystemRefusalError(
            f"cannot write to the data folder {data_dir}: {error.strerror}; "
            "name another with --data-dir"
        ) from error


def _bind(config: Config, port: int | None = None, reuse_port: bool = False) -> list[socket.socket]:
    port = config.port if port is None else port
    try:
        return bind_sockets(port, config.host, backlog=1024, reuse_port=reuse_port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = ""
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            reason, hint = "the port is taken", "; name another with --port, or 0 for any free one"
        raise SystemRefusalError(
            f"cannot listen on {config.host}:{port}: {reason}{hint}"
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
