"""Tiny models with random weights, saved as checkpoints that transformers loads."""

from __future__ import annotations

import io
from pathlib import Path

import torch

MAX_CONTEXT = 256
_SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<unk>")
_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def make_llm(folder: Path, *, seed: int = 0, template: str | None = _TEMPLATE) -> Path:
    """A Llama of one token per letter."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(_text_config())
    _draw(model, seed)
    model.save_pretrained(folder)
    tokenizer = _tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def make_vlm(folder: Path, *, seed: int = 0) -> Path:
    """A LLaVA with four visual tokens per picture of 28 × 28."""
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=_text_config(),
        image_token_index=_SPECIAL.index("<image>"),
        image_seq_length=4,
    )
    model = LlavaForConditionalGeneration(config)
    _draw(model, seed)
    model.save_pretrained(folder)
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokenizer=_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def jpeg(colour: str) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(data, "jpeg")
    return data.getvalue()


def _draw(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough that each letter of the prompt tells."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 1.6 * weight.shape[-1] ** -0.5, generator=generator)


def _text_config():
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(_vocabulary()), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=MAX_CONTEXT,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(32, 127)]
    return {token: number for number, token in enumerate((*_SPECIAL, *letters))}


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel(_vocabulary(), unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    plain.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
