"""Requests that nobody would send: each gets an answer or a clean end, and none does any harm.

Some seconds in `make test`; `make fuzz` goes on for FUZZ_MINUTES.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from conftest import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
_TESTS = 10  # which share the time; some 100 examples a second take it up
_EXAMPLES = 100 if not _MINUTES else int(_MINUTES * 1_000)
_ANSWER_SECONDS = 10.0
_QUIET_SECONDS = 0.1  # after which a stream that has begun counts as answered

fuzz = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    derandomize=not _MINUTES,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class FuzzedServer(Server):
    """A server whose stderr is kept, and which is asked by raw bytes."""

    token = ""

    def start(self) -> None:
        """Start it with its stderr in a file."""
        self.stderr_path = self.folder / "stderr"
        with open(self.stderr_path, "ab") as stderr:
            command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--port", str(self.port)]
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self.process.stdout is not None
        assert f":{self.port}" in self.process.stdout.readline()

    def ask(self, request: bytes, patience: float = 1.0) -> bytes:
        """What comes back: all of it, or the beginning of a stream that goes on.

        A request that says more is to come is waited with, until we end our side: then it is over.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as sock:
            answer, is_whole = b"", False
            with contextlib.suppress(ConnectionError, TimeoutError):
                sock.sendall(request)
                while piece := sock.recv(65536):
                    answer += piece
                    sock.settimeout(_QUIET_SECONDS)
                is_whole = True
            if not answer and not is_whole:
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:  # hung up on already
                    return answer
                with contextlib.suppress(ConnectionError):
                    sock.settimeout(_ANSWER_SECONDS)
                    answer = sock.recv(65536)
        return answer

    def assert_unharmed(self, request: bytes, answer: bytes) -> None:
        """It is no failure of the server's, and nothing was started that was refused."""
        if answer:
            assert answer.startswith(b"HTTP/1.1 "), (request, answer[:300])
            assert answer[9:10] in b"1234", (request, answer[:600])
        head, _, body = answer.partition(b"\r\n\r\n")
        if answer[9:10] == b"4" and b"application/json" in head and body:
            sentence = body.partition(b"\n")[0]  # what comes after it answers more of the request
            assert len(json.loads(sentence)["error"]) > 5, (request, answer)
        said = self.stderr_path.read_text(errors="replace")
        assert "Traceback" not in said, (request, said[-3000:])
        assert self.process is not None
        assert self.process.poll() is None, request


# Whatever is said of users, addresses and origins counts for something here.
CLOSED = """
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
user_header = "X-Remote-User"
hosts = ["logs.test"]
allowed_origins = ["http://dash.test"]
[users]
somebody = "viewer"
"""


