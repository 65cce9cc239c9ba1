"""Questions about a window of a video, and its frames, as training and evaluation samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from longvila.curation.scan import FrameStrip
from longvila.media.jpeg import FrameBlob
from longvila.records import Question, Sample, Split, Turn, VideoRecord
from longvila.text.tokenizer import FRAMES_MARK

VERSION = 1


def question_samples(
    questions: Sequence[Question],
    videos: Mapping[str, VideoRecord],
    load_frames: Callable[[str], FrameStrip],
    *,
    split: Split,
) -> Iterator[tuple[Sample, FrameBlob]]:
    """Yield the samples of one split with their frames, in an order that is always the same.

    In training all questions about one window are turns of one conversation, so its frames are paid for
    once. Held out, each question stands alone: no earlier answer helps. ``load_frames`` runs once a video.
    """
    by_video: dict[str, dict[tuple[float, float], list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        if question.split == split:
            by_video[question.video_id][question.start_s, question.stop_s].append(question)
    for video_id in sorted(by_video):
        strip = load_frames(video_id)
        for number, window in enumerate(sorted(by_video[video_id])):
            asked = sorted(by_video[video_id][window], key=lambda question: question.question_id)
            start, stop = np.searchsorted(strip.times_s, [window[0] - 1e-9, window[1] - 1e-9])
            if start == stop:
                continue
            groups = [asked] if split == "train" else [[question] for question in asked]
            for turn, group in enumerate(groups):
                key = f"{video_id}-{number:05d}" + ("" if split == "train" else f"-{turn:02d}")
                sample = _sample(key, videos[video_id], group, strip.times_s[start:stop])
                yield sample, strip.part(int(start), int(stop))


def count_samples(questions: Sequence[Question], split: Split) -> int:
    """Return how many samples ``question_samples`` makes of the questions of a split, at most."""
    asked = [question for question in questions if question.split == split]
    if split == "heldout":
        return len(asked)
    return len({(question.video_id, question.start_s, question.stop_s) for question in asked})


def _sample(key: str, video: VideoRecord, questions: Sequence[Question], times_s: np.ndarray) -> Sample:
    turns: list[Turn] = []
    for question in questions:
        text = question.question if turns else f"{FRAMES_MARK} {question.question}"
        turns += [Turn(role="human", text=text), Turn(role="gpt", text=question.answer)]
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
            "questions": [
                {"question_id": question.question_id, "kind": question.kind, "answer": question.answer}
                for question in questions
            ],
        },
    )
