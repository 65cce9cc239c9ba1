"""Who says what of a video: the language models, captions and questions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args
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

# What the measured writer can say of whole clips; answers are phrases.
ClipKind = Literal[
    "ocr", "temporal", "counting", "order", "localisation", "needle", "cross_clip", "unanswerable"
]

# What a language model is asked for: the seven kinds of the paper (§3.2), and further ones.
ModelKind = Literal[
    "spatial",
    "attribute",
    "action",
    "object",
    "ocr",
    "synopsis",
    "temporal",
    "counting",
    "order",
    "localisation",
    "needle",
    "cross_clip",
    "unanswerable",
]
AnyKind = Literal[QuestionKind, ClipKind, ModelKind]
Form = Literal["open", "choice"]

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
RESERVED_FIELDS = frozenset(
    (
        *("model", "messages", "max_tokens", "max_completion_tokens", "seed", "stream", "n"),
        *("response_format", "temperature", "top_p"),
    )
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
                "api_key_env is not the name of an environment variable (A-Z, 0-9, _). Put the key itself "
                "into the environment (export MY_KEY=…) and only its name here (api_key_env: MY_KEY)"
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
        return self.requests_at_once if self.kind == "endpoint" else 2 * self.batch_size


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


class ReadTextConfig(Settings):
    """How text in the picture is read, with the extra ``ocr``."""

    every_s: float = Field(default=2.0, gt=0, description="a frame is read; about 0.4 CPU seconds each")
    min_score: float = Field(
        default=0.9, ge=0, le=1, description="of the reader's own; what is less sure is left out"
    )
    model_path: str | None = Field(
        default=None,
        description="of a PP-OCR recognition model (.onnx), for scripts other than Latin and Chinese",
    )
    keys_path: str | None = Field(default=None, description="of that model's characters, one a line")

    @model_validator(mode="after")
    def _both_or_none(self) -> ReadTextConfig:
        if (self.model_path is None) != (self.keys_path is None):
            raise ValueError("model_path and keys_path belong together: give both, or none")
        return self


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
    read_text: ReadTextConfig | None = Field(
        default=None, description="for captioner: measured; also tell the text in the picture. {}: as usual"
    )

    @model_validator(mode="after")
    def _has_model(self) -> CaptionConfig:
        if self.captioner == "model" and self.model is None:
            raise ValueError("captioner: model needs the section model: (kind, model, base_url, …)")
        if self.captioner == "measured" and self.model is not None:
            raise ValueError("model: is given but not used. Set captioner: model, or remove it")
        if self.captioner == "measured" and self.levels:
            raise ValueError("summary_prompt and chapter_prompt need captioner: model")
        if self.captioner == "model" and self.read_text is not None:
            raise ValueError(
                "read_text is for captioner: measured; a model reads the frames itself. Remove it"
            )
        return self

    @property
    def levels(self) -> tuple[str, ...]:
        """What is told beside the clips: chapter, video."""
        named = {"chapter": self.chapter_prompt, "video": self.summary_prompt}
        return tuple(level for level, prompt in named.items() if prompt)

    def decides_captions(self) -> dict[str, Any]:
        """What of this decides the captions: the key of what is done already."""
        if self.model is None:
            reads = {"read_text": self.read_text.model_dump(mode="json")} if self.read_text else {}
            return {"captioner": self.captioner, **reads}
        plain = self.model_dump(mode="json", exclude={"model", "read_text"})
        return {**plain, "model": self.model.decides_answers()}


class QuestionCheckConfig(Settings):
    """What a question has to pass. What fails becomes a rejection with its reason."""

    model: LanguageModelConfig | None = Field(
        default=None, description="who checks; none: the writer's model"
    )
    answerable: bool = Field(
        default=True, description="a model must find the answer in the captions; needs a model"
    )
    blind_tries: int = Field(
        default=3, ge=0, le=16, description="how often a model guesses without captions; 0: not checked"
    )
    max_blind_right: int = Field(default=1, ge=0, description="of blind_tries; more reject the question")
    judge: bool = Field(
        default=True, description="a model compares answers that differ in their words; off: words decide"
    )
    min_grounded: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the answer's words that the captions of its evidence hold",
    )
    max_similar: float = Field(
        default=0.8, gt=0, le=1, description="share of words two questions of one video may have in common"
    )
    max_question_words: int = Field(default=60, ge=4)
    max_answer_words: int = Field(default=60, ge=1, description="summaries aside")


class QuestionConfig(Settings):
    """Who writes the questions, and how many."""

    writer: Literal["measured", "model"] = Field(
        default="measured", description="measured: computed from pixels; model: the language model below"
    )
    kinds: tuple[AnyKind, ...] = Field(
        default=(), description="none: all that the writer has; measured: those with one-word answers"
    )
    forms: tuple[Form, ...] = Field(
        default=("open",),
        min_length=1,
        description="both: half of the questions each, by chance; open where good options lack",
    )
    num_options: int = Field(default=4, ge=2, le=8, description="of a question in the form choice, at most")
    window_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(8.0, 30.0),
        description="measured: lengths of the spans asked about; none, or longer than the video: all of it",
    )
    stride_s: float = Field(default=4.0, gt=0, description="measured")
    max_per_video: int = Field(default=400, gt=0)
    summaries: bool = Field(default=False, description="also one description of each whole video")
    choice_answer: Literal["letter", "letter_text"] = Field(
        default="letter", description="what a sample answers: B, or B. and the option"
    )

    model: LanguageModelConfig | None = Field(default=None, description="for writer: model")
    prompts: dict[ModelKind | Literal["summary", "digest"], str] = Field(
        default_factory=dict, description="kind → name in datasets/prompts, or a path; none: question-KIND"
    )
    per_request: int = Field(default=3, ge=1, le=10, description="model: questions asked for at a time")
    caption_tokens: int = Field(
        default=12000,
        ge=200,
        description="model: captions shown at a time, estimated; longer videos in parts",
    )
    answer_tokens: int = Field(default=2000, ge=16, description="model: of one answer")
    shown: Literal["video", "part"] = Field(
        default="video",
        description="model: the frames shown with a question: of all, or of the part it was written from",
    )
    seed: int = 0
    checks: QuestionCheckConfig = QuestionCheckConfig()

    @model_validator(mode="after")
    def _fits(self) -> QuestionConfig:
        if self.writer == "model" and self.model is None:
            raise ValueError("writer: model needs the section model: (kind, model, base_url, …)")
        if self.writer == "measured" and self.model is not None:
            raise ValueError("model: is given but not used. Set writer: model, or remove it")
        known = get_args(ModelKind) if self.writer == "model" else get_args(QuestionKind) + get_args(ClipKind)
        wrong = [kind for kind in self.kinds if kind not in known]
        if wrong:
            raise ValueError(
                f"writer: {self.writer} has no kind {wrong[0]!r}. Use some of {', '.join(known)}"
            )
        return self

    @property
    def threads(self) -> int:
        """How many callers keep the models busy."""
        return max((model.threads for model in (self.model, self.checks.model) if model), default=1)

    def decides_questions(self) -> dict[str, Any]:
        """What of this decides which questions are written, checks aside: the key of what is done already."""
        plain = self.model_dump(mode="json", exclude={"model", "checks", "choice_answer"})
        return plain if self.model is None else {**plain, "model": self.model.decides_answers()}

    def decides_checks(self) -> dict[str, Any]:
        """What of this decides how the written questions are checked."""
        plain = self.checks.model_dump(mode="json", exclude={"model"})
        checker = self.checks.model or self.model
        return plain if checker is None else {**plain, "model": checker.decides_answers()}
