"""The tokens that open a closed server: one file, in which only their hashes stand.

    tokens = TokenFile("data/.access/tokens.json")
    token, text = tokens.create("alice", Role.OPERATOR)
    tokens.find(text)

A token is 256 random bits, so its hash needs neither salt nor slowness. It is shown once, when it
is made. The file is replaced atomically and read anew when it has changed, so that what the command
line does holds for running servers, and for all their workers, at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from tornado_logs.deployment import ID_ALPHABET
from tornado_logs.disk import reason, write_atomically

PREFIX = "tl"
_ID_CHARS = 8
_MAX_NAME_CHARS = 64
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NOBODY_S_HASH = "0" * 64


class Role(StrEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = "viewer"  # reads
    OPERATOR = "operator"  # starts, stops and shares
    ADMIN = "admin"  # starts what is kept for admins, and reads who did what

    def covers(self, other: Role) -> bool:
        """Whether who has this role may do what takes the other."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


class TokenError(Exception):
    """The tokens can't be read or changed as asked. The message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Token:
    """What the file keeps of one token. Times are seconds since 1970."""

    id: str
    name: str
    role: Role
    hash: str
    created_at: float
    expires_at: float | None = None

    def is_valid(self) -> bool:
        """Whether it hasn't expired."""
        return self.expires_at is None or time.time() < self.expires_at


class TokenFile:
    """The tokens of one server. Where the file is missing there are none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._read_at: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self._has_existed = False

    @property
    def exists(self) -> bool:
        """Whether a token was ever made: from then on the server is closed, also without any.

        It stays so as long as it runs, whatever becomes of the file, or if nobody can tell.
        """
        if not self._has_existed:
            try:
                os.lstat(self.path)
            except FileNotFoundError:
                return False
            except OSError:
                return True
            self._has_existed = True
        return True

    def all(self) -> list[Token]:
        """All tokens, expired ones too, oldest first. Raises TokenError."""
        self._refresh()
        return sorted(self._tokens.values(), key=lambda token: token.created_at)

    def get(self, token_id: str) -> Token | None:
        """The valid token of this id. Raises TokenError."""
        self._refresh()
        token = self._tokens.get(token_id)
        return token if token is not None and token.is_valid() else None

    def find(self, text: str) -> Token | None:
        """The valid token that `text` is, compared in constant time. Raises TokenError."""
        token = self.get(_id_in(text))
        expected = token.hash if token else _NOBODY_S_HASH
        return token if hmac.compare_digest(_hash(text), expected) else None

    def create(
        self, name: str, role: Role, expires_seconds: float | None = None
    ) -> tuple[Token, str]:
        """A new token, and the text that it is, which nobody can find out again."""
        if not (0 < len(name) <= _MAX_NAME_CHARS and name.isprintable() and name == name.strip()):
            raise TokenError(
                f"a name has 1 to {_MAX_NAME_CHARS} characters, no control characters, no spaces "
                f"around it; found {name!r}"
            )
        now = time.time()
        with self._changing():
            if any(token.name == name for token in self._tokens.values()):
                raise TokenError(
                    f"there is a token named {name!r} already; revoke it, or name another"
                )
            token_id = "".join(secrets.choice(ID_ALPHABET) for _ in range(_ID_CHARS))
            text = f"{PREFIX}_{token_id}_{secrets.token_urlsafe(32)}"
            until = None if expires_seconds is None else now + expires_seconds
            token = Token(token_id, name, role, _hash(text), now, until)
            self._tokens[token_id] = token
        return token, text

    def revoke(self, name: str) -> Token:
        """Take the token of this name or id out. Raises TokenError if there is none."""
        with self._changing():
            for token in self._tokens.values():
                if name in (token.name, token.id):
                    del self._tokens[token.id]
                    return token
            known = ", ".join(token.name for token in self._tokens.values()) or "none"
            raise TokenError(f"there is no token named {name!r}; there are: {known}")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone, from the file as it is now; written if nothing is raised. Raises TokenError."""
        try:
            folder = private_folder(os.path.dirname(self.path))
        except OSError as error:
            raise TokenError(f"cannot write {self.path}: {reason(error)}") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._refresh()
            yield
            data = {"tokens": [asdict(token) for token in self._tokens.values()]}
            text = json.dumps(data, indent=1).encode() + b"\n"
            # Synced: who was told of a token, or that one is revoked, shall find it so tomorrow.
            write_atomically(self.path, text, mode=0o600, synced=True)
        except OSError as error:
            raise TokenError(f"cannot write {self.path}: {reason(error)}") from error
        finally:
            os.close(folder)
            self._read_at = None

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
        except OSError:
            self._read_at, self._tokens = None, {}
            return
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        if version != self._read_at:
            self._tokens = {token.id: token for token in _read(self.path)}
            self._read_at = version


def private_folder(path: str) -> int:
    """Make the folder, for its owner alone, and open it. Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _read(path: str) -> list[Token]:
    """Raises TokenError."""
    try:
        with open(path, "rb") as file:
            given = json.loads(file.read())
        return [_token(item) for item in given["tokens"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise TokenError(
            f"the tokens in {path} can't be read ({type(error).__name__}); mend the file, or make "
            "new ones without it"
        ) from error


def _token(item: Any) -> Token:
    token = Token(**item)
    texts = (token.id, token.name, token.hash)
    times = (token.created_at, 0.0 if token.expires_at is None else token.expires_at)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(moment, int | float) for moment in times)
        and _HASH.fullmatch(token.hash)
    ):
        raise ValueError("not a token")
    return replace(token, role=Role(token.role))


def _id_in(text: str) -> str:
    prefix, _, rest = text.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
