"""The pages for a browser, and the live events of the list."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tornado.iostream import StreamClosedError

from tornado_logs import __version__, sse
from tornado_logs.config import shorten
from tornado_logs.deployment import Record, State, timestamp
from tornado_logs.handlers.base import BaseHandler, UserError
from tornado_logs.handlers.presets import described_presets
from tornado_logs.store import BARE_SOURCE, Filter

if TYPE_CHECKING:
    from tornado_logs.app import Services

_FIRST_PAGE = 50
_FIRST_PAGE_SECONDS = 0.1  # what is found later, the page asks for
_AGO = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def page_json(data: Any) -> str:
    """JSON that can stand within a script element: nothing in it ends or begins one."""
    text = json.dumps(data)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def list_filter(handler: BaseHandler) -> Filter:
    """What the query asks to see: `state`, `source`, `q`, `since`, `until`. Raises UserError."""
    state = handler.get_query_argument("state", "")
    if state and state not in set(State):
        raise UserError(400, f"there is no state {shorten(state)}; there are: {', '.join(State)}")
    return Filter(
        state=state,
        source=handler.get_query_argument("source", ""),
        text=handler.get_query_argument("q", "").casefold(),
        since=_time(handler, "since"),
        until=_time(handler, "until"),
    )


def _time(handler: BaseHandler, name: str) -> str:
    """A time as records have it: asked for in ISO 8601 (UTC unless it says so), or by its age."""
    text = handler.get_query_argument(name, "")
    try:
        if ago := _AGO.fullmatch(text):
            return timestamp(time.time() - int(ago[1]) * _UNIT_SECONDS[ago[2]])
        moment = handler.moment(name)
        return timestamp(moment.timestamp()) if moment else ""
    except (ValueError, OverflowError, OSError):
        raise UserError(
            400,
            f"{name} takes a time such as 2026-11-22T10:41:00Z, or how long ago it was, as 30m, "
            f"1h, 1d or 1w; found {shorten(text)}",
        ) from None


async def summaries(services: Services, found: Sequence[Record]) -> list[dict[str, Any]]:
    """The records as the list shows them: each with the last line of its log."""
    lines = await services.deployments.last_lines(found)
    return [
        services.deployments.summary(record) | {"last_line": line}
        for record, line in zip(found, lines, strict=True)
    ]


class IndexHandler(BaseHandler):
    """`GET /`: the page with all deployments."""

    async def get(self) -> None:
        """The page has its first rows in it, so that it shows them at once."""
        deployments, sources = self.services.deployments, self.services.sources
        wanted = list_filter(self)
        found, following = await deployments.page(_FIRST_PAGE, None, wanted, _FIRST_PAGE_SECONDS)
        described = sources.describe()
        offered = [
            source for source in described if self.may_start_what_takes(source["start_role"])
        ]
        offered_names = [source["name"] for source in offered]
        default, demo = sources.default_name(), sources.demo_name()
        presets = [
            preset
            for preset in await described_presets(self.services)
            if self.may_start_what_takes(preset["start_role"])
        ]
        data = {
            "sources": offered,
            "default_source": default if default in offered_names else None,
            "demo_source": demo if demo in offered_names else None,
            "deployments": await summaries(self.services, found),
            "next": following,
            "may_start": self.may_start(),
            "is_open": self.services.access.is_open,
        }
        names = [source["name"] for source in described]
        asked = {name: self.get_query_argument(name, "") for name in _FILTERS}
        choices = {
            "states": list(State),
            "sources": list(dict.fromkeys([*names, BARE_SOURCE, asked["source"]])),
            "is_filtered": wanted != Filter(),
        }
        self.render(
            "index.html",
            version=__version__,
            page_data=page_json(data),
            asked=asked,
            choices=choices,
            presets=presets,
        )


_FILTERS = ("state", "source", "q", "since", "until")


class EventsHandler(BaseHandler):
    """`GET /events`: `deployment` for each new or changed record, `removed` for each one gone.

    With a filter (see `list_filter`) one that it leaves out counts as gone.
    """

    _streaming: asyncio.Task[None] | None = None

    def on_connection_close(self) -> None:
        """The viewer has gone."""
        super().on_connection_close()
        self.end_stream()

    def end_stream(self) -> None:
        """Send nothing more."""
        if self._streaming is not None:
            self._streaming.cancel()

    async def get(self) -> None:
        """Send changes until the viewer goes. What changed twice meanwhile is sent once."""
        self._wanted = list_filter(self)
        seat = self.admit()
        self.set_event_headers()
        changes = _Changes()
        unlisten = self.services.deployments.listen(changes.add)
        self._streaming = asyncio.create_task(self._stream(changes))
        self.services.streams.add(self)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._streaming
        finally:
            unlisten()
            seat.release()

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
        if record is None or not self._wanted.matches(record):
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
