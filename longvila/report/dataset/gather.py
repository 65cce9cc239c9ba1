"""From the manifests of a build to what its page shows. One batch of records is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import longvila
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.splits import SplitReport
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.filters import blind_baselines
from longvila.curation.scan import Scan
from longvila.data import open_index
from longvila.errors import InputError
from longvila.records import Caption, Clip, Question, Rejection, Usage, VideoRecord
from longvila.report.content import FunnelStep, Picture, Verdict
from longvila.report.dataset import funnel
from longvila.report.dataset.choose import choose_questions, choose_videos
from longvila.report.dataset.content import (
    BuildReport,
    DuplicateExample,
    ReadExample,
    ShardSet,
    StageCost,
    VideoSheet,
)
from longvila.report.dataset.inputs import BuildOutputs, StepOutput, dataset_stats
from longvila.report.dataset.pictures import PictureShelf, read_example, video_sheet
from longvila.report.dataset.tally import Tally
from longvila.report.verdicts import judge_funnel
from longvila.storage import StepStats, Workspace

MAX_SHEETS = 24
MAX_OPENED = 40  # videos whose pictures are looked at
MAX_DUPLICATES = 12
MAX_PICTURE_BYTES = 10 * 2**20  # they grow by a third inside the page


class About(NamedTuple):
    """What the page says of the build that no manifest holds."""

    name: str
    description: str
    created: datetime
    settings: str  # YAML
    step_versions: dict[str, int]


def gather_build(
    workspace: Workspace, outputs: BuildOutputs, about: About, *, splits: SplitReport | None = None
) -> BuildReport:
    """Count what a build holds and choose what is shown of it.

    ``splits`` is what the comparison of the splits' pictures found. Which videos and questions are shown
    follows from their ids alone. Raises ``InputError`` when a manifest is missing or damaged.
    """
    return _Gatherer(workspace, outputs).report(about, splits)


class _Gatherer:
    """Reads every manifest once, in the order of the steps."""

    def __init__(self, workspace: Workspace, outputs: BuildOutputs) -> None:
        self._workspace = workspace
        self._storage = workspace.storage
        self._outputs = outputs
        self._tally = Tally()
        self._left: dict[str, int] = {}  # step → items that have a result
        self._done: dict[str, set[str]] = {}  # step → videos that have a result
        self._clips: dict[str, str] = {}  # clip → its video
        self._num_captioned = 0
        self._questions: list[Question] = []
        self._said: dict[str, list[Caption]] = {}
        self._scans: dict[str, Scan] = {}
        self._read_videos()
        self._read_scans()
        self._read_clips_and_captions()
        self._read_questions()

    def report(self, about: About, splits: SplitReport | None) -> BuildReport:
        """Put everything together."""
        shelf = PictureShelf(self._workspace, self._scans, max_bytes=MAX_PICTURE_BYTES)
        steps = self._funnel()
        duplicates, examples = self._duplicate_examples(shelf), self._examples(shelf)
        sheets = self._sheets(shelf)  # last: they have most pictures, and these may run out
        checks = [judge_funnel(steps), funnel.check_joints(self._outputs)]
        if splits is not None:
            checks.append(judge_splits(splits))
        return BuildReport(
            name=about.name,
            description=about.description,
            created=about.created,
            version=longvila.__version__,
            checks=tuple(checks),
            shard_sets=shard_sets(self._workspace, self._outputs.datasets),
            splits=self._tally.splits(),
            funnel=steps,
            sheets=sheets,
            num_videos=len(self._kept),
            distributions=self._tally.distributions(),
            kinds=self._tally.kinds(blind_baselines(self._questions)),
            examples=examples,
            stages=self._costs(),
            duplicates=duplicates,
            num_duplicates=len(self._duplicates),
            terms=self._tally.terms(),
            makers=self._tally.makers(),
            step_versions=about.step_versions,
            settings=funnel.without_secrets(about.settings),
            rejections=tuple(self._rejections.listed),
            num_rejections=self._rejections.total,
        )

    def _read_videos(self) -> None:
        fetched = self._outputs.step("fetch").records(self._storage, FetchedVideo)
        self._left["fetch"] = sum(len(batch) for batch in fetched)
        names: dict[str, str] = {}
        self._left["validate"] = 0
        for batch in self._outputs.step("validate").records(self._storage, VideoRecord):
            self._left["validate"] += len(batch)
            names |= {video.video_id: video.source_id for video in batch}
        dedup = self._outputs.step("dedup")
        kept = [video for batch in dedup.records(self._storage, VideoRecord) for video in batch]
        self._left["dedup"] = len(kept)
        self._kept = {video.video_id: video for video in kept}
        for video in self._kept.values():
            self._tally.add_video(video)
        self._rejections = funnel.RejectionTally(names)
        self._duplicates = list(dedup.rejections(self._storage))
        self._pairs = self._outputs.pairs(self._storage)
        self._chosen = choose_videos(self._kept.values(), MAX_OPENED)

    def _read_scans(self) -> None:
        shown = self._duplicates[:MAX_DUPLICATES]
        wanted = {video.video_id for video in self._chosen}
        wanted |= {rejected.item_id for rejected in shown}
        wanted |= {pair.other_video_id for one in shown if (pair := self._pairs.get(one.item_id))}
        self._left["scan"] = 0
        seen: set[str] = set()  # of a file that came twice there are two scans
        for batch in self._outputs.step("scan").records(self._storage, Scan):
            self._left["scan"] += len(batch)
            for found in batch:
                if found.video_id not in seen:
                    self._tally.add_scan(found)
                    seen.add(found.video_id)
                if found.video_id in wanted:
                    self._scans[found.video_id] = found

    def _read_clips_and_captions(self) -> None:
        for batch in self._outputs.step("clips").records(self._storage, Clip):
            self._clips |= {clip.clip_id: clip.video_id for clip in batch}
            for clip in batch:
                self._tally.add_clip(clip)
        self._done["clips"] = set(self._clips.values())
        shown = {video.video_id for video in self._chosen[:MAX_SHEETS]}
        for step in ("captions", "summaries"):
            done = self._done.setdefault(step, set())
            for batch in self._outputs.step(step).records(self._storage, Caption):
                done.update(caption.video_id for caption in batch)
                for caption in batch:
                    self._tally.add_caption(caption, step=step)
                    self._num_captioned += caption.clip_id in self._clips
                    if caption.video_id in shown and caption.level == "clip":
                        self._said.setdefault(caption.video_id, []).append(caption)

    def _read_questions(self) -> None:
        asked = self._done.setdefault("questions", set())
        for batch in self._outputs.step("questions").records(self._storage, Question):
            asked.update(question.video_id for question in batch)
            for question in batch:
                self._tally.add_written(question)
        for batch in self._outputs.step("filter-questions").records(self._storage, Question):
            self._questions += batch
        for question in self._questions:
            self._tally.add_question(question)
        self._left["filter-questions"] = len(self._questions)

    def _funnel(self) -> tuple[FunnelStep, ...]:
        rows = []
        for step in self._outputs.steps:
            for rejection in step.rejections(self._storage):
                self._rejections.add(rejection)
            if step.step in self._done:
                done = self._done[step.step]
                reasons = funnel.lost_videos(step.rejections(self._storage), done)
                rows.append(funnel.funnel_step(step, left=len(done), reasons=reasons))
            else:
                reasons = self._rejections.reasons(step.step)
                rows.append(funnel.funnel_step(step, left=self._left.get(step.step), reasons=reasons))
            if step.step == "captions":
                rejected = step.rejections(self._storage)
                rows.append(funnel.caption_coverage(self._clips, self._num_captioned, rejected))
        return tuple(rows)

    def _sheets(self, shelf: PictureShelf) -> tuple[VideoSheet, ...]:
        shown = sorted(self._chosen[:MAX_SHEETS], key=lambda video: video.source_id)
        sheets = []
        for video in shown:
            found = self._scans.get(video.video_id)
            shots = found.shots if found else ()
            sheets.append(video_sheet(shelf, video, shots, self._said.get(video.video_id, [])))
        return tuple(sheets)

    def _examples(self, shelf: PictureShelf) -> tuple[ReadExample, ...]:
        opened = {video.video_id for video in self._chosen}
        chosen = choose_questions(self._questions, opened)
        by_video = sorted(chosen, key=lambda question: question.video_id)  # each video is opened once
        made = {
            question.question_id: read_example(
                shelf, question, video=self._kept[question.video_id].title or question.video_id
            )
            for question in by_video
            if question.video_id in self._kept
        }
        return tuple(made[q.question_id] for q in chosen if q.question_id in made)

    def _duplicate_examples(self, shelf: PictureShelf) -> tuple[DuplicateExample, ...]:
        return tuple(self._duplicate(shelf, rejected) for rejected in self._duplicates[:MAX_DUPLICATES])

    def _duplicate(self, shelf: PictureShelf, rejected: Rejection) -> DuplicateExample:
        pair = self._pairs.get(rejected.item_id)
        first, second = _shared_pictures(shelf, pair) if pair else (None, None)
        return DuplicateExample(
            source=rejected.source or rejected.item_id,
            kept=pair.other_source_id if pair else "",
            reason=rejected.reason,
            detail=funnel.without_secrets(rejected.detail),
            picture=first,
            kept_picture=second,
        )

    def _costs(self) -> tuple[StageCost, ...]:
        steps = [
            stage_cost(step, step.stats(self._storage), self._tally.usage.get(step.step, Usage()))
            for step in self._outputs.steps
        ]
        for name in self._outputs.datasets:
            for step in ("shards", "verify"):
                if stats := dataset_stats(self._storage, name, step):
                    costs = {"num_items": stats.num_items, "wall_s": stats.wall_s, "cpu_s": stats.cpu_s}
                    steps.append(StageCost(step=f"{step}, {name}", unit="", **costs))
        return tuple(steps)


def stage_cost(step: StepOutput, stats: Sequence[StepStats], usage: Usage) -> StageCost:
    """Return what one step cost; ``stats`` are those of its batches, as far as they left any."""
    unit, _ = funnel.UNITS.get(step.step, ("items", ""))
    return StageCost(
        step=step.step,
        unit=unit,
        num_items=step.num_items,
        wall_s=sum(one.wall_s for one in stats) if stats else None,
        cpu_s=sum(one.cpu_s for one in stats) if stats else None,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        cost_usd=usage.cost_usd,
        estimated=usage.estimated,
    )


def judge_splits(found: SplitReport) -> Verdict:
    """Training and held-out videos share no passage."""
    evidence = "there is nothing to compare"
    if found.nearest_distance is not None:
        evidence = (
            f"{found.num_heldout_pictures} × {found.num_train_pictures} pictures, nearest "
            f"{found.nearest_distance} bits of 64; up to {found.max_distance} counts as the same"
        )
    return Verdict(
        claim="Training and held-out videos share no passage", passed=not found.shared, evidence=evidence
    )


def shard_sets(workspace: Workspace, datasets: Mapping[str, str]) -> tuple[ShardSet, ...]:
    """Return what every data set holds; one whose index is missing is left out."""
    found = []
    for name, address in datasets.items():
        try:
            ref = open_index(workspace.storage, name).ref()
        except InputError:
            continue
        found.append(
            ShardSet(
                name=name,
                address=address,
                num_shards=len(ref.shards),
                num_samples=ref.num_samples,
                num_frames=ref.num_frames,
                size_bytes=sum(shard.size_bytes for shard in ref.shards),
            )
        )
    return tuple(found)


def _shared_pictures(shelf: PictureShelf, pair: DuplicatePair) -> tuple[Picture | None, Picture | None]:
    """Return both videos' pictures in the middle of the longest passage that they share.

    A file that comes twice shares its beginning.
    """
    passage = max(pair.passages, key=lambda found: found.stop_s - found.start_s, default=None)
    if passage is None:
        return shelf.at(pair.video_id, 0.0), shelf.at(pair.other_video_id, 0.0)
    return (
        shelf.at(pair.video_id, (passage.start_s + passage.stop_s) / 2),
        shelf.at(pair.other_video_id, (passage.other_start_s + passage.other_stop_s) / 2),
    )
