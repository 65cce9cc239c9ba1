"""The writer that asks a language model, kind by kind, over the timed captions of a whole video.

Captions that do not fit the model's context are asked about in parts. Each part's request is then shown an
account of the whole video (the captioner's chapters, or digests asked for first), and the kinds that are
about the whole are asked over all captions, shortened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from longvila.config.language import ModelKind, QuestionConfig
from longvila.curation.asking.checks import questions_of
from longvila.curation.asking.compose import Seen, draft_of
from longvila.curation.asking.outline import (
    Line,
    lines_of,
    of_level,
    parts,
    render,
    sketch,
    span_text,
    time_text,
)
from longvila.curation.asking.sheet import ANSWERED, Asked, Draft, Sheet
from longvila.curation.asking.wording import clean
from longvila.curation.language.prompts import Prompt, load_prompt
from longvila.curation.language.protocol import LanguageModel
from longvila.curation.language.schema import check_schema
from longvila.errors import ConfigError, ItemError
from longvila.records import Caption, Question, VideoRecord, content_id

logger = logging.getLogger(__name__)

VERSION = 1
WRITER = f"model-{VERSION}"
KINDS: tuple[str, ...] = get_args(ModelKind)
OF_THE_WHOLE = ("synopsis", "order", "cross_clip", "summary")
SUMMARY_WORDS, DIGEST_WORDS = 250, 120
_DIGEST_SHARE = 0.25  # of the caption tokens
VALUES = ("captions", "digest", "span", "duration", "count", "num_distractors", "words")  # of a prompt
_DESCRIBE = (
    "Describe this video in detail.",
    "What happens in this video, from beginning to end?",
    "Give a full account of the video.",
    "Tell what is seen in this video, scene by scene.",
    "Write a detailed description of the whole video.",
)


class Request(NamedTuple):
    """What one request is for and what it shows."""

    kind: str
    lines: Sequence[Line]  # shown
    span: str
    start_s: float
    stop_s: float
    digest: str


class ModelWriter:
    """Asks a language model for questions about one video after another."""

    name = WRITER

    def __init__(
        self,
        model: LanguageModel,
        config: QuestionConfig,
        prompts: Mapping[str, Prompt],
        *,
        pool: Executor | None = None,
    ) -> None:
        """``pool`` runs the requests of a video at once; without one they follow one another."""
        self._model, self._config, self._prompts = model, config, prompts
        self._map = pool.map if pool else map

    @property
    def prompt_ids(self) -> dict[str, str]:
        """Which prompt is used for which kind."""
        return {kind: prompt.id for kind, prompt in self._prompts.items()}

    def ask(self, video: VideoRecord, captions: Sequence[Caption]) -> Sheet:
        """Ask all that is to be asked of one video. A request that fails is noted and the others go on.

        Raises ``NetworkError`` when the model does not answer at all.
        """
        lines = lines_of(captions)
        if not lines:
            return Sheet(video_id=video.video_id)
        cut = parts(lines, self._config.caption_tokens)
        digest, asked = self._digest(video, captions, cut)
        requests = self._requests(video, lines, cut, digest)
        asked += self._map(lambda request: self._ask(video, request), requests)
        failed = [one for one in asked if one.outcome != ANSWERED]
        if failed:
            logger.warning(
                "video %s: %d of %d requests failed, the first: %s (%s)",
                video.video_id, len(failed), len(asked), failed[0].outcome, failed[0].detail,
            )  # fmt: skip
        return Sheet(video_id=video.video_id, asked=tuple(asked))

    def write(self, video: VideoRecord, captions: Sequence[Caption]) -> list[Question]:
        """Ask, and make questions of what was answered; see ``checks.questions_of``."""
        sheet = self.ask(video, captions)
        return questions_of(sheet, video, lines_of(captions), self._config, writer=WRITER)

    def _requests(
        self, video: VideoRecord, lines: Sequence[Line], cut: Sequence[Sequence[Line]], digest: str
    ) -> list[Request]:
        whole = sketch(lines, self._config.caption_tokens)
        found = []
        for kind in (*(self._config.kinds or KINDS), *(("summary",) if self._config.summaries else ())):
            if kind in OF_THE_WHOLE or len(cut) == 1:
                span = "the whole" if len(cut) == 1 else "the whole, shortened,"
                found.append(Request(kind, whole, span, 0.0, video.duration_s, digest))
                continue
            for part in cut:
                start_s, stop_s = part[0].start_s, part[-1].stop_s
                span = f"the part {span_text(start_s, stop_s)}"
                found.append(Request(kind, part, span, start_s, stop_s, digest))
        return found

    def _digest(
        self, video: VideoRecord, captions: Sequence[Caption], cut: Sequence[Sequence[Line]]
    ) -> tuple[str, list[Asked]]:
        """Return an account of a video that is too long to be shown whole, and the requests it took."""
        if len(cut) == 1:
            return "", []
        chapters = of_level(captions, "chapter") or of_level(captions, "video")
        if chapters:
            told = [Line(0, "", c.start_s, c.stop_s, clean(c.text)) for c in chapters]
            return self._joined(told), []
        requests = [
            Request("digest", part, f"the part {span_text(part[0].start_s, part[-1].stop_s)}",
                    part[0].start_s, part[-1].stop_s, "")
            for part in cut
        ]  # fmt: skip
        asked = list(self._map(lambda request: self._ask(video, request), requests))
        told = [Line(0, "", a.start_s, a.stop_s, d.answer) for a in asked for d in a.drafts]
        bare = [one.model_copy(update={"drafts": ()}) for one in asked]
        return self._joined(told), bare

    def _joined(self, told: Sequence[Line]) -> str:
        room = int(self._config.caption_tokens * _DIGEST_SHARE)
        return "\n".join(line.render().partition(" ")[2] for line in sketch(told, room))

    def _ask(self, video: VideoRecord, request: Request) -> Asked:
        prompt = self._prompts[request.kind]
        given = (
            render(request.lines),
            request.digest,
            request.span,
            time_text(video.duration_s),
            self._config.per_request,
            self._config.num_options - 1,
            SUMMARY_WORDS if request.kind == "summary" else DIGEST_WORDS,
        )
        values: dict[str, Any] = dict(zip(VALUES, given, strict=True))
        asked = Asked(
            kind=request.kind,
            prompt_id=prompt.id,
            start_s=request.start_s,
            stop_s=min(request.stop_s, video.duration_s),
            outcome=ANSWERED,
            model=self._model.name,
        )
        try:
            answer = self._model.complete(
                prompt.messages(values),
                max_tokens=self._config.answer_tokens,
                schema=prompt.answer,
                seed=self._config.seed,
            )
        except ItemError as error:
            return asked.model_copy(update={"outcome": error.reason, "detail": error.detail})
        asked = asked.model_copy(update={"model": answer.model, "usage": answer.usage})
        try:
            drafts = _drafts(request, answer.text, self._config.num_options - 1, video.video_id)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, ValidationError) as error:
            return asked.model_copy(
                update={"outcome": "bad-json", "detail": f"not what was asked for: {error}"}
            )
        return asked.model_copy(update={"drafts": tuple(drafts)})


def load_prompts(config: QuestionConfig) -> dict[str, Prompt]:
    """Read the prompts that a writer with these settings uses, and fill each in once to see that it can be.

    Raises ``InputError`` for one that is not there, ``ConfigError`` for one that cannot be used.
    """
    kinds = [*(config.kinds or KINDS), "digest", *(["summary"] if config.summaries else [])]
    named: Mapping[str, str] = {str(kind): name for kind, name in config.prompts.items()}
    prompts = {kind: load_prompt(named.get(kind, f"question-{kind.replace('_', '-')}")) for kind in kinds}
    for kind, prompt in prompts.items():
        if prompt.answer is None:
            raise ConfigError(
                f"prompt {prompt.name!r} for {kind} has no answer: give it the JSON schema of one"
            )
        check_schema(prompt.answer)
        prompt.messages(dict.fromkeys(VALUES, ""))
    return prompts


def _drafts(request: Request, text: str, num_distractors: int, seed: str) -> list[Draft]:
    """Read a model's answer. Raises what wrong JSON raises."""
    answer: Any = json.loads(text)
    if request.kind in ("summary", "digest"):
        told = clean(str(answer["summary"]))
        question = _DESCRIBE[int(content_id(seed, "describe", length=8), 16) % len(_DESCRIBE)]
        clips = tuple(line.number for line in request.lines)
        return [Draft(kind=request.kind, question=question, answer=told, clips=clips)] if told else []
    seen = Seen({line.number: line for line in request.lines}, num_distractors)
    return [draft_of(request.kind, item, seen) for item in answer["questions"]]
