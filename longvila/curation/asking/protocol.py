"""What every question writer is to the build, whether it measures or asks a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from longvila.records import Caption, Question, VideoRecord


class QuestionWriter(Protocol):
    """Writes the questions about one video: ``questions.MeasuredWriter`` or ``asking.writer.ModelWriter``."""

    @property
    def name(self) -> str:
        """Its name and version, part of every question."""
        ...

    def write(self, video: VideoRecord, captions: Sequence[Caption]) -> list[Question]:
        """Write the questions, each with evidence. What is wrong with one is in its ``checks``."""
        ...
