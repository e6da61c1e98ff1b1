"""Secrets, tried to be got at from everywhere; what of its environment the server gives away."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, run_cli, wait_for
from test_access import the_refusal
from test_survival import is_alive, on_disk

from tornado_logs.capture import CaptureRequest, _receive_request, send_request
from tornado_logs.catalog import Catalog, RequestError
from tornado_logs.config import ConfigError, read_config
from tornado_logs.launcher import Launcher
from tornado_logs.mask import spellings
from tornado_logs.processes import descendants
from tornado_logs.registry import Registry

LITERAL = "l1teral in the config, \"with\" 'quotes' & \\more"
FROM_ENV = "fr0m-the-environment"
FROM_FILE = "-----BEGIN KEY-----\nfr0m-a-file-line-1\nfr0m-a-file-line-2\n-----END KEY-----"
ASKED = "with-a-r3quest"
ALL = (LITERAL, FROM_ENV, FROM_FILE, ASKED)

CONFIG = """
[secrets]
LITERAL = {literal}
FROM_ENV = {{ env = "DEPLOY_PASSWORD" }}
FROM_FILE = {{ file = "{file}" }}

[sources.shell]
type = "subprocess"
pass_secrets = ["LITERAL", "FROM_ENV", "FROM_FILE"]
stop_grace_seconds = 0.5
linger_seconds = 0.2

[sources.bare]
type = "subprocess"
pass_env = ["*"]

