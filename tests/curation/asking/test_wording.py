from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvila.curation.asking import wording


@pytest.mark.parametrize(
    "text",
    [
        "What does the caption say?",
        "In clip 3, who sits?",
        "What is seen in this segment?",
        "According to the description, who sits?",
        "Who is mentioned in the text?",
        "as described",
        "Which frame 12 shows it?",
        "in the last clip",
        "What happens in [4]?",
        "at timestamp 0:10",
        "Based on the information, who sits?",
        "In the given clips, who sits?",
        "Segment #2: who sits?",
    ],
)
def test_words_that_betray_the_captions(text: str) -> None:
    assert wording.speaks_of_source(text)


@pytest.mark.parametrize(
    "text",
    [
        "What does the man with the paper clip hold?",
        "What is in the wooden frame on the wall?",
        "How many scenes are there with a dog?",
        "When does the man sit down?",
        "Which part of the boat is red?",
        "What does the sign describe?",
        "Who is shot first?",
        "What is the accord of?",
        "Was sagt der Mann?",
    ],
)
def test_words_of_a_viewer(text: str) -> None:
    assert wording.speaks_of_source(text) is None


@pytest.mark.parametrize(
    "text", ["<frames>", "a <image> b", "</s>", "<|im_end|>", "<|im_end>", "[INST] x", "<vila/video>"]
)
def test_markup(text: str) -> None:
    assert wording.markup(text)


@pytest.mark.parametrize("text", ["a < b > c", "<b>bold</b>", "the <old> house", "{{ x }}", "[1]"])
def test_no_markup(text: str) -> None:
    assert wording.markup(text) is None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Two dogs.", "2 dogs", True),
        ("The red van", "a RED van!", True),
        ("on the table", "in the table", False),
        ("(a), (b), (c)", "(b), (a), (c)", False),
        ("(a), (b)", "(A), (B)", True),
        ("", "", True),
        ("Ａ", "a", True),
        ("a dog", "dogs", False),
        ("红色", "红 色", True),
    ],
)
def test_same_words(first: str, second: str, same: bool) -> None:
    assert wording.same_words(first, second) is same


@pytest.mark.parametrize(
    ("text", "part", "found"),
    [
        ("What colour is the blue crate?", "blue", True),
        ("What is bluer?", "blue", False),
        ("Do two crates that are blue fall?", "blue crates", True),
        ("How many dogs run?", "2", False),
        ("Which of the three runs?", "3", True),
        ("What is it?", "?", False),
        ("Where is the man?", "the", True),
    ],
)
def test_contains(text: str, part: str, found: bool) -> None:
    assert wording.contains(text, part) is found


@given(st.text())
def test_cleaned_text_is_one_plain_line(text: str) -> None:
    cleaned = wording.clean(text)
    assert wording.clean(cleaned) == cleaned
    assert not set(cleaned) & set("\n\r\t\x00\x1b\u202e\u200b\ufeff\u2028")
    assert cleaned == cleaned.strip()


@given(st.text(max_size=40), st.text(max_size=40))
def test_measures_of_words_are_shares(first: str, second: str) -> None:
    assert wording.meaning(first) <= set(wording.content_words(first)) | set(wording.words(first))
    assert bool(wording.meaning(first)) == bool(wording.words(first))
    assert 0 <= wording.share_found(first, second) <= 1
    assert wording.share_found(first, first) == 1
    assert wording.same_words(first, first)
