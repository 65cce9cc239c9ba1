"""Does this run bear out what it claims? Each verdict is a pure function of what was measured.

A verdict never rests on a single cell: rows are compared by Wilson intervals, held-out answers by the
cluster bootstrap, and a curve by its distance from a prediction made beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longvila.evaluation.results import FramesCurveResult, NeedleResult, QaResult
from longvila.evaluation.statistics import Difference, Share
from longvila.report.content import FunnelStep, ReportData, StageSummary, Verdict

CURVE_TOLERANCE = 0.1


def judge(data: ReportData) -> tuple[Verdict, ...]:
    """Return the caller's verdicts and then those that follow from the data itself."""
    verdicts = list(data.summary)
    if data.funnel:
        verdicts.append(judge_funnel(data.funnel))
    if any(stage.losses for stage in data.stages):
        verdicts.append(judge_losses(data.stages))
    before, after = data.evaluation(data.before), data.evaluation(data.after)
    if after and after.result.needle:
        verdicts.append(judge_blind(after.result.needle))
        if before and before.result.needle:
            verdicts.append(judge_extension(before.result.needle, after.result.needle))
    if after and after.result.frames_curve:
        verdicts.append(judge_curve(after.result.frames_curve))
    if after and after.result.qa:
        verdicts += [judge_answers(after.result.qa), judge_guessing(after.result.qa)]
    return tuple(verdicts)


def judge_funnel(steps: Sequence[FunnelStep]) -> Verdict:
    """Every item that entered a step left it, as a result or as a rejection."""
    wrong = [step.step for step in steps if not step.adds_up]
    rejected = sum(step.rejected for step in steps)
    evidence = (
        f"does not add up: {', '.join(wrong)}" if wrong else f"{len(steps)} steps, {rejected} rejections"
    )
    return Verdict(
        claim="In = out + rejected at every step of the data build", passed=not wrong, evidence=evidence
    )


def judge_losses(stages: Sequence[StageSummary]) -> Verdict:
    """The loss of each stage ends below where it began (means of its first and last tenths)."""
    ends = {
        stage.name: _ends(stage.losses.losses) for stage in stages if stage.losses and stage.losses.losses
    }
    evidence = ", ".join(f"{name} {first:.2f} → {last:.2f}" for name, (first, last) in ends.items())
    passed = bool(ends) and all(last < first for first, last in ends.values())
    return Verdict(claim="Every stage learned: its loss fell", passed=passed, evidence=evidence)


def judge_extension(before: NeedleResult, after: NeedleResult) -> Verdict:
    """On the longest videos that both saw, the final model finds what the short one cannot."""
    common = sorted({row.frames for row in before.rows} & {row.frames for row in after.rows})
    claim = "Stages 4 and 5 extend the context: the needle grid is greener than stage 3's"
    if not common:
        return Verdict(claim=claim, passed=None, evidence="the two grids share no frame count")
    longest = common[-1]
    old, new = before.row(longest).generated, after.row(longest).generated
    evidence = f"{longest} frames: {_with_interval(old)} before, {_with_interval(new)} after"
    return Verdict(claim=claim, passed=new.interval.low > old.interval.high, evidence=evidence)


def judge_blind(needle: NeedleResult) -> Verdict:
    """Without frames the needle cannot be found: its interval reaches down to chance."""
    blind = needle.blind.generated
    evidence = f"{_with_interval(blind)} without frames, chance {needle.chance:.0%}"
    claim = "Without frames the needle questions are answered by chance"
    return Verdict(claim=claim, passed=blind.interval.low <= needle.chance, evidence=evidence)


def judge_curve(curve: FramesCurveResult) -> Verdict:
    """More sampled frames, more right answers, along a line that was predicted."""
    first, last = curve.points[0].measured, curve.points[-1].measured
    error = max(abs(point.measured.value - point.predicted) for point in curve.points)
    evidence = (
        f"{first.value:.0%} with {curve.points[0].sampled} frames, {last.value:.0%} with "
        f"{curve.points[-1].sampled}; at most {error:.2f} from the prediction"
    )
    passed = last.interval.low > first.interval.high and error <= CURVE_TOLERANCE
    return Verdict(
        claim="Accuracy rises with the number of frames as predicted", passed=passed, evidence=evidence
    )


def judge_answers(qa: QaResult) -> Verdict:
    """On videos never trained on, the frames help: the gain over the text-only model lies above zero."""
    score = qa.overall
    evidence = (
        f"{_with_interval(score.model)} right, {score.text_only.value:.0%} without the frames: "
        f"{_points(score.gain)} points over {score.gain.num_clusters} clusters ({qa.cluster})"
    )
    claim = "Held-out questions on real video: the frames help the model"
    return Verdict(claim=claim, passed=score.gain.interval.low > 0, evidence=evidence)


def judge_guessing(qa: QaResult) -> Verdict:
    """The model beats whoever always gives the commonest training answer of each kind.

    A verdict of its own: a model that says nothing without frames would make the gain over text cheap.
    """
    score = qa.overall
    gain = score.gain_over_majority
    evidence = (
        f"{_with_interval(score.model)} right, the commonest answer {score.majority.value:.0%}: "
        f"{_points(gain)} points"
    )
    claim = "Held-out questions on real video: the model beats the commonest training answer"
    return Verdict(claim=claim, passed=gain.interval.low > 0, evidence=evidence)


def _points(gain: Difference) -> str:
    low, high = gain.interval.low, gain.interval.high
    return f"{gain.value * 100:+.0f} [{low * 100:+.0f}, {high * 100:+.0f}]".replace("-", "−")


def _with_interval(share: Share) -> str:
    return f"{share.value:.0%} [{share.interval.low:.0%}, {share.interval.high:.0%}]"


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    """Means of the first and the last tenth."""
    tenth = max(1, len(losses) // 10)
    return float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))
