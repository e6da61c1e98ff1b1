"""The only wiring: a config becomes an application and what runs behind it.

    services = Services(config)
    services.start()
    make_app(services).listen(config.port)

On the event loop, all of it; `Services.close` ends what belongs to the server.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from weakref import WeakSet

from tornado.web import Application, RequestHandler, StaticFileHandler

from tornado_logs.access import ACCESS_FOLDER, AUDIT_FILE, Access
from tornado_logs.attempts import Attempts
from tornado_logs.audit import Audit
from tornado_logs.autostart import Autostart
from tornado_logs.catalog import Catalog
from tornado_logs.config import Config
from tornado_logs.deployment import Record, State
from tornado_logs.descriptors import has_room_for_a_viewer
from tornado_logs.follower import Followers
from tornado_logs.handlers.access import (
    AuditHandler,
    SharedHandler,
    ShareHandler,
    SignInHandler,
    SignOutHandler,
)
from tornado_logs.handlers.base import BaseHandler, NotFoundHandler, set_common_headers
from tornado_logs.handlers.deployments import DeploymentHandler, DeploymentsHandler, StopHandler
from tornado_logs.handlers.logs import LinesHandler, LogHandler, RawLogHandler, SearchHandler
from tornado_logs.handlers.pages import EventsHandler, IndexHandler
from tornado_logs.handlers.presets import PresetsHandler
from tornado_logs.launcher import Launcher, LaunchError
from tornado_logs.live import Live
from tornado_logs.registry import Registry
from tornado_logs.retention import Keep, Retention
from tornado_logs.search import SEARCHES_AT_A_TIME
from tornado_logs.store import Deployments
from tornado_logs.ticks import Ticks
from tornado_logs.viewers import Viewers

_START_SECONDS = 2.0
_TOKEN_WATCH_SECONDS = 1.0


class Services:
    """What the handlers call: the parts of a running server."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError or RegistryError; touches no file."""
        self.config = config
        data_dir = os.path.abspath(config.data_dir)
        self.sources = Catalog(config, Registry())
        self.launcher = Launcher(
            data_dir,
            self.sources.class_names(),
            config.secret_variables,
            min_free_bytes=config.min_free_bytes,
            disk_full_seconds=config.disk_full_seconds,
        )
        self.deployments = Deployments(data_dir, self.launcher)
        self.followers = Followers(self.deployments, config)
        self.live = Live(config.ping_seconds)
        self.viewers = Viewers(config, has_room_for_a_viewer)
        self.search_slots = asyncio.Semaphore(SEARCHES_AT_A_TIME)
        self.autostart = Autostart(
            self.sources, self.deployments, self.launcher.launch, config.rescan_seconds
        )
        keep = Keep(config.keep_days, config.keep_deployments, config.keep_bytes)
        self.retention = Retention(self.deployments, keep)
        access_dir = os.path.join(data_dir, ACCESS_FOLDER)
        self.access = Access(config, access_dir)
        self.refused_sign_ins = Attempts()
        self.refusals = Attempts()
        self.audit = Audit(os.path.join(access_dir, AUDIT_FILE))
        self.streams: WeakSet[BaseHandler] = WeakSet()
        self._token_watch = Ticks(self._end_streams_of_the_revoked, _TOKEN_WATCH_SECONDS)
        self.closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, *, autostarts: bool = True, since: str | None = None) -> None:
        """Read the data folder and start what belongs to the server. Raises OSError.

        `autostarts`: whether this process is the one that starts what the config says and removes
        what is no longer kept; `since`: since when that was done, by another before it.
        """
        self.launcher.queue.open(self.config.max_running)
        self.launcher.start()
        self.deployments.start()
        self.launcher.wait_until_ready()
        self._token_watch.start()
        if autostarts:
            self.autostart.start(since)
            self.retention.start()

    def end_streams(self) -> None:
        """End what would go on for ever: who reads it comes back, to the next server."""
        self.closing = True
        self._token_watch.stop()
        self.autostart.close()
        self.retention.close()
        self.followers.close()
        self.live.close()
        for handler in tuple(self.streams):
            handler.end_stream()

    def close(self) -> None:
        """End what belongs to the server. The deployments go on."""
        self.end_streams()
        self.deployments.close()
        self.launcher.close()

    def _end_streams_of_the_revoked(self) -> None:
        """Once a token is gone, all streams end: whoever may go on comes back by their cursor."""
        if self.access.has_lost_a_token():
            self.live.close()
            for handler in tuple(self.streams):
                handler.disconnect()

    async def stop(self, record: Record, requested_by: Mapping[str, Any]) -> None:
        """Stop a deployment, or end what a lost one left running. Raises LaunchError."""
        if record.request is None:
            raise LaunchError(
                f"{record.id} is a log that somebody else writes; it can't be stopped from here"
            )
        if record.state is State.LOST and record.left_running:
            task = asyncio.create_task(self._end_left_running(record, requested_by))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self.launcher.stop(await self._when_running(record), requested_by)

    async def _end_left_running(self, record: Record, requested_by: Mapping[str, Any]) -> None:
        self.deployments.add(await self.launcher.end_left_running(record, requested_by))

    async def _when_running(self, record: Record) -> Record:
        """A deployment that was only just asked for is given a moment to begin, or to wait."""
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while record.capture_pid is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
            record = self.deployments.get(record.id) or record
        return record


class _Application(Application):
    def log_request(self, handler: RequestHandler) -> None:
        """Not those who are told to come again: they would fill the server's log."""
        if not (isinstance(handler, BaseHandler) and handler.was_put_off):
            super().log_request(handler)


def make_app(services: Services) -> Application:
    """The URLs. An id is anything without a slash: what isn't one is a 404 of its handler's."""
    given = {"services": services}
    templates = str(files("tornado_logs.templates"))
    return _Application(
        [
            (r"/", IndexHandler, given),
            (r"/events", EventsHandler, given),
            (r"/deployments", DeploymentsHandler, given),
            (r"/deployments/([^/]+)", DeploymentHandler, given),
            (r"/deployments/([^/]+)/stop", StopHandler, given),
            (r"/deployments/([^/]+)/share", ShareHandler, given),
            (r"/logs/([^/]+)", LogHandler, given),
            (r"/logs/([^/]+)/lines", LinesHandler, given),
            (r"/logs/([^/]+)/raw", RawLogHandler, given),
            (r"/logs/([^/]+)/search", SearchHandler, given),
            (r"/presets", PresetsHandler, given),
            (r"/login", SignInHandler, given),
            (r"/logout", SignOutHandler, given),
            (r"/share", SharedHandler, given),
            (r"/audit", AuditHandler, given),
            (r"/static/(.*)", PageFileHandler, {"path": os.path.join(templates, "static")}),
        ],
        default_handler_class=NotFoundHandler,
        default_handler_args=given,
        template_path=templates,
        compress_response=False,  # it would hold events back
        xsrf_cookie_kwargs={"samesite": "Strict"},
    )


class PageFileHandler(StaticFileHandler):
    """CSS and modules: asked for again each time (a 304 is cheap), so that an upgrade shows."""

    def set_default_headers(self) -> None:
        """Those of every answer, errors too."""
        set_common_headers(self, cache_control="no-cache")
