"""What a log of 10 GB and a flood cost a browser's tab: `python -m benchmarks.log_view`.

Headless Chromium opens the page of a log of 100 million lines at its end, goes to a line in its
middle, and then follows a command that writes 50,000 lines a second.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from benchmarks.common import MB, BenchmarkError, Server
from benchmarks.results import Report, parser
from tornado_logs.journal import JournalWriter

_LINE_BYTES = 100
_BLOCK_LINES = 10_000
_FLOOD_STEP_SECONDS = 0.01
_WAIT_MS = 30_000
_SAMPLE_SECONDS = 0.5
_FLOOD = """
import os, time
line = b"flood " + b"y" * 93 + b"\\n"
due = time.monotonic()
for step in range({steps}):
    os.write(1, line * {lines})
    due += {seconds}
    time.sleep(max(0.0, due - time.monotonic()))
"""
_COUNT_FRAMES = """seconds => new Promise(resolve => {
  let frames = 0, worst = 0, last = performance.now();
  const start = last;
  const next = () => {
    const now = performance.now();
    frames += 1;
    worst = Math.max(worst, now - last);
    last = now;
    if (now - start < seconds * 1000) requestAnimationFrame(next);
    else resolve([frames / (now - start) * 1000, worst]);
  };
  requestAnimationFrame(next);
})"""


def write_log(folder: Path, name: str, size_bytes: int) -> int:
    """A finished log with its index, as a capture process writes them; its number of lines."""
    block = b"".join(
        b"%-*d.\n" % (_LINE_BYTES - 2, number) for number in range(1, _BLOCK_LINES + 1)
    )
    blocks = size_bytes // len(block)
    # Not under its name before it is whole and old, or it would count as being written.
    path = folder / "new.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    clock = iter(range(1_790_000_000, 1_790_000_000 + blocks + 2))
    writer = JournalWriter(fd, str(folder / f"{name}.idx"), clock=lambda: float(next(clock)))
    for _ in range(blocks):
        writer.append(block)
    writer.close()
    os.close(fd)
    os.utime(path, (0, 0))
    path.rename(folder / f"{name}.log")
    return blocks * _BLOCK_LINES


class Tab:
    """A page in a browser of its own, so that its memory can be told from that of others."""

    def __init__(self, browser: Browser) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1280, "height": 800})
        self._browser: CDPSession = browser.new_browser_cdp_session()
        self._session = self.page.context.new_cdp_session(self.page)
        self._session.send("Performance.enable")

    def open(self, url: str, number: int | None = None) -> float:
        """Go to `url`; the seconds until the row of line `number`, or any, shows its text."""
        which = "[data-number]" if number is None else f'[data-number="{number}"]'
        self.page.goto("about:blank")
        begun = time.monotonic()
        self.page.goto(url, wait_until="commit")
        self.page.wait_for_function(
            "selector => document.querySelector(selector)?.textContent",
            arg=f".log-lines .log-line{which}:not(.is-loading)",
            timeout=_WAIT_MS,
        )
        return time.monotonic() - begun

    def watch(self) -> MemoryWatch:
        """Samples the memory of the processes that show pages."""
        processes: list[dict[str, Any]] = self._browser.send("SystemInfo.getProcessInfo")[
            "processInfo"
        ]
        return MemoryWatch([int(one["id"]) for one in processes if one["type"] == "renderer"])

    def script_bytes(self) -> int:
        """What the page's script holds."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return int(next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize"))


class MemoryWatch:
    """Samples, in a thread, what the largest of some processes has in memory for itself alone."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.most_bytes = max(self.most_bytes, *map(private_bytes, self._pids))


def private_bytes(pid: int) -> int:
    """What a process has in memory for itself alone, from Linux's /proc; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.MULTILINE)
    return sum(map(int, found)) * 1024


def flood(server: Server, lines_per_second: int, seconds: float) -> str:
    """Start a command that writes that many lines; the id of its deployment."""
    lines = round(lines_per_second * _FLOOD_STEP_SECONDS)
    steps = round(seconds / _FLOOD_STEP_SECONDS)
    script = _FLOOD.format(steps=steps, lines=lines, seconds=_FLOOD_STEP_SECONDS)
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    return str(server.deploy(command, tty=False)["id"])


def measure(server: Server, tab: Tab, args: argparse.Namespace, report: Report) -> None:
    """Open the large log, then watch the flood."""
    lines = write_log(server.data_dir, "big", round(args.gb * 1000) * MB)
    base = f"http://127.0.0.1:{server.port}/deployments"
    first = tab.open(f"{base}/big", lines)
    report.add(f"the end of {args.gb:g} GB shows after", f"{first:.2f} s", "1 s", met=first < 1)
    link = tab.open(f"{base}/big#L{lines // 2}", lines // 2)
    report.add("a link to a line in its middle", f"{link:.2f} s")
    deployment_id = flood(server, args.lines_per_second, args.seconds + 5)
    tab.open(f"{base}/{deployment_id}")
    with tab.watch() as watch:
        frames, worst = tab.page.evaluate(_COUNT_FRAMES, args.seconds)
    script = tab.script_bytes()
    server.wait_for_end(deployment_id)
    total = f"{args.lines_per_second * (args.seconds + 5):,.0f} lines"
    tab.page.get_by_text(total, exact=True).wait_for(timeout=_WAIT_MS)
    rate = f"{args.lines_per_second:,} lines/s for {args.seconds:g} s"
    found = f"{frames:.0f} frames/s, the longest {worst:.0f} ms; every line counted"
    report.add(rate, found, "60 frames/s", met=frames > 58)
    most, held = watch.most_bytes / MB, script / MB
    found = f"{most:.0f} MB at most, {held:.0f} MB of them script"
    report.add("the tab's own memory meanwhile", found, "150 MB", met=most < 150)


def main() -> None:
    """Print the figures."""
    options = parser(__doc__)
    options.add_argument("--gb", type=float, help="the size of the log; 10")
    options.add_argument("--seconds", type=float, help="how long to watch the flood; 60")
    options.add_argument("--lines-per-second", type=int, default=50_000)
    args = options.parse_args()
    args.gb = args.gb or (1.0 if args.quick else 10.0)
    args.seconds = args.seconds or (10.0 if args.quick else 60.0)
    if not (chromium := shutil.which("chromium")):
        raise BenchmarkError("it needs chromium")
    report = Report("log view", args.json)
    with Server() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        measure(server, Tab(browser), args, report)
        browser.close()
    report.finish()


if __name__ == "__main__":
    main()
