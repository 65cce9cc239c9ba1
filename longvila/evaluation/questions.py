"""Held-out questions from shards: one question at a time, with the frames that belong to it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longvila.data.reader import ShardReader
from longvila.errors import InputError
from longvila.media.jpeg import decode_frames
from longvila.records import Sample, Turn, content_id
from longvila.text.encode import thin_frames
from longvila.text.tokenizer import FRAMES_MARK

PROMPT_ID = "qa-1"
MIN_VIDEO_CLUSTERS = 20
MAX_TRAINING_SAMPLES = 20_000

# F frames, H × W pixels.


@dataclass(frozen=True)
class HeldOut:
    """One question about one sample of a shard.

    ``sample`` has this question only, and the times of the frames that are shown; ``source`` is the number of
    the sample that the frames are read from, ``shown`` int64 [F] which of its frames these are.
    """

    trial_id: str
    question_id: str
    sample: Sample
    kind: str
    source: int
    shown: np.ndarray

    @property
    def text(self) -> str:
        """The question itself."""
        return self.sample.conversations[0].text.replace(FRAMES_MARK, "").strip()

    @property
    def answer(self) -> str:
        """The expected answer."""
        return self.sample.conversations[-1].text

    @property
    def span_s(self) -> tuple[float, float]:
        """From the first to the last frame, in seconds."""
        times = self.sample.frame_times_s or (0.0,)
        return times[0], times[-1]


def held_out_questions(reader: ShardReader, *, max_frames: int) -> list[HeldOut]:
    """Return every question of a data set, each alone with its frames, thinned evenly to ``max_frames``.

    Turns of one conversation are taken apart: an answer given earlier must not help. Raises InputError when
    there is no question.
    """
    questions = [
        question
        for number, sample in enumerate(reader.samples(range(len(reader))))
        for question in _apart(sample, number, max_frames, made_of=reader.index.row(number).sha256)
    ]
    if not questions:
        raise InputError(
            f"data set {reader.index.name!r} holds no held-out question. "
            "Build it with a source of split heldout"
        )
    return questions


def training_answers(reader: ShardReader) -> dict[str, Counter[str]]:
    """Count the answers of each kind of question in a training split (its first 20,000 samples)."""
    counts: dict[str, Counter[str]] = {}
    for sample in reader.samples(range(min(len(reader), MAX_TRAINING_SAMPLES))):
        for question in _apart(sample, 0, 1, made_of=""):
            counts.setdefault(question.kind, Counter())[question.answer] += 1
    return counts


def commonest(counts: Mapping[str, Counter[str]], kind: str) -> str | None:
    """Return the commonest answer of a kind, the first in the alphabet of those as common; none if unseen."""
    found = counts.get(kind)
    return min(found, key=lambda answer: (-found[answer], answer)) if found else None


def clusters_of(questions: Sequence[HeldOut]) -> tuple[list[tuple[str, int]], str]:
    """Return which cluster each question belongs to, and in words what a cluster is.

    A cluster is a video where there are twenty or more. Of fewer, it is a stretch of a video twice as long as
    the spans asked about: farther apart, questions share no frames.
    """
    videos = [question.sample.video_id or question.sample.key for question in questions]
    if len(set(videos)) >= MIN_VIDEO_CLUSTERS:
        return [(video, 0) for video in videos], "video"
    spans = [question.span_s for question in questions]
    stretch_s = max(1.0, round(2 * float(np.mean([stop - start for start, stop in spans])), 1))
    middles = [(start + stop) / 2 for start, stop in spans]
    numbers = [int(middle // stretch_s) for middle in middles]
    return list(zip(videos, numbers, strict=True)), f"stretch of {stretch_s:g} s of a video"


def batches(questions: Sequence[HeldOut], *, max_frames: int) -> Iterator[list[HeldOut]]:
    """Divide questions, in order, so that each batch shows at most ``max_frames`` frames in all."""
    batch: list[HeldOut] = []
    room = max_frames
    for question in questions:
        if batch and len(question.shown) > room:
            yield batch
            batch, room = [], max_frames
        batch.append(question)
        room -= len(question.shown)
    if batch:
        yield batch


def read_frames(
    reader: ShardReader, questions: Sequence[HeldOut], *, size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the distinct frames of some questions, uint8 [F, H, W, 3], and the rows of each question's.

    Windows of one video overlap: a picture that is stored more than once is decoded once.
    """
    jpegs: list[bytes] = []
    known: dict[bytes, int] = {}
    rows = []
    for question in questions:
        row = [_number(jpeg, known, jpegs) for jpeg in _jpegs(reader, question)]
        rows.append(np.array(row, dtype=np.int64))
    frames_FHW3 = decode_frames(jpegs)
    if len(jpegs) and frames_FHW3.shape[1:3] != (size, size):
        raise InputError(
            f"data set {reader.index.name!r} has frames of {frames_FHW3.shape[1]} × {frames_FHW3.shape[2]} "
            f"pixels, the model takes {size} × {size}. Build it with data.frames.size={size}"
        )
    return frames_FHW3, rows


def _apart(sample: Sample, number: int, max_frames: int, *, made_of: str) -> Iterator[HeldOut]:
    """Take a conversation apart into its questions. ``made_of`` is a hash of the sample and its frames."""
    shown = thin_frames(sample.num_frames, max_frames)
    times = tuple(sample.frame_times_s[i] for i in shown)
    turns = [turn for turn in sample.conversations if turn.role != "system"]
    stated = _stated(sample, len(turns) // 2)
    for i in range(len(turns) // 2):
        text = turns[2 * i].text.replace(FRAMES_MARK, "").strip()
        asked = Turn(role="human", text=f"{FRAMES_MARK} {text}" if times else text)
        alone = sample.model_copy(
            update={"conversations": (asked, turns[2 * i + 1]), "frame_times_s": times, "kind": "video"}
        )
        trial_id = content_id(PROMPT_ID, made_of, i, max_frames)
        kind = stated[i].get("kind", sample.provenance.get("kind", sample.kind))
        yield HeldOut(trial_id, stated[i].get("question_id", trial_id), alone, str(kind), number, shown)


def _stated(sample: Sample, count: int) -> list[dict[str, str]]:
    """What the provenance says of each question (kind, question_id); nothing where it says nothing."""
    stated = sample.provenance.get("questions")
    if isinstance(stated, list | tuple) and len(stated) == count:
        return [dict(question) for question in stated]
    return [{} for _ in range(count)]


def _jpegs(reader: ShardReader, question: HeldOut) -> Iterator[bytes]:
    blob = reader.blob(question.source) if len(question.shown) else None
    if blob is None:
        return
    for frame in question.shown:
        yield blob.data[int(blob.offsets[frame]) : int(blob.offsets[frame + 1])]


def _number(jpeg: bytes, known: dict[bytes, int], jpegs: list[bytes]) -> int:
    digest = hashlib.sha256(jpeg).digest()
    if digest not in known:
        known[digest] = len(jpegs)
        jpegs.append(jpeg)
    return known[digest]
