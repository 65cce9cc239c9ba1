from pathlib import Path

import numpy as np
import pytest
import torch

from longvila.errors import InputError
from longvila.inference import LongVilaSession, load
from longvila.inference.session import common_prefix
from longvila.inference.watching import spread_times
from longvila.model.checkpoint import export_checkpoint
from tests.evaluation.tiny import bigram_model, lively_model, noise_bank, tiny_model, tiny_tokenizer

VIDEO = Path(__file__).parents[2] / "datasets" / "demo" / "videos" / "02-apple.mp4"
TOKENIZER = tiny_tokenizer("what is the main colour")
ANSWERS = {"red": "7", "7": "<eos>", "blue": "4", "4": "2", "2": "<eos>"}


@pytest.fixture
def knowing():
    return LongVilaSession(bigram_model(TOKENIZER, ANSWERS), TOKENIZER)


@pytest.fixture
def lively():
    return LongVilaSession(lively_model(TOKENIZER), TOKENIZER)


def test_a_real_video_is_watched_and_asked_about(knowing):
    answer = knowing.ask(VIDEO, "digit on blue", frames=6)
    assert answer.text == "4 2"
    assert answer.finish == "end"
    assert answer.frames_used == len(answer.times_s) == 6
    assert answer.prompt_tokens == 1 + 6 * 5 + 3
    assert answer.answer_tokens == 2
    assert answer.notes == ()
    parts = answer.timing
    total = parts.decode_s + parts.encode_s + parts.prefill_s + parts.generate_s
    assert total == pytest.approx(answer.seconds, rel=0.05)
    assert parts.decode_s > 0


def test_the_second_question_starts_where_the_video_ends(lively):
    first = lively.ask(VIDEO, "digit on red", frames=6, max_new_tokens=4)
    second = lively.ask(VIDEO, "what is the main colour", frames=6, max_new_tokens=4)
    fresh = LongVilaSession(lively.model, TOKENIZER)
    alone = fresh.ask(VIDEO, "what is the main colour", frames=6, max_new_tokens=4)
    assert first.reused_tokens == alone.reused_tokens == 0
    assert second.reused_tokens == 31
    assert second.timing.decode_s < 0.01 < alone.timing.decode_s
    assert second.text == alone.text
    again = lively.ask(VIDEO, "digit on red", frames=6, max_new_tokens=4)
    assert again.text == first.text


def test_another_video_forgets_the_first(lively):
    lively.ask(VIDEO, "digit on red", frames=6, max_new_tokens=1)
    other = lively.ask(VIDEO.with_name("04-bullies.mp4"), "digit on red", frames=6, max_new_tokens=1)
    assert other.reused_tokens == 0
    span = lively.ask(VIDEO, "digit on red", frames=6, start_s=10.0, stop_s=14.0, max_new_tokens=1)
    assert span.reused_tokens == 0
    assert 10.0 < span.times_s[0] < span.times_s[-1] < 14.0


def test_what_is_shown_decides_the_answer(lively):
    bank = noise_bank(24)
    texts = {
        lively.ask_frames(bank.frames_NHW3[i : i + 6], "digit on red", max_new_tokens=3).text
        for i in range(0, 18, 3)
    }
    assert len(texts) > 1


def test_times_are_the_middles_of_equal_parts():
    assert spread_times(0.0, 10.0, frames=5, fps=2.0) == (1.0, 3.0, 5.0, 7.0, 9.0)
    assert spread_times(4.0, 6.0, frames=100, fps=2.0) == (4.25, 4.75, 5.25, 5.75)
    assert spread_times(0.0, 0.1, frames=100, fps=2.0) == (0.05,)
    with pytest.raises(InputError, match="start_s < stop_s"):
        spread_times(5.0, 5.0, frames=3, fps=2.0)


def test_more_frames_than_the_context_are_refused_with_the_number_that_fits():
    session = LongVilaSession(tiny_model(TOKENIZER, max_context=50), TOKENIZER)
    with pytest.raises(InputError, match=r"trained for 50. Ask with frames=7 or fewer"):
        session.ask(VIDEO, "digit on red", frames=20, max_new_tokens=10)
    assert session.ask(VIDEO, "digit on red", frames=7, max_new_tokens=10).frames_used == 7


def test_words_that_the_model_never_saw_are_named(knowing):
    answer = knowing.ask(VIDEO, "elephant digit on red", frames=2)
    assert answer.text == "7"
    assert answer.notes == ("words that this model has never seen: elephant",)


def test_degenerate_output_is_said(knowing):
    with torch.no_grad():
        knowing.model.lm_head.weight.zero_()  # "<pad>" for ever
    answer = knowing.ask(VIDEO, "digit on red", frames=2)
    assert answer.finish == "repetition"
    assert "went round in circles" in answer.notes[0]


def test_what_cannot_be_asked_is_refused(knowing, tmp_path):
    with pytest.raises(InputError, match="no video"):
        knowing.ask(tmp_path / "none.mp4", "digit on red")
    (tmp_path / "text.mp4").write_text("not a film")
    with pytest.raises(InputError, match="cannot be watched"):
        knowing.ask(tmp_path / "text.mp4", "digit on red")
    with pytest.raises(InputError, match="<image>"):
        knowing.ask(VIDEO, "digit on <image> red", frames=2)
    with pytest.raises(InputError, match="at least 1 frame"):
        knowing.ask(VIDEO, "digit on red", frames=0)
    with pytest.raises(InputError, match="within the video"):
        knowing.ask(VIDEO, "digit on red", start_s=10_000.0)


def test_an_exported_checkpoint_is_loaded_and_asked(knowing, tmp_path):
    export_checkpoint(knowing.model, TOKENIZER, tmp_path / "export", stage_info={"max_frames": 5})
    session = load(tmp_path / "export")
    assert session.default_frames == 5
    answer = session.ask(VIDEO, "digit on red")
    assert answer.text == "7"
    assert answer.frames_used == 5
    with pytest.raises(InputError, match="no checkpoint"):
        load(tmp_path / "missing")


def test_common_prefix():
    a = np.array([1, 2, 3, 4])
    assert common_prefix(a, np.array([1, 2, 9, 4])) == 2
    assert common_prefix(a, a[:3]) == 3
    assert common_prefix(a, a[:0]) == 0


def test_a_question_mark_is_not_a_word_that_the_answer_follows(knowing):
    plain = knowing.ask(VIDEO, "digit on red", frames=2)
    marked = knowing.ask(VIDEO, "digit on red?", frames=2)
    assert (marked.text, marked.notes) == (plain.text, plain.notes)
    assert marked.prompt_tokens == plain.prompt_tokens


def test_an_empty_question_is_refused(knowing):
    with pytest.raises(InputError, match="question is empty"):
        knowing.ask(VIDEO, "  ", frames=2)