[sources.tail]
type = "file_tail"
below = "."
"""


@pytest.fixture
def keeper(
    make_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Server:
    """A server with three secrets in its config."""
    (tmp_path / "key").write_text(FROM_FILE + "\n")
    monkeypatch.setenv("DEPLOY_PASSWORD", FROM_ENV)
    return make_server(CONFIG.format(literal=json.dumps(LITERAL), file=tmp_path / "key"))


def traces(*secrets: str) -> list[bytes]:
    """What would give a secret away: all of it or one of its lines, however it is written."""
    return [trace for secret in secrets for trace in spellings(secret)]


def shown(server: Server, deployment_id: str) -> Iterator[tuple[str, bytes]]:
    """Everything that the server shows of a deployment that has ended, by where it was found."""
    html = {"Accept": "text/html"}
    log = f"/logs/{deployment_id}"
    for path, headers in (
        ("/", html),
        ("/deployments", {}),
        ("/deployments?last_line=1", {}),
        (f"/deployments/{deployment_id}", {}),
        (f"/deployments/{deployment_id}", html),
        (log, {}),
        (f"{log}?batch=1&partial=1", {}),
        (log, {"Accept": "text/plain"}),
        (f"{log}/raw", {}),
        (f"{log}/lines?from=1&count=1000", {}),
        (f"{log}/search?q=*", {}),
    ):
        yield path, server.http.get(path, headers=headers).content
    with server.http.stream("GET", "/events") as stream:
        yield "/events", next(stream.iter_bytes())
    yield from server.kept()


def kept_by_processes(server: Server) -> Iterator[tuple[str, bytes]]:
    """What anybody, or a command, can read of the processes that are ours, the server apart."""
    assert server.process is not None
    for process in descendants(server.process.pid):
        for name in ("cmdline", "comm", "environ"):
            path = Path(f"/proc/{process.pid}/{name}")
            try:
                yield str(path), path.read_bytes()
            except OSError:
                continue


def assert_nowhere(found: Iterator[tuple[str, bytes]], *secrets: str) -> None:
    for place, data in found:
        for trace in traces(*secrets):
            assert trace not in data, f"{trace!r} is in {place}"


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).hexdigest().encode()


HASHES = (
    "for name in LITERAL FROM_ENV FROM_FILE TOKEN; do printenv $name | head -c -1 | sha256sum; done"
)


@pytest.mark.parametrize("tty", [True, False])
def test_a_command_gets_its_secrets_and_nobody_else_sees_them(keeper: Server, tty: bool) -> None:
    command = f"env; printenv LITERAL FROM_ENV FROM_FILE TOKEN; printf %s $TOKEN; {HASHES}"
    deployment = keeper.deploy(command, tty=tty, secrets={"TOKEN": ASKED}, name=f"by {ASKED}")
    assert not any(trace in json.dumps(deployment).encode() for trace in traces(*ALL))
    record = keeper.wait_for_end(deployment["id"])
    log = keeper.log(deployment["id"])
    assert [digest(secret) in log for secret in ALL] == [True] * 4
    assert b"TOKEN=***\n" in log
    assert b"LITERAL=***\n" in log
    assert record["name"] == "by ***"
    assert record["request"]["secrets"] == {"TOKEN": "***"}
    assert record["has_secrets"]
    assert_nowhere(shown(keeper, deployment["id"]), *ALL)


def test_no_process_of_ours_shows_a_secret_while_the_command_runs(keeper: Server) -> None:
    deployment = keeper.deploy("echo begun; exec env -i sleep 1000", secrets={"TOKEN": ASKED})["id"]
    wait_for(lambda: keeper.log(deployment) == b"begun\n", "the command")
    record = keeper.record(deployment)
    # Before that, it has what it was given: the secrets are its own.
    program = Path(f"/proc/{record['pid']}/comm")
    wait_for(lambda: program.read_text() == "sleep\n", "the program without variables")
    found = dict(kept_by_processes(keeper))
    assert f"/proc/{record['capture_pid']}/cmdline" in found
    assert f"/proc/{record['pid']}/environ" in found
    assert_nowhere(iter(found.items()), *ALL)


@pytest.mark.parametrize("command", ["shell", "list"])
def test_a_secret_in_what_is_asked_for_is_used_but_not_kept(
    keeper: Server, tmp_path: Path, command: str
) -> None:
    folder = tmp_path / FROM_ENV
    folder.mkdir()
    texts: dict[str, Any] = {
        "shell": f"pwd | tr -d '\\n' | sha256sum; printf %s '{ASKED}' | sha256sum; printenv WORD",
        "list": [
            "sh",
            "-c",
            'pwd | tr -d "\\n" | sha256sum; printf %s "$1" | sha256sum',
            "x",
            ASKED,
        ],
    }
    record = keeper.deploy(
        texts[command],
        cwd=str(folder),
        env={"WORD": f"a {ASKED}", ASKED: "x"},
        secrets={"TOKEN": ASKED},
    )
    deployment = record["id"]
    keeper.wait_for_end(deployment)
    log = keeper.log(deployment)
    assert digest(str(folder)) in log
    assert digest(ASKED) in log
    assert record["request"]["env"] == {"WORD": "a ***", "***": "x"}
    assert record["request"]["cwd"] == str(tmp_path / "***")
    assert_nowhere(shown(keeper, deployment), *ALL)


def test_a_live_viewer_never_sees_a_part_of_a_secret(keeper: Server) -> None:
    command = f"printf 'it is {ASKED[:8]}'; sleep 0.3; printf '{ASKED[8:]}, see\\n'"
    fields = {"command": command, "secrets": {"TOKEN": ASKED}}
    headers = {"Accept": "text/plain"}
    with keeper.http.stream("POST", "/deployments", json=fields, headers=headers) as stream:
        pieces = list(stream.iter_bytes())
    assert b"".join(pieces) == b"it is ***, see\n"


def test_a_secret_that_a_kill_has_cut_is_not_left_in_the_log(keeper: Server) -> None:
    deployment = keeper.deploy(f"printf 'it is {ASKED[:-3]}'; kill -9 $$", secrets={"T": ASKED})
    record = keeper.wait_for_end(deployment["id"])
    assert record["signal"] == "SIGKILL"
    assert keeper.log(deployment["id"]) == b"it is ***"


def test_what_is_left_running_is_told_without_secrets(keeper: Server) -> None:
    padding = "x" * (150 - len("sh -c sleep 1000; : "))  # so that shortening would cut the secret
    command = ["sh", "-c", f'(sh -c "sleep 1000; : {padding} {ASKED * 8}" >/dev/null 2>&1 &) ']
    record = keeper.wait_for_end(keeper.deploy(command, secrets={"T": ASKED})["id"])
    assert any("***" in left["command"] for left in record["left_running"])
    assert "***" in record["note"]
    assert_nowhere(shown(keeper, record["id"]), *ALL)
    assert ASKED[:6] not in json.dumps(record)


def test_of_a_lost_deployment_only_the_programs_that_still_run_are_told(keeper: Server) -> None:
    command = f"sh -c 'sleep 1000; : {ASKED}' & echo begun; sleep 1000; : {ASKED}"
    deployment = keeper.deploy(command, secrets={"TOKEN": ASKED})["id"]
    wait_for(lambda: keeper.log(deployment) == b"begun\n", "the command")
    keeper.kill()
    os.kill(on_disk(keeper, deployment)["capture_pid"], signal.SIGKILL)  # type: ignore[arg-type]
    keeper.start()
    record = keeper.wait_for_state(deployment, "lost")
    programs = [left["command"] for left in record["left_running"]]
    assert len(programs) >= 3
    assert all(" " not in program for program in programs)
    assert "Still running" in record["note"]
    assert_nowhere(shown(keeper, deployment), *ALL)
    keeper.http.post(f"/deployments/{deployment}/stop")
    wait_for(lambda: not any(is_alive(left["pid"]) for left in record["left_running"]), "their end")


def test_a_program_that_cannot_be_run_is_told_without_the_secret_in_its_name(
    keeper: Server,
) -> None:
    program = [f"./no-{LITERAL}", "x"]
    record = keeper.wait_for_end(keeper.deploy(program)["id"])
    assert record["note"].startswith("cannot run ")
    assert "***" in record["note"]
    assert_nowhere(shown(keeper, record["id"]), *ALL)


def test_a_secret_that_the_output_declares_leaves_the_record_too(server: Server) -> None:
    command = f"echo '::add-mask::{ASKED}'; echo it is {ASKED}; sleep 1000"
    deployment = server.deploy(command, name=f"with {ASKED}")["id"]
    wait_for(lambda: b"it is" in server.log(deployment), "the output")
    assert server.log(deployment) == b"::add-mask::***\nit is ***\n"
    record = wait_for(
        lambda: (found := server.record(deployment))["has_secrets"] and found, "the record"
    )
    assert record["name"] == "with ***"
    assert record["request"]["command"] == "echo '::add-mask::***'; echo it is ***; sleep 1000"
    os.kill(record["capture_pid"], signal.SIGKILL)
    server.wait_for_state(deployment, "lost")
    # The audit file has what was asked for before it was known for a secret, for admins alone.
    found = (item for item in shown(server, deployment) if not item[0].endswith("audit.jsonl"))
    assert_nowhere(found, ASKED)


def test_the_config_file_itself_shows_no_secret_when_it_is_followed(keeper: Server) -> None:
    fields = {"source": "tail", "path": "tornado_logs.toml", "lines": -1}
    deployment = keeper.deploy(None, **fields)["id"]
    wait_for(lambda: b"LITERAL" in keeper.log(deployment), "the file")
    keeper.http.post(f"/deployments/{deployment}/stop")
    keeper.wait_for_end(deployment)
    assert b'LITERAL = "***"' in keeper.log(deployment)
    assert_nowhere(shown(keeper, deployment), *ALL)


REFUSED: list[dict[str, Any]] = [
    {"command": "true", "secrets": ASKED},
    {"command": "true", "secrets": [ASKED]},
    {"command": "true", "secrets": {"A=B": ASKED}},
    {"command": "true", "secrets": {"TOKEN": [ASKED]}},
    {"command": "true", "secrets": {"TOKEN": f"{ASKED}\0"}},
    {"command": "true", "secrets": {"TOKEN": ASKED}, "cwd": f"/{ASKED}"},
    {"command": "true", "secrets": {"TOKEN": ASKED}, "env": ASKED},
    {"command": "true", "secrets": {"TOKEN": ASKED}, "tty": ASKED},
    {"command": "true", "secrets": {"TOKEN": ASKED}, ASKED: 1},
    {"command": ["true", 1, "x" * 175, ASKED], "secrets": {"TOKEN": ASKED}},
    {"command": "true", "cwd": f"/{LITERAL}"},
    {"command": "true", "env": LITERAL},
    {"command": ["true", 1, FROM_FILE, "x" * 80, LITERAL, LITERAL, FROM_ENV]},
    {"source": "tail", "path": f"../{FROM_ENV}"},
]


def test_a_refusal_shows_no_secret_nor_a_part_of_it(
    keeper: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    keeper.terminate()
    keeper.start()  # once more, so that it logs to where this test looks
    for fields, headers in itertools.product(REFUSED, ({}, {"Accept": "text/html"})):
        answer = keeper.http.post("/deployments", json=fields, headers=headers)
        assert answer.status_code == 400, fields
        assert_nowhere(iter([(f"the answer to {fields}", answer.content)]), *ALL)
        assert ASKED[:6].encode() not in answer.content, fields
        assert LITERAL[:6].encode() not in answer.content, fields
    assert keeper.http.get("/", headers={"Host": "another"}).status_code == 403
    said = capfd.readouterr().err
    assert "refused GET" in said, "what the server logs is heard here"
    assert_nowhere(iter([("the server's log", said.encode())]), *ALL)


def test_a_form_that_is_refused_shows_no_secret(keeper: Server) -> None:
    fields = {"command": "true", "secrets": ASKED}
    answer = keeper.http.post("/deployments", data=fields)
    assert answer.status_code == 400
    assert "NAME=text" in answer.json()["error"]
    assert_nowhere(iter([("the answer", answer.content)]), *ALL)


def test_a_form_may_bring_secrets(keeper: Server) -> None:
    fields = {"command": "echo $TOKEN", "secrets": f"TOKEN={ASKED}"}
    answer = keeper.http.post("/deployments", data=fields, headers={"Accept": "text/plain"})
    assert answer.text == "***\n"


@pytest.mark.parametrize("value", ["abc", "", "  a b  ", "***"])
def test_a_secret_that_is_too_short_to_hide_is_refused(lasting_server: Server, value: str) -> None:
    answer = lasting_server.http.post(
        "/deployments", json={"command": "x", "secrets": {"TOKEN": value}}
    )
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("secrets: a secret needs 4 characters or more")


def test_many_and_large_secrets_reach_the_command(lasting_server: Server) -> None:
    secrets = {f"S{n}": f"{n}-{chr(97 + n)}" * 25_000 for n in range(9)}
    answer = lasting_server.http.post(
        "/deployments", json={"command": "printenv S8 | wc -c", "secrets": secrets}
    )
    assert answer.status_code == 201, answer.text
    deployment = answer.json()["id"]
    lasting_server.wait_for_end(deployment)
    assert lasting_server.log(deployment) == b"75001\n"
    assert_nowhere(shown(lasting_server, deployment), *secrets.values())


def test_a_request_of_any_size_passes_the_fork_servers_socket(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)  # as the launcher's: it takes what there is room for, not all at once
    secrets = ["s" * 5_000_000]
    request = CaptureRequest(str(tmp_path), "id", "a:B", {"x": 1}, secrets)
    pid = os.fork()
    if pid == 0:
        with (tmp_path / "log").open("wb") as log:
            send_request(ours, request, [log.fileno()])
        os._exit(0)
    ours.close()
    with theirs:
        received = _receive_request(theirs)
        assert _receive_request(theirs) is None
    os.waitpid(pid, 0)
    assert received is not None
    for fd in received[1]:
        os.close(fd)
    assert received[0] == request
    assert "sss" not in repr(request)


def test_a_request_that_is_cut_off_starts_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs, open(os.devnull, "wb") as log:
        socket.send_fds(ours, [(1000).to_bytes(4, "big")], [log.fileno()])
        ours.sendall(b'{"data_dir": ')
        ours.close()
        assert _receive_request(theirs) is None


def test_an_autostarted_file_with_a_secret_in_its_path_is_known_by_the_next_server(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / f"{ASKED}.log").write_text("last\n")
    config = f'rescan_seconds = 0.1\n[secrets]\nX = "{ASKED}"\n[sources.app]\ntype = "file_tail"\n'
    server = make_server(f'{config}path = "{tmp_path}/*.log"\nautostart = true\n')

    def records() -> list[dict[str, Any]]:
        return list(server.http.get("/deployments").json()["deployments"])

    (record,) = wait_for(lambda: [r for r in records() if r["capture_pid"]], "the start")
    server.kill()
    server.start()
    (tmp_path / "other.log").write_text("new\n")
    wait_for(lambda: len(records()) >= 2, "the new file: a whole round later")
    assert sorted(Path(record["name"]).name for record in records()) == ["***.log", "other.log"]
    assert_nowhere(server.kept(), ASKED)
    assert ASKED not in json.dumps(record)


# The config.

WRONG = [
    ("[secrets]\nTOKEN = 12345678", 'expected "the value"'),
    ("[secrets]\nTOKEN = ['a-r3quest']", 'expected "the value"'),
    ("[secrets]\nTOKEN = { value = 'a-r3quest' }", 'expected "the value"'),
    ("[secrets]\nTOKEN = { env = 'A', file = 'a-r3quest' }", 'expected "the value"'),
    ("[secrets]\nTOKEN = { env = 12345678 }", 'expected "the value"'),
    ("[secrets]\nTOKEN = 'abc'", "a secret needs 4 characters or more"),
    ("[secrets]\nTOKEN = { env = 'SHORT' }", "a secret needs 4 characters or more"),
    ("[secrets]\nTOKEN = { env = 'NOT_SET' }", "the environment variable NOT_SET is not set"),
    (
        "[secrets]\nTOKEN = { file = '/none' }",
        "cannot read the file /none: No such file",
    ),
    ("[secrets]\nTOKEN = { file = '/' }", "cannot read the file /: Is a directory"),
    ("[secrets]\nTOKEN = { file = 'latin' }", "is not UTF-8 text"),
    ('[secrets]\nTOKEN = "a-r3quest\\u0000"', "without a NUL character"),
    ("[secrets]\n'A B' = 'a-r3quest'", "a name that an environment variable can have"),
    ("[secrets]\nTORNADO_LOGS_X = 'a-r3quest'", "does not begin with TORNADO_LOGS_"),
    ("secrets = 'a-r3quest'", "expected a section [secrets]"),
    ("port = 'a-r3quest'\n[secrets]\nT = 'a-r3quest'", "port: expected a whole number"),
    (
        "[secrets]\nT = 'a-r3quest'\n[sources.s]\ntype = 'subprocess'\ntty = 'a-r3quest'",
        "tty: expected true or false",
    ),
    ("[sources.s]\ntype = 'subprocess'\nsecrets = 'a-r3quest'", "secrets: expected names and"),
    ("[sources.s]\ntype = 'subprocess'\nsecrets = { A = 'abc' }", "a secret needs 4 characters"),
    (
        "[sources.s]\ntype = 'subprocess'\nsecrets = { A = 'a-r3quest' }\ntty = 'a-r3quest'",
        "tty: expected true or false",
    ),
    (
        "[secrets]\nTOKEN = 'a-r3quest'\n[sources.s]\ntype = 'subprocess'\npass_secrets = ['TOKE']",
        "pass_secrets: unknown secret 'TOKE'; did you mean 'TOKEN'?",
    ),
    (
        "[secrets]\nT = 'a-r3quest'\n[sources.m]\ntype = 'mock'\npass_secrets = ['T']",
        "pass_secrets: a source of type 'mock' runs no command",
    ),
    ("[sources.s]\ntype = 'subprocess'\nuser = 'no-such-user'", "there is no such user"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG)
def test_what_is_wrong_with_secrets_is_said_and_none_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"\xe9\xe8\xea\xeb secret")
    (tmp_path / "conf.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Catalog(read_config("conf.toml", {"SHORT": "abc"}, {}), Registry())
    assert sentence in str(caught.value)
    assert "conf.toml: " in str(caught.value)
    assert "r3quest" not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_a_server_with_a_wrong_secret_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "tornado_logs.toml").write_text(f"[secrets]\nT = {{ value = '{ASKED}' }}")
    done = run_cli(tmp_path, "serve")
    assert "secrets.T: expected" in the_refusal(done, 100)
    assert ASKED not in done.stdout + done.stderr


def test_the_values_of_the_config_are_read_from_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"two\nlines\r\n")
    path = tmp_path / "conf.toml"
    path.write_text(
        f"[secrets]\nA = 'plain'\nB = {{ env = 'VAR' }}\nC = {{ file = '{tmp_path}/key' }}\n"
    )
    config = read_config(str(path), {"VAR": "of the environment"}, {})
    assert config.secrets == {"A": "plain", "B": "of the environment", "C": "two\nlines"}
    assert config.secret_variables == {"VAR"}
    assert "plain" not in repr(config)


def test_a_request_cannot_put_secrets_where_a_source_takes_none() -> None:
    catalog = Catalog(read_config(None, {}, {}), Registry())
    with pytest.raises(RequestError, match="unknown setting 'secrets'"):
        catalog.prepare("demo", {"secrets": {"T": ASKED}})


# What a command gets of the server's environment.


def variables_of(server: Server, **fields: Any) -> dict[str, str]:
    """The environment that a command is started with."""
    record = server.wait_for_end(server.deploy(["env", "-0"], tty=False, **fields)["id"])
    pairs = server.log(record["id"]).decode().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture
def of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the server's that are its own affair, and some that are not."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-server")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/of/the/server")
    monkeypatch.setenv("TORNADO_LOGS_RETRY_MS", "1234")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("CI_JOB", "7")


@pytest.mark.usefixtures("of_the_server")
def test_a_command_gets_what_programs_need_and_nothing_that_is_the_servers_own(
    make_server: Callable[..., Server],
) -> None:
    got = variables_of(make_server(), env={"GIVEN": "1"})
    for name in ("PATH", "HOME", "LC_TIME", "https_proxy", "GIVEN", "TORNADO_LOGS_DEPLOYMENT"):
        assert name in got
    for name in ("AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "TORNADO_LOGS_RETRY_MS", "CI_JOB"):
        assert name not in got


@pytest.mark.usefixtures("of_the_server")
def test_the_config_says_what_else_a_command_gets(make_server: Callable[..., Server]) -> None:
    server = make_server('[sources.shell]\ntype = "subprocess"\npass_env = ["PATH", "CI_*"]\n')
    got = variables_of(server)
    assert got["CI_JOB"] == "7"
    assert set(got) - {"PWD", "SHLVL", "_"} == {"PATH", "CI_JOB", "TORNADO_LOGS_DEPLOYMENT"}
    answer = server.http.post("/deployments", json={"command": "x", "pass_env": ["*"]})
    assert answer.status_code == 400


@pytest.mark.usefixtures("of_the_server")
def test_not_even_all_variables_are_those_of_secrets_and_of_the_server(keeper: Server) -> None:
    got = variables_of(keeper, source="bare")
    assert got["SSH_AUTH_SOCK"] == "/of/the/server"
    assert got["CI_JOB"] == "7"
    for name in ("DEPLOY_PASSWORD", "FROM_ENV", "LITERAL", "TORNADO_LOGS_RETRY_MS"):
        assert name not in got
    command = "tr '\\0' '\\n' < /proc/$PPID/environ"  # that of the capture process
    record = keeper.wait_for_end(keeper.deploy(command, source="bare")["id"])
    assert b"DEPLOY_PASSWORD" not in keeper.log(record["id"])


def test_the_fork_server_does_not_get_the_variables_of_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEPLOY_PASSWORD", FROM_ENV)
    monkeypatch.setenv("TORNADO_LOGS_PORT", "1")
    got = Launcher(str(tmp_path), (), {"DEPLOY_PASSWORD"})._environment()
    assert got.keys() == os.environ.keys() - {"DEPLOY_PASSWORD", "TORNADO_LOGS_PORT"}


# Another user.

AS_NOBODY = """
[sources.shell]
type = "subprocess"
user = "nobody"
stop_grace_seconds = 0.5
"""


@pytest.fixture
def groups_of_root() -> Iterator[None]:
    """Groups of the server's own, which a command as another user must not be in."""
    before = os.getgroups()
    os.setgroups([0, 4])
    yield
    os.setgroups(before)


