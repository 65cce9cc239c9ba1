"""A language model whose answers are written down, and a video whose captions are known."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longvila.config.language import QuestionConfig
from longvila.curation.language.protocol import Completion, Message
from longvila.errors import ItemError
from longvila.records import Caption, Usage, VideoRecord
from tests.curation.pictures import video_record

Answer = Mapping[str, Any] | str | Exception
TEXTS = (
    "A woman in a yellow raincoat ties a grey boat to a wooden pier in the rain.",
    'She carries two blue crates to a small van. On its side stands "NORTH COAST FISH".',
    "In a kitchen, a man in a white apron cuts a large fish on a steel table. A clock hangs above the stove.",
    "The man puts pieces of fish into a black pan. The woman hangs her raincoat on a hook by the door.",
    "The two eat at a round table by the window. A brown dog lies under the table.",
)
_MARKS = {
    "check-answer": "from captions of parts of it",
    "check-blind": "that you have not seen and of which",
    "check-same": "Do their answers say the same",
    "summary": "Describe the whole video",
    "digest": "Give an account of this part",
}


class ScriptedModel:
    """Answers by what is asked for: a kind of question or a check → an answer, or what makes one."""

    name = "scripted"

    def __init__(self, answers: Mapping[str, Answer | Callable[[str, int], Answer]]) -> None:
        self._answers, self._lock = answers, threading.Lock()
        self.asked: list[tuple[str, str, int]] = []  # (what for, the user's turn, seed)

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Completion:
        """Answer; the usage counts words, at a price of a thousandth each."""
        assert schema is not None
        assert max_tokens > 0
        text = messages[-1].text
        what = purpose(text)
        with self._lock:
            self.asked.append((what, text, seed))
        answer = self._answers.get(what, ItemError("refused", f"nothing is written for {what}"))
        if callable(answer):
            answer = answer(text, seed)
        if isinstance(answer, Exception):
            raise answer
        said = answer if isinstance(answer, str) else json.dumps(answer)
        usage = Usage(tokens_in=len(text.split()), tokens_out=len(said.split()), cost_usd=0.001)
        return Completion(text=said, finish="stop", model="scripted-7", usage=usage)

    def times(self, what: str) -> int:
        """How often something was asked for."""
        return sum(asked == what for asked, _, _ in self.asked)


def purpose(text: str) -> str:
    """What a request is for."""
    for name, mark in _MARKS.items():
        if mark in text:
            return name
    found = re.search(r"\*\*([A-Za-z-]+)\*\*", text)
    assert found, text
    return found.group(1).lower().replace("-", "_")


def captions(texts: Sequence[str] = TEXTS, *, clip_s: float = 10.0) -> tuple[Caption, ...]:
    """Captions of clips of ten seconds each."""
    return tuple(
        Caption(
            caption_id=f"k{i}", clip_id=f"clip{i}", video_id="v", start_s=i * clip_s, stop_s=(i + 1) * clip_s,
            text=text, captioner="c",
        )
        for i, text in enumerate(texts, start=0)
    )  # fmt: skip


def video(num_clips: int = len(TEXTS), *, clip_s: float = 10.0) -> VideoRecord:
    """The video of ``captions``."""
    return video_record("v", duration_s=num_clips * clip_s)


def settings(**changes: Any) -> QuestionConfig:
    """Settings of a writer that asks a model."""
    given: dict[str, Any] = {
        "writer": "model",
        "model": {"base_url": "http://127.0.0.1:1/v1", "model": "scripted", "requests_at_once": 1},
        "kinds": ("attribute",),
    }
    return QuestionConfig.model_validate(given | changes)


CRATES = {
    "question": "What colour are the crates that the woman carries away from the boat?",
    "answer": "blue",
    "distractors": ["grey", "yellow", "brown"],
    "evidence": [2],
}


def draft(**changes: Any) -> dict[str, Any]:
    """A good question, with something changed."""
    return {"questions": [CRATES | changes]}


def honest(text: str, _: int) -> Answer:
    """Answer a check as one would who reads the captions: the one about crates, else nothing."""
    return {"answerable": "crates" in text and "blue" in text, "answer": "blue"}
