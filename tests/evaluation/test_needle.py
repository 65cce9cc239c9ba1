import subprocess
import sys

import numpy as np
import pytest

from longvila.config.evaluation import NeedleEvalConfig
from longvila.curation.composing import needles as cards
from longvila.errors import InputError
from longvila.evaluation import needle
from longvila.evaluation.features import FeatureCache
from longvila.evaluation.needle_trials import compose_cards, encode_haystack
from longvila.evaluation.trials import TrialLog
from longvila.inference import LongVilaSession
from tests.evaluation.tiny import bigram_model, lively_model, noise_bank, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BANK = noise_bank(60)
CONFIG = NeedleEvalConfig(frames=(4, 9), depths=(0.0, 0.5, 1.0), trials_per_cell=8, needles=3, seed=11)
GUESS = {colour: str(i % 10) for i, colour in enumerate(cards.COLOURS)}
ENDS = {str(digit): "<eos>" for digit in range(10)}


def run(model, *, log=None, config=CONFIG, **kwargs):
    log = log or TrialLog(None, weight_digest="w")
    return needle.run_grid(model, TOKENIZER, config, bank=BANK, log=log, **kwargs)


def trials_of(config=CONFIG):
    return needle.draw_grid(config, encode_haystack(tiny_model(TOKENIZER), BANK))


def test_a_model_with_known_answers_gets_the_known_grid():
    result = run(bigram_model(TOKENIZER, GUESS | ENDS))
    grid = trials_of()
    assert {(cell.frames, cell.depth) for cell in result.cells} == set(grid)
    for cell in result.cells:
        truth = sum(str(t.asked.value) == GUESS[t.asked.colour] for t in grid[cell.frames, cell.depth])
        assert (cell.generated.right, cell.generated.total) == (truth, 8)
    for row in result.rows:
        cells = [cell for cell in result.cells if cell.frames == row.frames]
        assert row.generated.right == sum(cell.generated.right for cell in cells)
        assert row.generated.total == 24
    assert [row.frames for row in result.rows] == [4, 9]
    assert result.rows[0].num_tokens == 1 + 4 * 5 + 3 + 2  # start, frames, question, answer, end
    assert result.blind.generated == result.row(4).generated  # this model does not look
    assert result.tokens_per_frame == 5


def test_an_answer_that_does_not_end_is_right_only_when_teacher_forced():
    result = run(bigram_model(TOKENIZER, GUESS))  # nothing follows a digit: all words are as likely
    assert sum(row.generated.right for row in result.rows) == 0
    assert sum(row.teacher_forced.right for row in result.rows) > 0


def test_trials_are_as_they_are_asked_for():
    for (frames, depth), cell in trials_of().items():
        for trial in cell:
            assert len(trial.haystack) == frames
            assert trial.asked is trial.needles[0]
            assert trial.asked.position == round(depth * (frames - 1))
            assert len({n.position for n in trial.needles}) == len({n.colour for n in trial.needles}) == 3
    ids = [trial.trial_id for cell in trials_of().values() for trial in cell]
    assert len(set(ids)) == 48
    other = CONFIG.model_copy(update={"seed": 12})
    assert set(ids).isdisjoint(trial.trial_id for cell in trials_of(other).values() for trial in cell)


def test_a_longer_grid_keeps_the_trials_of_the_shorter():
    longer = CONFIG.model_copy(update={"frames": (4, 9, 20), "trials_per_cell": 9})
    assert [t.trial_id for t in trials_of(longer)[9, 0.5]][:8] == [t.trial_id for t in trials_of()[9, 0.5]]


def test_frames_encoded_once_are_the_frames_of_the_video():
    """Scoring from shared features says what a session says that is shown the whole composed video."""
    model = lively_model(TOKENIZER)
    log = TrialLog(None, weight_digest="w")
    run(model, log=log)
    session = LongVilaSession(model, TOKENIZER)
    digits, said = cards.load_digits("heldout"), set()
    for cell in trials_of().values():
        for trial in cell[:3]:
            video = cards.compose(BANK.frames_NHW3[trial.haystack], trial.needles, digits)
            answer = log.get(trial.trial_id)
            asked = session.ask_frames(video, cards.QUESTION.format(key=trial.asked.colour), max_new_tokens=1)
            assert answer.said.split()[:1] == asked.text.split()
            said.add(answer.said)
    assert len(said) > 2  # the answers depend on what is shown


def test_cards_are_in_the_rows_that_the_trial_names():
    trials = [trial for cell in trials_of().values() for trial in cell][:5]
    frames, rows = compose_cards(trials, BANK)
    everything = np.concatenate([BANK.frames_NHW3, frames])
    digits = cards.load_digits("heldout")
    for trial, row in zip(trials, rows, strict=True):
        whole = cards.compose(BANK.frames_NHW3[trial.haystack], trial.needles, digits)
        np.testing.assert_array_equal(everything[row], whole)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    model = bigram_model(TOKENIZER, GUESS | ENDS)
    path = tmp_path / "trials.jsonl"
    expected = run(model, log=TrialLog(path, weight_digest="w"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:20]) + lines[20][:31])  # killed in the middle of a line
    again = run(model, log=TrialLog(path, weight_digest="w"))
    assert again.model_copy(update={"seconds": expected.seconds}) == expected
    assert len(path.read_bytes().splitlines()) == len(lines) + 1  # the torn line stays, and is not counted


def test_nothing_is_asked_twice_and_no_other_model_answers(tmp_path):
    path = tmp_path / "trials.jsonl"
    first = run(bigram_model(TOKENIZER, GUESS | ENDS), log=TrialLog(path, weight_digest="a"))
    size = path.stat().st_size
    calls = []
    mute = bigram_model(TOKENIZER, {})
    same = run(mute, log=TrialLog(path, weight_digest="a"), progress=lambda *at: calls.append(at))
    assert same.rows == first.rows
    assert path.stat().st_size == size
    assert calls == []
    other = run(mute, log=TrialLog(path, weight_digest="b"))
    assert sum(row.teacher_forced.right for row in other.rows) == 0


def test_progress_counts_to_the_end():
    seen = []
    run(
        bigram_model(TOKENIZER, ENDS),
        progress=lambda done, total: seen.append((done, total)),
        max_row_tokens=120,
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (48, 48)
    assert {total for _, total in seen} == {48}


def test_the_feature_cache_changes_nothing_but_time(tmp_path):
    model = lively_model(TOKENIZER)
    plain = run(model)
    for _ in range(2):
        cached = run(model, features=FeatureCache(tmp_path, tower_digest="t"))
        assert cached.rows == plain.rows
    assert len(list(tmp_path.iterdir())) == 1
    run(model, features=FeatureCache(tmp_path, tower_digest="another"))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_haystack_of_another_size_is_refused():
    with pytest.raises(InputError, match="size=32"):
        needle.run_grid(
            tiny_model(TOKENIZER),
            TOKENIZER,
            CONFIG,
            bank=noise_bank(size=24),
            log=TrialLog(None, weight_digest="w"),
        )


def test_the_needle_test_needs_only_torch_and_transformers():
    """It must run on GPU machines without the rest: what is not there is made not to be importable."""
    absent = (
        "pyarrow prefect deepspeed duckdb av sklearn matplotlib webdataset psutil boto3 cv2 simplejpeg httpx"
    )
    code = (
        "import sys, transformers\n"
        f"sys.modules.update(dict.fromkeys({absent!r}.split()))\n"
        "import longvila.evaluation.needle, longvila.evaluation.frames_curve, longvila.inference"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
