"""A tokenizer's chat template, taken apart once into the pieces that stand around each turn.

Rendering a Jinja template costs a hundred times what putting five strings together costs, and encoding a data
set does it for each sample. The pieces are proved against the template when they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from longvila.errors import InputError
from longvila.records import Turn

ROLES = {"system": "system", "human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class ChatFormat:
    """What stands around the turns: ``opening human middle gpt (between human middle gpt)* closing``.

    With a system turn the opening is ``system_open system system_close``. ``end_token`` is what ``closing``
    and ``between`` begin with: the model is trained to say it after each answer.
    """

    opening: str
    system_open: str
    system_close: str
    middle: str
    between: str
    closing: str
    end_token: str
    strips: bool

    def text_of(self, turn: Turn) -> str:
        """Return a turn's text as the template shows it."""
        return turn.text.strip() if self.strips else turn.text


class Rendered:
    """A conversation as one text, and the spans ``[start, stop)`` of it, in characters, that are scored."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.scored: list[tuple[int, int]] = []

    def add(self, text: str) -> None:
        """Append text that is given to the model."""
        self.parts.append(text)
        self.length += len(text)

    def add_scored(self, text: str, end_token: str) -> None:
        """Append an answer. The end token, which the next piece begins with, is scored with it."""
        self.scored.append((self.length, self.length + len(text) + len(end_token)))
        self.add(text)

    @property
    def text(self) -> str:
        """The whole conversation."""
        return "".join(self.parts)


def render(turns: Sequence[Turn], chat: ChatFormat) -> Rendered:
    """Put a checked conversation together; it may end with a human turn, and is then a prompt."""
    out = Rendered()
    rest = list(turns)
    if rest[0].role == "system":
        system = rest.pop(0)
        out.add(chat.system_open + chat.text_of(system) + chat.system_close)
    else:
        out.add(chat.opening)
    for number, turn in enumerate(rest):
        if turn.role == "human":
            out.add((chat.between if number else "") + chat.text_of(turn) + chat.middle)
        else:
            out.add_scored(chat.text_of(turn), chat.end_token)
    if rest[-1].role == "gpt":
        out.add(chat.closing)
    return out


def chat_format(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    """Return the pieces of the tokenizer's chat template; raise ``InputError`` if it has no fixed ones."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise InputError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template. "
            "Set chat_template in its tokenizer_config.json (for Qwen2: ChatML)."
        )
    return _chat_format(tokenizer, template)


@lru_cache(maxsize=16)
def _chat_format(tokenizer: PreTrainedTokenizerFast, template: str) -> ChatFormat:
    # The template is part of the key: a tokenizer whose template was changed is taken apart again.
    words = ("Xasys", "Xbhum", "Xcgpt", "Xdhum", "Xegpt")
    padded = [f" {word} " for word in words]
    with_system = _apply(tokenizer, _probe(padded))
    strips = padded[2] not in with_system
    shown = words if strips else padded
    system_open, system_close, middle, between, again, closing = _split(with_system, shown, template)
    opening, *_ = _split(_apply(tokenizer, _probe(padded)[1:]), shown[1:], template)
    end_token = _end_token(tokenizer, closing, template)
    chat = ChatFormat(opening, system_open, system_close, middle, between, closing, end_token, strips)
    if again != middle or not between.startswith(end_token):
        raise _unusable(template, "its turns do not all look alike")
    for conversation in (_probe(padded)[:3], _probe(padded)[1:3], _probe(padded)[1:4]):
        if render(conversation, chat).text != _apply(tokenizer, conversation):
            raise _unusable(template, "a short conversation does not look like the start of a longer one")
    return chat


def _probe(texts: Sequence[str]) -> list[Turn]:
    roles = ("system", "human", "gpt", "human", "gpt")
    return [Turn(role=role, text=text) for role, text in zip(roles, texts, strict=True)]


def _apply(tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn]) -> str:
    messages = [{"role": ROLES[turn.role], "content": turn.text} for turn in turns]
    prompt = turns[-1].role == "human"
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except TemplateError as error:
        raise InputError(
            f"The chat template of {tokenizer.name_or_path!r} failed on a system, user and assistant turn: "
            f"{error}. Use a template that takes these roles."
        ) from error
    return str(text)


def _split(text: str, words: Sequence[str], template: str) -> list[str]:
    pieces = []
    for word in words:
        piece, found, text = text.partition(word)
        if not found:
            raise _unusable(template, "it changes or leaves out the text of a turn")
        pieces.append(piece)
    return [*pieces, text]


def _end_token(tokenizer: PreTrainedTokenizerFast, closing: str, template: str) -> str:
    encoding = tokenizer.backend_tokenizer.encode(closing, add_special_tokens=False)
    if not encoding.ids:
        raise _unusable(template, "nothing stands after an answer, so the model would never learn to stop")
    return closing[: encoding.offsets[0][1]]


def _unusable(template: str, why: str) -> InputError:
    return InputError(
        f"The chat template cannot be used for training: {why}. It begins {template[:80]!r}. "
        "Use one that writes each turn's text unchanged between fixed pieces and closes answers with an end "
        "token, as ChatML does."
    )
