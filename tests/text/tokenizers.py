"""Tokenizers for tests: a byte-level BPE with Qwen2's special tokens and ChatML, trained on a few lines."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from longvila.text import build_word_tokenizer, prepare_tokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LINES = [
    "the red card says seven",
    "what is on the green card ?",
    "a dog runs over the bridge",
    "blue\n\nyellow",
] * 4


@cache
def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer built like Qwen2's: NFC, byte-level BPE, ChatML, end of turn as eos."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    return prepare_tokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            additional_special_tokens=special[1:],
            chat_template=CHATML,
        )
    )


@cache
def word_tokenizer() -> PreTrainedTokenizerFast:
    """The demo's kind of tokenizer."""
    return build_word_tokenizer(LINES)
