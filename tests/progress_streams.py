"""What programs print to a terminal while they make progress, as their sources have it.

Each function gives the text from start to end, with LF alone at line ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

UP, DOWN, ERASE_LINE, ERASE_REST = "\x1b[{}A", "\x1b[{}B", "\x1b[2K", "\x1b[K"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def docker_pull() -> Iterator[str]:
    """jsonmessage.DisplayJSONMessagesStream: up to a layer's row, erase, draw, down again."""
    yield "latest: Pulling from library/nginx\n"
    layers: list[str] = []
    steps = ["Pulling fs layer", "Waiting", *(f"Downloading [{'=' * n}>" for n in range(5))]
    for step in [*steps, "Download complete", "Extracting [==>", "Pull complete"]:
        for layer in ("a2abf6c4d29d", "a9edb18cadd1", "589b7251471a", "186b1aaa4aa6"):
            if layer not in layers:
                layers.append(layer)
                yield "\n"
            rows = len(layers) - layers.index(layer)
            yield UP.format(rows) + ERASE_LINE + f"\r{layer}: {step} \r" + DOWN.format(rows)
    yield "Digest: sha256:0d17b565c37bcbd895e9d92315a05c1c3c9a29f762b011a10c54a66cd53c9b31\n"
    yield "Status: Downloaded newer image for nginx:latest\n"


