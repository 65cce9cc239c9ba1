"""Make what the first stage starts from: tokenizer, tower, a whole checkpoint; and the controls."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from pydantic import JsonValue

from longvila.config.model import ModelConfig, Settings
from longvila.config.recipe import ControlConfig, Recipe, TowerConfig
from longvila.data import ShardReader, open_index
from longvila.errors import ConfigError
from longvila.records import content_id
from longvila.storage import Workspace, write_text
from tasks.artifacts import add_table
from tasks.checkpoints import find_checkpoint, publish_checkpoint
from tasks.policy import HOUR_S, in_flow_or_plain
from tasks.progress import StepProgress
from tasks.refs import WorkspaceRef

logger = logging.getLogger(__name__)
VERSION = 1


class FolderRef(Settings):
    """Something that was made in a local folder of the workspace."""

    name: str
    path: str
    reused: bool = False


@task(timeout_seconds=HOUR_S, tags=["model"], task_run_name="build-tokenizer")
def build_tokenizer(workspace: WorkspaceRef, datasets: list[str], max_context: int) -> FolderRef:
    """Make a word-level tokenizer from the training text of data sets, saved in Hugging Face's format."""
    from longvila.text import build_word_tokenizer

    opened = workspace.open()
    digests = [open_index(opened.storage, name).hash for name in sorted(datasets)]
    folder = opened.root / "models" / f"tokenizer-{content_id(VERSION, digests, max_context)}"
    if (folder / "tokenizer.json").is_file():
        return FolderRef(name="tokenizer", path=str(folder), reused=True)
    tokenizer = build_word_tokenizer(_texts(opened, datasets), max_context=max_context)
    _save_whole(folder, lambda draft: tokenizer.save_pretrained(draft))
    logger.info("tokenizer of %d words", len(tokenizer))
    return FolderRef(name="tokenizer", path=str(folder))


@task(timeout_seconds=4 * HOUR_S, tags=["model"], task_run_name="prepare-tower")
def prepare_tower(
    workspace: WorkspaceRef, model: ModelConfig, config: TowerConfig, dataset: str
) -> FolderRef:
    """Prepare a tower that has no pre-trained weights by a small classification run on captioned frames.

    It stands in for SigLIP's pre-training and is not one of the five stages.
    """
    from longvila.training import tower

    opened = workspace.open()
    index = open_index(opened.storage, dataset)
    key = content_id(
        VERSION, model.vision.model_dump(mode="json"), config.model_dump(mode="json"), index.hash
    )
    folder = opened.root / "models" / f"tower-{key}"
    if (folder / "report.json").is_file():
        return FolderRef(name="tower", path=str(folder), reused=True)
    progress = StepProgress("prepare tower", unit="steps")
    frames_NHW3, labels = _labelled_frames(ShardReader(opened.storage, index))

    def on_step(step: int, _loss: float) -> None:
        progress(step, config.steps)

    prepared, report = tower.prepare_tower(
        model.vision,
        frames_NHW3,
        labels,
        steps=config.steps,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        seed=config.seed,
        on_step=on_step,
    )
    progress.show(config.steps, config.steps)
    _save_whole(folder, lambda draft: _save_tower(prepared, asdict(report), draft))
    add_table(
        "tower",
        [{"head": head, "held-out accuracy": value} for head, value in report.heldout_accuracy.items()],
    )
    return FolderRef(name="tower", path=str(folder))


@task(timeout_seconds=4 * HOUR_S, tags=["model"], task_run_name="start-checkpoint")
def prepare_start(
    workspace: WorkspaceRef, model: ModelConfig, tokenizer: str, tower: str | None = None, seed: int = 0
) -> FolderRef:
    """Put tower, projector and LLM together as ``start``, which the first stage starts from."""
    from longvila.model import build_model
    from longvila.model.checkpoint import export_checkpoint
    from longvila.text import load_tokenizer

    opened = workspace.open()
    key = content_id(
        VERSION, model.model_dump(mode="json"), Path(tokenizer).name, tower and Path(tower).name, seed
    )
    folder = opened.root / "models" / f"start-{key}"
    reused = (folder / "config.json").is_file()
    if not reused:
        words = load_tokenizer(tokenizer)
        built = build_model(model, vocab_size=len(words), seed=seed)
        if tower:
            built.vision_tower.load_state_dict(_load_tower(Path(tower)))
        export_checkpoint(built, words, folder, stage_info={"stage": "start", "made_from": key})
    publish_checkpoint(opened, "start", folder)
    return FolderRef(name="start", path=str(folder), reused=reused)


