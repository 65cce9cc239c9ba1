"""Who says what of a video: the language models, captions and questions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, model_validator

from longvila.config.model import Settings

QuestionKind = Literal[
    "brightness",
    "main_colour",
    "colour_place",
    "lightest_side",
    "change",
    "start_colour",
    "end_colour",
    "when_darkest",
    "when_lightest",
    "motion",
    "texture",
    "camera",
    "count",
    "recurs",
    "synopsis",
]

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
RESERVED_FIELDS = frozenset(
    ("model", "messages", "max_tokens", "max_completion_tokens", "seed", "stream", "n", "response_format")
)


class LanguageModelConfig(Settings):
    """A model that captions clips or writes questions: behind an endpoint, or in this process."""

    # An error must not show what was given: somebody may have put a key here.
    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Literal["endpoint", "local"] = Field(
        default="endpoint",
        description="endpoint: anything that speaks OpenAI's chat completions; local: transformers, here",
    )
    model: str = Field(
        min_length=1,
        description="endpoint: the name that the server knows; local: a checkpoint folder or a .gguf file",
    )
    revision: str = Field(
        default="", description="change it when the same name means other weights, so that all is asked anew"
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="0: greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    cache: bool = Field(default=True, description="keep every answer, so that nothing is paid for twice")

    base_url: str | None = Field(default=None, description="endpoint: up to and with /v1")
    api_key_env: str | None = Field(
        default=None, description="endpoint: the NAME of the environment variable that holds the key"
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="endpoint: further fields of the request, as the server takes them"
    )
    requests_at_once: int = Field(default=8, ge=1, le=256, description="endpoint")
    requests_per_minute: float | None = Field(default=None, gt=0, description="endpoint; none: no limit")
    tokens_per_minute: float | None = Field(default=None, gt=0, description="endpoint; none: no limit")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="endpoint")
    read_timeout_s: float = Field(default=120.0, gt=0, description="endpoint: without any byte arriving")
    total_timeout_s: float = Field(default=300.0, gt=0, description="endpoint: for one whole answer")
    attempts: int = Field(
        default=6, ge=1, description="endpoint: for 429, 5xx, broken connections and timeouts"
    )
    backoff_s: float = Field(default=1.0, gt=0, description="endpoint: before the second attempt; doubles")
    max_wait_s: float = Field(
        default=120.0, gt=0, description="endpoint: the longest pause, also when Retry-After asks for more"
    )
    usd_per_million_tokens_in: float = Field(default=0.0, ge=0, description="endpoint: its price")
    usd_per_million_tokens_out: float = Field(default=0.0, ge=0, description="endpoint: its price")
    max_cost_usd: float | None = Field(
        default=None, gt=0, description="endpoint: what this workspace may spend on the model in all"
    )

    device: str = Field(default="auto", description="local: auto, cpu, cuda, cuda:1, …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="local")
    batch_size: int = Field(default=8, ge=1, description="local: answers generated together")

    @model_validator(mode="after")
    def _whole(self) -> LanguageModelConfig:
        if self.kind == "local":
            if self.base_url is not None:
                raise ValueError("base_url is for kind: endpoint. Remove it, or set kind: endpoint")
            return self
        if self.base_url is None:
            raise ValueError("kind: endpoint needs base_url, for example http://127.0.0.1:8000/v1")
        _check_base_url(self.base_url)
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "api_key_env is not the name of an environment variable (A-Z, 0-9, _). Put the key itself into the "
                "environment (export MY_KEY=…) and only the variable's name here (api_key_env: MY_KEY)"
            )
        reserved = sorted(RESERVED_FIELDS & self.extra_body.keys())
        if reserved:
            raise ValueError(f"extra_body may not set {', '.join(reserved)}: the client sets them")
        if self.max_cost_usd and not self.usd_per_million_tokens_in + self.usd_per_million_tokens_out:
            raise ValueError(
                "max_cost_usd needs the prices: usd_per_million_tokens_in and usd_per_million_tokens_out"
            )
        return self

    def decides_answers(self) -> dict[str, Any]:
        """What of this decides what the model answers; the rest (addresses, limits, prices) does not."""
        told = {"kind", "model", "revision", "temperature", "top_p", "extra_body", "dtype"}
        return self.model_dump(mode="json", include=told)

    @property
    def threads(self) -> int:
        """How many callers keep the model busy."""
        return self.requests_at_once if self.kind == "endpoint" else self.batch_size


def _check_base_url(given: str) -> None:
    """Raise ``ValueError``, which does not repeat ``given``: it may hold a password."""
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("base_url is not an address, for example http://127.0.0.1:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("base_url must be http://… or https://…, for example http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "base_url may hold no user, password, query or fragment. Keys go into the environment variable "
            "that api_key_env names"
        )
    if parts.path.rstrip("/").endswith(("/completions", "/models")):
        raise ValueError("base_url ends before /chat/completions, for example http://127.0.0.1:8000/v1")


class CaptionConfig(Settings):
    """Who describes the clips."""

    captioner: Literal["measured", "model"] = Field(
        default="measured", description="measured: computed from pixels; model: the language model below"
    )
    frames_per_clip: int = Field(default=8, ge=1, description="evenly spaced, as the model sees them")
    model: LanguageModelConfig | None = Field(default=None, description="for captioner: model")
    prompt: str = Field(default="caption-clip", description="a name in datasets/prompts, or a path")
    max_tokens: int = Field(default=512, ge=1, description="of one caption")
    summary_prompt: str | None = Field(
        default=None, description="also caption each whole video from its clips, e.g. caption-video"
    )
    chapter_prompt: str | None = Field(
        default=None, description="also caption chapters of several clips, e.g. caption-chapter"
    )
    chapter_s: float = Field(default=120.0, gt=0, description="how long a chapter is about")

    @model_validator(mode="after")
    def _has_model(self) -> CaptionConfig:
        if self.captioner == "model" and self.model is None:
            raise ValueError("captioner: model needs the section model: (kind, model, base_url, …)")
        if self.captioner == "measured" and self.model is not None:
            raise ValueError("model: is given but not used. Set captioner: model, or remove it")
        return self

    def decides_captions(self) -> dict[str, Any]:
        """What of this decides the captions: the key of what is done already."""
        if self.model is None:
            return {"captioner": self.captioner}
        plain = self.model_dump(mode="json", exclude={"model"})
        return {**plain, "model": self.model.decides_answers()}


class QuestionConfig(Settings):
    """Who writes the questions, and how many."""

    writer: Literal["measured"] = "measured"
    kinds: tuple[QuestionKind, ...] = Field(default=(), description="none: all")
    window_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="lengths of the spans asked about; none: whole videos"
    )
    stride_s: float = Field(default=4.0, gt=0)
    max_per_video: int = Field(default=400, gt=0)
