"""What all handlers share: who may call, which format is wanted, how errors are answered."""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tornado.web import HTTPError, RequestHandler

from tornado_logs import __version__
from tornado_logs.config import shorten
from tornado_logs.deployment import Record

if TYPE_CHECKING:
    from tornado_logs.app import Services

HTML, JSON, EVENTS, TEXT = "text/html", "application/json", "text/event-stream", "text/plain"

logger = logging.getLogger("tornado_logs")


class UserError(HTTPError):
    """A request that can't be done, with a sentence for whoever made it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence.replace("%", "%%"), reason=HTTPStatus(status).phrase)
        self.sentence = sentence


class BaseHandler(RequestHandler):
    """Closed to other web pages, and answers errors in the client's format."""

    services: Services

    def initialize(self, services: Services) -> None:
        """Tornado's hook for what the application gives its handlers."""
        self.services = services

    def set_default_headers(self) -> None:
        """On every answer, errors too."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.clear_header("Server")

    def prepare(self) -> None:
        """Refuse what a web page from elsewhere might have made the reader's browser send."""
        if not is_our_host(self.request.host):
            raise UserError(
                403,
                f"this server answers on this machine's own names only, such as localhost; "
                f"the request was for the host {self.request.host!r}",
            )
        if self.request.method not in ("GET", "HEAD", "OPTIONS"):
            self._check_origin()

    def _check_origin(self) -> None:
        origin = self.request.headers.get("Origin")
        site = self.request.headers.get("Sec-Fetch-Site", "none")
        ours = f"{self.request.protocol}://{self.request.host}"
        if (origin is not None and origin != ours) or site not in ("same-origin", "none"):
            raise UserError(
                403, f"a page of another site ({origin or site}) can't start or stop anything here"
            )

    def wants(self, *offered: str) -> str:
        """Which of the offered media types the client likes best; the first if it has no wish."""
        return preferred_type(self.request.headers.get("Accept", ""), offered)

    def record(self, deployment_id: str) -> Record:
        """The deployment's record. Raises UserError (404)."""
        record = self.services.deployments.get(deployment_id)
        if record is None:
            raise UserError(
                404, f"there is no deployment {deployment_id!r}; GET /deployments lists them"
            )
        return record

    def flag(self, name: str) -> bool:
        """Whether this argument of the query is 1."""
        return self.get_query_argument(name, "") in ("1", "true")

    def number(
        self, name: str, default: int, *, least: int | None = None, most: int | None = None
    ) -> int:
        """A whole number from the query, from `least` to `most`. Raises UserError (400)."""
        text = self.get_query_argument(name, str(default))
        digits = text.removeprefix("-")
        number = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None
        is_low = number is not None and least is not None and number < least
        is_high = number is not None and most is not None and number > most
        if number is None or is_low or is_high:
            bounds = "" if least is None else f" of {least} or more"
            bounds = bounds if most is None else f" from {least} to {most}"
            raise UserError(400, f"{name} takes a whole number{bounds}, found {shorten(text)}")
        return number

    def moment(self, name: str) -> datetime | None:
        """A time from the query, None if there is none: ISO 8601, UTC unless it says another.

        Raises ValueError for what isn't one.
        """
        text = self.get_query_argument(name, "")
        if not text:
            return None
        # A plus in a URL is a space, unless it was encoded.
        moment = datetime.fromisoformat(text[:11] + text[11:].replace(" ", "+"))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def set_event_headers(self) -> None:
        """For a stream that nobody may keep or hold back."""
        self.set_header("Content-Type", f"{EVENTS}; charset=utf-8")
        # no-transform and the next are for proxies: neither compress nor hold back.
        self.set_header("Cache-Control", "no-cache, no-transform")
        self.set_header("X-Accel-Buffering", "no")

    def write_json(self, data: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(data).encode() + b"\n")

    def remote(self) -> dict[str, Any]:
        """Who makes this request, for the record."""
        return {"address": self.request.remote_ip}

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """An error, as a page for a browser and as JSON for everybody else."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        sentence = error.sentence if isinstance(error, UserError) else _sentence(status_code)
        if self.wants(JSON, HTML) == HTML:
            self.render(
                "error.html",
                version=__version__,
                status=status_code,
                reason=HTTPStatus(status_code).phrase,
                message=sentence,
            )
        else:
            self.write_json({"error": sentence}, status_code)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """What a client got wrong is a line of the access log, not a fault of the server's."""
        if not isinstance(value, UserError):
            super().log_exception(typ, value, tb)


class NotFoundHandler(BaseHandler):
    """Every URL that nothing else answers."""

    def prepare(self) -> None:
        """Refuse, in the same words whatever the method."""
        super().prepare()
        raise UserError(404, f"there is nothing at {self.request.path!r}; the pages begin at /")


def _sentence(status: int) -> str:
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return "this URL does not take that method"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the server failed at this; its log says more"
    return HTTPStatus(status).phrase.lower()


def is_our_host(host: str) -> bool:
    """Whether a Host header names this machine's loopback interface.

    A name that an attacker's DNS makes point here (rebinding) is another origin to the browser, but
    reaches us all the same; its Host header gives it away.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def preferred_type(accept: str, offered: Sequence[str]) -> str:
    """The offered media type that an Accept header (RFC 9110, 12.5.1) likes best.

    Among equals the first offered wins, also if nothing offered is acceptable.
    """
    ranges = [_media_range(item) for item in accept.split(",") if item.strip()]

    def quality(media_type: str) -> float:
        matching = [
            (specificity, q)
            for pattern, specificity, q in ranges
            if pattern in (media_type, media_type.split("/")[0] + "/*", "*/*")
        ]
        return max(matching)[1] if matching else 0.0

    return max(offered, key=quality)


def _media_range(item: str) -> tuple[str, int, float]:
    pattern, *parameters = (part.strip() for part in item.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return pattern.lower(), 2 - pattern.count("*"), quality
