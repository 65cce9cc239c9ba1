"""How the stages and their evaluations are summed up in the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from longvila.config.recipe import ControlConfig, Recipe
from longvila.config.stage import StageConfig
from longvila.evaluation.plots import LossCurve
from longvila.evaluation.results import EvalResult
from longvila.report import Evaluated, StageSummary
from longvila.training import RunPaths, StageOutcome

MAX_LOSS_POINTS = 400


def summary(stage: StageConfig, outcome: StageOutcome) -> StageSummary:
    """How one stage went."""
    world = stage.num_processes or stage.sp_size
    adapters = ", as LoRA" if stage.lora else ""
    return StageSummary(
        name=stage.name,
        trains=", ".join(stage.trains) + adapters,
        data=", ".join(entry.dataset for entry in stage.mixture),
        steps=outcome.step,
        seconds=outcome.train_seconds,
        max_frames=stage.max_frames,
        max_tokens=stage.max_tokens,
        rope_theta=stage.rope_theta,
        parallel=_division(stage, world),
        restarts=max(outcome.attempts - 1, 0),
        losses=read_losses(stage.name, RunPaths(Path(outcome.run_dir)).metrics),
    )


def _division(stage: StageConfig, world: int) -> str:
    """Say how a world was divided, the degrees for short samples after the largest."""
    smaller = "".join(f", or {ulysses} × {ring}" for ulysses, ring in reversed(stage.degrees[:-1]))
    return (
        f"dp {world // stage.sp_size} × ulysses {stage.ulysses_degree} × ring {stage.ring_degree}{smaller}, "
        f"ZeRO {stage.zero_stage}"
    )


def read_losses(stage: str, path: Path) -> LossCurve | None:
    """The loss by step; a step that was trained again after a restart counts as it was the last time."""
    losses: dict[int, float] = {}
    if not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the line that a killed trainer was writing
        losses[int(row["step"])] = float(row["loss"])
    every = max(1, len(losses) // MAX_LOSS_POINTS)
    chosen = sorted(losses)[::every]
    return LossCurve(stage=stage, steps=tuple(chosen), losses=tuple(losses[step] for step in chosen))


def tower_note(recipe: Recipe) -> str:
    """That the tower was not pre-trained, where that is so."""
    if recipe.tower is None:
        return ""
    return (
        f"The vision tower has no pre-trained weights. {recipe.tower.steps} steps of frame classification "
        "prepared it, a stand-in for SigLIP's pre-training that is not one of the five stages."
    )


def evaluated(recipe: Recipe, results: Mapping[str, EvalResult]) -> tuple[Evaluated, ...]:
    """The evaluations in order: the stages, then the controls."""
    notes = {control.name: _control_note(control) for control in recipe.controls}
    frames = {stage.name: stage.max_frames for stage in recipe.stages}
    return tuple(
        Evaluated(
            title=name,
            role="control" if name in notes else "stage",
            result=result,
            trained_frames=frames.get(name),
            note=notes.get(name, ""),
        )
        for name, result in results.items()
    )


def _control_note(control: ControlConfig) -> str:
    if control.kind == "theta_only":
        return f"the weights of {control.start} with the RoPE base of {control.like}, without training"
    return f"{control.like} trained from {control.start}, without the extension of the context before it"
