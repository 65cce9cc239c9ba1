"""What comes back for a question."""

from __future__ import annotations

from pydantic import Field

from longvila.inference.generate import Finish
from longvila.records import Record

DOUBTS: dict[Finish, str] = {
    "length": "the answer was cut at max_new_tokens",
    "repetition": "the answer went round in circles and was cut",
    "not_a_number": "the model's output is not a number: its weights are damaged or its dtype is too narrow",
}


class Timing(Record):
    """Where the time of one answer went, in seconds."""

    decode_s: float
    encode_s: float
    prefill_s: float
    generate_s: float


class Answer(Record):
    """What the model said, and what it had seen."""

    text: str
    frames_used: int
    times_s: tuple[float, ...]
    seconds: float
    timing: Timing
    prompt_tokens: int
    reused_tokens: int = Field(description="of the prompt, left in the cache by an earlier question")
    answer_tokens: int
    finish: Finish
    notes: tuple[str, ...] = Field(default=(), description="what makes the answer doubtful")


def doubts(text: str, finish: Finish, unknown_words: list[str]) -> tuple[str, ...]:
    """Return what makes an answer doubtful, as sentences for a person."""
    notes = [DOUBTS[finish]] if finish in DOUBTS else []
    if not text and finish == "end":
        notes.append("the answer is empty")
    if unknown_words:
        notes.append(f"words that this model has never seen: {', '.join(unknown_words)}")
    return tuple(notes)
