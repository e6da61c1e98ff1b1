"""The pages for a browser, and the live events of the list."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from tornado.iostream import StreamClosedError

from tornado_logs import __version__, sse
from tornado_logs.deployment import Record
from tornado_logs.handlers.base import EVENTS, BaseHandler

_FIRST_PAGE = 50


def page_json(data: Any) -> str:
    """JSON that can stand within a script element: nothing in it ends or begins one."""
    text = json.dumps(data)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class IndexHandler(BaseHandler):
    """`GET /`: the page with all deployments."""

    async def get(self) -> None:
        """The page has its first rows in it, so that it shows them at once."""
        deployments, sources = self.services.deployments, self.services.sources
        found, following = await deployments.page(_FIRST_PAGE, None, lambda _: True)
        data = {
            "sources": sources.describe(),
            "default_source": sources.default_name(),
            "demo_source": sources.demo_name(),
            "deployments": [deployments.summary(record) for record in found],
            "next": following,
        }
        self.render("index.html", version=__version__, page_data=page_json(data))


class EventsHandler(BaseHandler):
    """`GET /events`: `deployment` for each new or changed record, `removed` for each one gone."""

    _streaming: asyncio.Task[None] | None = None

    def on_connection_close(self) -> None:
        """The viewer has gone."""
        super().on_connection_close()
        if self._streaming is not None:
            self._streaming.cancel()

    async def get(self) -> None:
        """Send changes until the viewer goes. What changed twice meanwhile is sent once."""
        self.set_header("Content-Type", f"{EVENTS}; charset=utf-8")
        self.set_header("Cache-Control", "no-cache, no-transform")
        self.set_header("X-Accel-Buffering", "no")
        changes = _Changes()
        unlisten = self.services.deployments.listen(changes.add)
        self._streaming = asyncio.create_task(self._stream(changes))
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._streaming
        finally:
            unlisten()

    async def _stream(self, changes: _Changes) -> None:
        config = self.services.config
        with contextlib.suppress(StreamClosedError):
            self.write(f"retry: {config.retry_ms}\n\n")
            await self.flush()
            while not self.services.closing:
                found = await changes.take(config.ping_seconds)
                self.write(b"".join(self._event(*change) for change in found) or sse.HEARTBEAT)
                await self.flush()

    def _event(self, deployment_id: str, record: Record | None) -> bytes:
        if record is None:
            return sse.encode_json("removed", {"id": deployment_id})
        return sse.encode_json("deployment", self.services.deployments.summary(record))


class _Changes:
    """The latest state of each deployment that changed since the viewer last took any."""

    def __init__(self) -> None:
        self._latest: dict[str, Record | None] = {}
        self._event = asyncio.Event()

    def add(self, deployment_id: str, record: Record | None) -> None:
        """Note a change."""
        self._latest[deployment_id] = record
        self._event.set()

    async def take(self, seconds: float) -> list[tuple[str, Record | None]]:
        """The changes so far; waits for one, but no longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()
        latest, self._latest = self._latest, {}
        return list(latest.items())
