"""A small but complete report's data, with figures that are easy to check."""

from datetime import UTC, datetime

import numpy as np

from longvila.evaluation.results import (
    CurvePoint,
    EvalResult,
    FramesCurveResult,
    KindScore,
    LossCurve,
    NeedleCell,
    NeedleResult,
    PartSize,
    QaResult,
)
from longvila.evaluation.statistics import mcnemar, paired_difference, share
from longvila.report import content

FRAMES = (16, 32, 64, 128, 256, 512)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def png(red: int = 90, green: int = 120, blue: int = 150) -> bytes:
    import io

    from PIL import Image

    image = Image.fromarray(np.full((45, 80, 3), (red, green, blue), dtype=np.uint8))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def needle(limit: int) -> NeedleResult:
    """Perfect up to ``limit`` frames, then falling to chance, late needles last."""

    def right(frames: int, depth: float) -> int:
        over = max(0.0, np.log2(frames / limit)) if frames > limit else 0.0
        return round(16 * max(0.1, 1 - 0.45 * over * (1.3 - depth)))

    def cell(frames: int, depth: float | None, count: int, total: int) -> NeedleCell:
        return NeedleCell(
            frames=frames,
            depth=depth,
            num_tokens=5 * frames + 9,
            teacher_forced=share(count, total),
            generated=share(count, total),
        )

    cells = tuple(cell(n, d, right(n, d), 16) for n in FRAMES for d in DEPTHS)
    rows = tuple(cell(n, None, sum(right(n, d) for d in DEPTHS), 80) for n in FRAMES)
    return NeedleResult(
        prompt_id="needle-v1",
        extractor_id="exact-v1",
        needles=4,
        tokens_per_frame=5,
        chance=0.1,
        cells=cells,
        rows=rows,
        blind=cell(0, None, 7, 80),
        seconds=11.0,
    )


def curve(ceiling: float) -> FramesCurveResult:
    points = []
    for sampled in (8, 16, 32, 64, 128, 256):
        predicted = ceiling * sampled / 256 + 0.1 * (1 - sampled / 256)
        points.append(
            CurvePoint(sampled=sampled, measured=share(round(96 * predicted), 96), predicted=predicted)
        )
    return FramesCurveResult(
        prompt_id="needle-v1", extractor_id="exact-v1", video_frames=256, needles=4, chance=0.1,
        ceiling=ceiling, points=tuple(points), seconds=4.0,
    )  # fmt: skip


