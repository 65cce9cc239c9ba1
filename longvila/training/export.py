"""The result of a stage, in VILA's layout."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from longvila.model import export_checkpoint
from longvila.model.module import LongVila
from longvila.training.engine import Engine
from longvila.training.world import World

logger = logging.getLogger(__name__)

_PREFIX = "model."  # the model's name inside MicroStep


def export(
    path: Path,
    engine: Engine,
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    *,
    world: World,
    stage_info: dict[str, object],
) -> None:
    """Gather the weights and write them on rank 0, adapters folded in (collective).

    ``stage_info`` must say only what decides the weights, so that equal runs write equal bytes.
    """
    state = engine.full_state()
    if world.is_first:
        plain = {name.removeprefix(_PREFIX): value for name, value in state.items()}
        digest = export_checkpoint(model, tokenizer, path, stage_info=stage_info, state=plain)
        logger.info("exported %s, weights %s", path, digest[:16])
    world.barrier()
