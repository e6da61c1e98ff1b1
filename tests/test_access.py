"""Who may use the server, and what a wrong start of it says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import Server, free_port, run_cli

USAGE, SYSTEM = 100, 111


def raw_request(server: Server, method: str, path: str, *headers: str) -> bytes:
    """The answer to a request with these headers alone."""
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", *headers]
    body = b""
    if method == "POST":
        body = json.dumps({"command": f"touch {server.folder}/was-run"}).encode()
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


def assert_nothing_was_started(server: Server, known_id: str) -> None:
    """Only the deployment of the fixture is there, on the disk too."""
    listed = server.http.get("/deployments").json()["deployments"]
    assert [record["id"] for record in listed] == [known_id]
    assert {path.stem for path in server.data_dir.glob("*.log")} == {known_id}
    assert not (server.folder / "was-run").exists()


# --- whose name and whose page


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:PORT",
        "localhost.evil.com",
        "localhost.evil.com:PORT",
        "127.0.0.1.evil.com",
        "evil.com.localhost.",
        "notlocalhost",
        "0.0.0.0:PORT",
        "10.0.0.1:PORT",
        "[::ffff:10.0.0.1]:PORT",
        "[fe80::1]",
        "",
        ":PORT",
        "localhost evil.com",
        "localhost,evil.com",
        "evil.com/localhost",
        "localhost@evil.com",
        "evil.com#@localhost",
        "evil.com?localhost",
        "[localhost]",
        "[",
    ],
)
def test_a_host_that_is_not_ours_is_refused(
    lasting_server: Server, known_id: str, host: str
) -> None:
    header = "Host: " + host.replace("PORT", str(lasting_server.port))
    for method, path in (
        ("GET", "/"),
        ("GET", "/deployments"),
        ("GET", f"/deployments/{known_id}"),
        ("GET", f"/logs/{known_id}"),
        ("GET", f"/logs/{known_id}/raw"),
        ("GET", f"/logs/{known_id}/lines"),
        ("GET", "/events"),
        ("GET", "/nothing"),
        ("POST", "/deployments"),
        ("POST", f"/deployments/{known_id}/stop"),
    ):
        answer = raw_request(lasting_server, method, path, header)
        # 400 where it isn't even a host.
        assert answer.split(b" ")[1] in (b"403", b"400"), (method, path, answer[:200])
        assert b"\ndata:" not in answer
        assert known_id.encode() not in answer.partition(b"\r\n\r\n")[2]
    assert_nothing_was_started(lasting_server, known_id)


@pytest.mark.parametrize("host", ["evil.com", "localhost.evil.com", "192.168.1.2"])
def test_the_refusal_of_a_host_says_why_in_json(lasting_server: Server, host: str) -> None:
    answer = lasting_server.http.get("/deployments", headers={"Host": host})
    assert answer.status_code == 403
    assert list(answer.json()) == ["error"]
    assert host in answer.json()["error"]
    assert "localhost" in answer.json()["error"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:PORT", "127.0.0.1", "127.0.0.1:PORT", "[::1]:PORT", "127.9.9.9"],
)
def test_every_name_of_this_machine_is_ours(lasting_server: Server, host: str) -> None:
    host = host.replace("PORT", str(lasting_server.port))
    assert lasting_server.http.get("/deployments", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.com"},
        {"Origin": "http://evil.com:PORT"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://127.0.0.1:PORT.evil.com"},
        {"Origin": "http://127.0.0.1:PORT/"},
        {"Origin": "http://127.0.0.1:PORT@evil.com"},
        {"Origin": "file://"},
        {"Origin": "http://127.0.0.1:PORT http://evil.com"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:PORT"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.com"},
    ],
    ids=repr,
)
def test_a_page_of_another_site_can_start_and_stop_nothing(
    lasting_server: Server, known_id: str, headers: dict[str, str]
) -> None:
    headers = {
        name: value.replace("PORT", str(lasting_server.port)) for name, value in headers.items()
    }
    command = f"touch {lasting_server.folder}/was-run"
    for answer in (
        lasting_server.http.post("/deployments", json={"command": command}, headers=headers),
        lasting_server.http.post("/deployments", data={"command": command}, headers=headers),
        lasting_server.http.post(  # what a page may send without asking first
            "/deployments",
            content=json.dumps({"command": command}),
            headers={**headers, "Content-Type": "text/plain"},
        ),
        lasting_server.http.post(f"/deployments/{known_id}/stop", headers=headers),
    ):
        assert answer.status_code == 403
        assert "another site" in answer.json()["error"]
    assert_nothing_was_started(lasting_server, known_id)


def test_two_origins_are_not_ours(lasting_server: Server, known_id: str) -> None:
    ours = f"http://127.0.0.1:{lasting_server.port}"
    host = f"Host: 127.0.0.1:{lasting_server.port}"
    for origins in ([ours, "http://evil.com"], ["http://evil.com", ours]):
        headers = [f"Origin: {origin}" for origin in origins]
        answer = raw_request(lasting_server, "POST", "/deployments", host, *headers)
        assert b" 403 " in answer.splitlines()[0]
    assert_nothing_was_started(lasting_server, known_id)


def test_no_answer_may_be_read_by_a_page_of_another_site(
    lasting_server: Server, known_id: str
) -> None:
    for path in ("/deployments", f"/logs/{known_id}", f"/logs/{known_id}/raw"):
        answer = lasting_server.http.get(path, headers={"Origin": "http://evil.com"})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    asked = lasting_server.http.options(
        "/deployments",
        headers={"Origin": "http://evil.com", "Access-Control-Request-Method": "POST"},
    )
    assert "Access-Control-Allow-Origin" not in asked.headers


def test_no_method_smuggles_a_start_in(lasting_server: Server, known_id: str) -> None:
    command = f"touch {lasting_server.folder}/was-run"
    for answer in (
        lasting_server.http.get("/deployments", params={"command": command}),
        lasting_server.http.get(
            "/deployments",
            params={"command": command, "_method": "POST"},
            headers={"X-HTTP-Method-Override": "POST"},
        ),
        lasting_server.http.post("/deployments", params={"command": command}),
    ):
        assert answer.status_code in (200, 400)
    assert_nothing_was_started(lasting_server, known_id)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_our_own_page_and_curl_may_start_one(server: Server, name: str) -> None:
    base_url = f"http://{name}:{server.port}"
    with httpx.Client(base_url=base_url, timeout=20) as http:
        for headers in (
            {"Origin": base_url, "Sec-Fetch-Site": "same-origin"},
            {"Origin": base_url},
            {"Sec-Fetch-Site": "none"},
            {},
        ):
            answer = http.post("/deployments", json={"command": "true"}, headers=headers)
            assert answer.status_code == 201, headers
    curl = subprocess.run(
        ["curl", "-sf", "-d", "command=echo by curl", f"{base_url}/deployments"],
        capture_output=True,
        timeout=20,
    )
    assert json.loads(curl.stdout)["name"] == "echo by curl"


# --- starts that are refused


def the_refusal(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one sentence on stderr."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("tornado-logs: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "::", "192.168.1.2", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1"),
        *("example.com", "localhost.evil.com", " localhost", "", "*"),
    ],
)
def test_only_this_machine_can_be_served(tmp_path: Path, host: str) -> None:
    sentence = the_refusal(run_cli(tmp_path, "serve", "--host", host), USAGE)
    assert "host" in sentence
    assert repr(host) in sentence
    assert "loopback" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_host_of_the_config_or_the_environment_is_refused_too(tmp_path: Path) -> None:
    by_environment = run_cli(tmp_path, "serve", TORNADO_LOGS_HOST="0.0.0.0")
    assert "loopback" in the_refusal(by_environment, USAGE)
    (tmp_path / "tornado_logs.toml").write_text('host = "0.0.0.0"')
    assert "loopback" in the_refusal(run_cli(tmp_path, "serve"), USAGE)


def test_a_taken_port_is_said_to_be_taken(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        done = run_cli(tmp_path, "serve", "--port", str(port))
    sentence = the_refusal(done, SYSTEM)
    assert str(port) in sentence
    assert "taken" in sentence


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    for folder in ("/dev/null/x", "a-file", "a-file/below", "x" * 300):
        sentence = the_refusal(run_cli(tmp_path, "serve", "--data-dir", folder), SYSTEM)
        assert folder in sentence


BAD_CONFIGS = {
    "a wrong key": ("prot = 5000", ["prot", "did you mean 'port'"]),
    "a key like no other": ("zzz = 1", ["zzz", "max_line_bytes"]),
    "a text for a number": ('port = "5000"', ["port", "whole number", "'5000'"]),
    "a truth for a number": ("port = true", ["port", "whole number", "True"]),
    "a fraction for a whole": ("max_line_bytes = 1.5", ["max_line_bytes", "whole", "1.5"]),
    "a negative port": ("port = -1", ["port", "0 or more", "-1"]),
    "too small": ("max_line_bytes = 1", ["max_line_bytes", "16 or more"]),
    "not a number": ("ping_seconds = nan", ["ping_seconds", "number"]),
    "a list for a text": ("data_dir = []", ["data_dir", "text", "[]"]),
    "a value for sections": ("sources = 5", ["sources", "[sources.NAME]"]),
    "a value for a section": ("[sources]\nweb = 5", ["sources.web", "[sources.web]", "5"]),
    "no type": ("[sources.web]\ntty = true", ["sources.web", "type", "missing"]),
    "an unknown type": ('[sources.web]\ntype = "x"', ["sources.web", "'x'", "subprocess", "mock"]),
    "a wrong option": (
        '[sources.web]\ntype = "subprocess"\ntyt = true',
        ["sources.web", "tyt", "did you mean 'tty'"],
    ),
    "a wrong type of an option": (
        '[sources.web]\ntype = "subprocess"\ntty = "yes"',
        ["sources.web", "tty", "true or false", "'yes'"],
    ),
    "a number for autostart": ('[sources.web]\ntype = "mock"\nautostart = 1', ["autostart", "1"]),
    "no TOML": ("port = ", ["not valid TOML"]),
    "a key twice": ("port = 1\nport = 2", ["not valid TOML"]),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_wrong_config_is_refused_with_its_place_and_what_was_expected(
    tmp_path: Path, name: str
) -> None:
    text, hints = BAD_CONFIGS[name]
    (tmp_path / "tornado_logs.toml").write_text(text)
    sentence = the_refusal(run_cli(tmp_path, "serve", "--port", "0"), USAGE)
    for hint in ["tornado_logs.toml", *hints]:
        assert hint in sentence
    assert not (tmp_path / "data").exists()


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin1.toml").write_bytes(b'data_dir = "\xff"')
    (tmp_path / "folder.toml").mkdir()
    for name in ("missing.toml", "latin1.toml", "folder.toml"):
        assert name in the_refusal(run_cli(tmp_path, "serve", "--config", name), USAGE)


def test_a_wrong_environment_variable_is_named(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "serve", TORNADO_LOGS_PORT="many")
    assert "TORNADO_LOGS_PORT" in the_refusal(done, USAGE)


@pytest.mark.parametrize("port", ["-1", "65536", "99999999999999999999"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    done = run_cli(tmp_path, "serve", "--port", port)
    assert done.returncode in (USAGE, SYSTEM)
    assert port in the_refusal(done, done.returncode)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nothing"],
        ["serve", "--nothing"],
        ["serve", "--port"],
        ["serve", "--port", "x"],
        ["serve", "extra"],
        ["--port", "5000"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_refused(tmp_path: Path, args: list[str]) -> None:
    assert "--help" in the_refusal(run_cli(tmp_path, *args), USAGE)


def test_the_version_and_the_help_are_told(tmp_path: Path) -> None:
    version = run_cli(tmp_path, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    name, number = version.stdout.split()
    assert name == "tornado-logs"
    assert number[0].isdigit()
    for args in (["--help"], ["serve", "--help"]):
        told = run_cli(tmp_path, *args)
        assert told.returncode == 0
        assert "serve" in told.stdout


def test_port_0_takes_a_free_one_and_says_which(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tornado_logs.cli", "serve", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        words = process.stdout.readline().split()
        url = words[-1]
        assert httpx.get(f"{url}/deployments").json() == {"deployments": [], "next": None}
        process.terminate()
        assert process.wait(20) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert not url.endswith(":0")
    assert words[0] == "tornado-logs"


def test_a_flag_beats_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    by_flag, by_environment, by_file = free_port(), free_port(), free_port()
    (tmp_path / "tornado_logs.toml").write_text(f'port = {by_file}\ndata_dir = "by-file"')
    with subprocess.Popen(
        [sys.executable, "-m", "tornado_logs.cli", "serve", "--port", str(by_flag)],
        cwd=tmp_path,
        env={
            **os.environ,
            "TORNADO_LOGS_PORT": str(by_environment),
            "TORNADO_LOGS_DATA_DIR": "by-environment",
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(f":{by_flag}\n")
        process.terminate()
        assert process.wait(20) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["by-environment"]
