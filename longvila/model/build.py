"""A model from its configuration: each part from scratch, or from published weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.utils import logging as transformers_logging

from longvila.config.model import LlmConfig, ModelConfig, VisionConfig
from longvila.errors import ConfigError, InputError
from longvila.model.module import LongVila
from longvila.model.projector import Projector
from longvila.model.vision import num_layers_run


def build_model(
    config: ModelConfig, *, vocab_size: int, seed: int, dtype: torch.dtype = torch.float32
) -> LongVila:
    """Build a model on the CPU. The same arguments give the same weights; global random state is untouched.

    ``vocab_size`` is ``len(tokenizer)``; published tables that have more rows keep them.
    Raises ``ConfigError`` when a published tower does not have the shape that the configuration names.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = build_tower(config.vision)
        llm = build_llm(config.llm, vocab_size=vocab_size)
        projector = Projector(
            config.projector, vision_width=tower.config.hidden_size, llm_width=llm.config.hidden_size
        )
    num_layers_run(tower, config.vision.select_layer)  # refuses a layer that does not exist
    model = LongVila(
        tower,
        projector,
        llm,
        select_layer=config.vision.select_layer,
        frame_separator=config.frame_separator,
    )
    return model.to(dtype)


def build_tower(config: VisionConfig) -> SiglipVisionModel:
    """Build a SigLIP-shaped tower (without its pooling head), or load a published one."""
    if config.pretrained is not None:
        with quiet_loading(), _readable("vision.pretrained", config.pretrained):
            tower = SiglipVisionModel.from_pretrained(config.pretrained, dtype=torch.float32)
        _check_shape(tower.config, config)
        return tower
    shape = SiglipVisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        vision_use_head=False,
    )
    return SiglipVisionModel(shape)


def build_llm(config: LlmConfig, *, vocab_size: int) -> PreTrainedModel:
    """Build a Qwen2-shaped decoder, or load a published one and give it a row for each token."""
    if config.pretrained is not None:
        with quiet_loading(), _readable("llm.pretrained", config.pretrained):
            llm = AutoModelForCausalLM.from_pretrained(config.pretrained, dtype=torch.float32)
        if embedding_rows(llm) < vocab_size:
            llm.resize_token_embeddings(vocab_size)
        return llm
    shape = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=config.max_context,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_word_embeddings,
        initializer_range=config.init_std,
    )
    llm = Qwen2ForCausalLM(shape)
    nn.init.normal_(llm.model.embed_tokens.weight, std=config.embedding_std)
    return llm


def embedding_rows(llm: PreTrainedModel) -> int:
    """Return how many tokens an LLM has an embedding for."""
    return llm.get_input_embeddings().get_parameter("weight").shape[0]


def _check_shape(found: SiglipVisionConfig, config: VisionConfig) -> None:
    for name in ("image_size", "patch_size"):
        if getattr(found, name) != getattr(config, name):
            raise ConfigError(
                f"vision.{name}={getattr(config, name)}, but the tower {config.pretrained!r} has "
                f"{getattr(found, name)}. Set vision.{name}={getattr(found, name)}; lengths come from it."
            )


@contextmanager
def _readable(field: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            f"{field}={name!r} could not be loaded: {error}. "
            "Give a folder with config.json and model.safetensors, or a hub name that this machine can reach."
        ) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' loading bars off a log that has its own progress."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
