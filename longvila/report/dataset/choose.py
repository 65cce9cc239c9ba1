"""Which videos and questions are shown: by their ids alone, so that a set that grows shows the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from longvila.records import Question, VideoRecord, content_id
from longvila.report.dataset.tally import SPLITS

EXAMPLES_PER_KIND = 2  # of each split and form
MAX_EXAMPLES = 120
_LOOKED_AT = 200  # questions of a kind, for different videos and answers


def choose_videos(videos: Iterable[VideoRecord], limit: int) -> list[VideoRecord]:
    """Choose up to ``limit`` videos, as many held-out as training ones while there are both.

    The order is by a hash of the ids: another video in the set does not change which others are shown.
    """
    ranked = sorted(videos, key=lambda video: content_id("shown", video.video_id))
    queues = [[video for video in ranked if video.split == split] for split in SPLITS]
    longest = max((len(queue) for queue in queues), default=0)
    mixed = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return mixed[:limit]


def choose_questions(questions: Sequence[Question], opened: set[str]) -> list[Question]:
    """Choose some of each kind, split and form; rather of videos whose pictures are ``opened``."""
    groups: dict[tuple[str, str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.kind, question.split, question.form), []).append(question)
    chosen: list[Question] = []
    for _, group in sorted(groups.items()):
        group.sort(key=lambda question: (question.video_id not in opened, content_id(question.question_id)))
        chosen += _of_different_videos(group)[:EXAMPLES_PER_KIND]
    return chosen[:MAX_EXAMPLES]


def _of_different_videos(ranked: Sequence[Question]) -> list[Question]:
    """Return them in their order, but first one of each video and answer."""
    seen: set[tuple[str, str]] = set()
    first, later = [], []
    for question in ranked[:_LOOKED_AT]:
        key = (question.video_id, question.answer)
        fresh = not any(key[0] == video or key[1] == answer for video, answer in seen)
        (first if fresh else later).append(question)
        seen.add(key)
    return first + later
