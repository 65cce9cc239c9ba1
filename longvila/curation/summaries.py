"""Captions of chapters and of whole videos, told from the captions of their clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from longvila.config.language import CaptionConfig
from longvila.curation.captioners import check_text, make_caption, split_answer
from longvila.curation.language.prompts import Prompt, load_prompt
from longvila.curation.language.protocol import LanguageModel
from longvila.errors import ItemError
from longvila.records import Caption, Rejection

VERSION = 1
STEP = "summaries"
_MAX_PARTS = 40  # told together in one request; more are told in groups first
Level = Literal["chapter", "video"]


class Summariser:
    """Tells chapters and videos from captions, as far as the recipe asks for them."""

    def __init__(self, model: LanguageModel, config: CaptionConfig) -> None:
        """Raises ``InputError`` and ``ConfigError`` for the prompts."""
        self._model = model
        self._config = config
        self._chapter = load_prompt(config.chapter_prompt) if config.chapter_prompt else None
        self._video = load_prompt(config.summary_prompt) if config.summary_prompt else None

    @property
    def decides(self) -> dict[str, Any]:
        """What decides the summaries: the key of what is done already."""
        prompts = [prompt.id if prompt else None for prompt in (self._chapter, self._video)]
        return {**self._config.decides_captions(), "prompts": prompts}

    def summarise(self, captions: Sequence[Caption]) -> list[Caption | Rejection]:
        """Return the chapters of one video, then the video's own caption; rejections where one failed.

        ``captions`` are those of its clips in the order of time. Raises ``ItemError`` when there is none.
        """
        if not captions:
            raise ItemError("no-captions", "none of its clips could be described; see the step captions")
        made: list[Caption | Rejection] = []
        parts = list(captions)
        if self._chapter:
            groups = in_chapters(captions, self._config.chapter_s)
            made += [self._told(self._chapter, group, "chapter") for group in groups]
            chapters = [one for one in made if isinstance(one, Caption)]
            parts = chapters or parts
        if self._video:
            made.append(self._told(self._video, parts, "video"))
        return made

    def _told(self, prompt: Prompt, parts: Sequence[Caption], level: Level) -> Caption | Rejection:
        try:
            while len(parts) > _MAX_PARTS:
                groups = [parts[start : start + _MAX_PARTS] for start in range(0, len(parts), _MAX_PARTS)]
                parts = [self._tell(prompt, group, level) for group in groups]
            return self._tell(prompt, parts, level)
        except ItemError as error:
            first, last = parts[0], parts[-1]
            return Rejection(
                item_id=first.video_id if level == "video" else f"{first.video_id}@{first.start_s:.1f}",
                step=STEP,
                reason=error.reason,
                detail=f"{level} {first.start_s:.1f}–{last.stop_s:.1f} s: {error.detail}",
                source=first.video_id,
            )

    def _tell(self, prompt: Prompt, parts: Sequence[Caption], level: Level) -> Caption:
        messages = prompt.messages(_values(parts))
        completion = self._model.complete(messages, max_tokens=self._config.max_tokens, schema=prompt.answer)
        text, facts = split_answer(completion.text, prompt)
        check_text(text, ())
        return make_caption(
            text,
            completion,
            prompt=prompt,
            config=self._config,
            made_of=[part.caption_id for part in parts],
            clip_id="",
            video_id=parts[0].video_id,
            span_s=(parts[0].start_s, parts[-1].stop_s),
            facts=facts,
            level=level,
        )


def in_chapters(captions: Sequence[Caption], chapter_s: float) -> list[list[Caption]]:
    """Return the captions in consecutive groups of up to ``chapter_s``; a short last one joins another."""
    chapters: list[list[Caption]] = []
    for caption in captions:
        if chapters and caption.stop_s - chapters[-1][0].start_s <= chapter_s:
            chapters[-1].append(caption)
        else:
            chapters.append([caption])
    if len(chapters) > 1 and chapters[-1][-1].stop_s - chapters[-1][0].start_s < chapter_s / 4:
        last = chapters.pop()
        chapters[-1] += last
    return chapters


def _values(parts: Sequence[Caption]) -> dict[str, Any]:
    """What a prompt for chapters and videos may use."""
    return {
        "start": f"{parts[0].start_s:.0f} s",
        "stop": f"{parts[-1].stop_s:.0f} s",
        "start_s": parts[0].start_s,
        "stop_s": parts[-1].stop_s,
        "parts": [{"span": f"{part.start_s:.1f}–{part.stop_s:.1f} s", "text": part.text} for part in parts],
    }
