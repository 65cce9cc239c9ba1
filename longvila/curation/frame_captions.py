"""Single frames with a short true caption: the data of stages 1 and 2, and of the tower's preparation.

Some frames show a card, as needle videos do, and the caption names its colour and its digit. The others are
film frames as they are, and the caption states their measured colour and brightness. The same facts, as
classes, are what a tower without pre-trained weights learns first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from longvila.config.data import FrameCaptionConfig
from longvila.curation.frame_bank import FrameBank, Frames
from longvila.curation.needles import FRAMES_MARK, Digits, compose, draw_needles, load_digits
from longvila.records import Sample, Split, Turn

VERSION = 1
QUESTION = "describe"
NO_LABEL = -100  # what torch's cross entropy ignores

# Edges between dark, medium and bright, of a frame's mean luma from 0 to 255.
BRIGHTNESS_EDGES = (70.0, 120.0)
BRIGHTNESS_WORDS = ("dark", "medium", "bright")
# Upper ends, in degrees of hue, of the families that a saturated pixel falls into; red closes the circle.
HUE_ENDS = (20.0, 45.0, 70.0, 160.0, 200.0, 260.0, 345.0, 360.0)
HUE_WORDS = ("red", "orange", "yellow", "green", "cyan", "blue", "magenta", "red")
GREY = "grey"
MIN_SATURATION = 0.2
MIN_VALUE = 0.1

# H × W pixels of a frame, P pixels.


def frame_caption_samples(
    config: FrameCaptionConfig, bank: FrameBank, split: Split
) -> Iterator[tuple[Sample, Frames]]:
    """Make a whole set of one-frame samples. Each depends on the seed, the split and its own number alone.

    ``provenance["facts"]`` holds what the caption states, for ``label_frames``.
    """
    digits = load_digits(split)
    for number in range(config.num_samples):
        rng = np.random.default_rng([config.seed, split == "heldout", number])
        index = int(rng.integers(0, len(bank)))
        frames_1HW3 = bank.frames_NHW3[index : index + 1]
        if rng.random() < config.card_share:
            frames_1HW3, facts = _with_card(rng, frames_1HW3, digits)
        else:
            facts = measure_frame(frames_1HW3[0])
        provenance = {"made_by": f"frame-captions-{VERSION}", "facts": facts}
        sample = Sample(
            key=f"{config.name}-{split}-{number:06d}",
            kind="image",
            split=split,
            conversations=(
                Turn(role="human", text=f"{FRAMES_MARK} {QUESTION}"),
                Turn(role="gpt", text=caption(facts)),
            ),
            video_id=bank.video_ids[index],
            frame_times_s=(float(bank.times_s[index]),),
            provenance=provenance,
        )
        yield sample, frames_1HW3


def caption(facts: Mapping[str, str]) -> str:
    """Say a frame's facts in a few words."""
    if "digit" in facts:
        return f"a {facts['card']} card with {facts['digit']}"
    return f"a {facts['brightness']} {facts['colour']} picture"


def measure_frame(frame_HW3: Frames) -> dict[str, str]:
    """Measure a frame's brightness and the colour family that most of its pixels belong to."""
    pixels_P3 = frame_HW3.reshape(-1, 3).astype(np.float32)
    luma = float((pixels_P3 @ np.array([0.299, 0.587, 0.114], dtype=np.float32)).mean())
    families = np.bincount(_families(pixels_P3 / 255.0), minlength=len(HUE_WORDS) + 1)
    families[0] += families[len(HUE_WORDS) - 1]
    families[len(HUE_WORDS) - 1] = 0
    return {
        "brightness": BRIGHTNESS_WORDS[int(np.searchsorted(BRIGHTNESS_EDGES, luma))],
        "colour": (*HUE_WORDS, GREY)[int(families.argmax())],
    }


def label_frames(facts: Iterable[Mapping[str, str]]) -> dict[str, NDArray[np.int64]]:
    """Turn the facts of N frames into classes [N] from 0 for each fact, ``NO_LABEL`` where it is not known.

    A fact's classes are its values in the order of the alphabet.
    """
    facts = list(facts)
    labels = {}
    for name in sorted({name for known in facts for name in known}):
        classes = {value: i for i, value in enumerate(sorted({k[name] for k in facts if name in k}))}
        numbers = [classes[known[name]] if name in known else NO_LABEL for known in facts]
        labels[name] = np.array(numbers, dtype=np.int64)
    return labels


def _with_card(
    rng: np.random.Generator, frames_1HW3: Frames, digits: Digits
) -> tuple[Frames, dict[str, str]]:
    needles = draw_needles(rng, digits, num_frames=1, count=1)
    facts = {"card": needles[0].colour, "digit": str(needles[0].value)}
    return compose(frames_1HW3, needles, digits), facts


def _families(pixels_P3: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each pixel's colour family, an index into ``HUE_WORDS``, or its length for grey."""
    high, low = pixels_P3.max(axis=1), pixels_P3.min(axis=1)
    spread = np.maximum(high - low, 1e-6)
    red, green, blue = pixels_P3.T
    sixths = np.where(
        high == red,
        ((green - blue) / spread) % 6,
        np.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    coloured = ((high - low) > MIN_SATURATION * high) & (high > MIN_VALUE)
    family = np.searchsorted(HUE_ENDS[:-1], 60 * sixths, side="right")
    return np.where(coloured, family, len(HUE_WORDS))
