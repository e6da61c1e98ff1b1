"""The wheel: built, installed into a fresh environment, and used far from the checkout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)
def test_the_installed_package_runs_from_any_folder_without_the_checkout(tmp_path: Path) -> None:
    # By way of the source distribution, so that nothing left in build/ can hide what is missing.
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    bin_dir = tmp_path / "venv" / "bin"
    subprocess.run([bin_dir / "pip", "install", "--quiet", wheel], check=True)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    version = subprocess.check_output([bin_dir / "tornado-logs", "--version"], text=True)
    assert version.startswith("tornado-logs ")
    process = subprocess.Popen(
        [bin_dir / "tornado-logs", "serve", "--port", "0"],
        cwd=elsewhere,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, timeout=20) as http:
            output = http.post(
                "/deployments", data={"command": "echo hi"}, headers={"Accept": "text/plain"}
            )
            assert output.text == "hi\n"
            page = http.get("/", headers={"Accept": "text/html"}).text
            styles = http.get("/static/style.css")
            assert "/static/style.css" in page
            assert styles.status_code == 200
            modules = [*(ROOT / "templates" / "static").rglob("*.js")]
            for module in modules:
                name = module.relative_to(ROOT / "templates")
                assert http.get(f"/{name}").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None
        process.stdout.close()