def qa(rate: float = 0.75) -> QaResult:
    rng = np.random.default_rng(0)

    def score(kind: str, total: int) -> KindScore:
        model = [bool(x) for x in rng.random(total) < rate]
        text = [bool(x) for x in rng.random(total) < 0.35]
        videos = [i % 8 for i in range(total)]
        return KindScore(
            kind=kind,
            model=share(sum(model), total),
            text_only=share(sum(text), total),
            majority=share(total // 3, total),
            gain=paired_difference(model, text, videos),
            gain_over_majority=paired_difference(model, text, videos),
            mcnemar=mcnemar(model, text),
        )

    kinds = tuple(score(kind, 48) for kind in ("colour", "brightness", "counting", "order"))
    return QaResult(
        dataset="long-video-qa", prompt_id="qa-v1", extractor_id="exact-v1", max_frames=64, mean_frames=23.4,
        cluster="video", num_videos=8, unanswered=0, overall=score("all", 192), kinds=kinds, seconds=3.0,
    )  # fmt: skip


def evaluation(name: str, *, limit: int, ceiling: float | None, answers: float | None) -> EvalResult:
    return EvalResult(
        name=name, checkpoint=f"checkpoints/{name}", weight_digest="0123456789abcdef" * 4, rope_theta=6400.0,
        max_context=4096, needle=needle(limit), frames_curve=curve(ceiling) if ceiling else None,
        qa=qa(answers) if answers else None, seconds=18.0,
    )  # fmt: skip


def stage(name: str, trains: str, start: float, end: float) -> content.StageSummary:
    steps = np.arange(1, 101)
    noise = 1 + 0.1 * np.sin(steps * 1.7)
    losses = (end + (start - end) * np.exp(-steps / 18)) * noise
    return content.StageSummary(
        name=name, trains=trains, data="frame-captions", steps=100, seconds=31.0, max_frames=16,
        max_tokens=512, rope_theta=100.0, parallel="dp 2, ZeRO 2",
        losses=LossCurve(stage=name, steps=tuple(steps.tolist()), losses=tuple(losses.tolist())),
    )  # fmt: skip


def report_data(title: str = "LongVILA demo: a model's whole life") -> content.ReportData:
    sheet = content.ContactSheet(
        title="Big Buck Bunny, 0:00 – 1:30",
        attribution="© Blender Foundation, CC BY 3.0",
        entries=tuple(
            content.SheetEntry(
                start_s=8.0 * i,
                stop_s=8.0 * i + 8,
                text="A bright green scene with slow motion.",
                picture=content.Picture(data=png(40 + 25 * i, 130, 90), alt=f"shot {i}"),
            )
            for i in range(6)
        ),
    )
    question = content.QuestionExample(
        video="bbb-03", kind="colour", question="What is the main colour between 0:08 and 0:16?",
        answer="green", evidence_s=((8.0, 16.0),), predicted="green",
        pictures=tuple(content.Picture(data=png(60, 150 + 20 * i, 90), alt="frame") for i in range(4)),
    )  # fmt: skip
    reasons = (content.RejectionReason(reason="truncated", count=2, example="moov atom not found"),)
    return content.ReportData(
        title=title,
        subtitle="Recipe demo: raw video to an evaluated model on two CPU cores.",
        created=datetime(2026, 11, 23, 5, 0, tzinfo=UTC),
        funnel=(
            content.FunnelStep(step="fetch", taken_in=12, kept=12),
            content.FunnelStep(step="validate", taken_in=12, kept=10, reasons=reasons),
            content.FunnelStep(step="shots", taken_in=10, kept=10, made="135 shots"),
        ),
        sheets=(sheet,),
        questions=(question, question, question),
        stages=(
            stage("align", "projector", 3.1, 0.6),
            stage("pretrain", "projector, llm", 2.2, 0.5),
            stage("short_sft", "all", 2.6, 0.3),
            stage("extend_context", "llm (LoRA)", 1.2, 0.2),
            stage("long_sft", "all", 0.8, 0.2),
        ),
        tower_note="The tower's preparation stands in for SigLIP's pre-training; it is not a stage.",
        evaluations=(
            content.Evaluated(
                title="3 short_sft",
                trained_frames=16,
                result=evaluation("short_sft", limit=32, ceiling=0.2, answers=0.6),
            ),
            content.Evaluated(
                title="4 extend_context", result=evaluation("extend", limit=200, ceiling=None, answers=None)
            ),
            content.Evaluated(
                title="5 long_sft",
                trained_frames=128,
                result=evaluation("long_sft", limit=400, ceiling=0.95, answers=0.75),
            ),
            content.Evaluated(
                title="θ raised, no training",
                role="control",
                note="Stage 3's weights with stage 4's RoPE base.",
                result=evaluation("theta_only", limit=120, ceiling=None, answers=None),
            ),
            content.Evaluated(
                title="Stage 5 without stage 4",
                role="control",
                result=evaluation("skip_extension", limit=64, ceiling=None, answers=None),
            ),
        ),
        before="short_sft",
        after="long_sft",
        parts=(
            PartSize(part="vision_tower", parameters=61_000, size_bytes=244_000),
            PartSize(part="projector", parameters=12_000, size_bytes=48_000),
            PartSize(part="llm", parameters=203_000, size_bytes=812_000),
        ),
        timings=tuple(
            content.Timing(name=name, seconds=s)
            for name, s in (("data", 61.0), ("training", 250.0), ("evaluation", 95.5))
        ),
        checkpoint="workspace/demo/checkpoints/long_sft",
        ask_command='longvila ask workspace/demo/checkpoints/long_sft clip.mp4 "what is the main colour"',
        reproduce_command="make demo",
        credits=("Big Buck Bunny © 2008 Blender Foundation, CC BY 3.0.",),
    )