@task(timeout_seconds=HOUR_S, tags=["model"], task_run_name="control-{control.name}")
def make_control(
    workspace: WorkspaceRef,
    control: ControlConfig,
    start: str,
    rope_theta: float,
    max_context: int | None = None,
) -> FolderRef:
    """Make the control ``theta_only``: the weights of ``start`` with another RoPE base, without training."""
    from longvila.model import set_rope_theta
    from longvila.model.checkpoint import checkpoint_digest, export_checkpoint, load_checkpoint

    opened = workspace.open()
    source = find_checkpoint(opened, start)
    key = content_id(VERSION, checkpoint_digest(source), rope_theta, max_context)
    folder = opened.root / "models" / f"{control.name}-{key}"
    reused = (folder / "config.json").is_file()
    if not reused:
        loaded = load_checkpoint(source)
        set_rope_theta(loaded.model, rope_theta, max_context)
        info = {"stage": control.name, "control": control.model_dump(mode="json"), "made_from": key}
        export_checkpoint(loaded.model, loaded.tokenizer, folder, stage_info=info)
    publish_checkpoint(opened, control.name, folder)
    return FolderRef(name=control.name, path=str(folder), reused=reused)


def start_checkpoint(recipe: Recipe, workspace: WorkspaceRef) -> FolderRef:
    """Tokenizer, tower and start checkpoint of a recipe, whichever of them it needs to have made."""
    if recipe.model.tokenizer:
        tokenizer = recipe.model.tokenizer
    else:
        make = in_flow_or_plain(build_tokenizer)
        tokenizer = make(workspace, dataset_names(recipe), longest_context(recipe)).path
    tower = None
    if recipe.tower is not None and recipe.model.vision.pretrained is None:
        prepare = in_flow_or_plain(prepare_tower)
        tower = prepare(workspace, recipe.model, recipe.tower, _tower_dataset(recipe)).path
    return in_flow_or_plain(prepare_start)(workspace, recipe.model, tokenizer, tower)


def dataset_names(recipe: Recipe) -> list[str]:
    """Every data set that the recipe's stages name, without those that lie elsewhere."""
    return sorted(
        {entry.dataset for stage in recipe.stages for entry in stage.mixture if "/" not in entry.dataset}
    )


def longest_context(recipe: Recipe) -> int:
    """The longest context that any stage reaches."""
    return max(recipe.model.llm.max_context, *(stage.max_context or 0 for stage in recipe.stages))


def theta_of(recipe: Recipe, stage: str) -> tuple[float, int]:
    """RoPE base and longest context after a stage: what it or the stages before it set."""
    theta, context = recipe.model.llm.rope_theta, recipe.model.llm.max_context
    for item in recipe.stages:
        theta, context = item.rope_theta or theta, item.max_context or context
        if item.name == stage:
            break
    return theta, context


def _tower_dataset(recipe: Recipe) -> str:
    if recipe.data is None or not recipe.data.frame_captions:
        raise ConfigError(
            "tower is set, but data.frame_captions names no set of captioned frames to prepare it on. "
            "Add one, or remove tower and give model.vision.pretrained."
        )
    return recipe.data.frame_captions[0].name


def _texts(workspace: Workspace, datasets: list[str]) -> Iterator[str]:
    for name in datasets:
        index = open_index(workspace.storage, name).select("train")
        for sample in ShardReader(workspace.storage, index).samples(range(len(index))):
            for turn in sample.conversations:
                yield turn.text


def _labelled_frames(reader: ShardReader) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The one frame of every sample, and the classes that its facts are."""
    from longvila.curation.composing.frame_captions import label_frames

    facts: list[Mapping[str, str]] = []
    frames: list[np.ndarray] = []
    for number in range(len(reader)):
        facts.append(reader.sample(number).provenance["facts"])
        frames.append(reader.frames(number, [0])[0])
    return np.stack(frames), dict(label_frames(facts))


def _save_tower(tower: Any, report: dict[str, JsonValue], folder: Path) -> None:
    from longvila.model.build import quiet_loading

    with quiet_loading():
        tower.save_pretrained(folder, safe_serialization=True)
    write_text(folder / "report.json", json.dumps(report, indent=2))


def _load_tower(folder: Path) -> dict[str, Any]:
    from transformers import SiglipVisionModel

    from longvila.model.build import quiet_loading

    with quiet_loading():
        return SiglipVisionModel.from_pretrained(folder).state_dict()


def _save_whole(folder: Path, save: Any) -> None:
    """Fill a folder beside and rename it, so that it is whole or absent."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save(draft)
    if folder.exists():
        shutil.rmtree(folder)
    draft.replace(folder)