@pytest.mark.usefixtures("groups_of_root")
@pytest.mark.parametrize("tty", [True, False])
def test_a_command_runs_as_the_user_that_the_config_names(
    make_server: Callable[..., Server], tty: bool
) -> None:
    command = "id -un; id -G; echo $USER $LOGNAME $HOME; echo x > /dev/stdout; env | grep XDG"
    server = make_server(AS_NOBODY)
    deployment = server.deploy(command, cwd="/", tty=tty)["id"]
    server.wait_for_end(deployment)
    assert server.log(deployment) == b"nobody\n65534\nnobody nobody /nonexistent\nx\n"


def test_another_users_command_cannot_read_what_is_roots_or_write_there(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    private = tmp_path / "private"
    private.write_text("of the server")
    private.chmod(0o600)
    server = make_server(AS_NOBODY)
    command = f"cat {private}; echo x > {tmp_path}/new; cat /proc/$PPID/environ; kill $PPID; true"
    deployment = server.deploy(command, cwd="/")["id"]
    assert server.wait_for_end(deployment)["state"] == "succeeded"
    assert b"of the server" not in server.log(deployment)
    assert not (tmp_path / "new").exists()


def test_another_users_command_is_stopped_with_all_it_has_started(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(AS_NOBODY)
    command = "(trap '' TERM; setsid sleep 1000) & (trap '' TERM; while :; do sleep 1000; done) & "
    deployment = server.deploy(f"{command} echo begun; sleep 1000", cwd="/")["id"]
    wait_for(lambda: server.log(deployment) == b"begun\n", "the command")
    capture_pid = server.record(deployment)["capture_pid"]
    pids = [process.pid for process in descendants(capture_pid)]
    server.http.post(f"/deployments/{deployment}/stop")
    assert server.wait_for_state(deployment, "stopped")["left_running"] == []
    assert not any(map(is_alive, pids))


def test_another_users_command_is_found_and_ended_when_its_capture_process_was_killed(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(AS_NOBODY)
    deployment = server.deploy("sleep 1000 & echo begun; sleep 1000", cwd="/")["id"]
    wait_for(lambda: server.log(deployment) == b"begun\n", "the command")
    os.kill(server.record(deployment)["capture_pid"], signal.SIGKILL)
    left = server.wait_for_state(deployment, "lost")["left_running"]
    assert len(left) == 3
    server.http.post(f"/deployments/{deployment}/stop")
    wait_for(lambda: not any(is_alive(process["pid"]) for process in left), "their end")


def test_a_request_cannot_choose_the_user(make_server: Callable[..., Server]) -> None:
    answer = make_server().http.post("/deployments", json={"command": "id", "user": "root"})
    assert answer.status_code == 400
    assert "unknown setting 'user'" in answer.json()["error"]


def test_a_server_that_is_not_root_refuses_to_start_with_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "conf.toml"
    path.write_text(AS_NOBODY)
    config = read_config(str(path), {}, {})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="only a server that is root can run commands as another"):
        Catalog(config, Registry())


# Files that are nobody else's affair.


def test_a_hidden_file_cannot_be_asked_for(server: Server) -> None:
    for hidden in (".env", "data/.access/tokens", "logs/.x/app.log"):
        (server.folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (server.folder / hidden).write_text("of the server\n")
    (server.folder / "link").symlink_to(".env")
    for path in (".env", "data/.access/tokens", "logs/.x/app.log", "link"):
        answer = server.http.post("/deployments", json={"source": "tail", "path": path})
        assert answer.status_code == 400, path
        assert "is hidden: name a file that neither begins with a dot" in answer.json()["error"]


def test_a_file_below_a_hidden_folder_that_the_config_names_can_be_asked_for(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    folder = tmp_path / ".cache"
    folder.mkdir()
    (folder / "app.log").write_text("shown\n")
    server = make_server(f'[sources.tail]\ntype = "file_tail"\nbelow = "{folder}"\n')
    deployment = server.deploy(None, source="tail", path=str(folder / "app.log"))["id"]
    wait_for(lambda: server.log(deployment) == b"shown\n", "the file")


def test_a_client_that_asks_with_secrets_and_follows_is_told_none(keeper: Server) -> None:
    fields = {"command": "echo $TOKEN", "secrets": {"TOKEN": ASKED}}
    answer = httpx.post(
        f"{keeper.url}/deployments", json=fields, headers={"Accept": "text/event-stream"}
    )
    assert "data: ***" in answer.text
    assert "event: end" in answer.text
    assert ASKED not in answer.text
