"""The pictures of the page: from the thumbnails that each scan keeps, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from longvila.curation.scan import FrameStrip, Scan, load_thumbs
from longvila.errors import InputError
from longvila.records import Caption, Question, Shot, VideoRecord
from longvila.report.content import Picture
from longvila.report.dataset.content import ClipEntry, ReadExample, Segment, ShotPicture, VideoSheet
from longvila.storage import Workspace

CLIPS_PER_SHEET = 16
SHOTS_PER_CLIP = 3
PICTURES_PER_EXAMPLE = 4
MAX_SEGMENTS = 600
_OPEN_AT_ONCE = 4


class PictureShelf:
    """Thumbnails of the chosen videos. When ``max_bytes`` are given out, there are no more.

    A scan whose file is gone gives no pictures: the page is made all the same.
    """

    def __init__(self, workspace: Workspace, scans: Mapping[str, Scan], *, max_bytes: int) -> None:
        self._workspace = workspace
        self._scans = scans
        self._left = max_bytes
        self._open: OrderedDict[str, FrameStrip | None] = OrderedDict()

    def at(self, video_id: str, time_s: float, *, alt: str = "") -> Picture | None:
        """Return the thumbnail nearest to a time; none when there is none, or no bytes are left for it."""
        thumbs = self._thumbs(video_id)
        if thumbs is None or not len(thumbs.times_s):
            return None
        i = int(np.abs(thumbs.times_s - time_s).argmin())
        data = thumbs.part(i, i + 1).data
        if len(data) > self._left:
            return None
        self._left -= len(data)
        return Picture(data=data, alt=alt or f"frame at {thumbs.times_s[i]:.0f} s")

    def _thumbs(self, video_id: str) -> FrameStrip | None:
        if video_id in self._open:
            self._open.move_to_end(video_id)
            return self._open[video_id]
        try:
            thumbs = load_thumbs(self._workspace, self._scans[video_id])
        except (InputError, KeyError):
            thumbs = None
        self._open[video_id] = thumbs
        if len(self._open) > _OPEN_AT_ONCE:
            self._open.popitem(last=False)
        return thumbs


def video_sheet(
    shelf: PictureShelf, video: VideoRecord, shots: Sequence[Shot], captions: Sequence[Caption]
) -> VideoSheet:
    """Return one video's time line and evenly chosen clips, each with its first shots."""
    ordered = sorted(captions, key=lambda caption: caption.start_s)
    step = max(1, -(-len(ordered) // CLIPS_PER_SHEET))
    return VideoSheet(
        title=video.title or video.source_id,
        split=video.split,
        attribution=", ".join(part for part in (video.author, video.license) if part),
        duration_s=video.duration_s,
        segments=_segments(shots, video.duration_s),
        num_shots=len(shots),
        num_clips=len(ordered),
        clips=tuple(_clip_entry(shelf, caption, shots) for caption in ordered[::step]),
    )


def _clip_entry(shelf: PictureShelf, caption: Caption, shots: Sequence[Shot]) -> ClipEntry:
    inside = [shot for shot in shots if shot.start_s < caption.stop_s and shot.stop_s > caption.start_s]
    shown = []
    for shot in inside[:SHOTS_PER_CLIP]:
        start, stop = max(shot.start_s, caption.start_s), min(shot.stop_s, caption.stop_s)
        shown.append(
            ShotPicture(
                start_s=start,
                stop_s=stop,
                transition=shot.transition,
                begins_here=shot.start_s >= caption.start_s - 1e-6,
                picture=shelf.at(caption.video_id, (start + stop) / 2),
            )
        )
    return ClipEntry(
        start_s=caption.start_s,
        stop_s=caption.stop_s,
        text=caption.text,
        shots=tuple(shown),
        num_shots=len(inside),
    )


def _segments(shots: Sequence[Shot], duration_s: float) -> tuple[Segment, ...]:
    """Return the shots of a time line; of very many, only those that are wide enough to be seen."""
    percent = 100 / max(duration_s, 1e-9)
    found = [
        Segment(
            start=round(shot.start_s * percent, 3),
            width=round((shot.stop_s - shot.start_s) * percent, 3),
            transition=shot.transition,
            label=f"{shot.start_s:.1f}–{shot.stop_s:.1f} s, {shot.transition}",
        )
        for shot in shots
    ]
    if len(found) > MAX_SEGMENTS:
        smallest = sorted(segment.width for segment in found)[-MAX_SEGMENTS]
        found = [segment for segment in found if segment.width >= smallest][:MAX_SEGMENTS]
    return tuple(found)


def read_example(shelf: PictureShelf, question: Question, *, video: str) -> ReadExample:
    """Return a question with pictures spread over the spans that its answer rests on."""
    return ReadExample(
        video=video,
        split=question.split,
        kind=question.kind,
        form=question.form,
        question=question.question,
        answer=question.answer,
        options=question.options if question.form == "choice" else (),
        window_s=(question.start_s, question.stop_s),
        evidence_s=tuple((span.start_s, span.stop_s) for span in question.evidence),
        writer=" · ".join(part for part in (question.writer, question.model, question.prompt_id) if part),
        pictures=tuple(
            picture
            for time_s in _evidence_times(question)
            if (picture := shelf.at(question.video_id, time_s)) is not None
        ),
    )


def _evidence_times(question: Question) -> list[float]:
    """Return times evenly spread over all spans together, one in each of the first spans at least."""
    spans = [(span.start_s, span.stop_s) for span in question.evidence][:PICTURES_PER_EXAMPLE]
    times = [(start + stop) / 2 for start, stop in spans]
    if len(spans) == 1 and spans[0][1] - spans[0][0] >= PICTURES_PER_EXAMPLE:
        start, stop = spans[0]
        times = [
            start + (stop - start) * (i + 0.5) / PICTURES_PER_EXAMPLE for i in range(PICTURES_PER_EXAMPLE)
        ]
    return sorted(times)
