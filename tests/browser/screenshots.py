"""Takes the pictures of the README: both pages, light, dark and on a phone, of a server of its own.

.venv/bin/python tests/browser/screenshots.py     # writes docs/screenshots/*.png
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "screenshots"
DEADLINE_SECONDS = 60.0
WIDE = (1200, 750)
PHONE = (390, 750)
LOOKS: list[tuple[str, Literal["light", "dark"], tuple[int, int]]] = [
    ("light", "light", WIDE),
    ("dark", "dark", WIDE),
    ("phone", "light", PHONE),
]

TESTS = r"""
green() { printf '\033[32m%s\033[0m\n' "$*"; }
echo '::group::Set up Python 3.12'
echo 'Using Python 3.12.7 from the tool cache'
echo 'Installed 41 packages in 380ms'
echo '::endgroup::'
echo '::group::Build the wheel'
echo 'Successfully built shop-2.14.0-py3-none-any.whl'
echo '::endgroup::'
printf '\033[1m========================= test session starts ==========================\033[0m\n'
echo 'platform linux -- Python 3.12.7, pytest-8.3.3, pluggy-1.5.0'
echo 'rootdir: /srv/shop'
echo 'plugins: asyncio-0.24.0, timeout-2.3.1, xdist-3.6.1'
printf '\033[1mcollected 218 items\033[0m\n'
echo
at=0
for name in accounts basket catalogue checkout currencies delivery discounts images invoices \
  payments permissions prices refunds returns reviews search sessions stock taxes webhooks; do
  at=$((at + 5))
  printf 'tests/test_%-14s \033[32m%s\033[0m' "$name.py" '...........'
  sleep 0.02
  printf '\033[36m %*s[%3s%%]\033[0m\n' 32 '' "$at"
done
echo
printf '\033[33m=========================== warnings summary ===========================\033[0m\n'
echo 'tests/test_images.py::test_thumbnails'
echo '  WARNING: Pillow 12 will remove ANTIALIAS; use LANCZOS'
echo
green '================= 218 passed, 1 warning in 12.41s ================='
echo '::group::Upload coverage'
echo 'coverage: 96.4% of 8,213 lines'
echo '::endgroup::'
"""
BUILD = r"""
echo '$ docker build --tag registry.example.com/shop:2.14.0 .'
echo '#1 [internal] load build definition from Dockerfile'
echo '#1 DONE 0.0s'
echo '#2 [base 1/4] FROM docker.io/library/node:22-slim'
echo '#2 CACHED'
echo '#3 [build 2/4] RUN npm ci'
printf '#3 4.113 \033[33mnpm warn\033[0m deprecated glob@7.2.3: no longer supported\n'
echo '#3 8.902 added 812 packages in 8s'
echo '#3 DONE 9.0s'
echo '#4 [build 3/4] RUN npm run build'
echo '#4 0.412 > shop@2.14.0 build'
echo '#4 0.412 > tsc --noEmit && vite build'
echo "#4 6.220 src/basket/total.ts(41,18): error TS2345: Type 'string' is not assignable"
echo "#4 6.220   to parameter of type 'number'."
echo "#4 6.221 src/basket/total.ts(57,3): error TS2322: Type 'undefined' is not assignable"
echo "#4 6.221   to type 'Money'."
printf '#4 \033[31mERROR: npm run build did not complete successfully: exit code: 2\033[0m\n'
printf '\033[31merror: failed to solve: npm run build did not complete\033[0m\n' >&2
exit 1
"""
PULL = r"""
echo 'Restoring shop_production from s3://backups/2026-09-21.dump'
printf '\033[1m14 tables\033[0m, 6.2 GB\n'
for table in accounts addresses baskets categories currencies customers deliveries; do
  printf '\033[32m✓\033[0m %-12s restored\n' "$table"
