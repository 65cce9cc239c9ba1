"""What the model is made of: vision tower, projector, LLM."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # of what becomes a folder or a file


class Settings(BaseModel):
    """The base of all configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class VisionConfig(Settings):
    """A SigLIP-shaped tower. Either its shape is given here, or it comes from ``pretrained``."""

    kind: Literal["siglip"] = "siglip"
    pretrained: str | None = Field(
        default=None, description="a local path or hub id; the shape is then read from there"
    )
    image_size: int = Field(default=384, gt=0, description="pixels per side")
    patch_size: int = Field(default=14, gt=0, description="pixels per side")
    hidden_size: int = Field(default=1152, gt=0)
    intermediate_size: int = Field(default=4304, gt=0)
    num_layers: int = Field(default=27, gt=0)
    num_heads: int = Field(default=16, gt=0)
    select_layer: int = Field(
        default=-2, description="which hidden state is the feature; VILA takes the last but one"
    )

    @model_validator(mode="after")
    def _shape_fits(self) -> VisionConfig:
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size={self.patch_size} is larger than image_size={self.image_size}")
        layers = self.num_layers
        if self.pretrained is None and not -layers - 1 <= self.select_layer <= layers:
            raise ValueError(
                f"select_layer={self.select_layer} does not exist with num_layers={layers}. "
                f"Use one of {-layers - 1} to {layers}"
            )
        return self

    @property
    def patches_per_side(self) -> int:
        """Patches in one row or column of a frame."""
        return self.image_size // self.patch_size

    @property
    def patches_per_frame(self) -> int:
        """Patches of one frame."""
        return self.patches_per_side**2


class ProjectorConfig(Settings):
    """Turns patches into visual tokens: ``mlp_downsample`` joins 2×2 patches, its ``_3x3`` form 3×3."""

    kind: Literal["mlp_downsample", "mlp_downsample_3x3", "linear"] = "mlp_downsample"
    output_norm: bool = Field(
        default=False, description="RMSNorm on the output; needed when the LLM starts from scratch"
    )

    @property
    def downsample(self) -> int:
        """How many patches per side become one visual token."""
        return {"mlp_downsample": 2, "mlp_downsample_3x3": 3, "linear": 1}[self.kind]


class LlmConfig(Settings):
    """A Qwen2-shaped decoder, or any Hugging Face decoder by ``pretrained``."""

    kind: Literal["qwen2"] = "qwen2"
    pretrained: str | None = Field(
        default=None, description="a local path or hub id; the shape is then read from there"
    )
    hidden_size: int = Field(default=1536, gt=0)
    intermediate_size: int = Field(default=8960, gt=0)
    num_layers: int = Field(default=28, gt=0)
    num_heads: int = Field(default=12, gt=0)
    num_kv_heads: int = Field(default=2, gt=0)
    rope_theta: float = Field(default=1_000_000.0, gt=0)
    max_context: int = Field(
        default=32_768, gt=0, description="longest sequence in tokens before any extension"
    )
    tie_word_embeddings: bool = False
    embedding_std: float = Field(
        default=0.02, gt=0, description="of the token embeddings when they start from scratch"
    )
    init_std: float = Field(
        default=0.02,
        gt=0,
        description="of the other weights from scratch; a tiny model needs about 1 / sqrt(hidden_size)",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> LlmConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        if self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} ÷ num_heads={self.num_heads} is odd. RoPE turns pairs, "
                "so it must be even"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}")
        return self


class ModelConfig(Settings):
    """The three parts, and how frames stand in the text."""

    vision: VisionConfig = VisionConfig()
    projector: ProjectorConfig = ProjectorConfig()
    llm: LlmConfig = LlmConfig()
    tokenizer: str | None = Field(
        default=None, description="a local path or hub id; none: made from the data set's text"
    )
    frame_separator: str | None = Field(
        "\n", description="text after each frame's tokens; none for no separator"
    )

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame after the projector, without the separator."""
        side = -(-self.vision.patches_per_side // self.projector.downsample)
        return side * side

    @model_validator(mode="after")
    def _head_counts(self) -> ModelConfig:
        vision = self.vision
        if vision.pretrained is None and vision.hidden_size % vision.num_heads:
            raise ValueError(
                f"vision.num_heads={vision.num_heads} does not divide vision.hidden_size={vision.hidden_size}"
            )
        return self
