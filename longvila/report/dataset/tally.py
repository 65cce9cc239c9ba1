"""Counts what a build holds, record by record, so that no more than one batch is in memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from longvila.curation.filters import BlindBaseline
from longvila.curation.scan import Scan
from longvila.records import Caption, Clip, Question, Usage, VideoRecord
from longvila.report.dataset.bins import SECONDS, WORDS, Histogram, common_first, in_order
from longvila.report.dataset.content import Bar, Distribution, KindRow, Maker, SplitCount, TermsRow

_ANSWERS_SHOWN = 6
_SHARES = tuple(i / 10 for i in range(1, 10))
_DURATIONS = (*SECONDS[4:], 7200.0)
SPLITS = ("train", "heldout")


class Tally:
    """The counts of the kept videos and of what was made of them."""

    def __init__(self) -> None:
        self._split_of: dict[str, str] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._terms: dict[tuple[str, str], list[VideoRecord]] = defaultdict(list)
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._numbers = {
            "video length": Histogram(_DURATIONS, unit="s"),
            "shot length": Histogram(SECONDS, unit="s"),
            "clip length": Histogram(SECONDS, unit="s"),
            "caption length": Histogram(WORDS, unit="words"),
            "answer length": Histogram(WORDS, unit="words"),
            "evidence length": Histogram(SECONDS, unit="s"),
            "share of the shown span": Histogram(_SHARES, unit=""),
            "place of the evidence": Histogram(_SHARES, unit=""),
        }
        self._forms: dict[str, Counter[str]] = defaultdict(Counter)  # kind → "split form"
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._makers: Counter[tuple[str, str, str, str]] = Counter()
        self.usage: dict[str, Usage] = defaultdict(Usage)

    def add_video(self, video: VideoRecord) -> None:
        """Count a kept video."""
        self._split_of[video.video_id] = video.split
        self._counts["videos"][video.split] += 1
        self._seconds[video.split] += video.duration_s
        self._terms[video.license, video.author].append(video)
        self._numbers["video length"].add(video.duration_s)
        self._counts["resolution"][f"{video.width} × {video.height}"] += 1
        self._counts["frames per second"][f"{video.fps:.5g}"] += 1
        self._counts["codec"][video.codec] += 1
        self._counts["container"][video.container] += 1

    def add_scan(self, scan: Scan) -> None:
        """Count the shots of a video, when it was kept."""
        if scan.video_id not in self._split_of:
            return
        for shot in scan.shots:
            self._numbers["shot length"].add(shot.stop_s - shot.start_s)
            self._counts["how shots begin"][shot.transition] += 1

    def add_clip(self, clip: Clip) -> None:
        """Count a clip."""
        self._counts["clips"][self._split_of.get(clip.video_id, "")] += 1
        self._numbers["clip length"].add(clip.stop_s - clip.start_s)

    def add_caption(self, caption: Caption, *, step: str) -> None:
        """Count a caption, of a clip or of more, that ``step`` made."""
        if caption.level == "clip":
            self._numbers["caption length"].add(len(caption.text.split()))
        self._counts["caption outcome"][caption.outcome] += 1
        role = "captions" if caption.level == "clip" else f"captions of a {caption.level}"
        self._makers[role, caption.captioner, caption.model, caption.prompt_id] += 1
        self.usage[step] += caption.usage

    def add_written(self, question: Question) -> None:
        """Count what a question cost, before it is known whether it is kept."""
        self.usage["questions"] += question.usage

    def add_question(self, question: Question) -> None:
        """Count a kept question."""
        self._counts["questions"][question.split] += 1
        self._forms[question.kind][f"{question.split} {question.form}"] += 1
        self._answers[question.kind][question.answer] += 1
        self._numbers["answer length"].add(len(question.answer.split()))
        self._makers["questions", question.writer, question.model, question.prompt_id] += 1
        if question.form == "choice" and question.answer in question.options:
            place = question.options.index(question.answer) + 1
            self._counts["right option"][f"{place} of {len(question.options)}"] += 1
        window_s = max(question.stop_s - question.start_s, 1e-9)
        spans = _union([(span.start_s, span.stop_s) for span in question.evidence])
        evidence_s = sum(stop - start for start, stop in spans)
        self._numbers["evidence length"].add(evidence_s)
        self._numbers["share of the shown span"].add(evidence_s / window_s)
        for start, stop in spans:
            self._numbers["place of the evidence"].add(((start + stop) / 2 - question.start_s) / window_s)

    def distributions(self) -> tuple[Distribution, ...]:
        """Return all distributions that counted anything."""
        counts, numbers = self._counts, self._numbers
        found = [
            numbers["video length"].distribution("Video length"),
            common_first("Resolution", counts["resolution"]),
            common_first("Frames per second", counts["frames per second"]),
            common_first("Codec", counts["codec"]),
            common_first("Container", counts["container"]),
            numbers["shot length"].distribution("Shot length"),
            common_first("How shots begin", counts["how shots begin"]),
            numbers["clip length"].distribution("Clip length"),
            numbers["caption length"].distribution("Caption length"),
            common_first("Caption outcome", counts["caption outcome"]),
            numbers["answer length"].distribution("Answer length"),
            in_order(
                "Place of the right option",
                counts["right option"],
                note="of multiple-choice questions; even within the questions of as many options",
            ),
            numbers["evidence length"].distribution(
                "Evidence length", note="how much of the video one must see to answer (its certificate)"
            ),
            numbers["share of the shown span"].distribution(
                "Evidence as a share of what is shown", note="low: most of what is shown is beside the point"
            ),
            numbers["place of the evidence"].distribution(
                "Where the evidence lies", note="0: at the beginning of what is shown, 1: at its end"
            ),
        ]
        return tuple(distribution for distribution in found if distribution.bars)

    def kinds(self, baselines: Iterable[BlindBaseline]) -> tuple[KindRow, ...]:
        """Return one row per kind of question; ``baselines`` are over the same questions."""
        blind: dict[str, float] = {}
        for baseline in sorted(baselines, key=lambda item: item.split != "train"):  # held-out ones win
            blind[baseline.kind] = baseline.accuracy
        return tuple(
            KindRow(
                kind=kind,
                train_open=forms["train open"],
                train_choice=forms["train choice"],
                heldout_open=forms["heldout open"],
                heldout_choice=forms["heldout choice"],
                blind=blind.get(kind),
                commonest=tuple(
                    Bar(value=answer, count=count)
                    for answer, count in sorted(self._answers[kind].items(), key=lambda x: (-x[1], x[0]))
                )[:_ANSWERS_SHOWN],
                num_answers=len(self._answers[kind]),
            )
            for kind, forms in sorted(self._forms.items())
        )

    def splits(self) -> tuple[SplitCount, ...]:
        """Return what lies in each split."""
        return tuple(
            SplitCount(
                split=split,
                videos=self._counts["videos"][split],
                hours=self._seconds[split] / 3600,
                clips=self._counts["clips"][split],
                questions=self._counts["questions"][split],
            )
            for split in SPLITS
            if self._counts["videos"][split]
        )

    def terms(self) -> tuple[TermsRow, ...]:
        """Return the licences and authors of the kept videos, those with most videos first."""
        rows = [
            TermsRow(
                license=license,
                author=author,
                videos=len(videos),
                hours=sum(video.duration_s for video in videos) / 3600,
                example=min(video.title or video.source_id for video in videos),
            )
            for (license, author), videos in self._terms.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.videos, row.license, row.author)))

    def makers(self) -> tuple[Maker, ...]:
        """Return who wrote the captions and the questions."""
        return tuple(
            Maker(role=role, name=name, model=model, prompt_id=prompt_id, count=count)
            for (role, name, model, prompt_id), count in sorted(self._makers.items())
        )


def _union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join spans that overlap, so that no second is counted twice."""
    joined: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
