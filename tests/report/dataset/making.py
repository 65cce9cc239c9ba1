"""A small build in a workspace, written by hand so that every figure is known, with hostile texts in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longvila.config.footage import FramesConfig, ShotConfig
from longvila.curation.duplicates.pairs import DuplicatePair, Passage
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.scan import Scan, Scanned, store_scan
from longvila.data import SampleWithFrames, write_dataset
from longvila.media.jpeg import pack_frames
from longvila.records import (
    Caption,
    Clip,
    Evidence,
    Question,
    Record,
    Rejection,
    Sample,
    Turn,
    Usage,
    VideoRecord,
)
from longvila.report.dataset import Batch, BuildOutputs, StepOutput
from longvila.storage import StepStats, Workspace, write_manifest, write_stats
from tests.curation.pictures import fingerprint_pictures, measure_pictures, scene, spool

HOSTILE = "<script>alert(1)</script> | ` {{ 7*7 }} [x](javascript:alert(1)) \n---\nlicense: mit"
KEPT = ("v-a", "v-b", "v-c")
SECONDS = 8.0
PAIRS = "manifests/duplicates/pairs.parquet"
SHOTS = ShotConfig()
FRAMES = FramesConfig(fps=1.0, size=16, jpeg_quality=80)


def video(video_id: str, **changes: object) -> VideoRecord:
    """A record of 8 s."""
    record = VideoRecord(
        video_id=video_id, source_id=f"source-{video_id}", url="u", key=f"videos/{video_id}.mp4",
        sha256="0" * 64, size_bytes=1, container="mp4", codec="h264", width=640, height=360, fps=24.0,
        num_frames=192, duration_s=SECONDS, split="heldout" if video_id == "v-c" else "train",
        title=HOSTILE if video_id == "v-a" else f"Film {video_id}", author="A. Author",
        license="CC BY 3.0",
    )  # fmt: skip
    return record.model_copy(update=changes)


def rejection(step: str, item: str, reason: str, detail: str, source: str = "") -> Rejection:
    return Rejection(item_id=item, step=step, reason=reason, detail=detail, source=source)


def scan_of(workspace: Workspace, record: VideoRecord, seed: int) -> Scan:
    """A scan of two shots of four seconds, with thumbnails and measures of random blocks."""
    pictures = [scene(seed)] * 16 + [scene(seed + 50)] * 16
    times_s = np.arange(8, dtype=np.float64)
    frames_8HW3 = np.stack([pictures[4 * i] for i in range(8)])
    scanned = Scanned(
        measure_pictures(pictures),
        spool(frames_8HW3, times_s),
        spool(frames_8HW3, times_s),
        fingerprint_pictures(pictures),
        [],
        SECONDS,
    )
    found = store_scan(workspace, record, scanned, shots=SHOTS, frames=FRAMES)
    shots = tuple(
        found.shots[0].model_copy(
            update={
                "shot_id": f"{record.video_id}-{i}",
                "index": i,
                "start_s": 4.0 * i,
                "stop_s": 4.0 * (i + 1),
                "transition": ("start", "dissolve")[i],
            }
        )
        for i in range(2)
    )
    return found.model_copy(update={"shots": shots})


def clips_of(video_id: str) -> list[Clip]:
    return [
        Clip(
            clip_id=f"{video_id}-c{i}", video_id=video_id, index=i, start_s=4.0 * i, stop_s=4.0 * (i + 1),
            shot_ids=(f"{video_id}-{i}",),
        )
        for i in range(2)
    ]  # fmt: skip


def caption_of(clip: Clip) -> Caption:
    return Caption(
        caption_id=f"cap-{clip.clip_id}", clip_id=clip.clip_id, video_id=clip.video_id,
        start_s=clip.start_s, stop_s=clip.stop_s, text=f"A caption. {HOSTILE}", captioner="llm-1",
        model="some/model", prompt_id="caption-ab12",
        usage=Usage(tokens_in=100, tokens_out=10, cost_usd=0.25),
    )  # fmt: skip


def questions_of(video_id: str, split: str) -> list[Question]:
    """Four questions: two open, two with options whose right one is the first and the third."""
    made = []
    for i in range(4):
        options = ("red", "green", "blue") if i >= 2 else ()
        made.append(
            Question(
                question_id=f"{video_id}-q{i}", video_id=video_id, kind="spatial" if i % 2 else "counting",
                question=f"What is it? {HOSTILE}", answer=("two", "left side", "red", "blue")[i],
                options=options, form="choice" if options else "open", start_s=0.0, stop_s=8.0,
                evidence=(Evidence(start_s=1.0, stop_s=3.0), Evidence(start_s=2.0, stop_s=5.0)),
                writer="llm-1", split=split, usage=Usage(tokens_in=7, tokens_out=3, cost_usd=0.5),
            )
        )  # fmt: skip
    return made


def write_step(
    workspace: Workspace,
    step: str,
    batches: Sequence[tuple[int, Sequence[Record], Sequence[Rejection]]],
    cls: type[Record],
) -> StepOutput:
    """Write (items in, results, rejections) of each batch as a step leaves them, with its figures."""
    made = []
    for number, (num_items, results, rejected) in enumerate(batches):
        key = f"manifests/{step}/batch{number}.parquet"
        write_manifest(workspace.storage, key, results, cls=cls)
        write_manifest(
            workspace.storage, key.replace(".parquet", ".rejections.parquet"), rejected, cls=Rejection
        )
        stats = StepStats(
            step=step, key=key, num_items=num_items, num_processed=num_items, wall_s=2.0, cpu_s=1.0
        )
        write_stats(workspace.storage, key, stats)
        made.append(
            Batch(
                key=key, num_items=num_items, num_results=len(results), num_rejections=len(rejected)
            )
        )  # fmt: skip
    return StepOutput(step=step, batches=tuple(made))


def pair_of(video_id: str, other_id: str) -> DuplicatePair:
    """A copy whose first four seconds are the other's."""
    passage = Passage(
        start_s=0.0, stop_s=4.0, other_start_s=0.0, other_stop_s=4.0, offset_s=0.0, speed=1.0, distance=1.0
    )
    return DuplicatePair(
        pair_id="p", video_id=video_id, source_id=f"source-{video_id}", other_video_id=other_id,
        other_source_id=f"source-{other_id}", kind="copy", against="train", share=0.9, other_share=0.9,
        share_together=0.9, shared_s=4.0, rejects=True, passages=(passage,),
    )  # fmt: skip


