"""What follows a trainer's end that is not completion: another attempt, or an error that says all."""

from __future__ import annotations

import itertools
import logging
import re
from dataclasses import dataclass

from longvila.errors import ConfigError, LongVilaError, TrainingFailed, TrainingInterrupted
from longvila.training import launch
from longvila.training.classify import Failure
from longvila.training.launch import LaunchRecord
from longvila.training.runfiles import Progress, read_model
from longvila.training.spec import RunPaths, RunSpec

logger = logging.getLogger(__name__)

_TAIL_LINES = 25
_TORCHRUN_SAYS = re.compile(r"torch/distributed/elastic/\S+\] (failed|Sending process|Received)")
_UNPRODUCTIVE_PREEMPTIONS = 3


@dataclass
class RetryBudget:
    """How many failures in a row are borne. A new checkpoint in between makes the budget whole again."""

    allowed: int
    failures: int = 0
    best_step: int = -1

    def spend(self, failure: Failure, *, checkpoint_step: int) -> bool:
        """Count a failure; false when it may not be followed by another attempt."""
        if not failure.retryable:
            return False
        if checkpoint_step > self.best_step:
            self.best_step, self.failures = checkpoint_step, 0
        self.failures += 1
        # A preemption is nobody's fault, as long as the run gets on in between.
        preempted = failure.kind == "preempted"
        return self.failures <= (max(self.allowed, _UNPRODUCTIVE_PREEMPTIONS) if preempted else self.allowed)


def error_of(failure: Failure, spec: RunSpec, record: LaunchRecord) -> LongVilaError:
    """Return the error to raise for a failure that ends a stage."""
    if failure.kind == "config":
        return ConfigError(describe_end(failure.message, spec, record, mend=failure.mend))
    text = describe_end(f"{failure.kind}: {failure.message}", spec, record, mend=failure.mend)
    return TrainingInterrupted(text) if failure.retryable else TrainingFailed(text)


def describe_end(what: str, spec: RunSpec, record: LaunchRecord, *, mend: str, log: bool = True) -> str:
    """The end of a run for people: what happened, where, the last lines of the log, and the mend."""
    progress = read_model(spec.paths.progress, Progress)
    at = f"step {progress.step} of {progress.total_steps}" if progress else "no step yet"
    shown = f"\n  the end of {record.log}:\n{_end_of_log(record)}" if log else ""
    return f"stage {spec.name} in {spec.run_dir}, {at}: {what}{shown}\n  {mend}."


def _end_of_log(record: LaunchRecord) -> str:
    """What the ranks said last. torchrun's own long words on it come after, and tell nothing more."""
    lines = launch.tail(record)[0].rstrip().splitlines()
    ranks_said = list(itertools.takewhile(lambda line: not _TORCHRUN_SAYS.search(line), lines))
    shown = (ranks_said or lines)[-_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in shown) or "    (nothing was logged)"


def newest_step(paths: RunPaths) -> int:
    """The step of the newest checkpoint, −1 without any. Looks at names only, so that torch is not loaded."""
    names = (path.name for path in paths.checkpoints.glob("step-*[0-9]"))
    return max((int(name.removeprefix("step-")) for name in names), default=-1)
