"""Questions about a window of a video, and its frames, as training and evaluation samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from longvila.curation.asking.options import LETTERS
from longvila.curation.scan_file import FrameStrip
from longvila.media.jpeg import FrameBlob
from longvila.records import Question, Sample, Split, Turn, VideoRecord
from longvila.text.tokenizer import FRAMES_MARK

VERSION = 2
MAX_TURNS = 64  # questions in one conversation
ChoiceAnswer = Literal["letter", "letter_text"]
_INSTRUCTIONS = {
    "letter": "Answer with the letter of the right option.",
    "letter_text": "Answer with the right option and its letter.",
}


def question_samples(
    questions: Sequence[Question],
    videos: Mapping[str, VideoRecord],
    load_frames: Callable[[str], FrameStrip],
    *,
    split: Split,
    choice_answer: ChoiceAnswer = "letter",
) -> Iterator[tuple[Sample, FrameBlob]]:
    """Yield the samples of one split with their frames, in an order that is always the same.

    In training the questions about one window are turns of one conversation (of at most ``MAX_TURNS``), so
    its frames are paid for once; a description is a sample of its own, since it gives other answers away.
    Held out, each question stands alone: no earlier answer helps. ``load_frames`` runs once a video.
    """
    by_video = _by_window(questions, split)
    for video_id in sorted(by_video):
        strip = load_frames(video_id)
        for number, window in enumerate(sorted(by_video[video_id])):
            asked = sorted(by_video[video_id][window], key=lambda question: question.question_id)
            start, stop = np.searchsorted(strip.times_s, [window[0] - 1e-9, window[1] - 1e-9])
            if start == stop:
                continue
            groups = _conversations(asked, split)
            for turn, group in enumerate(groups):
                single = split == "train" and len(groups) == 1
                key = f"{video_id}-{number:05d}" + ("" if single else f"-{turn:02d}")
                sample = _sample(key, videos[video_id], group, strip.times_s[start:stop], choice_answer)
                yield sample, strip.part(int(start), int(stop))


def count_samples(questions: Sequence[Question], split: Split) -> int:
    """Return how many samples ``question_samples`` makes of the questions of a split, at most."""
    return sum(
        len(_conversations(asked, split))
        for windows in _by_window(questions, split).values()
        for asked in windows.values()
    )


def render_question(question: Question, choice_answer: ChoiceAnswer = "letter") -> tuple[str, str]:
    """Return what is asked and what is answered, with the options and their letters where there are some."""
    if question.form == "open":
        return question.question, question.answer
    listed = [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
    place = question.options.index(question.answer)
    answer = LETTERS[place] if choice_answer == "letter" else listed[place]
    return "\n".join((question.question, *listed, _INSTRUCTIONS[choice_answer])), answer


def _by_window(
    questions: Sequence[Question], split: Split
) -> dict[str, dict[tuple[float, float], list[Question]]]:
    found: dict[str, dict[tuple[float, float], list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        if question.split == split:
            found[question.video_id][question.start_s, question.stop_s].append(question)
    return found


def _conversations(asked: Sequence[Question], split: Split) -> list[list[Question]]:
    """Divide the questions about one window into conversations."""
    if split == "heldout":
        return [[question] for question in asked]
    short = [question for question in asked if question.kind != "summary"]
    groups = [short[i : i + MAX_TURNS] for i in range(0, len(short), MAX_TURNS)]
    return groups + [[question] for question in asked if question.kind == "summary"]


def _sample(
    key: str,
    video: VideoRecord,
    questions: Sequence[Question],
    times_s: np.ndarray,
    choice_answer: ChoiceAnswer,
) -> Sample:
    turns: list[Turn] = []
    for question in questions:
        text, answer = render_question(question, choice_answer)
        turns += [
            Turn(role="human", text=text if turns else f"{FRAMES_MARK} {text}"),
            Turn(role="gpt", text=answer),
        ]
    return Sample(
        key=key,
        kind="video",
        split=video.split,
        conversations=tuple(turns),
        video_id=video.video_id,
        frame_times_s=tuple(float(time) for time in times_s),
        provenance={
            "made_by": f"questions-{VERSION}",
            "source_id": video.source_id,
            "kind": questions[0].kind if len(questions) == 1 else "several",
            "questions": [_origin(question) for question in questions],
        },
    )


def _origin(question: Question) -> dict[str, Any]:
    """Where a question comes from and what it rests on; what it does not have is left out."""
    told: dict[str, Any] = {
        "question_id": question.question_id,
        "kind": question.kind,
        "answer": question.answer,
        "form": question.form,
        "writer": question.writer,
        "evidence_s": [[round(span.start_s, 3), round(span.stop_s, 3)] for span in question.evidence],
        "clip_ids": list(dict.fromkeys(span.clip_id for span in question.evidence if span.clip_id)),
    }
    told |= {name: value for name in ("model", "prompt_id") if (value := getattr(question, name))}
    return told | ({"options": list(question.options)} if question.form == "choice" else {})
