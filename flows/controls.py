"""Checkpoints that are made only to be compared with (``Recipe.controls``)."""

from __future__ import annotations

from longvila.config.recipe import ControlConfig, Recipe
from tasks.checkpoints import publish_checkpoint
from tasks.model import make_control, theta_of
from tasks.refs import WorkspaceRef
from tasks.specs import spec_for
from tasks.training import train_stage


def make_controls(recipe: Recipe, reference: WorkspaceRef, *, engine: str) -> list[str]:
    """Make every control of the recipe and return their names."""
    for control in recipe.controls:
        if control.kind == "theta_only":
            theta, max_context = theta_of(recipe, control.like)
            make_control(reference, control, control.start, theta, max_context)
        else:
            _without_extension(recipe, control, reference, engine=engine)
    return [control.name for control in recipe.controls]


def _without_extension(
    recipe: Recipe, control: ControlConfig, reference: WorkspaceRef, *, engine: str
) -> None:
    """Train the stage ``like`` from ``start`` at the RoPE base of ``start``, as if stage 4 had never been."""
    _, max_context = theta_of(recipe, control.like)
    stage = recipe.stage(control.like).model_copy(update={"rope_theta": None, "max_context": max_context})
    spec = spec_for(
        recipe,
        control.like,
        reference,
        init_from=control.start,
        engine=engine,
        stage=stage,
        label=control.name,
    )
    train_stage(spec)
    publish_checkpoint(reference.open(), control.name, spec.paths.export)
