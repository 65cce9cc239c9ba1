"""What a language model wrote about one video: every request with its outcome, and the drafts it gave."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from longvila.records import Record, Usage

ANSWERED = "answered"


class Draft(Record):
    """A question as it was written, before it is checked. ``clips`` are the numbers of the captions named."""

    kind: str
    question: str
    answer: str
    distractors: tuple[str, ...] = ()
    clips: tuple[int, ...] = ()
    problem: str = Field(default="", description="why no question can be made of it; none: nothing is wrong")


class Asked(Record):
    """One request for questions of one kind about one part of a video."""

    kind: str
    prompt_id: str
    start_s: float
    stop_s: float
    outcome: str = Field(description="answered, or the reason why not: bad-json, refused, …")
    detail: str = ""
    model: str = ""
    usage: Usage = Usage()
    drafts: tuple[Draft, ...] = ()


class Sheet(Record):
    """All requests about one video."""

    video_id: str
    asked: tuple[Asked, ...] = ()

    @property
    def usage(self) -> Usage:
        """What all requests cost together."""
        return total_usage([asked.usage for asked in self.asked])


def total_usage(parts: Sequence[Usage]) -> Usage:
    """Add up."""
    return sum(parts, Usage())


def share_usage(usage: Usage, count: int) -> list[Usage]:
    """Divide a usage by ``count`` so that the shares add up to it."""
    return [
        usage.model_copy(
            update={
                "tokens_in": _share(usage.tokens_in, count, i),
                "tokens_out": _share(usage.tokens_out, count, i),
                "cost_usd": usage.cost_usd / count,
            }
        )
        for i in range(count)
    ]


def _share(whole: int, count: int, i: int) -> int:
    return whole * (i + 1) // count - whole * i // count
