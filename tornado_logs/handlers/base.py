"""What all handlers share: who may call, which format is wanted, how errors are answered."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, RequestHandler

from tornado_logs import __version__
from tornado_logs.access import Client, User
from tornado_logs.config import CLOSED, shorten
from tornado_logs.deployment import Record
from tornado_logs.disk import EXHAUSTED, is_full, reason
from tornado_logs.tokens import Role, TokenError
from tornado_logs.viewers import RETRY_AFTER_SECONDS, Seat, TooManyViewersError

if TYPE_CHECKING:
    from tornado_logs.app import Services

HTML, JSON, EVENTS, TEXT = "text/html", "application/json", "text/event-stream", "text/plain"

logger = logging.getLogger("tornado_logs")


class UserError(HTTPError):
    """A request that can't be done, with a sentence for whoever made it.

    `retry_after_seconds`: when it may be, by the header Retry-After.
    """

    def __init__(
        self, status: int, sentence: str, *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(status, sentence.replace("%", "%%"), reason=HTTPStatus(status).phrase)
        self.sentence = sentence
        self.retry_after_seconds = retry_after_seconds


_MAX_REFUSALS, _MAX_REFUSALS_IN_ALL = 100, 1000
"""How many refusals the server's log tells of in a minute: of one address, and of all."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "font-src 'self'",
            "connect-src 'self'",
            "worker-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    ),
}
"""On every answer. No page has a script or style of its own: they come from files of ours alone."""


def set_common_headers(handler: RequestHandler, cache_control: str) -> None:
    """Those of every answer: what a browser has to refuse, and nothing about what serves it."""
    for name, value in SECURITY_HEADERS.items():
        handler.set_header(name, value)
    handler.set_header("Cache-Control", cache_control)
    handler.clear_header("Server")


@contextlib.contextmanager
def knowing_tokens() -> Iterator[None]:
    """Where the tokens can't be read, nobody is let in. Raises UserError (503)."""
    try:
        yield
    except TokenError as error:
        logger.error("nobody is let in: %s", error)
        raise UserError(
            503, "the server can't tell who may use it, so nobody may; its log says more"
        ) from error


