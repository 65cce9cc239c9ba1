"""Who describes clips, behind one protocol: by measuring (no model), or by a language model that sees frames.

A clip that cannot be described is a ``Rejection`` with the clip's id; the video's other clips go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from longvila.config.language import CaptionConfig
from longvila.curation.captions import MeasuredCaptioner
from longvila.curation.language.degenerate import what_is_wrong
from longvila.curation.language.prompts import Prompt, load_prompt
from longvila.curation.language.protocol import Completion, LanguageModel, Message
from longvila.curation.on_screen_text import SeenText
from longvila.curation.sampling import Measures
from longvila.curation.scan import FrameStrip
from longvila.errors import ConfigError, ItemError
from longvila.records import Caption, Clip, Rejection, Shot, VideoRecord, content_id

VERSION = 1
STEP = "captions"
PASSING_REASONS = ("unreachable",)  # may go when the step is run again


@dataclass(frozen=True)
class Footage:
    """One video as captioners see it. What takes memory is loaded when it is asked for."""

    video: VideoRecord
    clips: tuple[Clip, ...]  # in the order of time
    shots: tuple[Shot, ...]
    load_measures: Callable[[], Measures]
    load_strip: Callable[[], FrameStrip]


class Captioner(Protocol):
    """Describes the clips of a video."""

    def caption_video(self, footage: Footage) -> list[Caption | Rejection]:
        """Return a caption or a rejection for each clip, in their order.

        Raises ``ConfigError`` and ``TransientError`` for what would fail for all clips alike.
        """
        ...


def caption_or_reject(captioner: Captioner, footage: Footage) -> list[Caption | Rejection]:
    """Describe the clips of a video; what is wrong with the whole video is wrong with each of its clips."""
    try:
        return captioner.caption_video(footage)
    except ItemError as error:
        return [_rejection(clip, error) for clip in footage.clips]


class MeasuredClips:
    """The measured captioner, see ``longvila.curation.captions``."""

    def __init__(self, read: Callable[[Footage], list[SeenText]] | None = None) -> None:
        """``read`` tells the text in a video's picture; without it nothing is said of text."""
        self._read = read

    def caption_video(self, footage: Footage) -> list[Caption | Rejection]:
        """Describe the clips by what is measured in them."""
        texts = None if self._read is None else self._read(footage)
        captioner = MeasuredCaptioner(footage.load_measures(), footage.shots, texts)
        return [captioner.caption(clip) for clip in footage.clips]


