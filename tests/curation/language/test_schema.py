from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvila.curation.language.schema import BadAnswer, find_json, fit
from tests.curation.language.making import SCHEMA


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("  [1, 2]\n", [1, 2]),
        ('Here you are:\n```json\n{"a": [1]}\n```\nAnything else?', {"a": [1]}),
        ('```\n{"a": 1}\n```', {"a": 1}),
        ('Sure! {"a": "}"} and more', {"a": "}"}),
        ('set {x} then {"a": 1}', {"a": 1}),
        ("{'a': 1} [2]", [2]),
    ],
)
def test_json_is_found(text, value):
    assert find_json(text) == value


@pytest.mark.parametrize(
    "text", ["", "no", '{"a": 1', '{"a": NaN}', "{" * 5000, "[" * 200_000, '{"a": Infinity}', "{a: 1}"]
)
def test_what_is_no_json_is_told(text):
    with pytest.raises(BadAnswer, match="no whole JSON value"):
        find_json(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"answer": "4"}', "answer: '4' is not of type 'integer'"),
        ("{}", "'answer' is a required property"),
        ('{"answer": 1, "more": 2}', "'more' was unexpected"),
        ("[]", "is not of type 'object'"),
    ],
)
def test_the_error_names_the_place_for_the_model(text, why):
    with pytest.raises(BadAnswer) as caught:
        fit(text, SCHEMA)
    assert why in str(caught.value)


def test_lone_surrogates_do_not_survive():
    assert fit('{"a": "\\ud800"}', {}) == '{"a": "?"}'


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8),
    st.text("ab \n"),
)
def test_any_object_is_found_between_words(value, words):
    text = f"{words}{json.dumps({'v': value})}{words}"
    assert find_json(text) == {"v": value}
