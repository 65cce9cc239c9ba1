"""What can go wrong, by who can mend it.

::

    LongVilaError
    ├── UserError                what a user can mend (exit code 2)
    │   ├── ConfigError          a recipe, an option or a combination of them
    │   ├── InputError           a file, folder, archive or record that was given
    │   └── MachineError         disk, permission, port, missing program
    ├── TransientError           what a retry can mend (exit code 4)
    │   ├── NetworkError         a connection, a 5xx, a timeout
    │   ├── PeerLost             another process of the same world died; the message names it
    │   └── TrainingInterrupted  a lost peer or a preemption; resumes from the last checkpoint
    ├── ItemError                one item of many is bad; becomes a Rejection, never stops the others
    ├── TrainingFailed           a stage ended and a blind retry would not help (exit code 1)
    ├── Stopped                  asked to stop; a checkpoint was written (exit code 5)
    └── InternalError            only we can mend it: please report (exit code 1)

Each message says what is wrong, what was given, and how to mend it.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command line answers to the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TOO_MANY_REJECTIONS = 3
    TRANSIENT = 4
    STOPPED = 5
    INTERRUPTED = 130


class LongVilaError(Exception):
    """The root of all errors that this project raises on purpose."""

    exit_code: ExitCode = ExitCode.FAILED


class UserError(LongVilaError):
    """Something that the user can mend."""

    exit_code = ExitCode.USAGE


class ConfigError(UserError):
    """A recipe, an option, or a combination of them that cannot work."""


class InputError(UserError):
    """A file, folder, archive or record that is missing, damaged or of the wrong kind."""


class MachineError(UserError):
    """The machine lacks something: disk space, a permission, a free port, a program."""


class TransientError(LongVilaError):
    """The same call may succeed later."""

    exit_code = ExitCode.TRANSIENT


class NetworkError(TransientError):
    """A connection, a server's 5xx answer, or a timeout."""


class PeerLost(TransientError):
    """Another process of the same world died or hangs. The message names it."""


class TrainingInterrupted(TransientError):
    """Training lost a peer or was preempted; starting it again resumes from the last checkpoint."""


class ItemError(LongVilaError):
    """One item of many cannot be used. It is recorded as a rejection and the others go on.

    ``reason`` is a short stable word (``"truncated"``), ``detail`` a sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TooManyRejections(LongVilaError):
    """The work is done, but more items were rejected than the recipe allows."""

    exit_code = ExitCode.TOO_MANY_REJECTIONS


class TrainingFailed(LongVilaError):
    """A training stage ended in a way that a blind retry would only repeat."""


class Stopped(LongVilaError):
    """Stopped on request, with a checkpoint to go on from."""

    exit_code = ExitCode.STOPPED


class InternalError(LongVilaError):
    """A broken promise between our own parts. Only we can mend it."""