@pytest.fixture(scope="module", params=["open", "closed"])
def fuzzed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FuzzedServer]:
    """A server that is open to this machine, and one that takes a token."""
    # Where anything may be started there is nothing to run nonsense as a command.
    config = '[sources.demo]\ntype = "mock"\n'
    if request.param == "closed":
        config = CLOSED + config + '[sources.shell]\ntype = "subprocess"\n'
    server = FuzzedServer(tmp_path_factory.mktemp(request.param), config)
    if request.param == "closed":
        made = subprocess.run(
            [sys.executable, "-m", "tornado_logs.cli", "token", "create", "--role", "viewer"],
            cwd=server.folder,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        server.token = made.stdout.strip()
        server.http.headers["Authorization"] = f"Bearer {server.token}"
    server.start()
    log = server.data_dir / "known.log"
    log.write_bytes(b"one\ntwo \x1b[31mred\x1b[0m\n\xff\xfe\n" + b"x" * 100_000 + b"\nlast")
    os.utime(log, (1, 1))
    server.wait_for_state("known", "finished")
    yield server
    server.close()


@pytest.fixture
def ends_at() -> float:
    """When the time of one test is over."""
    return time.monotonic() + (_MINUTES * 60 / _TESTS if _MINUTES else float("inf"))


# --- what is asked

_TEXT = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "0",
                "1",
                "-1",
                "99999999999999999999",
                "1e9",
                "nan",
                "true",
                "\x00",
                "../..",
                "%",
            ),
            *(
                "known",
                "known.log",
                ".access",
                "tokens.json",
                "*",
                "/",
                "//",
                "\\",
                "::1",
                "[",
                "]",
            ),
            *("2026-11-22T10:00:00Z", "0001-01-01", "9999-12-31T23:59:59+23:59", "1h", "999999w"),
            *("(a+)+$", "[[:alpha:]]", "a{1,99999}", "\\", "(", "running", "file", "shell", "demo"),
            *("é", "\u2028", "\ud83d\ude00", "<script>", "'", '"', "bytes=0-", "bytes=9-1", "W/"),
        ]
    ),
    st.text(max_size=20),
)
_BYTES = st.one_of(
    _TEXT.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=20)
)
_PATHS = st.one_of(
    st.sampled_from(
        [
            *(b"/", b"/events", b"/deployments", b"/login", b"/logout", b"/share", b"/audit"),
            *(b"/deployments/known", b"/deployments/known/stop", b"/deployments/known/share"),
            *(b"/logs/known", b"/logs/known/lines", b"/logs/known/raw", b"/logs/known/search"),
            *(b"/static/style.css", b"/static/", b"/static/../app.py", b"/favicon.ico"),
        ]
    ),
    st.tuples(
        st.sampled_from([b"/deployments/", b"/logs/", b"/static/", b"/"]),
        _BYTES.map(lambda data: quote_from_bytes(data).encode()),
        st.sampled_from([b"", b"/", b"/stop", b"/share", b"/lines", b"/raw", b"/search", b"/x"]),
    ).map(b"".join),
)
_PARAMETERS = [
    "limit",
    "before",
    "state",
    "source",
    "q",
    "since",
    "until",
    "last_line",
    "id",
    "max_ms",
    "after",
    "tail",
    "partial",
    "batch",
    "from",
    "time",
    "count",
    "times",
    "regex",
    "case",
    "errors",
    "structure",
    "next",
    "expires_seconds",
    "token",
    "_xsrf",
    "command",
    "name",
]
_QUERIES = st.lists(
    st.tuples(st.one_of(st.sampled_from(_PARAMETERS).map(str.encode), _BYTES), _BYTES), max_size=4
).map(
    lambda pairs: b"&".join(
        quote_from_bytes(name).encode() + b"=" + quote_from_bytes(value).encode()
        for name, value in pairs
    )
)
_HEADER_NAMES = st.sampled_from(
    [
        "Accept",
        "Authorization",
        "Cookie",
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "Last-Event-ID",
        "Origin",
        "Range",
        "Referer",
        "Sec-Fetch-Site",
        "Transfer-Encoding",
        "Upgrade",
        "User-Agent",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Remote-User",
        "X-Real-Ip",
        "X-Scheme",
        "X-Xsrftoken",
        "X-Http-Method-Override",
        "Forwarded",
        "Te",
        "Trailer",
    ]
).map(str.encode)
_HEADER_VALUES = st.one_of(
    _BYTES.map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"")),
    st.sampled_from(
        [
            *(b"text/html", b"text/plain", b"text/event-stream", b"*/*;q=x", b";q=;,,;"),
            *(b"application/json", b"application/x-www-form-urlencoded; charset=x"),
            *(b"multipart/form-data", b'multipart/form-data; boundary="', b"chunked", b"gzip"),
            *(b"Bearer ", b"Bearer tl_", b"Bearer tl_a_b", b"Bearer tls_", b"Bearer tls_AAAA"),
            *(b"Basic !", b"_xsrf=2|a|b|c", b"tornado_logs_0=2|1:0|10:1|1:a|1:b|", b"a=b; c; =d"),
            *(b"bytes=-1", b"bytes=5-2", b"bytes=99999999999999999999-", b"bytes=0-1,3-4"),
            *(b"100-continue", b"websocket", b"cross-site", b"null", b"end", b"12-abc"),
        ]
    ),
)
_HEADERS = st.lists(st.tuples(_HEADER_NAMES, _HEADER_VALUES), max_size=5)
_METHODS = st.sampled_from(
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"X"]
)

