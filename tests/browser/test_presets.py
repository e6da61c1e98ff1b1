"""The forms of presets on the page with all deployments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tornado_logs.parameters import MAX_FILES

from .helpers import Server, launch_to_end, open_log, overflow_px, wait_for_text

DEPLOY = """
[commands.deploy]
help = "Deploys the site"
command = ["printf", "%s\\\\n", "{environment}", "{version}", "{replicas}", "{verbose}",
    "dump={dump}"]
tty = false
[commands.deploy.parameters.environment]
type = "choice"
choices = ["staging", "<b>prod</b> & \\"others\\""]
default = "staging"
help = "Where to"
[commands.deploy.parameters.version]
type = "text"
pattern = "v[0-9.]+"
help = "A tag"
[commands.deploy.parameters.replicas]
type = "number"
minimum = 1
maximum = 9
default = 3
[commands.deploy.parameters.verbose]
type = "flag"
default = true
[commands.deploy.parameters.dump]
type = "file"
folder = "FOLDER"
required = false
"""
RESTART = """
[commands.restart]
help = "Restarts it all"
command = ["echo", "restarted"]
"""
CLOSED = '[sources.shell]\ntype = "subprocess"\nstart_role = "nobody"\n'


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """The folder of the files to choose from."""
    folder = tmp_path / "dumps"
    folder.mkdir()
    (folder / 'a "b" & <c>.sql').write_text("")
    return folder


@pytest.fixture
def server(make_server: Callable[..., Server], dumps: Path) -> Server:
    """A server with two presets beside the default sources."""
    return make_server(DEPLOY.replace("FOLDER", str(dumps)) + RESTART)


def source_of(page: Page) -> Locator:
    """Where sources and presets are chosen."""
    return page.get_by_role("combobox", name="Source", exact=True)


def form_of(page: Page, name: str = "deploy") -> Locator:
    """The form of a preset."""
    return page.get_by_role("form", name=name, exact=True)


def test_a_preset_is_chosen_filled_in_and_run(page: Page, server: Server) -> None:
    """Each field is of the parameter's type, with its default and its help."""
    page.goto(server.url)
    expect(form_of(page)).to_have_count(0)
    source_of(page).select_option("deploy")
    expect(page.get_by_role("textbox", name="Command")).to_have_count(0)
    expect(page.locator("#run-about")).to_have_text("Deploys the site")
    form = form_of(page)
    expect(form.get_by_label("Environment")).to_have_value("staging")
    expect(form.get_by_label("Environment")).to_have_accessible_description("Where to")
    expect(form.get_by_label("Replicas")).to_have_value("3")
    expect(form.get_by_label("Verbose")).to_be_checked()
    form.get_by_label("Environment").select_option('<b>prod</b> & "others"')
    form.get_by_label("Version").fill("v1.2")
    form.get_by_label("Replicas").fill("5")
    form.get_by_label("Verbose").uncheck()
    form.get_by_label("Dump (optional)").select_option('a "b" & <c>.sql')
    form.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    wait_for_text(page, '<b>prod</b> & "others"\nv1.2\n5\ndump=a "b" & <c>.sql\n')
    expect(page.locator('[data-fact="preset"]')).to_have_text("deploy")
    expect(page.locator('[data-fact="version"]')).to_have_text("v1.2")
    expect(page.locator('[data-fact="replicas"]')).to_have_text("5")


def test_run_again_starts_the_preset_with_the_same_parameters(page: Page, server: Server) -> None:
    """From the page of a deployment."""
    first = server.deploy(preset="deploy", parameters={"version": "v7"})
    server.wait_for_end(first["id"])
    open_log(page, server, first["id"])
    page.get_by_role("button", name="Run again").click()
    page.wait_for_url(lambda url: "/deployments/" in url and first["id"] not in url)
    wait_for_text(page, "staging\nv7\n3\n--verbose\n")
    again = server.http.get(f"/deployments/{page.url.rpartition('/')[2]}").json()
    assert (again["request"], again["name"]) == (first["request"], first["name"])


