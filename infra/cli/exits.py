"""Exit codes of the `headwater` command, and the errors that lead to them."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")


class Exit(IntEnum):
    """What a caller may rely on."""

    OK = 0
    CHECK_FAILED = 1
    MISUSED = 2
    UNAVAILABLE = 3
    INTERRUPTED = 130


def fail(text: str, code: Exit) -> typer.Exit:
    """Says why on stderr; raise what it gives back."""
    print(text, file=sys.stderr)
    return typer.Exit(code)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose expected errors become a line on stderr and an exit code instead of a traceback.

    TERM ends it like Ctrl-C does, so that it puts away what it had begun; Ctrl-C does so even where a shell started
    this in the background, with the signal ignored.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from infra.local.component import UnknownComponent
        from infra.local.control import PortTaken, StartFailed
        from schemas.errors import ConfigError, ConnectorError, HeadwaterError

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, interrupt)
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise fail("interrupted", Exit.INTERRUPTED) from None
        except (ConfigError, UnknownComponent) as error:
            raise fail(str(error), Exit.MISUSED) from None
        except (PortTaken, StartFailed) as error:
            raise fail(str(error), Exit.UNAVAILABLE) from None
        except ConnectorError as error:
            hint = "is the stack up? `headwater status` tells, `headwater up` starts it"
            raise fail(f"{error}\n{hint}", Exit.UNAVAILABLE) from None
        except HeadwaterError as error:
            raise fail(str(error), Exit.CHECK_FAILED) from None

    return run
