"""Requests and files that are wrong: each gets a clear answer, and the server lives on."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import OLD, Server, drop_log, wait_for
from sse_client import lines_of, open_stream, read_events

JSON_HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def spoilt_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that is put into its data folder and taken out again."""
    server = Server(tmp_path_factory.mktemp("spoilt"))
    server.start()
    yield server
    server.close()


def the_sentence(answer: httpx.Response, status: int) -> str:
    """The sentence of an error, which is all that its JSON holds."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    data = answer.json()
    assert list(data) == ["error"]
    sentence = str(data["error"])
    assert re.match(r"\S+ \S+ \S+", sentence), sentence
    assert "Traceback" not in sentence
    return sentence


def raw_request(server: Server, request: bytes) -> bytes:
    """The answer to these very bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


def count_of(server: Server) -> int:
    """How many deployments there are."""
    return len(server.http.get("/deployments?limit=1000").json()["deployments"])


# --- ids and URLs

NO_IDS = [
    "20261122-104159-k3f9qd",
    "..",
    "...",
    ".hidden",
    "-option",
    "%2e%2e%2f",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%2fsecret",
    "a%2fb",
    "%00",
    "a%00b",
    "a%0ab",
    "a%20b",
    "%c3%bc",
    "a\\b",
    "x" * 129,
    "x" * 5000,
    "%25",
    "*",
    "~",
    "' or 1=1",
]