class ModelCaptioner:
    """Shows each clip's frames to a language model. Safe to share among threads."""

    def __init__(self, model: LanguageModel, config: CaptionConfig, pool: ThreadPoolExecutor) -> None:
        """``pool`` is where clips wait for their answers; its threads keep the model busy.

        Raises ``InputError`` and ``ConfigError`` for the prompt.
        """
        self._model = model
        self._config = config
        self._pool = pool
        self._prompt = load_prompt(config.prompt)
        _check_prompt(self._prompt)

    @property
    def decides(self) -> dict[str, Any]:
        """What decides the captions: the key of what is done already."""
        return {**self._config.decides_captions(), "prompt": self._prompt.id}

    def caption_video(self, footage: Footage) -> list[Caption | Rejection]:
        """Describe the clips, many at once."""
        strip = footage.load_strip()
        shown = [pick_frames(strip, clip, self._config.frames_per_clip) for clip in footage.clips]
        del strip  # of a long video it is large, and most of it is not shown
        futures = [
            self._pool.submit(self._caption_or_rejection, footage, clip, frames)
            for clip, frames in zip(footage.clips, shown, strict=True)
        ]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _caption_or_rejection(self, footage: Footage, clip: Clip, frames: ClipFrames) -> Caption | Rejection:
        try:
            return self._caption(footage, clip, frames)
        except ItemError as error:
            return _rejection(clip, error)

    def _caption(self, footage: Footage, clip: Clip, frames: ClipFrames) -> Caption:
        messages = self._prompt.messages(_values(footage, clip, frames), images=frames.jpegs)
        completion = self._model.complete(
            messages, max_tokens=self._config.max_tokens, schema=self._prompt.answer
        )
        text, facts = split_answer(completion.text, self._prompt)
        check_text(text, messages)
        return make_caption(
            text,
            completion,
            prompt=self._prompt,
            config=self._config,
            made_of=(clip.clip_id, [round(time_s, 3) for time_s in frames.times_s]),
            clip_id=clip.clip_id,
            video_id=clip.video_id,
            span_s=(clip.start_s, clip.stop_s),
            facts={**facts, "frame_times_s": [round(time_s, 3) for time_s in frames.times_s]},
        )


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip that are shown, as the JPEGs of the training strip."""

    jpegs: tuple[bytes, ...]
    times_s: tuple[float, ...]


def pick_frames(strip: FrameStrip, clip: Clip, wanted: int) -> ClipFrames:
    """Return up to ``wanted`` evenly spaced frames of a clip, not encoded again.

    A clip too short to hold a frame gives the nearest one.
    """
    inside = np.flatnonzero((strip.times_s >= clip.start_s) & (strip.times_s < clip.stop_s))
    if not len(strip.times_s):
        raise ItemError("no-frames", "the video's strip holds no frame; scan it again")
    if not len(inside):
        inside = np.array([np.abs(strip.times_s - (clip.start_s + clip.stop_s) / 2).argmin()])
    number = min(wanted, len(inside))
    chosen = inside[((np.arange(number) + 0.5) * len(inside) / number).astype(int)]
    return ClipFrames(
        tuple(bytes(strip.part(int(i), int(i) + 1).data) for i in chosen),
        tuple(float(strip.times_s[i]) for i in chosen),
    )


def split_answer(text: str, prompt: Prompt) -> tuple[str, dict[str, Any]]:
    """Return the caption and the facts beside it, where the prompt asks for JSON."""
    if prompt.answer is None:
        return " ".join(text.split()), {}
    facts = json.loads(text)
    return " ".join(str(facts.pop("caption")).split()), facts


def check_text(text: str, messages: Sequence[Message]) -> None:
    """Raise ``ItemError`` "degenerate" for what is no description."""
    asked = " ".join(turn.text for turn in messages)
    if wrong := what_is_wrong(text, prompt=asked):
        raise ItemError("degenerate", wrong)


def make_caption(
    text: str,
    completion: Completion,
    *,
    prompt: Prompt,
    config: CaptionConfig,
    made_of: Any,
    clip_id: str,
    video_id: str,
    span_s: tuple[float, float],
    facts: dict[str, Any],
    level: Any = "clip",
) -> Caption:
    """Return the record of what a model said."""
    name = f"model-{VERSION}"
    return Caption(
        caption_id=content_id("caption", name, config.decides_captions(), prompt.id, level, made_of),
        clip_id=clip_id,
        video_id=video_id,
        start_s=span_s[0],
        stop_s=span_s[1],
        text=text,
        facts=facts,
        captioner=name,
        level=level,
        outcome="truncated" if completion.finish == "length" else "whole",
        model=completion.model,
        prompt_id=prompt.id,
        usage=completion.usage,
    )


def _rejection(clip: Clip, error: ItemError) -> Rejection:
    return Rejection(
        item_id=clip.clip_id,
        step=STEP,
        reason=error.reason,
        detail=f"{clip.start_s:.1f}–{clip.stop_s:.1f} s: {error.detail}",
        source=clip.video_id,
    )


def _values(footage: Footage, clip: Clip, frames: ClipFrames) -> dict[str, Any]:
    """What a prompt for clips may use."""
    return {
        "num_frames": len(frames.times_s),
        "times_s": frames.times_s,
        "times": ", ".join(f"{time_s:.1f} s" for time_s in frames.times_s),
        "start_s": clip.start_s,
        "stop_s": clip.stop_s,
        "index": clip.index,
        "num_clips": len(footage.clips),
        "video_s": footage.video.duration_s,
        "width": footage.video.width,
        "height": footage.video.height,
        "title": footage.video.title,
    }


def _check_prompt(prompt: Prompt) -> None:
    if prompt.answer is not None and "caption" not in prompt.answer.get("required", ()):
        raise ConfigError(
            f"The prompt {prompt.name!r} asks for JSON without a required field caption. Add it to answer."
        )
