"""A model of a few thousand parameters with random weights, and the words of the needle questions."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.curation.composing import needles
from longvila.curation.composing.frame_bank import FrameBank
from longvila.model import LongVila, build_model
from longvila.text import build_word_tokenizer

SIZE = 32


def tiny_config(**llm) -> ModelConfig:
    settings = {
        "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2,
        "rope_theta": 100.0, "max_context": 4096, "embedding_std": 1.0, **llm,
    }  # fmt: skip
    return ModelConfig(
        vision=VisionConfig(
            image_size=SIZE, patch_size=8, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2
        ),
        projector=ProjectorConfig(output_norm=True),
        llm=LlmConfig(**settings),
    )


def tiny_tokenizer(*more: str) -> PreTrainedTokenizerFast:
    words = [needles.QUESTION.format(key=colour) for colour in needles.COLOURS]
    return build_word_tokenizer([*words, *(str(digit) for digit in range(10)), *more])


def tiny_model(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, dtype=torch.float32, **llm) -> LongVila:
    return build_model(tiny_config(**llm), vocab_size=len(tokenizer), seed=seed, dtype=dtype).eval()


def noise_bank(count: int = 40, *, seed: int = 0, size: int = SIZE) -> FrameBank:
    frames = np.random.default_rng(seed).integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return FrameBank(frames, np.arange(count, dtype=np.float64), ("noise",) * count)


def bigram_model(tokenizer: PreTrainedTokenizerFast, follows: dict[str, str]) -> LongVila:
    """A model that is blind and deaf: each word is followed by a word of its own. Its answers are known.

    Embeddings are one-hot, attention and MLP add nothing, and the head is the table of what follows.
    """
    model = tiny_model(tokenizer, hidden_size=64, num_heads=2, num_kv_heads=1)
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) <= 64
    with torch.no_grad():
        for name, weight in model.llm.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        model.llm.get_input_embeddings().weight.copy_(torch.eye(len(vocabulary), 64))
        head = model.lm_head.weight.zero_()
        for word, follower in follows.items():
            head[vocabulary[follower], vocabulary[word]] = 1.0
    return model


def lively_model(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, dtype=torch.float64) -> LongVila:
    """Random weights so large that the answer depends on every frame."""
    model = tiny_model(tokenizer, seed=seed, dtype=dtype)
    with torch.no_grad():
        for name, weight in model.llm.named_parameters():
            if "_proj.weight" in name:
                weight.mul_(30.0)
    return model