@pytest.mark.parametrize("unknown", NO_IDS, ids=lambda text: text[:20])
def test_an_id_that_is_none_is_answered_with_404(lasting_server: Server, unknown: str) -> None:
    (lasting_server.folder / "secret.log").write_bytes(b"a secret\n")
    for before, after in (("logs", ""), ("logs", "/raw"), ("logs", "/lines"), ("deployments", "")):
        # Raw, because a client would tidy the path up.
        path = f"/{before}/{unknown.replace(' ', '%20')}{after}"
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        head, _, body = raw_request(lasting_server, request.encode()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 "), path
        assert list(json.loads(body)) == ["error"], path
    path = f"/deployments/{unknown.replace(' ', '%20')}/stop"
    request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = raw_request(lasting_server, f"{request}Content-Length: 0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_an_id_that_is_no_utf8_is_an_error_of_the_clients(lasting_server: Server) -> None:
    answer = lasting_server.http.get("/logs/%ff%fe")
    assert answer.status_code in (400, 404)
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/logs", "/logs/", "/logs/a/b", "/deployments/", "//"]
)
def test_an_unknown_url_says_where_to_begin(lasting_server: Server, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        url = httpx.URL(lasting_server.url, raw_path=path.encode())
        assert "/" in the_sentence(lasting_server.http.request(method, url), 404)


def test_an_unknown_url_is_a_page_for_a_browser(lasting_server: Server) -> None:
    answer = lasting_server.http.get("/<script>alert(1)</script>", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<script>alert" not in answer.text


def test_a_method_that_a_url_does_not_take_is_refused(
    lasting_server: Server, known_id: str
) -> None:
    for method, path in (
        ("POST", f"/logs/{known_id}"),
        ("DELETE", f"/deployments/{known_id}"),
        ("PUT", "/deployments"),
        ("GET", f"/deployments/{known_id}/stop"),
        ("POST", "/events"),
        ("POST", "/"),
        ("BREW", "/deployments"),
    ):
        the_sentence(lasting_server.http.request(method, path), 405)


@pytest.mark.parametrize(
    ("method", "host", "status"), [("BREW", "localhost", 405), ("PUT", "evil.example.com", 403)]
)
def test_an_answer_that_ends_the_connection_says_so(
    lasting_server: Server, method: str, host: str, status: int
) -> None:
    """Else the next request of a client that goes on with it would be lost."""
    request = f"{method} /deployments HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello"
    head, _, body = raw_request(lasting_server, request.encode()).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nconnection: close" in head.lower()
    assert list(json.loads(body)) == ["error"]


# --- bodies


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "not JSON"),
        (b"command=echo", "not JSON"),
        (b'{"command": ', "not JSON"),
        (b"{'command': 'echo'}", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"\0", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 50_000, "not JSON"),
        (b'{"timeout_seconds": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "object"),
        (b'["echo"]', "object"),
        (b'"echo"', "object"),
        (b"1", "object"),
        (b"null", "object"),
        (b"NaN", "object"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_body_that_is_no_json_object_is_refused(
    lasting_server: Server, body: bytes, hint: str
) -> None:
    before = count_of(lasting_server)
    answer = lasting_server.http.post("/deployments", content=body, headers=JSON_HEADERS)
    assert hint in the_sentence(answer, 400)
    assert count_of(lasting_server) == before


@pytest.mark.parametrize(
    ("fields", "hints"),
    [
        ({}, ["command"]),
        ({"source": "shell"}, ["command"]),
        ({"command": None}, ["command", "None"]),
        ({"command": ""}, ["command"]),
        ({"command": "   "}, ["command"]),
        ({"command": "\n"}, ["command"]),
        ({"command": []}, ["command"]),
        ({"command": [""]}, ["command"]),
        ({"command": ["ls", 1]}, ["command"]),
        ({"command": 7}, ["command", "7"]),
        ({"command": True}, ["command"]),
        ({"command": {"a": 1}}, ["command"]),
        ({"command": "echo a\0b"}, ["command"]),
        ({"command": ["echo", "a\0b"]}, ["command"]),
        ({"command": "true", "comand": "x"}, ["comand", "did you mean 'command'"]),
        ({"command": "true", "timeout": 3}, ["timeout", "did you mean 'timeout_seconds'"]),
        ({"command": "true", "xyz": 3}, ["xyz", "command", "cwd", "env", "tty"]),
        ({"command": "true", "stop_grace_seconds": 0}, ["stop_grace_seconds"]),
        ({"command": "true", "source": "nothing"}, ["nothing", "shell", "demo", "tail"]),
        ({"command": "true", "source": 5}, ["source", "text"]),
        ({"command": "true", "source": 0}, ["source", "text"]),
        ({"command": "true", "source": []}, ["source", "text"]),
        ({"command": "true", "source": ["shell"]}, ["source", "text"]),
        ({"command": "true", "name": 5}, ["name", "text"]),
        ({"command": "true", "name": {}}, ["name", "text"]),
        ({"command": "true", "name": False}, ["name", "text"]),
        ({"command": "true", "cwd": "/no/such/folder"}, ["/no/such/folder", "cwd"]),
        ({"command": "true", "cwd": "/etc/passwd"}, ["cwd"]),
        ({"command": "true", "cwd": 5}, ["cwd", "text"]),
        ({"command": "true", "cwd": "a\0b"}, ["cwd"]),
        ({"command": "true", "cwd": ["/"]}, ["cwd"]),
        ({"command": "true", "env": "A=1"}, ["env"]),
        ({"command": "true", "env": ["A=1"]}, ["env"]),
        ({"command": "true", "env": {"A": 1}}, ["env"]),
        ({"command": "true", "env": {"A": None}}, ["env"]),
        ({"command": "true", "env": {"": "x"}}, ["env"]),
        ({"command": "true", "env": {"A=B": "x"}}, ["env"]),
        ({"command": "true", "env": {"A": "x\0y"}}, ["env"]),
        ({"command": "true", "tty": "yes"}, ["tty", "true or false"]),
        ({"command": "true", "tty": 1}, ["tty"]),
        ({"command": "true", "timeout_seconds": -1}, ["timeout_seconds", "0 or more"]),
        ({"command": "true", "timeout_seconds": "5"}, ["timeout_seconds", "number"]),
        ({"command": "true", "timeout_seconds": True}, ["timeout_seconds"]),
        ({"command": "true", "timeout_seconds": float("nan")}, ["timeout_seconds"]),
        ({"command": "true", "timeout_seconds": float("inf")}, ["timeout_seconds"]),
        ({"command": "true", "timeout_seconds": 10**400}, ["timeout_seconds"]),
        ({"source": "demo", "command": "true"}, ["command"]),
        ({"source": "demo", "lines": 1.5}, ["lines", "whole number"]),
        ({"source": "demo", "lines": -1}, ["lines", "0 or more"]),
        ({"source": "demo", "error_share": 2}, ["error_share"]),
        ({"source": "tail"}, ["path"]),
        ({"source": "tail", "path": "/etc/passwd"}, ["/etc/passwd"]),
        ({"source": "tail", "path": "../../etc/passwd"}, ["etc/passwd"]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_field_that_is_wrong_is_named_and_nothing_is_started(
    lasting_server: Server, fields: dict[str, Any], hints: list[str]
) -> None:
    before = count_of(lasting_server)
    answer = lasting_server.http.post(
        "/deployments", content=json.dumps(fields), headers=JSON_HEADERS
    )
    sentence = the_sentence(answer, 400)
    for hint in hints:
        assert hint in sentence
    assert len(sentence) < 2000
    assert count_of(lasting_server) == before


@pytest.mark.parametrize("depth", [10, 100, 300, 500, 700, 900, 950, 980, 990])
def test_a_deeply_nested_value_is_refused_as_any_wrong_one(
    lasting_server: Server, depth: int
) -> None:
    body = '{"command": ' + "[" * depth + "]" * depth + "}"
    answer = lasting_server.http.post("/deployments", content=body, headers=JSON_HEADERS)
    the_sentence(answer, 400)


def test_a_huge_wrong_value_does_not_come_back_whole(lasting_server: Server) -> None:
    answer = lasting_server.http.post("/deployments", json={"command": "x", "tty": "y" * 500_000})
    assert len(the_sentence(answer, 400)) < 2000


@pytest.mark.parametrize(
    ("form", "hints"),
    [
        ({}, ["command"]),
        ({"command": ""}, ["command"]),
        ({"command": "true", "timeout_seconds": "soon"}, ["timeout_seconds", "soon"]),
        ({"command": "true", "timeout_seconds": "nan"}, ["timeout_seconds"]),
        ({"command": "true", "timeout_seconds": "inf"}, ["timeout_seconds"]),
        ({"command": "true", "timeout_seconds": "-1"}, ["timeout_seconds"]),
        ({"command": "true", "tty": "perhaps"}, ["tty", "perhaps"]),
        ({"command": "true", "env": "no equals sign"}, ["env"]),
        ({"command": "true", "source": "nothing"}, ["nothing"]),
        ({"command": "true", "unknown": "x"}, ["unknown"]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_form_that_is_wrong_is_refused_with_a_page_or_json(
    lasting_server: Server, form: dict[str, str], hints: list[str]
) -> None:
    before = count_of(lasting_server)
    content_type = {"Content-Type": "application/x-www-form-urlencoded"}
    sentence = the_sentence(
        lasting_server.http.post("/deployments", data=form, headers=content_type), 400
    )
    page = lasting_server.http.post(
        "/deployments", data=form, headers={**content_type, "Accept": "text/html"}
    )
    assert page.status_code == 400
    assert page.headers["Content-Type"].startswith("text/html")
    for hint in hints:
        assert hint in sentence
        assert hint in page.text
    assert count_of(lasting_server) == before


def test_a_form_that_is_no_utf8_is_refused(lasting_server: Server) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = lasting_server.http.post("/deployments", content=b"command=%ff%fe", headers=headers)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_a_multipart_body_that_is_none_is_refused(lasting_server: Server) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = lasting_server.http.post(
            "/deployments", content=b"rubbish", headers={"Content-Type": content_type}
        )
        assert answer.status_code == 400, content_type
        assert list(answer.json()) == ["error"]


def test_a_body_that_is_too_large_is_refused_in_a_sentence(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("max_body_bytes = 2000")
    body = json.dumps({"command": "true", "name": "x" * 3000}).encode()
    answer = server.http.post("/deployments", content=body, headers=JSON_HEADERS)
    assert "2000" in the_sentence(answer, 413).replace(",", "")
    assert count_of(server) == 0


@pytest.mark.parametrize(
    "text",
    ["\ud800", "a\u2028b", "\x1b[31m", "</script><script>alert(1)</script>", "%s%d{}"],
)
def test_odd_text_in_a_name_and_a_command_harms_no_page(spoilt_server: Server, text: str) -> None:
    server = spoilt_server
    body = json.dumps({"command": ["echo", text], "name": f"name {text}"})
    answer = server.http.post("/deployments", content=body, headers=JSON_HEADERS)
    if answer.status_code == 400:  # it may be refused
        the_sentence(answer, 400)
        return
    deployment_id = answer.json()["id"]
    try:
        assert server.wait_for_end(deployment_id)["error"] == ""
        for path in ("/", f"/deployments/{deployment_id}", "/deployments"):
            page = server.http.get(path, headers={"Accept": "text/html"})
            assert page.status_code == 200, path
            is_page = page.headers["Content-Type"].startswith("text/html")
            assert not (is_page and "<script>alert" in page.text)
    finally:
        take_out(server, deployment_id)


def test_a_text_that_is_far_too_long_for_a_command_says_so_in_the_record(
    lasting_server: Server,
) -> None:
    record = lasting_server.deploy("echo " + "x" * 300_000)
    ended = lasting_server.wait_for_end(record["id"])
    assert (ended["state"], ended["exit_status"]) == ("failed", 126)
    assert "too long" in ended["note"]


def test_a_name_is_short_text_to_show_however_long_the_command_is(
    lasting_server: Server,
) -> None:
    record = lasting_server.deploy("true " + "x" * 50_000)
    assert len(record["name"]) <= 1000
    assert record["request"]["command"] == "true " + "x" * 50_000


# --- commands that can't run


def test_a_command_that_does_not_exist_leaves_the_words_of_the_shell_and_127(
    lasting_server: Server,
) -> None:
    record = lasting_server.deploy("no-such-command --at-all")
    end = lasting_server.wait_for_end(record["id"])
    assert (end["state"], end["exit_status"]) == ("failed", 127)
    assert b"no-such-command" in lasting_server.log(record["id"])
    assert b"not found" in lasting_server.log(record["id"])


def test_a_program_that_does_not_exist_ends_with_127_and_says_so(
    lasting_server: Server,
) -> None:
    record = lasting_server.deploy(["no-such-program", "--at-all"])
    end = lasting_server.wait_for_end(record["id"])
    assert (end["state"], end["exit_status"]) == ("failed", 127)
    said = end["note"] + end["error"] + lasting_server.log(record["id"]).decode()
    assert "no-such-program" in said
    assert "No such file" in said


def test_a_program_that_cannot_be_executed_ends_with_126(lasting_server: Server) -> None:
    for program in (str(lasting_server.folder), "/etc/passwd"):
        record = lasting_server.deploy([program])
        end = lasting_server.wait_for_end(record["id"])
        assert (end["state"], end["exit_status"]) == ("failed", 126)
        assert program in end["note"] + end["error"]


@pytest.mark.parametrize("seconds", [1e6, 3e6, 1e9, 1e15, 1e300])
def test_a_timeout_in_the_far_future_does_not_keep_a_command_from_running(
    lasting_server: Server, seconds: float
) -> None:
    body = json.dumps({"command": "sleep 0.1; echo done", "timeout_seconds": seconds})
    answer = lasting_server.http.post("/deployments", content=body, headers=JSON_HEADERS)
    if answer.status_code == 400:  # it may be refused
        assert "timeout_seconds" in the_sentence(answer, 400)
        return
    end = lasting_server.wait_for_end(answer.json()["id"])
    assert (end["state"], end["error"]) == ("succeeded", "")


def test_a_pause_in_the_far_future_does_not_break_the_mock(lasting_server: Server) -> None:
    record = lasting_server.deploy(source="demo", lines=2, interval_seconds=1e7)
    with open_stream(lasting_server.http, f"/logs/{record['id']}") as stream:
        stream.wait_for_lines(1)
        lasting_server.http.post(f"/deployments/{record['id']}/stop")
        end = stream.read_to_end()[-1].json()
    assert (end["state"], end["error"]) == ("stopped", "")


# --- parameters


@pytest.mark.parametrize(
    "query",
    [
        "tail=-1",
        "tail=x",
        "tail=1.5",
        "tail=%2b1",
        "tail=%d9%a1",
        "tail=" + "9" * 30,
        "tail=%ff",
        "after=%ff",
        "lines?from=0",
        "lines?from=x",
        "lines?from=--1",
        "lines?from=-0",
        "lines?from=" + "9" * 30,
        "lines?count=0",
        "lines?count=-1",
        "lines?count=10001",
        "lines?count=x",
        "lines?count=%00",
    ],
    ids=lambda text: text[:30],
)
def test_a_parameter_of_a_log_that_is_wrong_is_refused(
    lasting_server: Server, known_id: str, query: str
) -> None:
    url = f"/logs/{known_id}" + (f"/{query}" if "?" in query else f"?{query}")
    answer = lasting_server.http.get(url)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    if "%ff" not in query:
        name = re.split(r"[?=]", query)[-2]
        assert name in the_sentence(answer, 400)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=x", "limit=1001", "limit=1e3", "limit=" + "9" * 30),
        *("state=nothing", "state=RUNNING"),
    ],
)
def test_a_parameter_of_the_list_that_is_wrong_is_refused(
    lasting_server: Server, query: str
) -> None:
    sentence = the_sentence(lasting_server.http.get(f"/deployments?{query}"), 400)
    assert query.split("=")[0] in sentence


@pytest.mark.parametrize("before", ["20200101-000000-aaaaaa", "../x", "nothing"])
def test_a_page_before_a_deployment_that_is_unknown_does_not_begin_anew(
    lasting_server: Server, known_id: str, before: str
) -> None:
    # A client that pages on when its last deployment has been removed would page for ever.
    answer = lasting_server.http.get(f"/deployments?before={before}")
    if answer.status_code == 200:
        assert known_id not in [record["id"] for record in answer.json()["deployments"]]
    else:
        assert "before" in the_sentence(answer, 400)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"rubbish\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /deployments HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /deployments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda request: repr(request[:40]),
)
def test_what_is_hardly_http_at_all_does_no_harm(
    lasting_server: Server, request_bytes: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", lasting_server.port), timeout=10) as sock:
        try:
            sock.sendall(request_bytes)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        except TimeoutError:
            raise
        except OSError:  # closed, or reset, at whatever moment
            answer = b""
    assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:100]
    assert lasting_server.http.get("/deployments").status_code == 200


# --- logs that somebody else writes


def test_a_finished_log_that_is_put_into_the_folder_is_a_deployment(server: Server) -> None:
    drop_log(server, "by-hand.v1_2", b"a\nb\n")
    record = server.record("by-hand.v1_2")
    assert (record["state"], record["request"], record["exit_status"]) == ("finished", None, None)
    assert (record["log_bytes"], record["can_stop"]) == (4, False)
    assert record["name"] == "by-hand.v1_2.log"
    listed = server.http.get("/deployments").json()["deployments"]
    assert listed == [record]
    assert lines_of(read_events(server.http, "/logs/by-hand.v1_2")) == ["a", "b"]
    the_sentence(server.http.post("/deployments/by-hand.v1_2/stop"), 409)
    page = server.http.get("/deployments/by-hand.v1_2", headers={"Accept": "text/html"})
    assert page.status_code == 200


def test_a_log_that_is_being_written_by_hand_runs_until_it_is_closed(server: Server) -> None:
    path = server.data_dir / "open.log"
    with path.open("wb", buffering=0) as log:
        log.write(b"a\nhal")
        os.utime(path, (OLD, OLD))  # that it is open is what counts, not when it was written to
        server.wait_for_state("open", "running")
        with open_stream(server.http, "/logs/open") as stream:
            stream.wait_for_lines(1)
            log.write(b"f\nlast")
            stream.wait_for_lines(2)
            assert server.record("open")["state"] == "running"
            log.close()
            events = stream.read_to_end()
    assert lines_of(events) == ["a", "half", "last"]
    assert events[-1].json()["state"] == "finished"


def test_a_log_that_is_redirected_to_by_a_shell_is_streamed_live(server: Server) -> None:
    with open_stream(server.http, "/events") as list_events:
        list_events.wait(lambda: list_events.parser.retry, "the stream's begin")
        gate = server.folder / "gate"
        command = f"echo a; while [ ! -e {gate} ]; do sleep 0.01; done; echo b"
        os.spawnl(os.P_NOWAIT, "/bin/sh", "sh", "-c", f"({command}) > {server.data_dir}/make.log")
        list_events.wait(
            lambda: any(e.json()["id"] == "make" for e in list_events.events), "the new log"
        )
    with open_stream(server.http, "/logs/make") as stream:
        assert stream.wait_for_lines(1) == ["a"]
        gate.touch()
        assert lines_of(stream.read_to_end()) == ["a", "b"]
    os.wait()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"no line end", ["no line end"]),
        (b"a\nno line end", ["a", "no line end"]),
        (b"\xff\xfe\n\x80", ["\ufffd\ufffd", "\ufffd"]),
        ("utf-16".encode("utf-16"), ["\ufffd\ufffdu\0t\0f\0-\x001\x006\0"]),
    ],
)
def test_any_bare_log_can_be_read(lasting_server: Server, data: bytes, lines: list[str]) -> None:
    name = f"bare-{abs(hash(data))}"
    drop_log(lasting_server, name, data)
    assert lines_of(read_events(lasting_server.http, f"/logs/{name}")) == lines
    assert lasting_server.http.get(f"/logs/{name}/lines").json()["lines"] == lines
    assert lasting_server.http.get(f"/logs/{name}/raw").content == data


def peak_memory_kib(server: Server) -> int:
    """The most memory that the server has had; what it has now, where the system knows no more."""
    assert server.process is not None
    pid = server.process.pid
    if Path("/proc/self/status").exists():
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)]))


def test_a_line_of_a_hundred_megabytes_is_cut_and_never_held(server: Server) -> None:
    size = 100_000_000
    drop_log(server, "small", b"before\nx\nafter\n")
    assert lines_of(read_events(server.http, "/logs/small")) == ["before", "x", "after"]
    path = server.folder / "long.log"
    with path.open("wb") as log:
        log.write(b"before\n")
        for _ in range(size // 1_000_000):
            log.write(b"x" * 1_000_000)
        log.write(b"\nafter\n")
    os.utime(path, (OLD, OLD))
    path.rename(server.data_dir / "long.log")
    server.wait_for_state("long", "finished")
    before_kib = peak_memory_kib(server)
    cut = "x" * 65536 + f" … [{size - 65536:,} bytes left out; the raw log has them]"
    for query in ("", "?batch=1", "?tail=2", "?partial=1"):
        lines = lines_of(read_events(server.http, f"/logs/long{query}"))
        assert lines == ["before", cut, "after"][-2 if "tail" in query else 0 :]
    assert server.http.get("/logs/long/lines?from=2&count=1").json()["lines"] == [cut]
    with server.http.stream("GET", "/logs/long/raw") as response:
        assert sum(map(len, response.iter_raw())) == size + 14
    assert peak_memory_kib(server) - before_kib < 20_000


def test_a_log_that_is_truncated_under_its_viewer_begins_anew(server: Server) -> None:
    path = server.data_dir / "cut.log"
    with path.open("wb", buffering=0) as log, open_cut(server, log) as stream:
        stream.wait_for_lines(2)
        log.truncate(0)
        log.seek(0)
        stream.wait_for_event("reset")
        log.write(b"new 1\n")
        stream.wait_for_lines(3)
        cursor = stream.events[-1].last_event_id
        log.write(b"new 2\n")
        assert stream.wait_for_lines(4) == ["old 1", "old 2", "new 1", "new 2"]
        assert [event.type for event in stream.events] == [
            *["message"] * 2,
            "reset",
            *["message"] * 2,
        ]
        with open_stream(server.http, "/logs/cut", last_event_id=cursor) as resumed:
            assert resumed.wait_for_lines(1) == ["new 2"]
        old = stream.of_type("message")[1].last_event_id
        with open_stream(server.http, "/logs/cut", last_event_id=old) as outdated:
            outdated.wait_for_event("reset")
            assert outdated.wait_for_lines(2) == ["new 1", "new 2"]


def test_a_log_that_is_written_over_by_a_longer_one_begins_anew(server: Server) -> None:
    path = server.data_dir / "cut.log"
    with path.open("wb", buffering=0) as log, open_cut(server, log) as stream:
        stream.wait_for_lines(2)
        log.seek(0)
        log.write(b"new 1\nnew 2\nnew 3\n")  # as a cut that nobody hears of before it has grown
        assert stream.wait_for_lines(5) == ["old 1", "old 2", "new 1", "new 2", "new 3"]
        assert stream.events[2].type == "reset"


def test_a_log_that_is_written_over_by_one_with_the_same_end_there_begins_anew(
    server: Server,
) -> None:
    path = server.data_dir / "cut.log"
    same = "\n" * 300
    with path.open("wb", buffering=0) as log, open_cut(server, log, same) as stream:
        stream.wait_for_lines(302)
        log.seek(0)
        log.write(b"new 1\nnew 2\n" + same.encode() + b"more\n")
        lines = stream.wait_for_lines(302 + 303)
        assert lines[302:] == ["new 1", "new 2", *[""] * 300, "more"]
        assert stream.events[302].type == "reset"


def open_cut(server: Server, log: Any, rest: str = "") -> Any:
    """A viewer of `cut.log` with two lines in it, and `rest`."""
    log.write(b"old 1\nold 2\n" + rest.encode())
    server.wait_for_state("cut", "running")
    return open_stream(server.http, "/logs/cut")


def test_a_log_that_is_truncated_while_its_command_runs_begins_anew(server: Server) -> None:
    gate = server.folder / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.01; done"
    log = server.deploy(f"echo old 1; echo old 2; {wait}; echo new 1; echo new 2")["id"]
    with open_stream(server.http, f"/logs/{log}") as stream:
        stream.wait_for_lines(2)
        os.truncate(server.data_dir / f"{log}.log", 0)
        stream.wait_for_event("reset")
        gate.touch()
        events = stream.read_to_end()
    assert lines_of(events) == ["old 1", "old 2", "new 1", "new 2"]
    assert lines_of(read_events(server.http, f"/logs/{log}")) == ["new 1", "new 2"]
    new = next(event for event in events if event.data == "new 1")
    rest = read_events(server.http, f"/logs/{log}", last_event_id=new.last_event_id)
    assert [event.data for event in rest[:-1]] == ["new 2"]
    assert server.http.get(f"/logs/{log}/lines").json()["lines"] == ["new 1", "new 2"]


def test_a_log_that_is_replaced_by_another_begins_anew(server: Server) -> None:
    path = server.data_dir / "cut.log"
    with path.open("wb", buffering=0) as log, open_cut(server, log) as stream:
        stream.wait_for_lines(2)
        new = server.folder / "new.log"
        new.write_bytes(b"other 1\nother 2\nother 3\n")
        os.utime(new, (OLD, OLD))
        new.rename(path)
        events = stream.read_to_end()
    assert [event.type for event in events] == [*["message"] * 2, "reset", *["message"] * 3, "end"]
    assert lines_of(events)[2:] == ["other 1", "other 2", "other 3"]
    old = read_events(server.http, "/logs/cut", last_event_id=events[1].last_event_id)
    assert [event.type for event in old] == ["reset", *["message"] * 3, "end"]


def test_a_log_that_is_deleted_under_its_viewer_ends_with_a_sentence(server: Server) -> None:
    path = server.data_dir / "cut.log"
    with path.open("wb", buffering=0) as log, open_cut(server, log) as stream:
        stream.wait_for_lines(2)
        path.unlink()
        end = stream.read_to_end()[-1].json()
    assert "deleted" in end["error"]
    the_sentence(server.http.get("/logs/cut"), 404)
    the_sentence(server.http.get("/logs/cut/raw"), 404)
    the_sentence(server.http.get("/logs/cut/lines"), 404)


def test_a_running_deployment_whose_files_are_deleted_ends_for_its_viewers(
    server: Server,
) -> None:
    log = server.deploy("echo a; sleep 1000")["id"]
    record = server.wait_for_state(log, "running")
    with open_stream(server.http, f"/logs/{log}") as stream:
        stream.wait_for_lines(1)
        (server.data_dir / f"{log}.log").unlink()
        assert "deleted" in stream.read_to_end()[-1].json()["error"]
    os.kill(record["capture_pid"], 15)
    wait_for(lambda: not Path(f"/proc/{record['capture_pid']}").exists(), "its capture process")
    assert server.http.get("/deployments").status_code == 200


def test_a_raw_stream_of_a_log_that_is_deleted_ends(server: Server) -> None:
    path = server.data_dir / "cut.log"
    with path.open("wb", buffering=0) as log:
        log.write(b"a\n")
        server.wait_for_state("cut", "running")
        with server.http.stream("GET", "/logs/cut/raw") as response:
            pieces = response.iter_raw()
            assert next(pieces) == b"a\n"
            path.unlink()
            assert list(pieces) == []


# --- records and other things in the folder

GARBAGE = {
    "empty": b"",
    "half": b'{"id": "ID", "name": "ha',
    "rubbish": b"\xff\0\xfe rubbish",
    "a list": b"[]",
    "a text": b'"ID"',
    "no id": b"{}",
    "an id that is a number": b'{"id": 5}',
    "another id": b'{"id": "another"}',
    "an unknown state": b'{"id": "ID", "state": "exploded"}',
    "a state that is a list": b'{"id": "ID", "state": []}',
    "no times": b'{"id": "ID", "state": "succeeded"}',
    "a time that is a number": b'{"id": "ID", "state": "succeeded", "created_at": 5}',
    "a time that is null": b'{"id": "ID", "state": "succeeded", "created_at": null}',
    "a name that is a number": b'{"id": "ID", "state": "succeeded", "name": 5}',
    "a request that is a text": b'{"id": "ID", "state": "succeeded", "request": "x"}',
    "processes that are none": b'{"id": "ID", "state": "lost", "left_running": 5}',
    "very deep": b"[" * 100_000,
    "a path as its id": b'{"id": "../secret", "state": "succeeded"}',
}


def put_garbage(server: Server, deployment_id: str, garbage: str) -> None:
    """A log of two lines with a record that is none."""
    (server.folder / "secret.log").write_bytes(b"a secret\n")
    record = GARBAGE[garbage].replace(b"ID", deployment_id.encode())
    (server.data_dir / f"{deployment_id}.json").write_bytes(record)
    log = server.folder / f"{deployment_id}.log"
    log.write_bytes(b"a\nb\n")
    os.utime(log, (OLD, OLD))
    log.rename(server.data_dir / log.name)


def take_out(server: Server, deployment_id: str) -> None:
    """Remove everything of this name."""
    for path in server.data_dir.glob(f"{deployment_id}.*"):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def assert_lives_on(server: Server, deployment_id: str) -> None:
    """Everything can be listed, shown, started and, if the thing is a log, read."""
    http = server.http
    listed = http.get("/deployments?limit=1000")
    assert listed.status_code == 200
    assert http.get("/deployments?q=x").status_code == 200
    assert http.get("/", headers={"Accept": "text/html"}).status_code == 200
    shown = http.get(f"/deployments/{deployment_id}", headers={"Accept": "text/html"})
    assert shown.status_code in (200, 404)
    ids = [record["id"] for record in listed.json()["deployments"]]
    assert ids.count(deployment_id) == (shown.status_code == 200)
    for url in (f"/logs/{deployment_id}/lines", f"/logs/{deployment_id}/raw"):
        assert http.get(url).status_code == shown.status_code, url
    assert server.wait_for_end(server.deploy("true")["id"])["state"] == "succeeded"


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_garbage_record_harms_nothing_but_itself(spoilt_server: Server, garbage: str) -> None:
    server, name = spoilt_server, f"garbage-{list(GARBAGE).index(garbage)}"
    try:
        put_garbage(server, name, garbage)
        wait_for(lambda: server.http.get(f"/deployments/{name}").status_code == 200, "the log", 2.0)
        assert_lives_on(server, name)
        assert server.wait_for_end(name)["id"] == name
        assert lines_of(read_events(server.http, f"/logs/{name}")) == ["a", "b"]
        assert server.http.get(f"/logs/{name}/lines").json()["lines"] == ["a", "b"]
    finally:
        take_out(server, name)


def test_a_server_starts_whatever_the_records_hold(server: Server) -> None:
    good = server.deploy("echo good")["id"]
    server.wait_for_end(good)
    server.terminate()
    names = {f"garbage-{number}": garbage for number, garbage in enumerate(GARBAGE)}
    try:
        for name, garbage in names.items():
            put_garbage(server, name, garbage)
        server.start()
        listed = server.http.get("/deployments").json()["deployments"]
        assert sorted(record["id"] for record in listed) == sorted([good, *names])
        for name in names:
            assert lines_of(read_events(server.http, f"/logs/{name}")) == ["a", "b"]
    finally:
        take_out(server, "garbage-*")


def make_socket(path: Path) -> None:
    """A Unix socket; its path may be longer than bind(2) takes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/s")
        os.rename(f"{folder}/s", path)


def make_record_folder(path: Path) -> None:
    """A log, but a folder in its record's place."""
    path.with_suffix(".json").mkdir()
    path.write_bytes(b"a\n")


# What isn't a plain file, but may stand in the data folder.
THINGS: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a socket": make_socket,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a record that is a folder": make_record_folder,
}


@pytest.fixture
def released_pipe(server: Server) -> Iterator[threading.Event]:
    """After 5 s it opens `pipe.log`, and a server that hangs on it goes on; set if it had to."""
    hung = threading.Event()
    done = threading.Event()
    fds: list[int] = []

    def release() -> None:
        if not done.wait(5):
            hung.set()
            fds.append(os.open(server.data_dir / "pipe.log", os.O_RDWR | os.O_NONBLOCK))
            done.wait()

    thread = threading.Thread(target=release)
    thread.start()
    yield hung
    (server.data_dir / "pipe.log").unlink()
    done.set()
    thread.join()
    for fd in fds:
        os.close(fd)


def test_a_pipe_in_the_folder_does_not_hang_the_server(
    server: Server, released_pipe: threading.Event
) -> None:
    os.mkfifo(server.data_dir / "pipe.log")
    assert_lives_on(server, "pipe")
    server.terminate()
    server.start()
    assert_lives_on(server, "pipe")
    assert not released_pipe.is_set()


@pytest.mark.parametrize("thing", THINGS)
def test_a_thing_in_the_folder_that_is_no_file_harms_nothing(
    spoilt_server: Server, thing: str
) -> None:
    server, name = spoilt_server, f"thing-{list(THINGS).index(thing)}"
    try:
        THINGS[thing](server.data_dir / f"{name}.log")
        drop_log(server, f"after-{name}", b"a\n")  # its change is noticed after that of the thing
        assert_lives_on(server, name)
    finally:
        take_out(server, name)


def test_a_server_starts_whatever_stands_in_its_folder(server: Server) -> None:
    server.terminate()
    try:
        for number, thing in enumerate(THINGS):
            THINGS[thing](server.data_dir / f"thing-{number}.log")
        server.start()
        assert_lives_on(server, "nothing-of-them")
    finally:
        take_out(server, "thing-*")


def test_a_name_that_cannot_be_an_id_is_left_out_and_harms_nothing(server: Server) -> None:
    for name in ("a b.log", ".hidden.log", "-x.log", "ü.log", ".log", "x" * 200 + ".log"):
        (server.data_dir / name).write_bytes(b"a\n")
    (server.data_dir / os.fsdecode(b"\xff\xfe.log")).write_bytes(b"a\n")
    (server.data_dir / "good.log").write_bytes(b"a\n")
    server.wait_for_state("good", "running", "finished")
    for _ in range(2):
        listed = server.http.get("/deployments").json()["deployments"]
        assert [record["id"] for record in listed] == ["good"]
        assert server.terminate() == 0
        server.start()


# --- two servers


def test_two_servers_on_one_folder_see_the_same(make_server: Callable[..., Server]) -> None:
    first, second = make_server(), make_server()
    second.terminate()
    (second.folder / "tornado_logs.toml").write_text(f'data_dir = "{first.data_dir}"')
    second.start()
    gate = first.folder / "gate"
    with open_stream(second.http, "/events") as list_events:
        list_events.wait(lambda: list_events.parser.retry, "the stream's begin")
        log = first.deploy(f"echo a; while [ ! -e {gate} ]; do sleep 0.01; done; echo b")["id"]
        list_events.wait(
            lambda: any(e.json()["state"] == "running" for e in list_events.events), "it to run"
        )
        with (
            open_stream(first.http, f"/logs/{log}") as at_first,
            open_stream(second.http, f"/logs/{log}") as at_second,
        ):
            cursor = (at_first.wait_for_lines(1), at_first.events[0].last_event_id)[1]
            at_second.wait_for_lines(1)
            gate.touch()
            assert at_first.read_to_end() == at_second.read_to_end()
    assert lines_of(read_events(second.http, f"/logs/{log}", last_event_id=cursor)) == ["b"]
    other = second.deploy("sleep 1000")["id"]
    first.wait_for_state(other, "running")
    assert first.http.post(f"/deployments/{other}/stop").status_code == 202
    assert second.wait_for_end(other)["state"] == "stopped"
    assert first.wait_for_end(other) == second.record(other)
    assert first.http.get("/deployments").json() == second.http.get("/deployments").json()


def test_a_deployment_that_has_ended_cannot_be_stopped(
    lasting_server: Server, known_id: str
) -> None:
    lasting_server.wait_for_end(known_id)
    sentence = the_sentence(lasting_server.http.post(f"/deployments/{known_id}/stop"), 409)
    assert known_id in sentence