_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_OPTIONS = st.sampled_from(
    ["command", "env", "lines", "interval_seconds", "error_share", "source", "name"]
)
_JSON_BODIES = st.one_of(_JSON, st.dictionaries(_OPTIONS, _JSON, max_size=4)).map(
    lambda data: json.dumps(data).encode()
)
_FORM_BODIES = st.lists(st.tuples(st.one_of(_OPTIONS, _TEXT), _BYTES), max_size=4).map(
    lambda pairs: b"&".join(
        quote_from_bytes(name.encode(errors="surrogatepass")).encode()
        + b"="
        + quote_from_bytes(value).encode()
        for name, value in pairs
    )
)
_MULTIPART_BODIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b'Content-Disposition: form-data; name="command"',
                b'Content-Disposition: form-data; name="command"; filename="x"',
                b'Content-Disposition: form-data; name="',
                b"Content-Disposition: form-data; name*=utf-8''%ff",
                b"Content-Disposition: attachment",
                b"",
            ]
        ),
        _BYTES,
        st.sampled_from([b"--b\r\n", b"--b", b"--b--\r\n", b""]),
    ),
    max_size=4,
).map(
    lambda parts: (
        b"".join(edge + head + b"\r\n\r\n" + value + b"\r\n" for head, value, edge in parts)
        + b"--b--\r\n"
    )
)
_BODIES = st.one_of(
    st.tuples(st.just(b"application/json"), _JSON_BODIES),
    st.tuples(st.just(b"application/x-www-form-urlencoded"), _FORM_BODIES),
    st.tuples(st.just(b"multipart/form-data; boundary=b"), _MULTIPART_BODIES),
    st.tuples(_HEADER_VALUES, st.binary(max_size=100)),
)