def make_build(workspace: Workspace) -> BuildOutputs:
    """Six sources; one is gone, one truncated, one a duplicate; three videos remain, one held out."""
    names = [*KEPT, "v-d"]
    fetched = [
        FetchedVideo(source_id=f"source-{n}", key="k", url="u", sha256="0" * 64, size_bytes=1, split="train")
        for n in [*names, "v-e"]
    ]
    videos = [video(name) for name in names]
    scans = [scan_of(workspace, record, seed) for record, seed in zip(videos, (1, 2, 3, 1), strict=True)]
    clips = {name: clips_of(name) for name in KEPT}
    captions = {name: [caption_of(clip) for clip in clips[name]] for name in KEPT}
    asked = {name: questions_of(name, "heldout" if name == "v-c" else "train") for name in KEPT}
    written = [question for name in KEPT for question in asked[name]]
    gone = rejection(
        "fetch", "source-v-f", "gone", "https://me:secret@host/f.mp4?X-Amz-Signature=abc: nothing there (404)"
    )
    cut = rejection("validate", "source-v-e", "truncated", "cut short", source="source-v-e")
    twin = rejection("dedup", "v-d", "near-duplicate", "90% of it is in source-v-a", "source-v-d")
    write_manifest(workspace.storage, PAIRS, [pair_of("v-d", "v-a")])
    out = rejection("filter-questions", "v-a-q0", "balance", "too many", source="v-a")
    steps = (
        write_step(workspace, "fetch", [(3, fetched[:3], []), (3, fetched[3:], [gone])], FetchedVideo),
        write_step(workspace, "validate", [(3, videos[:3], []), (2, videos[3:], [cut])], VideoRecord),
        write_step(workspace, "scan", [(3, scans[:3], []), (1, scans[3:], [])], Scan),
        write_step(workspace, "dedup", [(4, videos[:3], [twin])], VideoRecord),
        write_step(
            workspace,
            "clips",
            [(2, [*clips["v-a"], *clips["v-b"]], []), (1, clips["v-c"], [])],
            Clip,
        ),
        write_step(
            workspace,
            "captions",
            [(2, [*captions["v-a"], *captions["v-b"]], []), (1, captions["v-c"], [])],
            Caption,
        ),
        write_step(workspace, "questions", [(3, written, [])], Question),
        write_step(workspace, "filter-questions", [(12, written[1:], [out])], Question),
    )
    write_shards(workspace)
    return BuildOutputs(
        duplicates=PAIRS, steps=steps, datasets={"questions": workspace.url("shards/questions")}
    )


def write_shards(workspace: Workspace) -> None:
    """Two training samples and a held-out one, four frames each."""
    blob = pack_frames(np.zeros((4, 16, 16, 3), dtype=np.uint8), quality=80)
    for split, names in (("train", ("v-a", "v-b")), ("heldout", ("v-c",))):
        samples = [
            SampleWithFrames(
                Sample(
                    key=f"{name}-0", kind="video", split=split, video_id=name,
                    conversations=(
                        Turn(role="human", text="<frames> what"), Turn(role="gpt", text="red"),
                    ),
                    frame_times_s=(0.0, 1.0, 2.0, 3.0),
                ),
                blob,
            )
            for name in names
        ]  # fmt: skip
        write_dataset(workspace.storage, "questions", split, samples)
