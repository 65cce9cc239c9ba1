"""Runs one stage to its end: starts its trainer or joins the one that lives, watches it, resumes it.

The trainer is detached: a supervisor that dies takes nothing with it, and the next one finds the trainer by
its launch record. One supervisor at a time holds a run folder.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from longvila.errors import ConfigError, MachineError, Stopped, TransientError
from longvila.training import launch
from longvila.training.classify import Failure, classify, read_errors
from longvila.training.launch import LaunchRecord, local
from longvila.training.retries import RetryBudget, describe_end, error_of, newest_step
from longvila.training.runfiles import Outcome, Progress, StageOutcome, read_model, write_model
from longvila.training.spec import RunPaths, RunSpec, fingerprint, read_spec

logger = logging.getLogger(__name__)

STOP_GRACE_S = 60.0
_OTHER_PHASES_S = 1800.0
_DUMP_S = 1.0

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def run_stage(
    spec: RunSpec,
    *,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    poll_s: float = 0.5,
    stop_grace_s: float = STOP_GRACE_S,
) -> StageOutcome:
    """Bring a stage to its end and return where its export lies.

    A run folder that is complete with the same fingerprint answers at once and starts nothing. A trainer that
    lives is joined. Failures that a retry can mend are resumed from the last checkpoint,
    ``stage.max_retries`` times without a new checkpoint in between.

    ``on_progress`` is called when step or phase changed. ``should_stop`` is asked at every poll; on yes the
    trainer saves and ends. After ``stop_grace_s`` it is left to finish its saving by itself, and the next
    call waits for that and goes on.

    Raises ``Stopped``, ``TrainingInterrupted`` (no retries left; run it again), ``TrainingFailed`` or
    ``ConfigError`` (no retry would help), ``TransientError`` when another supervisor holds the folder.
    """
    paths = spec.paths
    _make_folder(paths)
    mark = fingerprint(spec)
    with _held(paths):
        _check_same_run(spec, mark)
        done = _completed(spec, mark)
        if done is not None:
            return _stage_outcome(spec, done, reused=True, attempts=0)
        write_model(paths.spec, spec)
        watch = _Watch(spec, mark, on_progress, should_stop or _never, poll_s, stop_grace_s)
        return watch.to_the_end()


@dataclass
class _Watch:
    """One supervisor at work."""

    spec: RunSpec
    mark: str
    on_progress: OnProgress | None
    should_stop: ShouldStop
    poll_s: float
    stop_grace_s: float
    attempts: int = 0
    last_shown: tuple[int, str] | None = field(default=None)

    def to_the_end(self) -> StageOutcome:
        paths, budget = self.spec.paths, RetryBudget(self.spec.stage.max_retries)
        record = self._join() or self._start()
        while True:
            hung = self._wait(record)
            done = _completed(self.spec, self.mark)
            if done is not None:
                self._show()
                return _stage_outcome(self.spec, done, reused=False, attempts=self.attempts)
            failure = self._failure(record, hung=hung)
            if paths.stop.exists():
                raise (
                    self._stopped(record)
                    if failure.kind == "preempted"
                    else error_of(failure, self.spec, record)
                )
            if not budget.spend(failure, checkpoint_step=newest_step(paths)):
                raise error_of(failure, self.spec, record)
            logger.warning("%s: %s: %s; resuming", self.spec.name, failure.kind, failure.message)
            local.kill(paths)
            record = self._start()

    def _join(self) -> LaunchRecord | None:
        """The trainer of this run that lives and was not asked to end; waits for one that is about to end."""
        paths, name = self.spec.paths, self.spec.name
        _check_not_elsewhere(self.spec)
        record = launch.attach(paths)
        if record is not None and not paths.stop.exists():
            logger.info("joined the trainer of %s that runs as process %s", name, record.pid)
            return record
        if record is not None:
            logger.info("the trainer of %s was asked to stop; waiting for its checkpoint", name)
            self._wait(record)
        if launch.living(paths):
            logger.warning("ranks of %s outlived their launcher; letting them save and end", name)
            launch.stop(paths, grace_s=self.stop_grace_s)
        return None

    def _start(self) -> LaunchRecord:
        paths = self.spec.paths
        earlier = read_model(paths.launch, LaunchRecord)
        for stale in (paths.stop, paths.outcome, paths.progress):
            stale.unlink(missing_ok=True)
        self.attempts += 1
        return launch.submit(self.spec, fingerprint=self.mark, attempt=earlier.attempt + 1 if earlier else 1)

    def _wait(self, record: LaunchRecord) -> bool:
        """Wait for the trainer's end; true when it had to be ended because it hung."""
        changed_at, last_place = time.monotonic(), None
        while launch.poll(record).alive and not self._finished():
            if self.should_stop():
                self._stop(record)
            progress = self._show()
            place = (progress.step, progress.phase) if progress else None
            if place != last_place:
                changed_at, last_place = time.monotonic(), place
            patience_s = self._patience_s(progress)
            if time.monotonic() - changed_at > patience_s:
                logger.error("%s shows no new step for %.0f s", self.spec.name, patience_s)
                self._end_hung()
                return True
            time.sleep(self.poll_s)
        return False

    def _finished(self) -> bool:
        """Whether the result is there and no rank runs any more: torchrun may take its time to leave."""
        return _completed(self.spec, self.mark) is not None and not launch.ranks(self.spec.paths)

    def _patience_s(self, progress: Progress | None) -> float:
        """How long the trainer may stay where it is. Loading, saving and exporting are given more time."""
        step_timeout_s = self.spec.stage.step_timeout_s
        training = progress is not None and progress.phase == "training"
        return step_timeout_s if training else max(step_timeout_s, _OTHER_PHASES_S)

    def _end_hung(self) -> None:
        """Have all ranks write down where they are, then end them."""
        local.dump_stacks(self.spec.paths)
        time.sleep(_DUMP_S)
        local.kill(self.spec.paths)

    def _stop(self, record: LaunchRecord) -> None:
        """Ask for a checkpoint and wait for the end, for as long as the grace allows."""
        local.request_stop(self.spec.paths)
        deadline = time.monotonic() + self.stop_grace_s
        while launch.poll(record).alive:
            if time.monotonic() > deadline:
                raise self._stopped(record, "asked to stop and still saving; it ends by itself")
            self._show()
            time.sleep(min(self.poll_s, 0.2))

    def _stopped(self, record: LaunchRecord, what: str = "stopped on request") -> Stopped:
        mend = "Run it again to go on from the checkpoint"
        return Stopped(describe_end(what, self.spec, record, mend=mend, log=False))

    def _show(self) -> Progress | None:
        progress = read_model(self.spec.paths.progress, Progress)
        if progress is not None and (progress.step, progress.phase) != self.last_shown:
            self.last_shown = (progress.step, progress.phase)
            if self.on_progress is not None:
                self.on_progress(progress)
        return progress

    def _failure(self, record: LaunchRecord, *, hung: bool) -> Failure:
        return classify(
            outcome=read_model(self.spec.paths.outcome, Outcome),
            errors=read_errors(Path(record.error_folder), Path(record.error_file)),
            log_tail=launch.tail(record)[0],
            exit_code=launch.poll(record).exit_code,
            hung=hung,
            free_bytes=shutil.disk_usage(self.spec.run_dir).free,
        )