def test_a_wrong_value_is_told_beside_its_field(page: Page, server: Server) -> None:
    """By the browser where it can tell, by the server else; what is typed stays."""
    page.goto(server.url)
    source_of(page).select_option("deploy")
    form, version = form_of(page), form_of(page).get_by_label("Version")
    run = form.get_by_role("button", name="Run", exact=True)
    run.click()
    expect(version).to_be_focused()
    expect(form.get_by_role("alert")).to_have_count(1)
    version.fill("1.2")
    expect(form.get_by_role("alert")).to_have_count(0)
    run.click()
    expect(form.get_by_role("alert")).to_have_text("Expected text that matches v[0-9.]+")
    version.fill("v" + "1" * 300)
    version.press("Enter")
    expect(form.get_by_role("alert")).to_have_text(re.compile(r"^Expected text of at most 200"))
    expect(version).to_have_accessible_description(re.compile("A tag Expected text of at most"))
    expect(version).to_have_attribute("aria-invalid", "true")
    expect(version).to_be_focused()
    version.fill("v1")
    form.get_by_label("Replicas").fill("11")
    run.click()
    expect(form.get_by_label("Replicas")).to_be_focused()
    assert page.url.rstrip("/") == server.url


def test_a_preset_without_parameters_is_run_from_beside_its_choice(
    page: Page, server: Server
) -> None:
    """There is one button, and nothing to fill in."""
    page.goto(server.url)
    source_of(page).select_option("restart")
    expect(page.locator("#run-about")).to_have_text("Restarts it all")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    wait_for_text(page, "restarted\n")


def test_a_source_asks_for_its_command_again_after_a_preset(page: Page, server: Server) -> None:
    """And is started as ever."""
    page.goto(server.url)
    for name in ("restart", "deploy", "shell"):
        source_of(page).select_option(name)
    page.get_by_role("textbox", name="Command").fill("echo free")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    wait_for_text(page, "free\n")


def test_a_file_that_came_since_can_be_chosen(page: Page, server: Server, dumps: Path) -> None:
    """The names are asked for as the preset is chosen."""
    page.goto(server.url)
    (dumps / "new.sql").write_text("")
    source_of(page).select_option("deploy")
    form_of(page).get_by_label("Dump (optional)").select_option("new.sql")


def test_of_very_many_files_the_name_is_typed(
    make_server: Callable[..., Server], dumps: Path
) -> None:
    """With names to pick from."""
    for number in range(MAX_FILES + 10):
        (dumps / f"{number:04}").touch()
    server = make_server(DEPLOY.replace("FOLDER", str(dumps)))
    answer = server.http.get("/", headers={"Accept": "text/html"})
    assert answer.text.count("<datalist") == 1
    assert answer.text.count('<option value="0') == MAX_FILES


def test_everything_closed_leaves_the_presets(
    make_server: Callable[..., Server], browser: Browser, dumps: Path
) -> None:
    """The first is chosen, and the curl to copy starts one too."""
    server = make_server(CLOSED + DEPLOY.replace("FOLDER", str(dumps)) + RESTART)
    page = browser.new_page()
    page.goto(server.url)
    expect(page.get_by_role("textbox", name="Command")).to_have_count(0)
    choice = page.get_by_role("combobox", name="Preset", exact=True)
    expect(choice).to_have_value("deploy")
    expect(page.locator("#run-about")).to_have_text("Deploys the site")
    expect(page.locator("#curl")).to_contain_text("-d preset=deploy -d version=…")
    form_of(page).get_by_label("Version").fill("v1")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/deployments/.+"))
    wait_for_text(page, "staging\nv1\n3\n--verbose\n")
    page.close()


def test_with_nothing_to_start_there_is_no_form(
    make_server: Callable[..., Server], browser: Browser
) -> None:
    """And the page works all the same."""
    server = make_server(CLOSED)
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    expect(page.get_by_role("button", name="Run", exact=True)).to_have_count(0)
    expect(page.get_by_text("You may look, but not start anything")).to_be_visible()
    page.close()


def test_presets_work_without_javascript(browser: Browser, server: Server) -> None:
    """Each is a plain form; an unchecked box is off though its default is on."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("heading", name="deploy", exact=True)).to_be_visible()
    form = form_of(page)
    form.get_by_label("Version").fill("v2")
    form.get_by_label("Verbose").uncheck()
    form.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    deployment_id = page.url.rpartition("/")[2]
    server.wait_for_end(deployment_id)
    assert server.log(deployment_id) == b"staging\nv2\n3\n"
    page.goto(server.url)
    form_of(page, "restart").get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/deployments/.+"))
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_form_is_accessible_and_fits(
    browser: Browser, server: Server, scheme: str, width: int
) -> None:
    """With an error shown, too."""
    launch_to_end(server, "true")
    page = browser.new_page(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(server.url)
    source_of(page).select_option("deploy")
    form_of(page).get_by_role("button", name="Run", exact=True).click()
    expect(form_of(page).get_by_role("alert")).to_have_count(1)
    results = Axe().run(page)
    assert results.violations_count == 0, json.dumps(results.response["violations"], indent=1)
    assert overflow_px(page) == 0
    page.close()
