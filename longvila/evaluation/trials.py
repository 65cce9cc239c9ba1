"""What was answered, one JSON line per trial, only ever appended to: a killed run goes on where it was.

A line counts for one trial and one digest of weights, never for a path.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from longvila.records import Record

logger = logging.getLogger(__name__)


class TrialAnswer(Record):
    """One question and what the model said to it."""

    trial_id: str
    weight_digest: str
    prompt_id: str
    extractor_id: str
    group: str = ""
    num_frames: int
    num_tokens: int
    expected: str
    said: str
    teacher_forced: bool
    generated: bool


class TrialLog:
    """The answers of one model. Opening it reads those on the disk; without a path it only remembers."""

    def __init__(self, path: Path | None, *, weight_digest: str) -> None:
        self.path = path
        self.weight_digest = weight_digest
        known = _read(path) if path is not None else []
        self._answers = {answer.trial_id: answer for answer in known if answer.weight_digest == weight_digest}

    def get(self, trial_id: str) -> TrialAnswer | None:
        """Return the answer to a trial, or none when it is still to be asked."""
        return self._answers.get(trial_id)

    def append(self, answers: Iterable[TrialAnswer]) -> None:
        """Append answers and force them to the disk."""
        new = list(answers)
        if self.path is not None and new:
            _append_lines(self.path, [answer.model_dump_json() for answer in new])
        self._answers.update((answer.trial_id, answer) for answer in new)


def _append_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.write((_newline_if_torn(file) + "".join(f"{line}\n" for line in lines)).encode())
        file.flush()
        os.fsync(file.fileno())


def _newline_if_torn(file: BinaryIO) -> str:
    """A line break, when the last writer was killed in the middle of a line."""
    if not file.seek(0, os.SEEK_END):
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == b"\n" else "\n"


def _read(path: Path) -> list[TrialAnswer]:
    if not path.is_file():
        return []
    answers, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            answers.append(TrialAnswer.model_validate(json.loads(line)))
        except (ValidationError, ValueError):
            damaged += 1
    if damaged:
        logger.warning("%s: %d damaged lines are asked again", path, damaged)
    return answers