def docker_compose() -> Iterator[str]:
    """The tty writer of compose: all rows anew each time, and their number changes."""
    services = ["Network x_default", "Container x-db-1", "Container x-web-1"]
    drawn = 0
    for step in range(12):
        yield HIDE + (UP.format(drawn) if drawn else "")
        shown = services[: 1 + min(2, step // 3)]
        yield f"\x1b[34m[+] Running {step // 4}/{len(shown)}\x1b[0m \n"
        for number, name in enumerate(shown):
            done = step >= 4 * (number + 1)
            mark = "\x1b[32m✔\x1b[0m" if done else f"\x1b[33m{SPINNER[step % 10]}\x1b[0m"
            state = "\x1b[32mCreated\x1b[0m " if done else "Starting"
            yield f" {mark} {name:<24} {state} \x1b[34m{step / 10:4.1f}s\x1b[0m \n"
        drawn = len(shown) + 1
        yield SHOW
    yield "Attaching to db-1, web-1\n"


def buildkit() -> Iterator[str]:
    """progressui: to the top of what was drawn, row by row, and erase what is left below."""
    drawn = 0
    for step in range(10):
        yield HIDE + "\x1b[1A" * drawn + ("\x1b[0G" if drawn else "")
        rows = [f"[+] Building {step / 10:.1f}s ({step}/9)"]
        rows += [f" => [{n}/9] RUN make step{n:<40}{step / 10:.1f}s" for n in range(step % 5 + 1)]
        for row in rows:
            yield f"\x1b[34m{row}\x1b[0m{ERASE_REST}\n"
        yield "\x1b[0J" if drawn > len(rows) else ""
        drawn = len(rows)
        yield SHOW
    yield "done\n"


def npm() -> Iterator[str]:
    """Npm 10: a spinner that erases itself by column and line."""
    yield "npm warn deprecated glob@7.2.3: Glob versions prior to v9 are no longer supported\n"
    for step in range(30):
        yield f"\x1b[1G\x1b[0K{SPINNER[step % 10]}"
        if step == 20:
            yield "\x1b[1G\x1b[0Knpm warn deprecated inflight@1.0.6\n"
    yield "\x1b[1G\x1b[0K\nadded 213 packages, and audited 214 packages in 6s\n"


def log_update() -> Iterator[str]:
    """Listr, ink and others by ansi-escapes' eraseLines: line by line upwards, then all anew."""
    drawn = 0
    for step in range(8):
        erase = "".join(ERASE_LINE + (UP.format(1) if n else "") for n in reversed(range(drawn)))
        yield (erase + "\x1b[G") if drawn else ""
        rows = [
            f"{SPINNER[step]} task {n}: {'wörk 日本' * (step % 3)}" for n in range(2 + step % 3)
        ]
        yield "\n".join(rows) + "\n"
        drawn = len(rows) + 1
    yield "✔ all done\n"


def pip() -> Iterator[str]:
    """Bars of rich: one line, hidden cursor; the live ones of several lines go up and erase."""
    for package in ("torch", "numpy"):
        yield f"Collecting {package}\n  Downloading {package}-1.0-py3-none-any.whl (1.2 MB)\n{HIDE}"
        for step in range(20):
            bar = (
                f"\x1b[38;2;249;38;114m{'━' * step}\x1b[0m\x1b[38;5;237m╺{'━' * (19 - step)}\x1b[0m"
            )
            size = f"\x1b[32m{step / 20:.1f}/1.0 MB\x1b[0m"
            yield f"\r{ERASE_LINE}     {bar} {size} eta \x1b[36m0:00:01\x1b[0m"
        yield f"\r{ERASE_LINE}     {'━' * 20} 1.0/1.0 MB 9.1 MB/s eta 0:00:00\n{SHOW}"
    yield "Successfully installed torch-1.0 numpy-1.0\n"


def rich_live() -> Iterator[str]:
    """A rich table that is drawn anew: CR, erase, up and erase for each row."""
    for step in range(6):
        if step:
            yield "\r" + ERASE_LINE + ("\x1b[1A" + ERASE_LINE) * 3
        yield f"╭─ 進捗 ─╮\n│ {step:>6} │\n│ 日本語 │\n╰────────╯"
    yield "\nfinished\n"


def cargo() -> Iterator[str]:
    """Messages come above the bar, which every one of them erases first."""
    for step, name in zip(count(), ["libc v0.2", "serde v1.0", "tokio v1.4", "app v0.1"]):
        yield f"\x1b[1m\x1b[32m   Compiling\x1b[0m {name}\n"
        for part in range(3):
            bar = f"[{'=' * (5 * step + part)}>{' ' * (20 - 5 * step - part)}]"
            yield f"\x1b[1m\x1b[36m    Building\x1b[0m {bar} {step}/4: {name}\x1b[K\r"
        yield "\r\x1b[K"
    yield "\x1b[1m\x1b[33mwarning\x1b[0m: unused variable: `x`\n"
    yield "\x1b[1m\x1b[32m    Finished\x1b[0m `dev` profile target(s) in 2.31s\n"


def indicatif() -> Iterator[str]:
    """MultiProgress: erases its rows from the last upwards, prints a message, draws them anew."""
    drawn = 0
    for step in range(8):
        yield ("\r" + ERASE_LINE + "\x1b[1A") * (drawn - 1) + ("\r" + ERASE_LINE if drawn else "")
        if step % 3 == 2:
            yield f"message {step}\n"
        yield "\n".join(f"bar {n} [{'#' * step}{'-' * (8 - step)}] {step}/8" for n in range(3))
        drawn = 3
    yield "\n"


def tqdm() -> Iterator[str]:
    """One bar, padded over what it was before."""
    for step in range(101):
        bar = "█" * (step // 10) + " ▏▎▍▌▋▊▉█"[step % 10 * 8 // 10] * (step < 100)
        speed = f"9{step % 7}.{step % 10}it/s"
        yield f"\r{step:3}%|{bar:<10}| {step}/100 [00:0{step // 20}<00:01, {speed}]"
    yield "\n"


def tqdm_nested() -> Iterator[str]:
    """Bars below each other: down by line feeds, up by escapes."""
    for outer in range(3):
        yield f"\router {outer}/3"
        for inner in range(4):
            yield f"\n\rinner {inner}/4\x1b[A"
        yield "\n\r" + " " * 9 + "\r\x1b[A"
    yield "\router 3/3\n"


def apt() -> Iterator[str]:
    """The bar at the screen's last row, beside the scrolling region."""
    yield "".join(f"Reading package lists... {n}%\r\r" for n in (0, 50, 100))
    yield "Reading package lists... Done\r\n"
    yield "\n\x1b7\x1b[0;39r\x1b8\x1b[1A"
    for step in range(0, 101, 20):
        bar = f"\x1b[42m\x1b[30mProgress: [{step:3}%]\x1b[49m\x1b[39m [{'#' * (step // 10)}] "
        yield f"\x1b7\x1b[40;0f{bar}\x1b8"
        yield f"Setting up libfoo{step} (1.0-1) ...\r\n"
    yield "\n\x1b7\x1b[0;40r\x1b8\x1b[1A\x1b[J"


def git_clone() -> Iterator[str]:
    """What comes from the remote is ended by an erase."""
    yield "Cloning into 'x'...\n"
    for step in range(0, 101, 10):
        yield f"remote: Counting objects: {step:3}% ({step}/100)\x1b[K\r"
    yield "remote: Counting objects: 100% (100/100), done.\x1b[K\n"
    for step in range(0, 101, 10):
        yield f"Receiving objects: {step:3}% ({step}/100), 1.{step} MiB | 2 MiB/s\r"
    yield "Receiving objects: 100% (100/100), 1.5 MiB | 2 MiB/s, done.\n"


STREAMS: list[Callable[[], Iterator[str]]] = [
    docker_pull, docker_compose, buildkit, npm, log_update, pip, rich_live, cargo, indicatif, tqdm,
    tqdm_nested, apt, git_clone,
]  # fmt: skip