def _completed(spec: RunSpec, mark: str) -> Outcome | None:
    outcome = read_model(spec.paths.outcome, Outcome)
    if outcome is None or outcome.status != "complete":
        return None
    if outcome.fingerprint != mark:
        raise ConfigError(
            f"the starting weights or the data of {spec.name} changed after its trainer was started; "
            f"{spec.paths.export} was made from the changed ones. Start it again in a new run folder"
        )
    return outcome if (spec.paths.export / "config.json").is_file() else None


def _stage_outcome(spec: RunSpec, outcome: Outcome, *, reused: bool, attempts: int) -> StageOutcome:
    return StageOutcome(
        stage=spec.stage.name,
        run_dir=spec.run_dir,
        export_dir=str(spec.paths.export),
        fingerprint=outcome.fingerprint,
        step=outcome.step,
        loss=outcome.loss,
        tokens=outcome.tokens,
        train_seconds=outcome.train_seconds,
        reused=reused,
        attempts=attempts,
    )


def _check_same_run(spec: RunSpec, mark: str) -> None:
    """Refuse a folder that another run began: its checkpoints would not fit."""
    record = read_model(spec.paths.launch, LaunchRecord)
    if record is None or record.fingerprint == mark:
        return
    before = read_spec(spec.paths.spec)
    now = spec.stage.model_dump()
    changed = sorted(name for name, value in before.stage.model_dump().items() if value != now[name])
    what = ", ".join(f"stage.{name}" for name in changed) or "its starting weights, data or model"
    raise ConfigError(
        f"{spec.run_dir} holds a run of {before.name} with other settings; what changed: {what}. "
        "Use a new run folder, or remove this one"
    )


def _check_not_elsewhere(spec: RunSpec) -> None:
    """Refuse to start a second trainer beside one that another machine runs in the same shared folder."""
    record = read_model(spec.paths.launch, LaunchRecord)
    progress = read_model(spec.paths.progress, Progress)
    if record is None or progress is None or record.host == socket.gethostname():
        return
    fresh = time.time() - progress.updated_at < spec.stage.step_timeout_s
    if fresh and not Path(record.exit_code_file).exists():
        raise TransientError(
            f"the trainer of {spec.name} runs on {record.host}. Watch it from there, or write "
            f"{spec.paths.stop} to have it save and end, and start again"
        )


def _make_folder(paths: RunPaths) -> None:
    try:
        paths.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"the run folder {paths.root} cannot be made: {error}. Choose a writable one with run_dir"
        ) from error


@contextmanager
def _held(paths: RunPaths) -> Iterator[None]:
    """Hold the run folder for the duration of a block; the lock goes with the process, however it ends."""
    with paths.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(
                f"another supervisor watches {paths.root}. Wait for it, or end it and start this one again"
            ) from None
        yield


def _never() -> bool:
    return False
