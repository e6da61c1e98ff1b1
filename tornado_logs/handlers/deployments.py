"""Deployments: list, start, look at, stop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPInputError, parse_body_arguments
from tornado.web import stream_request_body

from tornado_logs import __version__
from tornado_logs.catalog import Job, RequestError
from tornado_logs.config import (
    CLOSED,
    WAIT,
    ConfigError,
    check_exclusive,
    check_if_busy,
    is_text,
    parse_text,
    shorten,
    unknown_name,
)
from tornado_logs.deployment import Record, short_line
from tornado_logs.handlers.base import EVENTS, HTML, JSON, TEXT, BaseHandler, UserError
from tornado_logs.handlers.pages import list_filter, page_json, summaries
from tornado_logs.handlers.streaming import StreamingHandler
from tornado_logs.launcher import ExhaustedError, LaunchError, NoRoomError, Queuing
from tornado_logs.run_queue import HeldError, QueueFullError

_MAX_PAGE = 1000
_MAX_MS = 60_000
_MAX_READ_BYTES = 100 * 1024 * 1024
_RETRY_AFTER_SECONDS = 10
_OWN_FIELDS = ("source", "name", "preset", "exclusive", "if_busy")


@stream_request_body
class DeploymentsHandler(StreamingHandler):
    """`GET` and `POST /deployments`.

    Takes the body piece by piece so as to answer one that is too large with a sentence: whatever is
    refused, its body is read to the end first, for a client that still sends would not hear us.
    """

    _is_body_read = False  # or will be, before there is an answer

    def prepare(self) -> None:
        """Keep a refusal until the body was read."""
        # Not the server's limit, beyond which there is no answer: this is read to its end.
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_max_body_size(_MAX_READ_BYTES)
        self._body = bytearray()
        self._refusal: UserError | None = None
        try:
            super().prepare()
        except UserError as refusal:
            # Raised from here it ends the connection, of a GET too.
            if self.request.method not in ("GET", "POST"):
                raise
            self._refusal = refusal
        self._is_body_read = True

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """With word of it if the connection ends, as it does where the body isn't read."""
        if not self._is_body_read:
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    def data_received(self, chunk: bytes) -> None:
        """The next piece of the body; no more of it is kept than is accepted."""
        most = self.services.config.max_body_bytes
        if len(self._body) + len(chunk) > most:
            self._refusal = self._refusal or UserError(
                413, f"the body is too large: it may have {most:,} bytes"
            )
        if self._refusal is None:
            self._body += chunk

    async def get(self) -> None:
        """The list, newest first: `limit`, `before=<id>` and what `list_filter` takes.

        `last_line=1` adds the last line of each log. `id=<id>`, any number of times, asks for
        these alone. `max_ms` bounds how long is looked: `next` then goes on where that ended.
        """
        if self._refusal is not None:
            raise self._refusal
        deployments = self.services.deployments
        limit = self.number("limit", 50, least=1, most=_MAX_PAGE)
        max_ms = self.number("max_ms", 0, least=0, most=_MAX_MS)
        before = self.get_query_argument("before", None)
        wanted = list_filter(self)
        following = None
        if ids := self.get_query_arguments("id"):
            records = [deployments.get(deployment_id) for deployment_id in ids[:limit]]
            found = [record for record in records if record and wanted.matches(record)]
        else:
            try:
                seconds = max_ms / 1000 if max_ms else None
                found, following = await deployments.page(limit, before, wanted, seconds)
            except LookupError:
                raise UserError(400, f"before: there was never a deployment {before!r}") from None
        if self.flag("last_line"):
            listed = await summaries(self.services, found)
        else:
            listed = [deployments.summary(record) for record in found]
        self.write_json({"deployments": listed, "next": following})

    async def post(self) -> None:
        """Start one; then answer with its record, its page, or by streaming it to its end."""
        if self._refusal is not None:
            raise self._refusal
        if not self._is_form():
            self.check_forgery()
        if self.request.headers.get("Last-Event-ID"):
            # A client that lost a stream it had POSTed for would run the command a second time.
            raise UserError(
                400, "a POST starts a deployment anew; go on reading with GET /logs/<id> instead"
            )
        given, wanted = self._fields(), self.wants(JSON, HTML, EVENTS, TEXT)
        if wanted in (EVENTS, TEXT):
            await self._start_and_stream(given, raw=wanted == TEXT)
            return
        record = self._start(given)
        self.set_header("Location", f"/deployments/{record.id}")
        if wanted == HTML:
            self.redirect(f"/deployments/{record.id}", status=303)
        else:
            self.write_json(self.services.deployments.summary(record), 201)

    async def _start_and_stream(self, given: dict[str, Any], *, raw: bool) -> None:
        seat = self.admit()  # before the command is started: whoever is refused may ask again
        try:
            record = self._start(given)
        except BaseException:
            seat.release()
            raise
        seat.watch(record.id)
        self.set_header("Location", f"/deployments/{record.id}")
        await self.stream(record, raw=raw, seat=seat)

    def _start(self, given: dict[str, Any]) -> Record:
        own = {key: given.pop(key, None) for key in _OWN_FIELDS}
        for key, value in own.items():
            if value is not None and not is_text(value):
                raise UserError(400, f"{key} takes text, found {shorten(value)}")
        source, preset = own["source"], own["preset"]
        try:
            if preset is not None:
                record, job = self._prepare_preset(preset, source, given)
            else:
                record, job = self._prepare(source, given)
            record.name = short_line(job.mask(own["name"] or "")) or record.name
            record.exclusive = _exclusive(record, job, own["exclusive"])
            record.requested_by = self.remote()
            self.services.launcher.launch(record, job, self._queuing(record, own))
        except (RequestError, ConfigError) as error:
            raise UserError(400, str(error)) from error
        except HeldError as error:
            raise UserError(409, self._held(record.exclusive, error.deployment_id)) from error
        except QueueFullError as error:
            raise UserError(
                503,
                f"the queue is full: {error.waiting} deployments wait in it; try again once some "
                "have run, or stop some of them",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error
        except NoRoomError as error:
            raise UserError(507, str(error)) from error
        except ExhaustedError as error:
            raise UserError(503, str(error)) from error
        except LaunchError as error:
            raise UserError(500, str(error)) from error
        self.services.deployments.add(record)
        self.audit("start", deployment=record.id, source=record.source, request=record.request)
        return record

    def _queuing(self, record: Record, own: Mapping[str, Any]) -> Queuing:
        """Raises ConfigError."""
        if_busy = own["if_busy"] or self.services.sources.if_busy(record.source, own["preset"])
        may_wait = check_if_busy(if_busy, "if_busy") == WAIT
        return Queuing(self.services.config.max_queued, may_wait)

    def _held(self, exclusive: str, deployment_id: str) -> str:
        """Who holds the name, since when, and what to do."""
        holder = self.services.deployments.get(deployment_id)
        if holder is None:
            return f"{exclusive!r} is held by {deployment_id}; try again once that has ended"
        who = holder.requested_by or {}
        verb = "runs" if holder.started_at else "waits"
        return (
            f"{exclusive!r} is held by {deployment_id} ({holder.name}), started by "
            f"{who.get('user') or who.get('address') or 'nobody known'}; it {verb} since "
            f"{holder.started_at or holder.created_at}; try again once it has ended, or have this "
            f"one wait for it: if_busy={WAIT}"
        )

    def _prepare(self, source: str | None, given: dict[str, Any]) -> tuple[Record, Job]:
        sources = self.services.sources
        name = source or sources.default_name()
        if name in sources.names():
            self._check_role(f"source {name!r}", sources.start_role(name))
        return sources.prepare(name, given)

    def _prepare_preset(
        self, preset: str, source: str | None, given: dict[str, Any]
    ) -> tuple[Record, Job]:
        parameters = given.pop("parameters", None)
        if parameters is not None and not isinstance(parameters, dict):
            raise UserError(400, f"parameters takes an object, found {shorten(parameters)}")
        # A source or one of its options beside it would be a way around what the preset says.
        if extra := [*given, *(["source"] if source else [])]:
            raise UserError(
                400,
                f"a preset is started with its parameters and a name alone, not with "
                f"{shorten(extra[0])}; give its parameters as an object: {_PRESET_EXAMPLE}",
            )
        sources = self.services.sources
        self._check_role(f"preset {preset!r}", sources.preset(preset).start_role)
        return sources.prepare_preset(preset, parameters or {})

    def _check_role(self, what: str, start_role: str) -> None:
        if start_role != CLOSED and not self.may_start_what_takes(start_role):
            user = self.known_user()
            raise UserError(
                403,
                f"to start {what} takes the role {start_role}; yours is {user.role} "
                f"({user.name or user.via})",
            )

    def _fields(self) -> dict[str, Any]:
        """What the body says: JSON, or a form whose texts become the options' types."""
        if self._is_form():
            return self._form()
        try:
            data = json.loads(bytes(self._body))
        except (ValueError, RecursionError) as error:
            raise UserError(
                400,
                "the body is not JSON "
                f"({error}); send a JSON object or a form, as in curl -d 'command=make deploy'",
            ) from None
        if not isinstance(data, dict):
            raise UserError(400, f"the body is JSON, but not an object such as {_EXAMPLE}")
        return data

    def _is_form(self) -> bool:
        return self.body_type() in ("application/x-www-form-urlencoded", "multipart/form-data")

    def _form(self) -> dict[str, Any]:
        arguments: dict[str, list[bytes]] = {}
        try:
            parse_body_arguments(
                self.request.headers["Content-Type"], bytes(self._body), arguments, {}
            )
            texts = {
                name: b"\n".join(values).decode().replace("\r\n", "\n")
                for name, values in arguments.items()
            }
        except (HTTPInputError, UnicodeDecodeError) as error:
            raise UserError(400, f"the form can't be read: {error}") from error
        # Tornado looks for it there, where it has parsed the body itself.
        self.request.arguments["_xsrf"] = [texts.pop("_xsrf", "").encode()]
        self.check_forgery()
        if texts.get("preset"):
            return self._preset_form(texts)
        texts.pop("preset", None)
        source = texts.get("source") or self.services.sources.default_name()
        options = {option.name: option for option in self.services.sources.request_options(source)}
        for name in texts.keys() - options.keys() - set(_OWN_FIELDS):
            raise UserError(400, f"source {source!r}: {unknown_name(name, options)}; {_FORM_HINT}")
        try:
            # An empty field of a form is one that wasn't filled in.
            return {
                name: parse_text(options[name], text, name) if name in options else text
                for name, text in texts.items()
                if text
            }
        except ConfigError as error:
            raise UserError(400, str(error)) from error

    def _preset_form(self, texts: dict[str, str]) -> dict[str, Any]:
        """Every field but these is a parameter."""
        fields = {key: texts.pop(key, "") for key in _OWN_FIELDS}
        given: dict[str, Any] = {key: text for key, text in fields.items() if text}
        try:
            preset = self.services.sources.preset(given["preset"])
        except RequestError as error:
            raise UserError(400, str(error)) from error
        given["parameters"] = preset.parse_form(texts)
        return given


def _exclusive(record: Record, job: Job, asked: str | None) -> str:
    """The record's exclusive name: the config's or, where that has none, the request's.

    Raises ConfigError.
    """
    if not asked:
        return record.exclusive
    name = job.mask(check_exclusive(asked, "exclusive"))
    if record.exclusive not in ("", name):
        raise ConfigError(
            f"exclusive: this server's config has it run as {record.exclusive!r}, which a request "
            "can't change; leave it out"
        )
    return name


class DeploymentHandler(BaseHandler):
    """`GET /deployments/<id>`: its page or its record."""

    is_shareable = True

    def get(self, deployment_id: str) -> None:
        """A page for a browser, JSON for everybody else."""
        record = self.record(deployment_id)
        summary = self.services.deployments.summary(record)
        if self.wants(JSON, HTML) == HTML:
            page_data = page_json({"record": summary, "may_start": self.may_start()})
            self.render("deployment.html", version=__version__, record=summary, page_data=page_data)
        else:
            self.write_json(summary)


class StopHandler(BaseHandler):
    """`POST /deployments/<id>/stop`."""

    async def post(self, deployment_id: str) -> None:
        """Ask it to end; the answer doesn't wait for that."""
        self.check_forgery()
        record = self.record(deployment_id)
        try:
            await self.services.stop(record, self.remote())
            self.audit("stop", deployment=record.id)
        except LaunchError as error:
            raise UserError(409, str(error)) from error
        if self.wants(JSON, HTML) == HTML:
            self.redirect(f"/deployments/{record.id}", status=303)
        else:
            by_now = self.record(record.id)
            self.write_json(self.services.deployments.summary(by_now), 202)


_EXAMPLE = '{"command": "make deploy"}'
_PRESET_EXAMPLE = '{"preset": "deploy", "parameters": {"environment": "prod"}}'
# Without this, `curl -d 'command=make && make deploy'` would silently run `make` alone.
_FORM_HINT = "in a form & separates fields: curl's --data-urlencode sends a command as it stands"
