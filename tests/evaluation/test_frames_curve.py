import numpy as np
import pytest

from longvila.config.evaluation import FramesCurveConfig
from longvila.curation.composing import needles as cards
from longvila.errors import ConfigError
from longvila.evaluation import frames_curve
from longvila.evaluation.needle_trials import encode_haystack
from longvila.evaluation.statistics import share
from longvila.evaluation.trials import TrialLog
from tests.evaluation.tiny import bigram_model, noise_bank, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BANK = noise_bank(60)
CONFIG = FramesCurveConfig(video_frames=32, sampled=(4, 8, 32), trials=20, needles=3, seed=5)


def trials_of(sampled):
    haystack = encode_haystack(tiny_model(TOKENIZER), BANK)
    return frames_curve.draw_trials(CONFIG, haystack, sampled=sampled)


def test_fewer_frames_show_the_same_video():
    whole = trials_of(32)
    for sampled in (4, 8):
        for some, all_of_it in zip(trials_of(sampled), whole, strict=True):
            shown = frames_curve.spread(32, sampled)
            np.testing.assert_array_equal(some.haystack, all_of_it.haystack[shown])
            assert some.asked == all_of_it.asked
            visible = {n.colour: int(shown[n.position]) for n in some.needles}
            assert visible == {n.colour: n.position for n in all_of_it.needles if n.position in shown}


def test_the_asked_card_is_shown_as_often_as_the_prediction_says():
    config = CONFIG.model_copy(update={"trials": 600})
    haystack = encode_haystack(tiny_model(TOKENIZER), BANK)
    trials = frames_curve.draw_trials(config, haystack, sampled=8)
    shown = np.mean([trial.asked.colour in {n.colour for n in trial.needles} for trial in trials])
    assert shown == pytest.approx(8 / 32, abs=0.06)


@pytest.mark.parametrize(("num_frames", "sampled"), [(256, 8), (256, 256), (10, 3), (7, 7), (5, 1)])
def test_frames_are_spread_evenly(num_frames, sampled):
    shown = frames_curve.spread(num_frames, sampled)
    assert len(set(shown.tolist())) == sampled
    assert 0 <= shown.min() <= shown.max() < num_frames
    assert np.ptp(np.diff(shown)) <= 1 if sampled > 1 else shown[0] == num_frames // 2


def test_the_prediction_is_the_line_of_a_perfect_model():
    assert frames_curve.predict(0.95, 8 / 256) == pytest.approx(0.1266, abs=1e-4)
    assert frames_curve.predict(0.95, 1.0) == pytest.approx(0.95)
    assert frames_curve.ceiling_of(share(95, 100), 1.0) == pytest.approx(0.95)
    assert frames_curve.ceiling_of(share(50, 100), 0.5) == pytest.approx(0.9)
    assert frames_curve.ceiling_of(share(0, 100), 0.5) == 0.0


def test_a_model_with_known_answers_gets_the_known_curve():
    guess = {colour: str(i % 10) for i, colour in enumerate(cards.COLOURS)}
    model = bigram_model(TOKENIZER, guess | {str(digit): "<eos>" for digit in range(10)})
    result = frames_curve.run(
        model, TOKENIZER, CONFIG, bank=BANK, log=TrialLog(None, weight_digest="w"), max_row_tokens=300
    )
    truth = sum(str(t.asked.value) == guess[t.asked.colour] for t in trials_of(32))
    assert [point.sampled for point in result.points] == [4, 8, 32]
    assert [point.measured.right for point in result.points] == [truth] * 3  # it does not look
    assert result.points[-1].predicted == pytest.approx(result.ceiling) == pytest.approx(truth / 20)


def test_more_frames_than_there_are_is_refused():
    config = CONFIG.model_copy(update={"sampled": (8, 64)})
    with pytest.raises(ConfigError, match="video_frames=32"):
        frames_curve.run(
            tiny_model(TOKENIZER), TOKENIZER, config, bank=BANK, log=TrialLog(None, weight_digest="w")
        )