done
printf '\n\n'
percent=0
while [ $percent -lt 63 ]; do
  percent=$((percent + 7))
  bar=$(printf '%*s' $((percent / 2)) '' | tr ' ' '#')
  printf '\033[2Aorders   \033[36m%-50s\033[0m %3d%%\033[K\n' "$bar" "$percent"
  printf 'reviews  waiting\033[K\n'
  sleep 0.05
done
sleep 3600
"""
SCRIPTS = {"build.sh": BUILD, "test.sh": TESTS, "restore.sh": PULL}


class Server:
    """A server with a folder that lasts as long as the pictures need it."""

    def __init__(self, folder: str) -> None:
        command = [sys.executable, "-m", "tornado_logs.cli", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        self.url = next(word for word in said.split() if word.startswith("http")).rstrip("/.,")

    def _ask(self, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        body = None if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def deploy(self, name: str, command: str) -> str:
        """Start a command; the id of its deployment."""
        return str(self._ask("/deployments", {"name": name, "command": command})["id"])

    def wait(self, deployment_id: str) -> None:
        """Wait until a deployment has ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._ask(f"/deployments/{deployment_id}")["state"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{deployment_id} did not end in time")
            time.sleep(0.05)  # between two looks

    def stop(self, deployment_id: str) -> None:
        """Stop a deployment, and wait until it has ended."""
        self._ask(f"/deployments/{deployment_id}/stop", {})
        self.wait(deployment_id)


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a port and with a folder of its own; it takes along what it started."""
    with tempfile.TemporaryDirectory() as folder:
        for name, script in SCRIPTS.items():
            Path(folder, name).write_text(script.lstrip())
        server = Server(folder)
        started: list[str] = []
        try:
            yield server
        finally:
            listed = server._ask("/deployments?state=running")["deployments"]
            started += [record["id"] for record in listed if record["can_stop"]]
            for deployment_id in started:
                server.stop(deployment_id)
            server.process.terminate()
            server.process.wait(20)


def fill(server: Server) -> dict[str, str]:
    """Deployments as a small team would have them; the ids of those that are opened."""
    followed = server.deploy("Nightly link check", "echo 'checked 1,204 links'; sleep 600")
    for name, command in (
        ("Lint and types", "echo 'All checks passed!'"),
        ("Migrate staging", "echo 'Applied 0042_orders_index in 1.2s'"),
        ("Smoke test", "echo 'GET /health 503'; echo 'error: staging is not healthy'; exit 7"),
        ("Rotate certificates", "echo 'renewed 3 of 3 certificates'"),
    ):
        server.wait(server.deploy(name, command))
    server.stop(followed)
    found = {"failed": server.deploy("Build shop 2.14.0", "sh build.sh")}
    server.wait(found["failed"])
    found["passed"] = server.deploy("Test shop 2.14.0", "sh test.sh")
    server.wait(found["passed"])
    found["running"] = server.deploy("Restore production backup", "sh restore.sh")
    return found


def settle(page: Page) -> None:
    """Wait until what was asked for is there and nothing moves any more."""
    page.evaluate("document.fonts.ready.then(() => true)")
    page.wait_for_timeout(1200)  # of what still fades or glides nothing tells


def shoot(browser: Browser, server: Server, found: dict[str, str]) -> None:
    """Write all pictures."""
    logs = {
        f"log-{kind}": f"/deployments/{found[kind]}" for kind in ("passed", "failed", "running")
    }
    for look, scheme, (width, height) in LOOKS:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=look == "phone",
            is_mobile=look == "phone",
            color_scheme=scheme,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="Europe/Berlin",
        )
        page = context.new_page()
        for name, path in {"list": "/", **logs}.items():
            page.goto(server.url + path)
            settle(page)
            page.screenshot(path=FOLDER / f"{name}-{look}.png")
        context.close()


def main() -> None:
    """Take them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with serving() as server, sync_playwright() as playwright:
        found = fill(server)
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        shoot(chromium, server, found)
        chromium.close()
    for path in sorted(FOLDER.glob("*.png")):
        print(f"{path.relative_to(ROOT)}: {os.path.getsize(path) // 1024} KB")


if __name__ == "__main__":
    main()
