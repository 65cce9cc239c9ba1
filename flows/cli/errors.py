"""From an exception to one readable block and an exit code."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from longvila.errors import (
    ExitCode,
    InternalError,
    LongVilaError,
    Stopped,
    TooManyRejections,
    TrainingFailed,
    TransientError,
    UserError,
)

if TYPE_CHECKING:
    import typer

WIDTH = 100
HEADINGS: tuple[tuple[type[LongVilaError], str], ...] = (
    (UserError, "error"),
    (TransientError, "not now (run the same command again)"),
    (TooManyRejections, "done, but too much was rejected"),
    (TrainingFailed, "training failed"),
    (Stopped, "stopped"),
    (InternalError, "a mistake of ours (please report it, with --debug)"),
)


def run_guarded(app: typer.Typer, arguments: Sequence[str], *, debug: bool) -> int:
    """Run the app; return the exit code. Nothing escapes as a traceback unless ``debug``."""
    import typer.main

    command = typer.main.get_command(app)
    try:
        answer = command.main(args=list(arguments), prog_name="longvila", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away: nothing more can be said
        return int(ExitCode.FAILED)
    except Exception as error:  # noqa: BLE001 (the outermost edge: everything becomes a message here)
        if isinstance(error, _usage_error()):
            cast(Any, error).show()
            return int(ExitCode.USAGE)
        return report(error, debug=debug)
    return answer if isinstance(answer, int) else int(ExitCode.DONE)


def _usage_error() -> type[Any]:
    """The parser's own error class, which newer typer versions carry inside themselves."""
    import typer

    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def report(error: BaseException, *, debug: bool) -> int:
    """Write the block for one error to stderr; return its exit code."""
    if debug:
        traceback.print_exception(error)
    sys.stderr.write(block(error) + "\n")
    return int(error.exit_code) if isinstance(error, LongVilaError) else int(ExitCode.FAILED)


def block(error: BaseException) -> str:
    """The error as a few lines for a person."""
    if isinstance(error, LongVilaError):
        heading = next((text for kind, text in HEADINGS if isinstance(error, kind)), "failed")
        return f"{heading}:\n{_wrapped(str(error))}"
    name = type(error).__name__
    return f"unexpected {name}:\n{_wrapped(str(error) or name)}\n  Run again with --debug for the traceback."


def _wrapped(message: str) -> str:
    return "\n".join(
        textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
        for line in message.splitlines()
    )