def request_of(
    server: FuzzedServer,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes = b"",
) -> bytes:
    """A request whose frame is as it should be, and that says who sends it where it must."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    lines += [name + b": " + value for name, value in headers]
    if server.token and not any(name == b"Authorization" for name, _ in headers):
        lines.append(f"Authorization: Bearer {server.token}".encode())
    if body or method == b"POST":
        lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def starts(server: FuzzedServer) -> tuple[int, int]:
    """How many logs there are, and how many starts were put down."""
    audit = server.data_dir / ".access" / "audit.jsonl"
    entries = audit.read_text().splitlines() if audit.exists() else []
    started = [entry for entry in entries if json.loads(entry)["action"] == "start"]
    return len(list(server.data_dir.glob("*.log"))), len(started)


_NOT_POST = _METHODS.filter(lambda method: method != b"POST")


@fuzz
@given(method=_NOT_POST, path=_PATHS, query=_QUERIES, headers=_HEADERS)
def test_whatever_is_asked_gets_an_answer_and_starts_nothing(
    fuzzed: FuzzedServer,
    ends_at: float,
    method: bytes,
    path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
) -> None:
    if time.monotonic() > ends_at:
        return  # what is left of the examples goes by at once
    before = starts(fuzzed)
    request = request_of(fuzzed, method, path + (b"?" + query if query else b""), headers)
    fuzzed.assert_unharmed(request, fuzzed.ask(request))
    assert starts(fuzzed) == before, request


@fuzz
@given(path=st.one_of(st.just(b"/deployments"), _PATHS), headers=_HEADERS, content=_BODIES)
def test_whatever_is_sent_gets_an_answer_and_starts_nothing_if_it_is_refused(
    fuzzed: FuzzedServer,
    ends_at: float,
    path: bytes,
    headers: list[tuple[bytes, bytes]],
    content: tuple[bytes, bytes],
) -> None:
    if time.monotonic() > ends_at:
        return  # what is left of the examples goes by at once
    before = starts(fuzzed)
    content_type, body = content
    headers = [(b"Content-Type", content_type), *headers]
    request = request_of(fuzzed, b"POST", path, headers, body)
    answer = fuzzed.ask(request)
    fuzzed.assert_unharmed(request, answer)
    location = re.search(rb"\r\nLocation: /deployments/([^\r/]+)\r\n", answer)
    if location and not fuzzed.token and path == b"/deployments":
        record = fuzzed.record(location[1].decode())
        if record["state"] in ("queued", "running"):
            fuzzed.http.post(f"/deployments/{record['id']}/stop")
        fuzzed.wait_for_end(record["id"])
    else:
        assert starts(fuzzed) == before, request


_JUNK = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\0", b":", b"HTTP/1.1", b"HTTP/9.9", b"HTTP/1.0", b"GET"),
        *(
            b"Host: localhost",
            b"Host: localhost\r\nHost: evil.com",
            b"Host: [",
            b"http://evil.com/",
        ),
        *(
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Content-Length: 1e9",
            b"Content-Length: 0x1",
        ),
        *(b"Content-Length: 1\r\nContent-Length: 2", b"Content-Length: 99999999999999999999"),
        *(
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: x, chunked",
            b"0\r\n\r\n",
            b"5\r\nhello",
        ),
        *(b"ffffffffffffffff\r\n", b"-1\r\n", b"Content-Encoding: gzip", b"\x16\x03\x01\x02\x00"),
        *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/deployments", b"POST /deployments HTTP/1.1\r\n"),
        *(b"x" * 70_000, b"a: b\r\n" * 3000, b" folded", b"Expect: 100-continue", b"CONNECT a:1"),
    ]
)


@fuzz
@given(
    pieces=st.lists(st.one_of(_JUNK, _JUNK, st.binary(max_size=20)), max_size=8),
    begin=st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST /deployments "]),
    end=st.sampled_from([b"", b"\r\n\r\n"]),
)
def test_what_is_hardly_http_is_answered_or_hung_up_on(
    fuzzed: FuzzedServer, ends_at: float, pieces: list[bytes], begin: bytes, end: bytes
) -> None:
    if time.monotonic() > ends_at:
        return  # what is left of the examples goes by at once
    before = starts(fuzzed)
    request = begin + b"".join(pieces) + end
    fuzzed.assert_unharmed(request, fuzzed.ask(request, 0.03))
    assert starts(fuzzed) == before, request


_ORIGIN_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Host": st.sampled_from(
            [
                *(
                    "localhost",
                    "logs.test",
                    "LOGS.TEST:1",
                    "127.0.0.1",
                    "[::1]:5000",
                    "[::1",
                    "[",
                    "",
                ),
                *("evil.test", "localhost:x", "a@localhost", "localhost/x", "[::ffff:127.0.0.1]"),
            ]
        )
        | _TEXT,
        "Origin": st.sampled_from(["null", "http://dash.test", "http://localhost", "://"]) | _TEXT,
        "Sec-Fetch-Site": st.sampled_from(["same-origin", "cross-site", "none", ""]) | _TEXT,
        "X-Forwarded-For": st.lists(
            st.sampled_from(["10.1.1.1", "8.8.8.8", "::1", "x", "", "10.0.0.1%eth0", "1" * 400]),
            max_size=4,
        ).map(",".join)
        | _TEXT,
        "X-Forwarded-Proto": st.sampled_from(["https", "http", "HTTPS, http", "x"]) | _TEXT,
        "X-Forwarded-Host": _TEXT,
        "X-Real-IP": _TEXT,
        "Forwarded": st.sampled_from(['for="[::1]";proto=https', "for=;=;"]) | _TEXT,
        "X-Remote-User": st.sampled_from(["somebody", "a,b", "x" * 500, "\u202e"]) | _TEXT,
        "Last-Event-ID": st.sampled_from(["a1b2c3d4-0", "00000000-7-end", "a1b2c3d4-" + "9" * 30])
        | _TEXT,
        "Range": st.sampled_from(["bytes=0-0,2-3", "bytes=-0", "bytes=a-", "lines=1-"]) | _TEXT,
        "Accept": st.sampled_from(["text/html", "text/event-stream", "a/b;q=nan"]) | _TEXT,
    },
)


@fuzz
@given(
    method=st.sampled_from([b"GET", b"GET", b"POST", b"OPTIONS", b"HEAD"]),
    path=_PATHS,
    headers=_ORIGIN_HEADERS,
)
def test_whatever_is_said_of_where_a_request_comes_from_starts_nothing(
    fuzzed: FuzzedServer, ends_at: float, method: bytes, path: bytes, headers: dict[str, str]
) -> None:
    if time.monotonic() > ends_at:
        return  # what is left of the examples goes by at once
    before = starts(fuzzed)
    lines = [method + b" " + path + b" HTTP/1.1", b"Connection: close", b"Content-Length: 0"]
    for name, text in ({"Host": "localhost"} | headers).items():
        value = text.encode(errors="surrogatepass").replace(b"\r", b"").replace(b"\n", b"")
        lines.append(name.encode() + b": " + value)
    if fuzzed.token and "X-Remote-User" not in headers:
        lines.append(f"Authorization: Bearer {fuzzed.token}".encode())
    request = b"\r\n".join(lines) + b"\r\n\r\n"
    fuzzed.assert_unharmed(request, fuzzed.ask(request))
    assert starts(fuzzed) == before, request


_FILE_NAMES = st.one_of(
    st.sampled_from(
        [
            *(b"known", b"other", b"OTHER", b"other.log", b".hidden", b"-x", b"a b", b"x" * 200),
            *(b"\xff\xfe", "é".encode(), b"a\nb", b"20261122-104159-k3f9qdab", b"..", b"tokens"),
        ]
    ),
    st.binary(min_size=1, max_size=12).map(
        lambda name: name.replace(b"/", b"").replace(b"\0", b"")
    ),
)
_SUFFIXES = st.sampled_from([b".log", b".json", b".idx", b".stop", b".json.tmp", b"", b".LOG"])
_RECORD: dict[str, Any] = {"id": "other", "state": "running", "request": {}}
_RECORDS = st.builds(
    lambda fields: json.dumps(_RECORD | fields).encode(),
    st.dictionaries(
        st.sampled_from(["state", "created_at", "request", "pid", "id", "name"]), _JSON
    ),
)
_CONTENTS = st.one_of(
    st.binary(max_size=60),
    _RECORDS,
    st.builds(
        b"TLOGIDX1a1b2c3d4%b%b".__mod__, st.tuples(st.binary(max_size=9), st.binary(max_size=100))
    ),
)


@settings(fuzz, max_examples=_EXAMPLES // 3)
@given(files=st.lists(st.tuples(_FILE_NAMES, _SUFFIXES, _CONTENTS), max_size=4), query=_QUERIES)
def test_whatever_is_put_into_the_folder_is_told_of_or_left_out(
    fuzzed: FuzzedServer, ends_at: float, files: list[tuple[bytes, bytes, bytes]], query: bytes
) -> None:
    if time.monotonic() > ends_at:
        return  # what is left of the examples goes by at once
    folder = os.fsencode(fuzzed.data_dir)
    written = set()
    for stem, suffix, data in files:
        path = os.path.join(folder, stem + suffix)
        if stem + suffix in (b"", b".", b"..", b"known.log") or os.path.isdir(path):
            continue
        with open(path, "wb") as file:
            file.write(data)
        written.add(path)
        if suffix in (b".json", b".idx") and stem != b"known":  # which are of some log
            log_path = os.path.join(folder, stem + b".log")
            with open(log_path, "ab") as file:
                file.write(b"one\ntwo\n")
            written.add(log_path)
    paths = [b"/", b"/deployments?" + query, b"/logs/known/lines?times=1&" + query]
    for stem in {stem for stem, _, _ in files}:
        name = quote_from_bytes(stem).encode()
        paths += [b"/deployments/" + name, b"/logs/" + name + b"/lines?times=1"]
    try:
        for path in paths:
            request = request_of(fuzzed, b"GET", path, [(b"Accept", b"application/json")])
            fuzzed.assert_unharmed(request, fuzzed.ask(request))
    finally:
        for path in written:
            os.unlink(path)
