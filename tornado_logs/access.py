"""Who makes a request, and what they may do: tokens, sessions, share links, trusted proxies.

    access = Access(config, "data/.access")
    user = access.user_of(request)         # None: nobody that we know
    user.role.covers(Role.OPERATOR)

A server is open, to this machine alone, until a token is made for it or a proxy names its users.
From then on it is closed, and so is one that listens where other machines reach it. All is signed
and compared by Tornado and the standard library; nothing cryptographic is made here.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import ipaddress
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import create_signed_value, decode_signed_value

from tornado_logs.config import Config, ConfigError
from tornado_logs.disk import reason
from tornado_logs.tokens import Role, Token, TokenError, TokenFile, private_folder

ACCESS_FOLDER = ".access"
"""In the data folder: who may use the server, and who did what; for the server's user alone."""

TOKENS_FILE, AUDIT_FILE = "tokens.json", "audit.jsonl"
SHARE_PREFIX = "tls_"
_SIGNED_VERSION = 2
_SHARE_SIGNATURE_DAYS = 36_500  # for good: a link says itself until when it holds
_SECRET_BYTES = 32
_MAX_USER_CHARS = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class User:
    """Who makes a request. `via`: local, token, session, share or proxy.

    `deployment_id`: the one deployment that a share link is for. `until`: when this ends by itself,
    in seconds since 1970.
    """

    name: str
    role: Role
    via: str
    token_id: str = ""
    deployment_id: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, by the word of a trusted proxy if one stands between."""

    address: str
    protocol: str
    proxy: str = ""  # the address of the proxy


class Access:
    """What a server knows of those who use it. Cheap enough to be asked for each request."""

    def __init__(self, config: Config, folder: str) -> None:
        """Raises ConfigError; touches no file."""
        self._config = config
        self._folder = folder
        self.tokens = TokenFile(os.path.join(folder, TOKENS_FILE))
        self._proxies = [_network(text) for text in config.trusted_proxies]
        self._default_role = _role(config.user_role, "user_role")
        self._roles = {name: _role(text, f"users.{name}") for name, text in config.users.items()}
        self._signing_key: str | None = None
        self._valid: set[tuple[str, Role]] = set()
        if config.user_header and not self._proxies:
            raise ConfigError(
                "user_header: only a proxy that is trusted may name users; set trusted_proxies too"
            )
        if self._roles and not config.user_header:
            raise ConfigError("users: they are named by a proxy; set user_header too")

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches the server may do everything: only from this machine."""
        return (
            is_loopback(self._config.host)
            and not self._config.user_header
            and not self.tokens.exists
        )

    def check_host(self) -> None:
        """Refuse to listen where others reach us without access control. Raises ConfigError."""
        if is_loopback(self._config.host) or self._config.user_header:
            return
        if not self.tokens.all():
            raise ConfigError(
                f"host: {self._config.host!r} isn't a loopback address: other machines could run "
                "commands here. Make a token first: tornado-logs token create NAME --role admin; "
                "or have a reverse proxy name the users: trusted_proxies and user_header"
            )

    def has_lost_a_token(self) -> bool:
        """Whether a token was revoked, changed or has expired since the last time of asking."""
        before, self._valid = self._valid, self._valid_tokens()
        return not before <= self._valid

    def _valid_tokens(self) -> set[tuple[str, Role]]:
        try:
            return {(token.id, token.role) for token in self.tokens.all() if token.is_valid()}
        except TokenError:  # said to whoever makes a request
            return set()

    def user_of(
        self, request: HTTPServerRequest, client: Client, *, with_cookies: bool = True
    ) -> User | None:
        """Who makes this request; None if that isn't known. The first word that is given counts.

        Raises TokenError.
        """
        if self.is_open and (not client.proxy or is_loopback(client.address)):
            return User("", Role.ADMIN, "local")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":  # any other was for a proxy before us
            return self._by_token(token.strip())
        name = request.headers.get(self._config.user_header or "", "").strip()
        if client.proxy and name:
            return self._by_proxy(name)
        if not with_cookies:
            return None
        cookies = {name: morsel.value for name, morsel in request.cookies.items()}
        return self._by_session(cookies) or self._by_share_cookie(cookies)

    def _by_token(self, text: str) -> User | None:
        if text.startswith(SHARE_PREFIX):
            return self.user_of_share(text)
        token = self.tokens.find(text)
        return self._user(token, "token") if token else None

    def _by_proxy(self, name: str) -> User | None:
        # Two of that header arrive joined by a comma: then one of them isn't the proxy's.
        if len(name) > _MAX_USER_CHARS or "," in name or not name.isprintable():
            return None
        return User(name, self._roles.get(name, self._default_role), "proxy")

    def _user(self, token: Token, via: str) -> User:
        self._valid.add((token.id, token.role))  # so that its end is seen, however soon it comes
        return User(token.name, token.role, via, token_id=token.id, until=token.expires_at)

    # --- sessions: a cookie says which token it was given for

    @property
    def session_cookie(self) -> str:
        """Its name: another for each server, as a browser shares cookies among ports."""
        return "tornado_logs_" + hashlib.sha256(self._key().encode()).hexdigest()[:8]

    def sign_in(self, text: str) -> tuple[User, str] | None:
        """The user of this token, and the value of the session's cookie."""
        token = self.tokens.find(text)
        if token is None:
            return None
        return self._user(token, "session"), self._sign(self.session_cookie, token.id)

    def _by_session(self, cookies: Mapping[str, str]) -> User | None:
        value = cookies.get(self.session_cookie)
        token_id = value and self._signed(self.session_cookie, value, self._config.session_days)
        token = self.tokens.get(token_id) if token_id else None
        return self._user(token, "session") if token else None

    # --- share links: one deployment, to be read, for a while

    def share(self, deployment_id: str, user: User, seconds: float) -> tuple[str, float]:
        """What a share link to this deployment carries, and until when it holds."""
        until = time.time() + seconds
        given = {"id": deployment_id, "until": until, "by": user.name, "token": user.token_id}
        return _share_text(self._sign("share", json.dumps(given))), until

    def user_of_share(self, text: str) -> User | None:
        """Who comes by this share link, if it is whole, holds, and who made it still may."""
        try:
            encoded = text.removeprefix(SHARE_PREFIX)
            signed = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), "-_", validate=True
            ).decode()
            is_whole = text == _share_text(signed)  # base64 has some bits that say nothing
            value = self._signed("share", signed, _SHARE_SIGNATURE_DAYS) if is_whole else None
            given = json.loads(value) if value else None
        except (ValueError, binascii.Error):
            return None
        if given is None or time.time() >= given["until"]:
            return None
        if given["token"]:
            token = self.tokens.get(given["token"])
            if token is None:  # a link ends with its maker's
                return None
            self._valid.add((token.id, token.role))
        name = f"share of {given['by']}" if given["by"] else "share"
        return User(name, Role.VIEWER, "share", deployment_id=given["id"], until=given["until"])

    def share_cookie(self, path: str) -> str:
        """The name of the cookie that a share link becomes for what is below `path`."""
        return f"{self.session_cookie}_{hashlib.sha256(path.encode()).hexdigest()[:16]}"

    def _by_share_cookie(self, cookies: Mapping[str, str]) -> User | None:
        prefix = f"{self.session_cookie}_"
        # Its path has the browser send one alone to any URL of the deployment's.
        values = (value for name, value in cookies.items() if name.startswith(prefix))
        users = (self.user_of_share(value) for value in values)
        return next((user for user in users if user), None)

    # --- signing

    def _sign(self, name: str, value: str) -> str:
        return create_signed_value(self._key(), name, value, _SIGNED_VERSION).decode()

    def _signed(self, name: str, value: str, days: float) -> str | None:
        """What was signed, None if this wasn't signed by us for that purpose and in these days."""
        found = decode_signed_value(
            self._key(), name, value, max_age_days=days, min_version=_SIGNED_VERSION
        )
        return found.decode() if found else None

    def _key(self) -> str:
        """The key that all workers sign with; made when it is first needed."""
        if self._signing_key is None:
            path = os.path.join(self._folder, "signing_key")
            self._signing_key = _read_key(path) if os.path.lexists(path) else _make_key(path)
        return self._signing_key

    # --- where it comes from

    def client_of(self, request: HTTPServerRequest) -> Client:
        """The address and protocol of the client: what a trusted proxy says of it, else what is."""
        peer = request.remote_ip or ""
        if not self._is_proxy(peer):
            return Client(peer, request.protocol)
        chain = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]
        # Each proxy adds whom it was asked by: the last that isn't one of ours is the client. What
        # stands before it may be anybody's invention.
        other = next((part for part in reversed(chain) if not self._is_proxy(part)), "")
        protocol = request.headers.get("X-Forwarded-Proto", "").strip().lower()
        return Client(
            other if is_address(other) else peer,
            protocol if protocol in ("http", "https") else request.protocol,
            peer,
        )

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._proxies)

    def is_our_host(self, host: str) -> bool:
        """Whether a Host header names this server.

        A name that an attacker's DNS makes point here (rebinding) is another origin to the browser,
        but reaches us all the same; its Host header gives it away. An address can't be rebound.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name == "localhost" or name in map(str.lower, self._config.hosts):
            return True
        if is_loopback(self._config.host):
            return is_address(name) and is_loopback(name)
        return is_address(name) or name in (self._config.host.lower(), socket.gethostname().lower())


def _share_text(signed: str) -> str:
    return SHARE_PREFIX + base64.urlsafe_b64encode(signed.encode()).decode().rstrip("=")


def _role(text: Any, where: str) -> Role:
    """Raises ConfigError."""
    try:
        return Role(text)
    except ValueError:
        raise ConfigError(f"{where}: expected one of {', '.join(Role)}, found {text!r}") from None


def _network(text: str) -> Network:
    """Raises ConfigError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"trusted_proxies: expected addresses or networks such as 10.0.0.0/8, found {text!r}: "
            f"{error}"
        ) from None


def _make_key(path: str) -> str:
    """Write a new key, or read that of another worker who was faster. Raises TokenError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.close(private_folder(os.path.dirname(path)))
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            file.write(secrets.token_hex(_SECRET_BYTES))
            file.flush()
            os.fsync(fd)  # half a key, after a power loss, would keep everybody out
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # whole, and never in the place of another
        os.unlink(temporary)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise TokenError(f"cannot make a signing key in {path}: {reason(error)}") from error
    return _read_key(path)


def _read_key(path: str) -> str:
    """Raises TokenError, also for what is too short: whoever guesses the key signs as we do."""
    try:
        with open(path, encoding="ascii") as file:
            key = file.read().strip()
    except (OSError, ValueError) as error:
        raise TokenError(f"the signing key {path} can't be read ({error})") from error
    if len(key) < 2 * _SECRET_BYTES:
        raise TokenError(f"the signing key {path} isn't whole; remove it, and all sign in anew")
    return key


def is_loopback(host: str) -> bool:
    """Whether this name or address reaches this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def is_address(text: str) -> bool:
    """Whether this is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
