"""The five training stages (paper, section 3) as typed settings."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from longvila.config.degrees import Degrees, check_smaller_degrees
from longvila.config.model import Settings

StageName = Literal["align", "pretrain", "short_sft", "extend_context", "long_sft"]
STAGES: tuple[StageName, ...] = ("align", "pretrain", "short_sft", "extend_context", "long_sft")
Part = Literal["vision_tower", "projector", "llm"]
KernelName = Literal[
    "auto",
    "flash_attn_2",
    "flash_attn_3",
    "flash_attn_4",
    "torch_flash",
    "cudnn",
    "efficient",
    "cpu",
    "plain",
]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class LoraConfig(Settings):
    """Low-rank adapters on the LLM's attention; embeddings and norms train whole (LongLoRA)."""

    rank: int = Field(default=8, gt=0)
    alpha: float = Field(default=16.0, gt=0)
    targets: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1)
    train_embeddings_and_norms: bool = True


class MixtureEntry(Settings):
    """One data set of a stage's mixture, by its name in the workspace or by the path of its shards."""

    dataset: str
    weight: float = Field(default=1.0, gt=0, description="share of samples relative to the other entries")


class OptimizerConfig(Settings):
    """AdamW and its schedule."""

    learning_rate: float = Field(gt=0)
    part_learning_rates: dict[Part, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="where a part differs"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    grad_clip: float = Field(default=1.0, ge=0, description="global gradient norm; 0 turns clipping off")


class StageConfig(Settings):
    """One stage: what trains, on what data, how long, and spread how."""

    name: StageName
    trains: tuple[Part, ...] = Field(min_length=1)
    lora: LoraConfig | None = None
    mixture: tuple[MixtureEntry, ...] = Field(min_length=1)
    order: Literal["shuffled", "short_first"] = Field(
        default="shuffled",
        description="short_first: a curriculum that lets longer samples in as the epoch goes on",
    )
    steps: int | None = Field(
        default=None, gt=0, description="optimizer steps; none: as many as the epochs give"
    )
    epochs: float = Field(default=1.0, gt=0, description="used when steps is not given")
    max_frames: int = Field(gt=0, description="per sample; more are thinned evenly")
    max_tokens: int = Field(gt=0, description="of one packed row, the sequence that one sp group works on")
    rows_per_step: int = Field(
        default=1, gt=0, description="packed rows of max_tokens per optimizer step over the whole world"
    )
    optimizer: OptimizerConfig
    rope_theta: float | None = Field(
        default=None, gt=0, description="raised for longer contexts; none: as it was"
    )
    max_context: int | None = Field(
        default=None, gt=0, description="longest sequence after this stage; none: as it was"
    )
    num_processes: int | None = Field(
        default=None, gt=0, description="world size; none: all devices of the allocation"
    )
    ulysses_degree: int = Field(default=1, gt=0)
    ring_degree: int = Field(default=1, gt=0)
    smaller_degrees: tuple[Degrees, ...] = Field(
        default=(),
        description="further (ulysses_degree, ring_degree) pairs, each with a smaller product; a micro-step "
        "takes the smallest whose ranks hold its samples",
    )
    zero_stage: Literal[0, 1, 2, 3] = 3
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = Field(
        default=True, description="layers run forward again in the backward pass; attention does not"
    )
    keep_attention: bool = Field(
        default=True,
        description="with gradient_checkpointing: keep attention's results, as large as the layers' inputs; "
        "false: attention and its messages run twice",
    )
    keep_keys: bool = Field(
        default=False,
        description="keys that came around the ring wait for the backward pass instead of travelling twice",
    )
    offload_activations: bool = Field(
        default=False,
        description="with gradient_checkpointing: what is kept between the passes waits in host memory",
    )
    mlp_tiles: int = Field(
        default=0, ge=0, description="the LLM's MLPs and norms take tokens in this many tiles; 0: at once"
    )
    head_groups: int = Field(
        default=0, ge=0, description="attention heads go through in this many groups; 0: at once"
    )
    frames_at_once: int | None = Field(
        default=None, gt=0, description="frames in one pass through the tower; none: all that a rank has"
    )
    attention_kernel: KernelName = Field(
        default="auto", description="what computes a block of attention; auto: the best that is there"
    )
    on_broken_sample: Literal["raise", "skip"] = Field(
        default="raise",
        description="raise: a sample that cannot be read ends the run, named by shard and key; skip: it is "
        "counted and not trained on, in the same step on all ranks",
    )
    checkpoint_every_steps: int = Field(default=20, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    step_timeout_s: float = Field(default=900.0, gt=0, description="no new step for so long counts as a hang")
    max_retries: int = Field(default=2, ge=0, description="resumes after failures that a retry can mend")
    seed: int = 0

    @property
    def sp_size(self) -> int:
        """Ranks that share one sequence."""
        return self.ulysses_degree * self.ring_degree

    @property
    def degrees(self) -> tuple[Degrees, ...]:
        """All (ulysses_degree, ring_degree) pairs, smallest product first; the last is the stage's own."""
        return (*sorted(self.smaller_degrees, key=math.prod), (self.ulysses_degree, self.ring_degree))

    @property
    def rows_per_bundle(self) -> tuple[int, ...]:
        """How many rows of each degree ``sp_size`` ranks work on at once."""
        return tuple(self.sp_size // math.prod(pair) for pair in self.degrees)

    @model_validator(mode="after")
    def _smaller_degrees_fit(self) -> StageConfig:
        check_smaller_degrees(self.degrees, max_tokens=self.max_tokens)
        return self

    @model_validator(mode="after")
    def _degrees_fit(self) -> StageConfig:
        if self.num_processes is not None:
            if self.num_processes % self.sp_size:
                raise ValueError(
                    f"ulysses_degree={self.ulysses_degree} × ring_degree={self.ring_degree} = {self.sp_size} "
                    f"does not divide num_processes={self.num_processes}"
                )
            dp_size = self.num_processes // self.sp_size
            if self.rows_per_step % dp_size:
                raise ValueError(
                    f"rows_per_step={self.rows_per_step} must be a multiple of the {dp_size} replicas "
                    f"(num_processes={self.num_processes} ÷ sp_size={self.sp_size})"
                )
        if self.offload_activations and not self.gradient_checkpointing:
            raise ValueError(
                "offload_activations moves what gradient_checkpointing keeps, but that is off. Turn it on"
            )
        if self.lora and "llm" not in self.trains:
            raise ValueError("lora is set, but trains does not name llm")
        if len(set(self.trains)) < len(self.trains):
            raise ValueError(f"trains names a part twice: {', '.join(self.trains)}")
        idle = sorted(set(self.optimizer.part_learning_rates) - set(self.trains))
        if idle:
            raise ValueError(
                f"optimizer.part_learning_rates names {', '.join(idle)}, which this stage does not train "
                f"(trains: {', '.join(self.trains)})"
            )
        return self
