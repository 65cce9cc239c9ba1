"""Why a trainer ended: torchrun's exit code says 1 for everything, so we read what the ranks left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from longvila.training.runfiles import FailureClass, Outcome

RETRYABLE: frozenset[FailureClass] = frozenset({"lost_peer", "hang", "preempted", "storage"})

_MENDS: dict[FailureClass, str] = {
    "oom": "Raise ulysses_degree or ring_degree, lower max_tokens or max_frames, turn gradient_checkpointing "
    "on, or use a higher zero_stage",
    "lost_peer": "Start it again: it resumes from the last checkpoint. Where one host loses ranks again "
    "and again, look for its kernel's out-of-memory or hardware messages (dmesg)",
    "hang": "Start it again: it resumes from the last checkpoint. The stacks of all ranks are in the log. "
    "Where steps are really that slow, raise step_timeout_s",
    "preempted": "Start it again: it resumes from the checkpoint that it wrote",
    "data": "Check the data set with its verify command, and build the named shard again",
    "numerics": "Lower optimizer.learning_rate, set optimizer.grad_clip, or look at the samples of that step",
    "config": "Mend the setting that the message names",
    "bug": "Please report it with the log",
    "storage": "Free space or mend the mount, then start it again: it resumes from the last checkpoint",
}

# First by the name of the exception that ended a rank …
_BY_NAME: dict[str, FailureClass] = {
    "OutOfMemoryError": "oom",
    "MemoryError": "oom",
    "NumericsError": "numerics",
    "ConfigError": "config",
    "ValidationError": "config",
    "ImportError": "config",
    "ModuleNotFoundError": "config",
    "InputError": "data",
    "ItemError": "data",
    "MachineError": "storage",
    "NetworkError": "storage",
    "PeerLost": "lost_peer",
    "DistBackendError": "lost_peer",
    "DistNetworkError": "lost_peer",
    "DistStoreError": "lost_peer",
    "ConnectionResetError": "lost_peer",
    "BrokenPipeError": "lost_peer",
    "SignalException": "preempted",
}

# … or, where the name says little, by what its message says; the first that matches wins.
_SAY_LITTLE = frozenset({"RuntimeError", "OSError", "SafetensorError"})
_BY_MESSAGE: dict[str, FailureClass] = {
    r"out of memory|can't allocate memory|cannot allocate memory": "oom",
    r"no space left|quota exceeded|read-only file system|stale file handle|input/output error": "storage",
    r"connection (reset|closed|refused)|broken pipe|peer|tcpstore|gloo|nccl|rendezvous|watchdog": "lost_peer",
    r"timed out waiting": "lost_peer",
    r"inline_container\.cc.*unexpected pos|file write failed": "storage",  # torch.save on a full disk
}
_FULL = re.compile(
    r"no space left|disk is full|quota exceeded|read-only|permission|unexpected pos", re.IGNORECASE
)
_KILLED = re.compile(r"exitcode\s*:\s*-(\d+)|Signal (\d+) \(SIG")
_SIGTERM = 15
_FULL_DISK_BYTES = 2**20  # then neither error files nor logs can be relied on


class RankError(NamedTuple):
    """What ``record`` wrote of the exception that ended one rank."""

    rank: str
    timestamp: float
    name: str
    message: str


class Failure(NamedTuple):
    """Why a trainer ended, whether starting it again can help, and what would mend it."""

    kind: FailureClass
    message: str
    retryable: bool

    @property
    def mend(self) -> str:
        """What to do about it."""
        return _MENDS[self.kind]


def classify(
    *,
    outcome: Outcome | None,
    errors: Sequence[RankError],
    log_tail: str,
    exit_code: int | None,
    hung: bool = False,
    free_bytes: int | None = None,
) -> Failure:
    """Say why a trainer ended that did not complete. The earliest error of a rank causes the others.

    ``free_bytes`` is what the disk of the run folder has left.
    """
    if hung:
        return _failure("hang", "no new step within step_timeout_s")
    if outcome is not None and outcome.status == "stopped":
        return _failure("preempted", f"stopped by a signal at step {outcome.step}, with a checkpoint")
    if outcome is not None and outcome.failure is not None:
        return _failure(outcome.failure, outcome.message)
    if errors:
        return _of_error(min(errors, key=lambda error: error.timestamp))
    if free_bytes is not None and free_bytes < _FULL_DISK_BYTES:
        return _failure("storage", "no space left on the disk of the run folder")
    killed = _KILLED.search(log_tail)
    if killed:
        return _of_signal("a rank", int(killed.group(1) or killed.group(2)))
    if exit_code is None:
        return _failure("lost_peer", "the trainer left no exit code: its machine or session ended")
    if exit_code > 128:
        return _of_signal("the launcher", exit_code - 128)
    return _failure("bug", f"the trainer ended with exit code {exit_code} and no error")


def read_errors(folder: Path, first: Path | None = None) -> list[RankError]:
    """Read the error files that ranks left below ``folder``, and torchrun's own copy of the first one."""
    paths = sorted(folder.rglob("error.json")) + ([first] if first is not None and first.exists() else [])
    errors = [error for path in paths if (error := _read_error(path)) is not None]
    return sorted(set(errors), key=lambda error: error.timestamp)


def _read_error(path: Path) -> RankError | None:
    try:
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    details: dict[str, Any] = message if isinstance(message, dict) else {"message": str(message)}
    name, _, text = str(details.get("message", "")).partition(": ")
    timestamp = float(details.get("extraInfo", {}).get("timestamp", "inf"))
    return RankError(
        rank=path.parent.name, timestamp=timestamp, name=name.rsplit(".", 1)[-1], message=text or name
    )


def _of_signal(who: str, number: int) -> Failure:
    kind: FailureClass = "preempted" if number == _SIGTERM else "lost_peer"
    return _failure(kind, f"{who} was ended by signal {number}")


def _of_error(error: RankError) -> Failure:
    killed = _KILLED.match(error.name)
    if killed:
        return _of_signal("a rank", int(killed.group(2)))
    said = f"{error.name}: {error.message}"
    if error.name in _SAY_LITTLE:
        for pattern, kind in _BY_MESSAGE.items():
            if re.search(pattern, error.message, re.IGNORECASE):
                return _failure(kind, said)
    return _failure(_BY_NAME.get(error.name, "bug"), said)


def _failure(kind: FailureClass, message: str) -> Failure:
    retryable = kind in RETRYABLE and not (kind == "storage" and _FULL.search(message))
    return Failure(kind, message, bool(retryable))
