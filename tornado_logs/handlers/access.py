"""Signing in and out, share links, and who did what."""

from __future__ import annotations

import math
import time

from tornado.escape import json_decode

from tornado_logs import __version__
from tornado_logs.access import User
from tornado_logs.handlers.base import HTML, JSON, BaseHandler, UserError, knowing_tokens
from tornado_logs.tokens import Role

_DEFAULT_SHARE_SECONDS = 7 * 86400
_MAX_SHARE_SECONDS = 90 * 86400
_MAX_ENTRIES = 10_000
# In a minute, of all addresses together: somebody may have many.
_MAX_REFUSED_IN_ALL = 100


class SignInHandler(BaseHandler):
    """`GET` and `POST /login`: a token becomes a cookie.

    The page also takes a token from the fragment of its URL, which no server and no log ever sees.
    """

    is_public = True

    def get(self) -> None:
        """The page that asks for a token."""
        self._ask(self.get_query_argument("next", "/"))

    def post(self) -> None:
        """`token`, and `next`: where to go."""
        self.check_forgery()
        access = self.services.access
        with knowing_tokens():
            signed_in = access.sign_in(self.get_body_argument("token", "").strip())
        if signed_in is None:
            self._refuse()
            if self.wants(JSON, HTML) == JSON:
                raise UserError(401, "this is no token of this server, or no longer")
            self.set_status(401)
            return self._ask(self.get_body_argument("next", "/"), refused=True)
        self.user, value = signed_in
        days = self.services.config.session_days
        self.set_session_cookie(access.session_cookie, value, days * 86400)
        self.audit("sign-in")
        self.redirect(local_path(self.get_body_argument("next", "/")), status=303)
        return None

    def _refuse(self) -> None:
        """Put it down, not without end: that would fill the disk. Raises UserError (429)."""
        attempt = self.services.refused_sign_ins.add(self.client.address)
        most, most_in_all = self.services.config.max_refused_sign_ins, _MAX_REFUSED_IN_ALL
        if attempt.number <= most and attempt.number_in_all <= most_in_all:
            self.audit("sign-in refused")
        elif attempt.number == most + 1 <= most_in_all or attempt.number_in_all == most_in_all + 1:
            self.audit("sign-in refused", note="there are too many: the next are not put down")
        if attempt.number > most:
            raise UserError(
                429,
                f"none of your last {most} tokens was one of this server's: that is enough for a "
                "minute (max_refused_sign_ins); a right one is taken at any time",
                retry_after_seconds=math.ceil(attempt.seconds_left),
            )

    def _ask(self, next_path: str, *, refused: bool = False) -> None:
        self.render(
            "login.html", version=__version__, next_path=local_path(next_path), refused=refused
        )


class SignOutHandler(BaseHandler):
    """`POST /logout`."""

    is_public = True

    def post(self) -> None:
        """Forget the session."""
        self.check_forgery()
        with knowing_tokens():
            self.clear_cookie(self.services.access.session_cookie, path="/")
        self.redirect("/login", status=303)


class ShareHandler(BaseHandler):
    """`POST /deployments/<id>/share`: a link that shows this deployment to whoever has it."""

    def post(self, deployment_id: str) -> None:
        """`expires_seconds`: how long it holds; a week."""
        self.check_forgery()
        record, user = self.record(deployment_id), self.known_user()
        if self.services.access.is_open:
            raise UserError(
                409, "this server is open to everybody who reaches it: share the page's own address"
            )
        seconds = self._expires_seconds()
        with knowing_tokens():
            text, until = self.services.access.share(record.id, user, seconds)
        self.audit("share", deployment=record.id, until=until)
        url = f"{self.client.protocol}://{self.request.host}/share#{text}"
        self.write_json({"url": url, "expires_at": until, "token": text}, 201)

    def _expires_seconds(self) -> float:
        text = self.get_argument("expires_seconds", "")
        if not text and self.request.body[:1] == b"{":
            try:
                text = str(json_decode(self.request.body).get("expires_seconds", ""))
            except (ValueError, RecursionError):
                raise UserError(400, "the body is not JSON") from None
        try:
            seconds = float(text or _DEFAULT_SHARE_SECONDS)
        except ValueError:
            seconds = -1.0
        if not 1 <= seconds <= _MAX_SHARE_SECONDS:
            raise UserError(
                400,
                f"expires_seconds takes a number from 1 to {_MAX_SHARE_SECONDS}, found {text!r}",
            )
        return seconds


class SharedHandler(BaseHandler):
    """`GET` and `POST /share`: where a share link leads; it becomes a cookie for one deployment."""

    is_public = True

    def get(self) -> None:
        """The page whose script sends the link's fragment."""
        self.xsrf_token  # noqa: B018 - sets the cookie that its form is checked by
        self.render("share.html", version=__version__)

    def post(self) -> None:
        """`token`: the link's fragment. The answer says where to go."""
        self.check_forgery()
        text = self.get_body_argument("token", "").strip()
        with knowing_tokens():
            user = self.services.access.user_of_share(text)
        if user is None:
            raise UserError(403, "this link has expired, or isn't whole; ask for another")
        self._set_cookies(user, text)
        self.write_json({"path": f"/deployments/{user.deployment_id}"})

    def _set_cookies(self, user: User, text: str) -> None:
        seconds = int((user.until or 0) - time.time())
        # Sent with what is asked about this deployment and with nothing else.
        for folder in ("deployments", "logs"):
            path = f"/{folder}/{user.deployment_id}"
            # Each by a name of its own: an answer sets but one cookie of a name.
            self.set_session_cookie(self.services.access.share_cookie(path), text, seconds, path)


class AuditHandler(BaseHandler):
    """`GET /audit`: who did what, newest first."""

    role_to_read = Role.ADMIN

    def get(self) -> None:
        """`limit`: how many entries."""
        limit = self.number("limit", 100, least=1, most=_MAX_ENTRIES)
        self.write_json({"entries": self.services.audit.last(limit)})


def local_path(path: str) -> str:
    """`path` if it leads to a page of ours, else that of the list."""
    is_ours = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_ours and path.isprintable() else "/"
