"""Text that names values among filler words and asks for them later: stage 4's data (paper, section 3.2).

The questions are worded as in the needle videos, so that what a model learns about long text serves video.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from longvila.config.synthetic import RecallTextConfig
from longvila.curation.composing.needles import COLOURS, QUESTION, draw_length
from longvila.errors import ConfigError
from longvila.records import Sample, Split, Turn

VERSION = 1
TOKENS_PER_PAIR = 2  # colour, digit
TOKENS_PER_TURN = len(QUESTION.split()) + 2  # question, digit, end token

FILLER = (
    *("river", "stone", "cloud", "meadow", "window", "lantern", "harbour", "ladder", "basket", "candle"),
    *("orchard", "bridge", "valley", "feather", "kettle", "garden", "hammer", "island", "jacket", "kitchen"),
    *("letter", "mirror", "compass", "ocean", "pencil", "quilt", "road", "saddle", "tower", "umbrella"),
    *("village", "wagon", "yard", "anchor", "barrel", "carpet", "drum", "engine", "forest", "glove"),
)


def shortest_text(pairs: int) -> int:
    """The fewest tokens that a text with so many pairs and a question about each can have."""
    return pairs * (TOKENS_PER_PAIR + TOKENS_PER_TURN)


def recall_samples(config: RecallTextConfig, split: Split) -> Iterator[Sample]:
    """Write a whole set. Each sample depends on the seed, the split and its own number alone.

    Lengths are in words of a word tokenizer, questions and answers included, its start token not; each
    doubling between ``min_tokens`` and ``max_tokens`` is as likely. Raises ``ConfigError`` when one pair does
    not fit.
    """
    if config.min_tokens < shortest_text(1):
        raise ConfigError(
            f"recall text {config.name!r}: min_tokens={config.min_tokens} has no room for a pair and a "
            f"question about it. Use at least {shortest_text(1)}."
        )
    for number in range(config.num_samples):
        rng = np.random.default_rng([config.seed, split == "heldout", number])
        num_tokens = draw_length(rng, config.min_tokens, config.max_tokens, lengths="log_uniform")
        key = f"{config.name}-{split}-{number:06d}"
        yield _recall_sample(rng, key, num_tokens=num_tokens, pairs=config.pairs, split=split)


def _recall_sample(
    rng: np.random.Generator, key: str, *, num_tokens: int, pairs: int, split: Split
) -> Sample:
    pairs = min(pairs, len(COLOURS), num_tokens // shortest_text(1))
    colours = [str(colour) for colour in rng.permutation(np.array(list(COLOURS)))[:pairs]]
    values = [str(value) for value in rng.integers(0, 10, pairs)]
    body = _body(rng, colours, values, num_words=num_tokens - pairs * TOKENS_PER_TURN)
    turns = []
    for asked in rng.permutation(pairs):
        question = QUESTION.format(key=colours[asked])
        turns.append(Turn(role="human", text=f"{body} {question}" if not turns else question))
        turns.append(Turn(role="gpt", text=values[asked]))
    return Sample(
        key=key,
        kind="text",
        split=split,
        conversations=tuple(turns),
        provenance={"made_by": f"recall-{VERSION}", "pairs": pairs, "tokens": num_tokens},
    )


def _body(rng: np.random.Generator, colours: list[str], values: list[str], *, num_words: int) -> str:
    """Write the pairs at random places among filler words."""
    num_filler = num_words - TOKENS_PER_PAIR * len(colours)
    words = [FILLER[i] for i in rng.integers(0, len(FILLER), num_filler)]
    places = np.sort(rng.integers(0, num_filler + 1, len(colours)))
    for place, colour, value in reversed(list(zip(places, colours, values, strict=True))):
        words[place:place] = [colour, value]
    return " ".join(words)
