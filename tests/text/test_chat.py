"""Templates taken apart: what is put together again equals what Jinja renders."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.errors import InputError
from longvila.records import Turn
from longvila.text import chat_format
from longvila.text.chat import ROLES, render
from tests.text.tokenizers import CHATML, chatml_tokenizer, word_tokenizer

LLAMA3 = (
    "{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)

texts = st.text(st.characters(codec="utf-8", exclude_characters="<>|"), max_size=20)


@st.composite
def conversations(draw) -> list[Turn]:
    turns = [Turn(role="system", text=draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Turn(role="human", text=draw(texts)), Turn(role="gpt", text=draw(texts))]
    return turns if draw(st.booleans()) else turns[:-1]


def with_template(template: str | None):
    tokenizer = copy.copy(chatml_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


TOKENIZERS = {"word": word_tokenizer(), "chatml": chatml_tokenizer(), "llama3": with_template(LLAMA3)}


@pytest.mark.parametrize("name", list(TOKENIZERS))
@settings(deadline=None)
@given(turns=conversations())
def test_render_equals_the_template(name: str, turns: list[Turn]) -> None:
    tokenizer = TOKENIZERS[name]
    messages = [{"role": ROLES[turn.role], "content": turn.text} for turn in turns]
    prompt = turns[-1].role == "human"
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    rendered = render(turns, chat_format(tokenizer))
    assert rendered.text == expected
    answers = [turn.text for turn in turns if turn.role == "gpt"]
    for (start, stop), answer in zip(rendered.scored, answers, strict=True):
        shown = answer.strip() if name == "llama3" else answer
        assert expected[start:stop] == shown + chat_format(tokenizer).end_token


def test_pieces_of_chatml() -> None:
    chat = chat_format(chatml_tokenizer())
    assert chat.opening == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    assert (chat.middle, chat.end_token) == ("<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>")


def test_a_changed_template_is_taken_apart_again() -> None:
    tokenizer = with_template(CHATML)
    assert chat_format(tokenizer).end_token == "<|im_end|>"
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "<|endoftext|>")
    assert chat_format(tokenizer).end_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "changes or leaves out the text"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "would never learn to stop"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        (
            "{% for m in messages %}{% if loop.index0 == 3 %}!{% endif %}"
            "{{ m['content'] + '<|im_end|>' }}{% endfor %}",
            "does not look like the start",
        ),
        (
            "{% for m in messages %}{{ m['content'] + '<|im_end|>' + (loop.index | string) }}{% endfor %}",
            "turns do not all look alike",
        ),
    ],
)
def test_templates_that_cannot_be_trained_on_are_refused(template: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chat_format(with_template(template))
