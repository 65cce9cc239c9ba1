"""What entered and left every step, counted from the manifests themselves and checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from longvila.records import Rejection
from longvila.report.content import FunnelStep, RejectionReason, Verdict
from longvila.report.dataset.content import RejectedItem
from longvila.report.dataset.inputs import BuildOutputs, StepOutput

UNITS = {
    "sources": ("entries", "sources"),
    "fetch": ("sources", "files"),
    "validate": ("files", "videos"),
    "scan": ("videos", ""),
    "dedup": ("videos", ""),
    "clips": ("videos", "clips"),
    "captions": ("videos", "captions"),
    "summaries": ("videos", "captions"),
    "questions": ("videos", "questions"),
    "filter-questions": ("questions", ""),
}
SAME_UNIT = (
    ("fetch", "validate"),
    ("validate", "scan"),
    ("scan", "dedup"),
    ("questions", "filter-questions"),
)
LISTED_PER_REASON = 200
LISTED = 5000


class RejectionTally:
    """Counts rejections by step and reason, and keeps some of them to be listed."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """``names`` gives the source of a video, by its id."""
        self._names = names
        self._counts: dict[str, Counter[str]] = {}
        self._examples: dict[tuple[str, str], str] = {}
        self.listed: list[RejectedItem] = []
        self.total = 0

    def add(self, rejection: Rejection) -> None:
        """Count one rejection."""
        counts = self._counts.setdefault(rejection.step, Counter())
        counts[rejection.reason] += 1
        self.total += 1
        source = rejection.source or rejection.item_id
        source = self._names.get(source, source)
        detail = without_secrets(rejection.detail)
        self._examples.setdefault((rejection.step, rejection.reason), f"{source}: {detail}")
        if counts[rejection.reason] <= LISTED_PER_REASON and len(self.listed) < LISTED:
            self.listed.append(
                RejectedItem(
                    step=rejection.step,
                    item=rejection.item_id,
                    source=source,
                    reason=rejection.reason,
                    detail=detail,
                )
            )

    def reasons(self, step: str) -> tuple[RejectionReason, ...]:
        """Return why items of a step were rejected, the commonest reason first."""
        counts = self._counts.get(step, Counter())
        return tuple(
            RejectionReason(reason=reason, count=count, example=self._examples[step, reason])
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )


def without_secrets(text: str) -> str:
    """Leave out what may be a password or a signature of an address: its user and its query."""
    text = re.sub(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", r"\1", text, flags=re.IGNORECASE)
    return re.sub(r"(\b[a-z][a-z0-9+.-]*://[^\s?#]+)\?[^\s,;)]+", r"\1?…", text, flags=re.IGNORECASE)


def funnel_step(step: StepOutput, *, left: int | None, reasons: tuple[RejectionReason, ...]) -> FunnelStep:
    """Return one step. ``left`` is how many of its items have a result, counted from the results.

    It is none for a step whose results are not read; they are then taken to be what was not rejected.
    """
    unit, makes = UNITS.get(step.step, ("items", ""))
    rejected = sum(reason.count for reason in reasons)
    return FunnelStep(
        step=step.step,
        unit=unit,
        taken_in=step.num_items,
        kept=step.num_items - rejected if left is None else left,
        made=f"{step.num_results:,} {makes}".replace(",", "\u202f") if makes else "",
        reasons=reasons,
    )


def lost_videos(rejected: Iterable[Rejection], done: Collection[str]) -> tuple[RejectionReason, ...]:
    """Return why videos have no result, each counted once: parts of others may have been rejected too.

    ``done`` are the videos that have one.
    """
    first: dict[str, Rejection] = {}
    for rejection in rejected:
        video_id = rejection.source or rejection.item_id  # of a part the source is its video
        if video_id not in done and rejection.item_id not in done:
            first.setdefault(video_id, rejection)
    counts = Counter(rejection.reason for rejection in first.values())
    examples = {one.reason: without_secrets(one.detail) for one in reversed(first.values())}
    return tuple(
        RejectionReason(reason=reason, count=count, example=examples[reason])
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def caption_coverage(clips: Mapping[str, str], captioned: int, rejected: Iterable[Rejection]) -> FunnelStep:
    """Return the captions clip by clip: a clip was rejected itself, or with its whole video.

    ``clips`` says of which video each clip is; ``captioned`` of them have a caption.
    """
    per_video = Counter(clips.values())
    lost: Counter[str] = Counter()
    for rejection in rejected:
        is_clip = rejection.item_id in clips
        lost[rejection.reason] += 1 if is_clip else per_video.get(rejection.item_id, 0)
    return FunnelStep(
        step="captions, clip by clip",
        unit="clips",
        taken_in=len(clips),
        kept=captioned,
        reasons=tuple(
            RejectionReason(reason=reason, count=count) for reason, count in sorted(lost.items()) if count
        ),
    )


def check_joints(outputs: BuildOutputs) -> Verdict:
    """Whether what leaves a step enters the next, where both count the same things."""
    ran = {step.step: step for step in outputs.steps}
    joints = [(ran[a], ran[b]) for a, b in SAME_UNIT if a in ran and b in ran]
    wrong = [
        f"{before.num_results} leave {before.step}, {after.num_items} enter {after.step}"
        for before, after in joints
        if before.num_results != after.num_items
    ]
    return Verdict(
        claim="What leaves a step enters the next",
        passed=not wrong,
        evidence="; ".join(wrong) or f"{len(joints)} joints compared",
    )
