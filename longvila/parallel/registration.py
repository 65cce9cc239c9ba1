"""Makes our attention known to transformers as ``attn_implementation="mmsp"``.

So Hugging Face decoders run over many ranks unpatched: the plan of a row comes with the model call, as the
keyword ``attend``, which transformers hands on to every layer's attention.
"""

# B rows (always 1: documents are packed), t tokens held by this rank, H query heads, h KV heads, D head size.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from longvila.errors import ConfigError
from longvila.parallel.attention import Attend, lengths_matter
from longvila.parallel.decoders import check_decoder, check_layers
from longvila.parallel.masks import SlidingWindow, read_mask
from longvila.parallel.rotary import depends_on_length, follow_documents

ATTENTION_NAME = "mmsp"
"""The name under which transformers finds this attention."""

_UNKNOWN = ("position_bias", "attention_bias", "attn_bias", "alibi", "head_mask")


def register_attention(model: PreTrainedModel | None = None) -> None:
    """Make ``attn_implementation="mmsp"`` known to transformers. May be called more than once.

    With ``model``, set it on its LLM (of a model of several parts: on ``text_config`` only, so that a vision
    tower keeps its own), let RoPE that looks at lengths follow the documents, and raise ConfigError for a
    decoder that cannot be spread over ranks.
    """
    AttentionInterface.register(ATTENTION_NAME, mmsp_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _as_mask_function(window_or_nothing))
    if model is None:
        return
    has_parts = hasattr(model.config, "text_config")
    config = model.config.text_config if has_parts else model.config
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.config is config:
            check_decoder(module)
    model.set_attn_implementation({"text_config": ATTENTION_NAME} if has_parts else ATTENTION_NAME)
    follow_documents(model)


def mmsp_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | SlidingWindow | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    attend: Attend | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' attention functions do; ``attend`` comes with the model call.

    Returns out_BtHD and no weights. Raises ConfigError for what is not supported.
    """
    if attend is None:
        raise ConfigError(
            f'attn_implementation="{ATTENTION_NAME}" needs its plan: call the model with '
            "attend=longvila.parallel.make_attend(plan, groups). If you did, this model does not hand "
            "keywords on to its attention, and cannot be used; generating needs longvila.inference."
        )
    _check_config(getattr(module, "config", None), type(module).__name__, attend)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    mask = None if isinstance(attention_mask, SlidingWindow) else attention_mask
    _refuse(dropout=dropout, mask=mask, softcap=softcap, causal=causal, others=others)
    window = sliding_window
    if isinstance(attention_mask, SlidingWindow):  # some models do not give their layers the number
        window = attention_mask.tokens if window is None else min(window, attention_mask.tokens)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, scale=scale, window=window, sinks=s_aux), None


def window_or_nothing(
    attention_mask: Tensor | None = None, mask_function: Callable[..., Any] | None = None, **_: Any
) -> SlidingWindow | None:
    """Make no mask: the layout knows the documents. A sliding window is handed on as a number.

    Raises ConfigError for a mask that hides tokens as padding, and for kinds of masks that are not known.
    """
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ConfigError(
            f'attn_implementation="{ATTENTION_NAME}" got an attention_mask that hides '
            f"{int((~attention_mask.bool()).sum())} tokens. Leave attention_mask out: give the documents' "
            "true lengths to make_plan, which pads the packed row itself."
        )
    return read_mask(mask_function)


def _as_mask_function(function: Callable[..., SlidingWindow | None]) -> Callable[..., Any]:
    """Hide from the type checker that no mask comes out, which transformers takes well."""
    return function


def _check_config(config: Any, name: str, attend: Attend) -> None:
    """Raise ConfigError for what cannot be right on several ranks or documents."""
    if config is None:
        return
    check_layers(config)
    parameters = getattr(config, "rope_parameters", None)
    if lengths_matter(attend) and depends_on_length(parameters):
        raise ConfigError(
            f"{name} has RoPE that depends on the length of a document (rope_parameters={parameters}), which "
            "a rank that holds a part of it does not know. "
            "Call longvila.parallel.follow_documents(model) once, before the model runs."
        )


def _refuse(
    *, dropout: float, mask: Tensor | None, softcap: float | None, causal: bool, others: dict[str, Any]
) -> None:
    """Raise ConfigError for the first thing given that this attention does not do."""
    unknown = [name for name in _UNKNOWN if others.get(name) is not None]
    given = [
        (dropout > 0, f"attention_dropout={dropout}", "Set attention_dropout=0 in the model's config"),
        (
            mask is not None,
            f"a mask of shape {() if mask is None else tuple(mask.shape)}",
            "Leave attention_mask out, and give the documents' lengths to make_plan",
        ),
        (bool(softcap), f"softcap={softcap}", "Use a model without score capping"),
        (
            bool(unknown),
            ", ".join(unknown),
            "Use a model whose scores are products of queries and keys alone",
        ),
        (
            not causal,
            "attention that is not causal",
            "Keep this part of the model on sdpa: "
            'attn_implementation={"text_config": "mmsp", "vision_config": "sdpa"}',
        ),
    ]
    for is_given, what, mend in given:
        if is_given:
            raise ConfigError(f'attn_implementation="{ATTENTION_NAME}" does not support {what}. {mend}.')
