"""A whole build, from sources to questions, as the flow runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig, QuestionConfig
from longvila.config.sourcing import DedupConfig, FetchConfig, ValidateConfig
from longvila.curation import build
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.splits import SplitReport
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.scan import Scan
from longvila.records import Caption, Clip, Question, Source, VideoRecord
from longvila.storage import StepResult, Workspace

FETCH = FetchConfig(backoff_s=0.01, requests_per_host_s=1000.0, allow_private_hosts=("127.0.0.1",))
FRAMES = FramesConfig(fps=2.0, size=32, jpeg_quality=90)
CLIPS = ClipConfig(target_s=8.0, min_s=1.0, max_s=16.0)
QUESTIONS = QuestionConfig(window_s=(4.0, 8.0, 24.0), stride_s=2.0)


@dataclass(frozen=True)
class Built:
    """What each step gave."""

    workspace: Workspace
    sources: Sequence[Source]
    fetched: StepResult[FetchedVideo]
    validated: StepResult[VideoRecord]
    scanned: StepResult[Scan]
    pairs: StepResult[DuplicatePair]
    deduped: StepResult[VideoRecord]
    splits: SplitReport
    clips: StepResult[Clip]
    captions: StepResult[Caption]
    written: StepResult[Question]
    kept: StepResult[Question]

    @classmethod
    def make(
        cls, workspace: Workspace, sources: Sequence[Source], *, questions: QuestionConfig = QUESTIONS
    ) -> Built:
        """Run every step."""
        fetched = build.fetch_batch(workspace, sources, FETCH)
        validated = build.validate_batch(workspace, fetched.results, ValidateConfig())
        scanned = build.scan_batch(workspace, validated.results, shot_config=ShotConfig(), frames=FRAMES)
        pairs = build.find_duplicates(workspace, validated.results, scanned.results, DedupConfig())
        deduped = build.dedup_all(workspace, validated.results, scanned.results, pairs.results)
        videos, scans = deduped.results, scanned.results
        clips = build.clips_batch(workspace, videos, scans, CLIPS)
        captions = build.caption_batch(workspace, videos, scans, clips.results, CaptionConfig())
        written = build.question_batch(workspace, videos, scans, captions.results, questions)
        return cls(
            workspace=workspace,
            sources=sources,
            fetched=fetched,
            validated=validated,
            scanned=scanned,
            pairs=pairs,
            deduped=deduped,
            splits=build.check_splits(workspace, videos, scans, DedupConfig()),
            clips=clips,
            captions=captions,
            written=written,
            kept=build.filter_all(workspace, videos, written.results),
        )

    def steps(self) -> list[StepResult]:
        """The steps in their order."""
        return [
            self.fetched, self.validated, self.scanned, self.deduped,
            self.clips, self.captions, self.written, self.kept,
        ]  # fmt: skip
