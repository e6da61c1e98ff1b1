r"""The contract of a log source: all that the author of a plugin reads.

A source yields the bytes of one log. It knows nothing of HTTP, of files in `data/` or of viewers.
The smallest one:

    from collections.abc import Generator
    from tornado_logs.source import Control, Ending, LogSource, Option

    class Countdown(LogSource):
        '''Counts down, a line a second.'''

        options = (Option("start", int, 3, "the number to begin with", request=True),)

        def run(self, control: Control) -> Generator[bytes, None, Ending]:
            for number in range(self.settings["start"], 0, -1):
                yield b"%d\n" % number
                control.wait(1.0)
                if control.stopping:
                    break
            return Ending()

Register it in the entry-point group `tornado_logs.sources` and name it in the config file:

    [options.entry_points]                      # setup.cfg
    tornado_logs.sources =
        countdown = my_package:Countdown

    [sources.launch]                            # tornado_logs.toml
    type = "countdown"
    start = 10

Every source runs in the main thread of a process of its own (`tornado_logs.capture`), so it may
block as long as it blocks in `control.wait()`: there alone a request to stop is heard at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

DEPLOYMENT_VARIABLE = "TORNADO_LOGS_DEPLOYMENT"
"""The environment variable that names a command's deployment, to it and to who looks for it."""


class SourceError(Exception):
    """A source cannot do what it was asked. The message is a sentence for the user."""


class Command:
    """The type of an option that holds a shell command (text) or a program's argv (list)."""


class Environment:
    """The type of an option that holds environment variables: a mapping of text to text."""


class Texts:
    """The type of an option that holds a list of texts, none of them empty."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, of a source or of the server: defined once, checked and documented from here.

    `type` is one of `str`, `int`, `float`, `bool`, `Command`, `Environment`, `Texts`. A default of
    None means "not set"; with `required`, there has to be a value. Units stand in the name
    (`timeout_seconds`). With `request`, a request may give a value that beats the config's. With
    `secret`, what it holds (of an `Environment` the values) is shown by no log, record or page.
    """

    name: str
    type: type
    default: Any
    help: str
    request: bool = False
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class LeftProcess:
    """A process that still ran when its deployment had ended."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a source came to its end.

    `exit_status` is 0 to 255, 128 + n for a command ended by signal n, as a shell reports it, and
    None where the source has none. `note` is a sentence for the user or empty.
    """

    exit_status: int | None = None
    signal: str | None = None
    timed_out: bool = False
    note: str = ""
    left_running: Sequence[LeftProcess] = field(default=())


class Control(Protocol):
    """What the capture process gives to its source."""

    deployment_id: str

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for; the source then ends soon and returns its Ending."""

    def wait(self, seconds: float | None = None, fds: Sequence[int] = ()) -> list[int]:
        """Block until one of `fds` can be read, `seconds` have passed or a stop is asked for.

        Returns those of `fds` that can be read (or are at their end). Once stopping, it no longer
        returns early: the source may still wait for what it has to end.
        """

    def started(self, pid: int) -> None:
        """Tell the process id of the command: for the record, and the source will reap it."""

    def left_running(self) -> list[LeftProcess]:
        """The processes below the source that run now, also those that have daemonised."""


class LogSource(ABC):
    """The source of one log; see the module for an example.

    `settings` has a checked value for each of `options`. The constructor is called in the server
    too, to refuse what can't work before anything is started: it raises SourceError, and must
    neither start nor open anything.
    """

    options: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    @classmethod
    def expand(cls, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The deployments that an `autostart` section stands for, as changes to its settings.

        Called every few seconds, off the event loop. Most sources stand for one (`[{}]`); a
        glob stands for one per file, and for more as files appear.
        """
        return [{}]

    @classmethod
    def discovered(cls, change: Mapping[str, Any]) -> dict[str, Any]:
        """The change to start with if `expand` gave it only later, while the server ran."""
        return dict(change)

    @classmethod
    def check_config(cls, configured: Mapping[str, Any]) -> None:
        """Refuse, by SourceError and as the server starts, settings that can't work here.

        Called for each section, and for each preset with the section's settings and its own, but
        for its command and variables, which its parameters make.
        """

    @classmethod
    def check_request(cls, configured: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
        """Refuse, by SourceError, what this section of the config doesn't let a request ask for.

        `configured` has the section's settings, `requested` those that the request gave.
        """

    def title(self) -> str:
        """One line that tells this deployment from others of its source, such as its command."""
        return ""

    @abstractmethod
    def run(self, control: Control) -> Generator[bytes, None, Ending]:
        """Yield the log's bytes as they come, in pieces of any size; return how it ended.

        Pieces need not end at a line's end. Everything the source opened or started is closed
        and ended when this returns or is closed. Raises SourceError with a sentence.
        """
