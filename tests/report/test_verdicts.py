from longvila.evaluation.results import LossCurve
from longvila.evaluation.statistics import paired_difference
from longvila.report import FunnelStep, RejectionReason
from longvila.report import verdicts as v
from tests.report.example import curve, needle, qa, report_data, stage


def test_a_good_run_passes_every_verdict():
    assert [verdict.passed for verdict in v.judge(report_data())] == [True] * 7


def test_a_funnel_that_loses_an_item_is_named():
    reasons = (RejectionReason(reason="gone", count=1),)
    steps = [
        FunnelStep(step="fetch", taken_in=3, kept=2, reasons=reasons),
        FunnelStep(step="shots", taken_in=2, kept=1),
    ]
    verdict = v.judge_funnel(steps)
    assert verdict.passed is False
    assert "shots" in verdict.evidence
    assert "fetch" not in verdict.evidence


def test_a_rising_loss_fails():
    good = stage("align", "projector", 3.0, 1.0)
    rising = good.model_copy(
        update={"losses": LossCurve(stage="align", steps=(1, 2, 3), losses=(1.0, 1.2, 1.4))}
    )
    assert v.judge_losses([good]).passed is True
    assert v.judge_losses([good, rising]).passed is False


def test_extension_needs_intervals_that_do_not_touch():
    assert v.judge_extension(needle(32), needle(400)).passed is True
    assert v.judge_extension(needle(32), needle(32)).passed is False
    assert v.judge_extension(needle(400), needle(32)).passed is False
    none = needle(400).model_copy(update={"rows": ()})
    assert v.judge_extension(needle(32), none).passed is None


def test_a_model_that_knows_the_answer_blind_is_caught():
    result = needle(400)
    cheating = result.model_copy(update={"blind": result.rows[0]})
    assert v.judge_blind(result).passed is True
    assert v.judge_blind(cheating).passed is False


def test_a_flat_curve_or_one_off_the_prediction_fails():
    rising = curve(0.95)
    assert v.judge_curve(rising).passed is True
    assert v.judge_curve(curve(0.12)).passed is False
    off = rising.model_copy(
        update={"points": tuple(p.model_copy(update={"predicted": p.predicted + 0.2}) for p in rising.points)}
    )
    assert v.judge_curve(off).passed is False


def test_answers_must_beat_the_text_only_model():
    assert v.judge_answers(qa(0.8)).passed is True
    assert v.judge_answers(qa(0.35)).passed is False


def test_beating_silence_is_not_beating_a_guess():
    """It beats its own silence, but not the commonest answer."""
    good = qa(0.8)
    nothing = paired_difference([True, False], [False, True], [0, 1])
    overall = good.overall.model_copy(update={"gain_over_majority": nothing})
    silent = good.model_copy(update={"overall": overall})
    assert v.judge_answers(silent).passed is True
    assert v.judge_guessing(silent).passed is False
    assert v.judge_guessing(good).passed is True
