"""A tiny video-language model in float64, a document, and what one process makes of them."""

# T tokens of the row, t tokens held by a rank, f frames, k tokens of a frame, n visual tokens, D LLM width.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.model import LongVila, build_model, identity_exchange, part_of
from longvila.parallel import IGNORE_INDEX, register_attention, shift_labels

ROUNDING = 1e-12
VOCABULARY = 32
CONFIG = ModelConfig(
    vision=VisionConfig(
        image_size=16, patch_size=4, hidden_size=16, intermediate_size=32, num_layers=3, num_heads=2
    ),
    projector=ProjectorConfig(kind="linear"),
    llm=LlmConfig(hidden_size=32, intermediate_size=48, num_layers=2, num_heads=8, num_kv_heads=2),
    frame_separator=None,
)
PER_FRAME = CONFIG.tokens_per_frame
Gradients = dict[str, Tensor]
Attend = Callable[..., Tensor]


class ExactNorm(nn.Module):
    """RMSNorm in the precision of its input: transformers' own rounds to float32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``."""
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


@dataclass(frozen=True)
class Document:
    """Ids and labels (shifted) of one document, the first seat of each frame, and its frames."""

    ids: Tensor
    labels: Tensor
    first_seats: tuple[int, ...]
    frames: Tensor

    @property
    def seats(self) -> Tensor:
        """The positions of all visual tokens."""
        return (
            torch.tensor(self.first_seats, dtype=torch.int64)[:, None] + torch.arange(PER_FRAME)
        ).flatten()

    @property
    def num_scored(self) -> int:
        """How many tokens have a label."""
        return int((self.labels != IGNORE_INDEX).sum())


def make_document(*, num_frames: int, text_per_frame: int) -> Document:
    """Make a document of segments: each some text, a frame, and some more text. No frame: text as long."""
    generator = torch.Generator().manual_seed(5)
    segment = PER_FRAME + text_per_frame
    num_tokens = max(num_frames, 1) * segment
    seats = tuple(i * segment + text_per_frame // 2 for i in range(num_frames))
    ids = torch.randint(VOCABULARY, (num_tokens,), generator=generator)
    frames = torch.randn(num_frames, 3, 16, 16, generator=generator).double()
    return Document(ids, shift_labels(ids, [0, num_tokens]), seats, frames)


def make_model() -> LongVila:
    """Build the model; the same weights wherever it is called."""
    register_attention()
    model = build_model(CONFIG, vocab_size=VOCABULARY, seed=3, dtype=torch.float64)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "Qwen2RMSNorm":
                norm = ExactNorm(child.get_parameter("weight"), 1e-6)
                setattr(module, name, norm)
    return model.train()


def plain_attend(q_BHtD: Tensor, k_BhtD: Tensor, v_BhtD: Tensor, *, scale: float, **_: object) -> Tensor:
    """Attend on one process with torch's own attention."""
    out = F.scaled_dot_product_attention(q_BHtD, k_BhtD, v_BhtD, is_causal=True, scale=scale, enable_gqa=True)
    return out.transpose(1, 2)


def on_one_process(document: Document) -> Gradients:
    """Return the gradients of the mean loss."""
    model = make_model()
    hidden = model(
        document.ids[None],
        torch.arange(len(document.ids))[None],
        document.frames,
        document.seats,
        attend=plain_attend,
        exchange=identity_exchange,
    )
    share_of_loss(model, hidden, document, torch.arange(len(document.ids))).backward()
    return gradients(model)


def share_of_loss(model: LongVila, hidden_1tD: Tensor, document: Document, positions: Tensor) -> Tensor:
    """Return what the tokens at some positions add to the mean loss of the document."""
    logits = model.lm_head(hidden_1tD[0])
    labels = document.labels[positions]
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / document.num_scored


def gradients(model: nn.Module) -> Gradients:
    """Return the gradients of all parameters that have one."""
    return {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def sum_over_ranks(ranks: Sequence[Mapping[str, Tensor]]) -> Gradients:
    """Add up the gradients of all ranks; a rank without one adds nothing."""
    names = dict.fromkeys(name for rank in ranks for name in rank)
    return {name: torch.stack([rank[name] for rank in ranks if name in rank]).sum(0) for name in names}


def errors_by_part(found: Mapping[str, Tensor], wanted: Gradients) -> dict[str, float]:
    """Return each part's largest error of any parameter's gradient, relative to its largest element.

    A gradient that is missing counts as zero, so its error is 1. Gradients that are zero but for rounding
    (key biases, to which a softmax is blind) are measured by the largest of the model. Parts without any
    gradient are left out.
    """
    largest = {name: float(grad.abs().max()) for name, grad in wanted.items()}
    of_model = max(largest.values())
    errors: dict[str, float] = {}
    for name, grad in wanted.items():
        if largest[name] == 0:
            continue
        unit = largest[name] if largest[name] > ROUNDING * of_model else of_model
        error = float((found.get(name, torch.zeros_like(grad)) - grad).abs().max()) / unit
        errors[part_of(name)] = max(errors.get(part_of(name), 0.0), error)
    return errors
