"""The typed rows that cross the borders between steps.

A record is made once and never edited: a step reads one manifest of records and writes the next.
Ids are hashes of what a thing was made from, so the same input with the same settings has the same id.
Times are seconds from the start of the video; spans are half-open ``[start_s, stop_s)``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Split = Literal["train", "heldout"]
SampleKind = Literal["video", "image", "text", "needle"]


def content_id(*parts: Any, length: int = 16) -> str:
    """Return a short hex id of JSON-serialisable ``parts``, stable across machines and runs."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Record(BaseModel):
    """The base of all rows: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Record):
    """One entry of a source list: where a video is to be fetched from, and under which terms."""

    source_id: str
    url: str = Field(description="http(s)://, s3://, file:// or a path")
    fetcher: Literal["auto", "yt-dlp"] = Field(
        default="auto", description="auto: by the address; yt-dlp: a page that yt-dlp knows how to read"
    )
    split: Split = "train"
    title: str = ""
    author: str = ""
    license: str = ""
    sha256: str | None = Field(default=None, description="expected content, checked after the fetch")
    size_bytes: int | None = None


class VideoRecord(Record):
    """One fetched and validated source file, stored by its content."""

    video_id: str = Field(description="first 16 hex digits of the file's sha256")
    source_id: str
    url: str
    key: str = Field(description="where the file lies in the workspace's storage, e.g. videos/ab/abcd….mp4")
    sha256: str
    size_bytes: int
    container: str
    codec: str
    width: int
    height: int
    fps: float
    num_frames: int
    duration_s: float
    split: Split
    title: str = ""
    author: str = ""
    license: str = ""
    normalised_from: str | None = Field(
        default=None, description="sha256 of the file as it was fetched, where ``key`` is an encoding of it"
    )


class Shot(Record):
    """The frames between two cuts. The shots of a video partition its time line."""

    shot_id: str
    video_id: str
    index: int
    start_s: float
    stop_s: float
    transition: Literal["start", "cut", "fade", "dissolve"] = "cut"
    score: float = 0.0


class Clip(Record):
    """A span that is captioned as one: one or more whole shots, or a part of a very long one."""

    clip_id: str
    video_id: str
    index: int
    start_s: float
    stop_s: float
    shot_ids: tuple[str, ...]


class Usage(Record):
    """What a language model was given and gave, and what that cost. Zero for what needs no model."""

    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    estimated: bool = Field(default=False, description="the server did not count; these are our estimates")

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            cost_usd=self.cost_usd + other.cost_usd,
            estimated=self.estimated or other.estimated,
        )


class Caption(Record):
    """What is said of one clip. ``facts`` are measured values that the text states."""

    caption_id: str
    clip_id: str
    video_id: str
    start_s: float
    stop_s: float
    text: str
    facts: dict[str, Any] = Field(default_factory=dict)
    captioner: str
    level: Literal["clip", "chapter", "video"] = Field(
        default="clip", description="chapter and video: of many clips; clip_id is then empty"
    )
    outcome: Literal["whole", "truncated"] = "whole"
    model: str = Field(default="", description="as the endpoint or the checkpoint calls itself")
    prompt_id: str = Field(
        default="", description="name and content hash of the prompt, see datasets/prompts"
    )
    usage: Usage = Usage()


class Evidence(Record):
    """A span of the video that an answer rests on."""

    start_s: float
    stop_s: float
    clip_id: str | None = None


class Question(Record):
    """A question about a span of one video, its answer, and the evidence for it."""

    question_id: str
    video_id: str
    kind: str = Field(description="e.g. attribute, spatial, temporal, counting, order, synopsis")
    question: str
    answer: str
    options: tuple[str, ...] = ()
    form: Literal["open", "choice"] = Field(
        default="open", description="choice: the options are shown with the question, in their order"
    )
    start_s: float = Field(description="the span of the video that is shown with the question")
    stop_s: float
    evidence: tuple[Evidence, ...]
    writer: str
    split: Split
    model: str = ""
    prompt_id: str = Field(
        default="", description="name and content hash of the prompt, see datasets/prompts"
    )
    checks: dict[str, Any] = Field(default_factory=dict, description="what each check measured")
    usage: Usage = Usage()


class Turn(Record):
    """One turn of a conversation. ``<frames>`` in a human turn marks where the frames go."""

    role: Literal["system", "human", "gpt"]
    text: str


class Sample(Record):
    """One training item as it lies in a shard: conversations and frame times, never pixels."""

    key: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="unique in its data set, no dots")
    kind: SampleKind
    split: Split
    conversations: tuple[Turn, ...]
    video_id: str | None = None
    frame_times_s: tuple[float, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """How many frames lie in the sample's blob."""
        return len(self.frame_times_s)


class ShardRecord(Record):
    """One tar of samples."""

    name: str
    size_bytes: int
    sha256: str
    num_samples: int
    num_frames: int
    first_key: str
    last_key: str


class Rejection(Record):
    """An item that entered a step and did not leave it as a result, and why."""

    item_id: str
    step: str
    reason: str = Field(description="a short stable word: truncated, gone, near-duplicate, …")
    detail: str = Field(description="a sentence that a person understands")
    source: str = ""