class BaseHandler(RequestHandler):
    """Closed to other web pages and to whom it doesn't know; answers errors in the client's format.

    `is_public`: whether strangers may call it; `is_shareable`: whether who has a share link to its
    deployment may read it; `role_to_read` and `role_to_change`: what GET and POST take.
    """

    is_public = False
    is_shareable = False
    role_to_read = Role.VIEWER
    role_to_change = Role.OPERATOR

    services: Services
    client: Client
    user: User | None = None
    was_put_off = False  # told to come again later

    def initialize(self, services: Services) -> None:
        """Tornado's hook for what the application gives its handlers."""
        self.services = services

    def set_default_headers(self) -> None:
        """On every answer, errors too."""
        # A shared cache must not keep what one user may see; a browser asks again each time.
        set_common_headers(self, cache_control="private, no-cache")

    def prepare(self) -> None:
        """Refuse what a web page from elsewhere may have sent, and whoever may not do this."""
        access = self.services.access
        self.client = access.client_of(self.request)
        if not access.is_our_host(self.request.host):
            raise UserError(
                403,
                "this server answers on its own names only, such as localhost (the setting hosts "
                f"adds to them); the request was for the host {self.request.host!r}",
            )
        is_allowed = self._allow_origin()
        is_ours = self.request.headers.get("Origin") == self._origin
        if self.request.method not in ("GET", "HEAD", "OPTIONS") and not is_allowed:
            self._check_origin()
        if self.request.method == "OPTIONS" and is_allowed:
            self.set_status(204)
            self.finish()
            return
        with knowing_tokens():
            self.user = access.user_of(
                self.request, self.client, with_cookies=is_ours or not is_allowed
            )
        if not self.is_public:
            self._check_user()

    def _check_origin(self) -> None:
        origin = self.request.headers.get("Origin")
        site = self.request.headers.get("Sec-Fetch-Site", "none")
        if (origin is not None and origin != self._origin) or site not in ("same-origin", "none"):
            raise UserError(
                403,
                f"a page of another site ({origin or site!r}) can't start or stop anything here",
            )

    @property
    def _origin(self) -> str:
        return f"{self.client.protocol}://{self.request.host}"

    def _allow_origin(self) -> bool:
        """Let pages of the configured sites read the answers: whether this is one of them."""
        origin = self.request.headers.get("Origin")
        if not self.services.config.allowed_origins:
            return False
        self.set_header("Vary", "Origin")
        if origin is None or origin not in self.services.config.allowed_origins:
            return False
        # Without credentials: such a page sends a token, and never rides on a session of ours.
        self.set_header("Access-Control-Allow-Origin", origin)
        self.set_header("Access-Control-Allow-Methods", "GET, POST")
        self.set_header(
            "Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"
        )
        self.set_header("Access-Control-Expose-Headers", "Location, X-Dropped-Bytes")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        return True

    def _check_user(self) -> None:
        user = self.user
        if user is None:
            return self._ask_to_sign_in()
        if user.via == "share" and not self._is_shared(user):
            raise UserError(403, "a share link shows one deployment, and starts or stops nothing")
        needed = self.role_to_read if self._is_read else self.role_to_change
        if not user.role.covers(needed):
            raise UserError(
                403, f"this takes the role {needed}; yours is {user.role} ({user.name or user.via})"
            )
        return None

    def _ask_to_sign_in(self) -> None:
        if self._is_read and self.wants(JSON, HTML, EVENTS, TEXT) == HTML:
            self.redirect(f"/login?next={quote(self.request.uri or '/', safe='')}", status=303)
            return
        raise UserError(
            401,
            "this server is closed: send a token as the header Authorization: Bearer TOKEN, "
            "or sign in at /login",
        )

    @property
    def _is_read(self) -> bool:
        return self.request.method in ("GET", "HEAD", "OPTIONS")

    def _is_shared(self, user: User) -> bool:
        is_its_own = self.path_args[:1] == [user.deployment_id]
        return self.is_shareable and self._is_read and is_its_own

    def known_user(self) -> User:
        """Who makes this request, once `prepare` has let it pass."""
        assert self.user is not None
        return self.user

    def may_start(self) -> bool:
        """Whether the user may start and stop deployments."""
        return self.user is not None and self.user.role.covers(Role.OPERATOR)

    def may_start_what_takes(self, start_role: str) -> bool:
        """Whether the user may start a source or a preset with this `start_role`."""
        is_open = start_role != CLOSED and self.may_start()
        return is_open and self.known_user().role.covers(Role(start_role))

    def check_forgery(self) -> None:
        """Refuse a form that isn't of a page of ours (XSRF). Raises UserError (403).

        JSON needs no such check, nor does a client that is no browser: neither can be forged by a
        page of another site, whose form could ride on the reader's session or on this machine.
        """
        headers = self.request.headers
        is_session = self.user is not None and self.user.via in ("session", "share")
        is_browser = "Origin" in headers or "Sec-Fetch-Site" in headers or is_session
        if not is_browser or (self.body_type() == JSON and not is_session):
            return
        if headers.get("Origin") in self.services.config.allowed_origins and not is_session:
            return
        try:
            self.check_xsrf_cookie()
        except HTTPError as error:
            raise UserError(
                403,
                "the form isn't one of this server's own, or its page is too old: load it again",
            ) from error

    def end_stream(self) -> None:
        """The server ends: come to an end, if the answer would go on for ever."""

    def admit(self, deployment_id: str = "") -> Seat:
        """One more viewer: who makes this request. Raises UserError (429 or 503)."""
        try:
            return self.services.viewers.admit(self.client.address, deployment_id)
        except TooManyViewersError as error:
            status = 429 if error.of_address else 503
            raise UserError(status, str(error), retry_after_seconds=RETRY_AFTER_SECONDS) from error

    def disconnect(self) -> None:
        """Close the connection, without an end: a viewer who wants more comes back."""
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection) and connection.stream is not None:
            connection.stream.close()

    def set_session_cookie(self, name: str, value: str, seconds: int, path: str = "/") -> None:
        """A cookie that scripts can't read and other sites' pages never send."""
        self.set_cookie(
            name,
            value,
            path=path,
            max_age=seconds,
            httponly=True,
            samesite="Strict",
            secure=self.client.protocol == "https",
        )

    def audit(self, action: str, **what: Any) -> None:
        """Put down in the audit file that the user did this."""
        self.services.audit.add(action, self.remote(), **what)

    def get_template_namespace(self) -> dict[str, Any]:
        """What all pages know: the user, and what they may do."""
        is_open = self.services.access.is_open
        return super().get_template_namespace() | {
            "user": self.user,
            "may_start": self.may_start(),
            "may_share": self.may_start() and not is_open,
            "is_shared": self.user is not None and self.user.via == "share",
        }

    def wants(self, *offered: str) -> str:
        """Which of the offered media types the client likes best; the first if it has no wish."""
        return preferred_type(self.request.headers.get("Accept", ""), offered)

    def body_type(self) -> str:
        """The media type of the request's body, in lower case; empty if the request names none."""
        return self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()

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
        who: dict[str, Any] = {"address": self.client.address}
        if self.user is not None and self.user.via != "local":
            who |= {"user": self.user.name, "role": self.user.role, "via": self.user.via}
        return who

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """An error, as a page for a browser and as JSON for everybody else."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if refusal := _system_refusal(error):
            error, status_code = refusal, refusal.status_code
            self.set_status(status_code)
        self._allow_origin()  # Tornado has dropped the headers that were set
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Bearer realm="tornado-logs"')
        sentence = error.sentence if isinstance(error, UserError) else _sentence(status_code)
        if isinstance(error, UserError) and error.retry_after_seconds is not None:
            self.was_put_off = True
            self.set_header("Retry-After", str(error.retry_after_seconds))
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
        refusal = _system_refusal(value)
        if refusal is not None and refusal.retry_after_seconds is not None:
            logger.error("cannot answer %s %r: %s", self.request.method, self.request.path, value)
        elif not isinstance(value, UserError):
            super().log_exception(typ, value, tb)
        elif value.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            self._log_refusal(value)

    def _log_refusal(self, error: UserError) -> None:
        """Not without end, or a stranger could fill the disk."""
        address = self.client.address
        attempt = self.services.refusals.add(address)
        if attempt.number > _MAX_REFUSALS or attempt.number_in_all > _MAX_REFUSALS_IN_ALL:
            return
        request = f"{self.request.method} {self.request.path!r}"
        logger.warning("refused %s from %s: %s", request, address, error.sentence)
        if attempt.number == _MAX_REFUSALS or attempt.number_in_all == _MAX_REFUSALS_IN_ALL:
            logger.warning("there are too many: the next, for a minute, are not told of")


class NotFoundHandler(BaseHandler):
    """Every URL that nothing else answers."""

    def prepare(self) -> None:
        """Refuse, in the same words whatever the method."""
        super().prepare()
        if self._finished:
            return
        raise UserError(404, f"there is nothing at {self.request.path!r}; the pages begin at /")


def _system_refusal(error: BaseException | None) -> UserError | None:
    """What to say where it is the system that refuses what the server needs for an answer."""
    if not isinstance(error, OSError | MemoryError):
        return None
    if is_full(error):
        return UserError(507, f"the server's disk is full ({reason(error)}); make room there")
    if isinstance(error, MemoryError) or error.errno in EXHAUSTED:
        return UserError(
            503,
            f"the server can't do more at a time ({reason(error)}); try again in "
            f"{RETRY_AFTER_SECONDS} seconds",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    if error.errno in (errno.EIO, errno.EROFS):
        return UserError(500, f"the server's disk fails ({reason(error)}); its log says more")
    return None


def _sentence(status: int) -> str:
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return "this URL does not take that method"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the server failed at this; its log says more"
    return HTTPStatus(status).phrase.lower()


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
