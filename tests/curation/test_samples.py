"""Questions as conversations: open and with options, several to a window, descriptions by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from longvila.curation.samples import MAX_TURNS, count_samples, question_samples, render_question
from longvila.curation.scan_file import FrameStrip
from longvila.data.lengths import Encoder
from longvila.media.jpeg import pack_frames
from longvila.records import Evidence, Question, Sample
from longvila.text.tokenizer import FRAMES_MARK, build_word_tokenizer
from tests.curation.pictures import video_record

VIDEO = video_record("v", duration_s=8.0)
OPTIONS = ("a brown dog", "a grey cat", "a white dog", "a small bird")


def question(number: int, **changes: object) -> Question:
    given = {
        "question_id": f"q{number:03d}",
        "video_id": "v",
        "kind": "object",
        "question": f"Which animal is number {number}?",
        "answer": "a brown dog",
        "start_s": 0.0,
        "stop_s": 8.0,
        "evidence": (Evidence(start_s=2.0, stop_s=4.0004, clip_id="clip1"),),
        "writer": "model-1",
        "model": "m",
        "prompt_id": "question-object-v1-00000000",
        "split": "train",
    }
    return Question.model_validate(given | changes)


def samples(questions: Sequence[Question], split: str = "train", **changes: object) -> list[Sample]:
    strip = FrameStrip(
        blob=pack_frames(np.zeros((16, 16, 16, 3), dtype=np.uint8), quality=90), times_s=np.arange(16) / 2
    )
    made = list(question_samples(questions, {"v": VIDEO}, lambda _: strip, split=split, **changes))  # type: ignore[arg-type]
    assert len(made) == count_samples(questions, split)  # type: ignore[arg-type]
    assert len({sample.key for sample, _ in made}) == len(made)
    assert all(sample.num_frames == frames.num_frames for sample, frames in made)
    return [sample for sample, _ in made]


def test_an_open_question_is_asked_and_answered_as_it_stands() -> None:
    assert render_question(question(1)) == ("Which animal is number 1?", "a brown dog")


@pytest.mark.parametrize("place", range(4))
def test_options_have_letters_in_their_order(place: int) -> None:
    options = (*OPTIONS[1 : place + 1], OPTIONS[0], *OPTIONS[place + 1 :])
    given = question(1, form="choice", options=options)
    text, answer = render_question(given)
    assert text.split("\n") == [
        "Which animal is number 1?",
        *(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True)),
        "Answer with the letter of the right option.",
    ]
    assert answer == "ABCD"[place]
    text, answer = render_question(given, "letter_text")
    assert answer == f"{'ABCD'[place]}. a brown dog"
    assert text.endswith("Answer with the right option and its letter.")


def test_questions_about_one_window_are_one_conversation_and_a_description_another() -> None:
    asked = [question(0, kind="summary", question="Describe this video.", answer="A dog runs."), question(1)]
    asked += [question(2, form="choice", options=OPTIONS), question(3, start_s=4.0)]
    whole, summary, window = samples(asked)
    assert [turn.text.split("\n")[0] for turn in whole.conversations if turn.role == "human"] == [
        f"{FRAMES_MARK} Which animal is number 1?",
        "Which animal is number 2?",
    ]
    assert [turn.text for turn in whole.conversations if turn.role == "gpt"] == ["a brown dog", "A"]
    assert summary.conversations[0].text == f"{FRAMES_MARK} Describe this video."
    assert summary.provenance["kind"] == "summary"
    assert window.frame_times_s[0] == 4.0


def test_long_conversations_are_divided() -> None:
    asked = [question(i) for i in range(2 * MAX_TURNS + 5)]
    lengths = [len(sample.conversations) // 2 for sample in samples(asked)]
    assert lengths == [MAX_TURNS, MAX_TURNS, 5]


def test_held_out_questions_stand_alone() -> None:
    asked = [
        question(i, split="heldout", form=form, options=OPTIONS) for i, form in enumerate(("open", "choice"))
    ]
    made = samples(asked, "heldout")
    assert [sample.conversations[1].text for sample in made] == ["a brown dog", "A"]
    assert samples(asked) == []


def test_a_sample_says_where_its_questions_come_from() -> None:
    (sample,) = samples([question(1), question(2, form="choice", options=OPTIONS, model="", prompt_id="")])
    first, second = sample.provenance["questions"]
    assert first == {
        "question_id": "q001",
        "kind": "object",
        "answer": "a brown dog",
        "form": "open",
        "writer": "model-1",
        "evidence_s": [[2.0, 4.0]],
        "clip_ids": ["clip1"],
        "model": "m",
        "prompt_id": "question-object-v1-00000000",
    }
    assert second["options"] == list(OPTIONS)
    assert "model" not in second


def test_both_forms_are_encoded_as_the_trainer_does() -> None:
    made = samples([question(1), question(2, form="choice", options=OPTIONS)])
    texts = [turn.text for sample in made for turn in sample.conversations]
    encode = Encoder(build_word_tokenizer(texts), 4, (), max_frames=6, max_tokens=4000)
    encoded = encode(made[0])
    assert len(encoded.frame_indices) == 6  # of 16: evenly thinned, both ends included
    assert encoded.num_scored > 2
