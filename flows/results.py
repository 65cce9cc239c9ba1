"""What flows hand back: small, typed, and each with a last word for the person who started it."""

from __future__ import annotations

from pydantic import Field

from longvila.config.model import Settings
from longvila.training import StageOutcome
from tasks.contents import BuiltDataset


class StageResult(Settings):
    """One trained stage."""

    name: str
    checkpoint: str
    outcome: StageOutcome

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return self.checkpoint


class PipelineResult(Settings):
    """Several trained stages."""

    stages: tuple[StageResult, ...]

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return self.stages[-1].checkpoint


class EvaluationResult(Settings):
    """Result files by checkpoint name."""

    results: dict[str, str]

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return "\n".join(f"{name}: {path}" for name, path in self.results.items())


class LifecycleResult(Settings):
    """The whole life."""

    dataset: BuiltDataset
    stages: tuple[StageResult, ...]
    evaluations: dict[str, str]
    report: str

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return self.report


class RefreshResult(Settings):
    """What a refresh found."""

    status: str
    new_sources: tuple[str, ...] = ()
    dataset: BuiltDataset | None = None
    evaluations: dict[str, str] = Field(default_factory=dict)

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return self.status
