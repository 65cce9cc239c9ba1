"""From a spec to everything that the loop drives: model, data, engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from longvila.data import PackedLoader
from longvila.model import load_checkpoint
from longvila.model.module import LongVila
from longvila.model.parts import count_parameters
from longvila.parallel import make_groups_of, register_attention
from longvila.training.checkpoint import CheckpointMeta, RunPosition
from longvila.training.engine import Engine
from longvila.training.loop import Trainer
from longvila.training.micro_step import MicroStep
from longvila.training.precision import DTYPES
from longvila.training.spec import RunSpec
from longvila.training.stages import ParameterGroup, parameter_groups, prepare
from longvila.training.world import World

logger = logging.getLogger(__name__)


class Built(NamedTuple):
    """A trainer, and what its export needs besides."""

    trainer: Trainer
    model: LongVila
    tokenizer: PreTrainedTokenizerFast


def build(spec: RunSpec, world: World, *, fingerprint: str) -> Built:
    """Load the starting weights and put the trainer together (collective)."""
    register_attention()
    groups_by_degree = make_groups_of(spec.stage.degrees)
    model, tokenizer, _ = load_checkpoint(spec.init_from, dtype=torch.float32)
    prepare(model, spec.stage)
    if world.is_first:
        trained = count_parameters(model, trainable=True)
        logger.info("%s trains %s of %s parameters", spec.name, trained, count_parameters(model))
    module = MicroStep(model, frames_at_once=spec.stage.frames_at_once)
    rates = parameter_groups(model, spec.stage.optimizer)
    trainer = Trainer(
        stage=spec.stage,
        engine=make_engine(spec, module, rates, device=world.device),
        loader=make_loader(spec, tokenizer, world),
        groups_by_degree=groups_by_degree,
        world=world,
        paths=spec.paths,
        meta=CheckpointMeta(
            position=RunPosition(step=0),
            fingerprint=fingerprint,
            engine=spec.engine,
            zero_stage=spec.stage.zero_stage,
            world_size=world.size,
        ),
        base_rates=tuple(group["lr"] for group in rates),
    )
    return Built(trainer, model, tokenizer)


def make_loader(spec: RunSpec, tokenizer: PreTrainedTokenizerFast, world: World) -> PackedLoader:
    """This rank's packed rows of the stage, from its first step on."""
    return PackedLoader(
        spec.datasets,
        spec.stage,
        tokenizer,
        spec.model,
        rank=world.rank,
        world_size=world.size,
        cache_dir=Path(spec.cache_dir) if spec.cache_dir else spec.paths.cache,
        agree=world.maxima,
    )


def make_engine(
    spec: RunSpec, module: MicroStep, groups: list[ParameterGroup], *, device: torch.device
) -> Engine:
    """The engine that the spec names. DeepSpeed is imported only when it is asked for.

    DeepSpeed moves the module to the device itself: where it shards weights, no device holds all of them.
    """
    optimizer, dtype = spec.stage.optimizer, DTYPES[spec.stage.dtype]
    module.train()
    if spec.engine == "torch":
        from longvila.training.engine_torch import TorchEngine

        module.to(device)
        return TorchEngine(module, groups, betas=optimizer.betas, grad_clip=optimizer.grad_clip, dtype=dtype)
    from longvila.training.engine_deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(
        module,
        groups,
        betas=optimizer.betas,
        grad_clip=optimizer.grad_clip,
        dtype=dtype,
        zero_stage=spec.stage.zero_stage,
    )
