"""Single frames with a short true caption: the data of stages 1 and 2, and of the tower's preparation.

Some frames show a card, as needle videos do, and the caption names its colour and its digit. The others are
cut-outs of film frames, and the caption states their measured colour, brightness and lightest side. The same
facts, as classes, are what a tower without pre-trained weights learns first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from longvila.config.synthetic import FrameCaptionConfig
from longvila.curation.colours import COLOURS, colour_map
from longvila.curation.composing.frame_bank import FrameBank, Frames
from longvila.curation.composing.needles import FRAMES_MARK, Digits, compose, draw_needles, load_digits
from longvila.records import Sample, Split, Turn

VERSION = 2
QUESTION = "describe"
NOWHERE = "nowhere"
NO_LABEL = -100  # what torch's cross entropy ignores

# Edges between dark, medium and bright, of a frame's mean luma from 0 to 1.
BRIGHTNESS_EDGES = (0.45, 0.6)
BRIGHTNESS_WORDS = ("dark", "medium", "bright")
LIGHT_STEP = 0.08  # by which one side is lighter than the one opposite, to be named
LUMA_LEVELS = 8  # classes of luma that the tower learns; too fine to be said
MIN_CUT = 0.6  # smallest side of a cut-out, of the frame's side

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
            frames_1HW3 = cut_out(rng, frames_1HW3[0])[None]
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
    return f"a {facts['brightness']} {facts['colour']} picture lightest {facts['light']}"


def measure_frame(frame_HW3: Frames) -> dict[str, str]:
    """Measure a frame: brightness, the colour of most pixels, its lightest side, its luma's level."""
    luma_HW = frame_HW3.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255.0
    luma = float(luma_HW.mean())
    counts = np.bincount(colour_map(frame_HW3).ravel(), minlength=len(COLOURS))
    return {
        "brightness": BRIGHTNESS_WORDS[int(np.searchsorted(BRIGHTNESS_EDGES, luma))],
        "colour": COLOURS[int(counts.argmax())],
        "light": _lightest_side(luma_HW),
        "luma": str(min(int(luma * LUMA_LEVELS), LUMA_LEVELS - 1)),
    }


def cut_out(rng: np.random.Generator, frame_HW3: Frames) -> Frames:
    """Cut a random square of at least ``MIN_CUT`` of the frame and scale it to the frame's size."""
    size = frame_HW3.shape[0]
    side = int(rng.integers(round(MIN_CUT * size), size + 1))
    top, left = (int(start) for start in rng.integers(0, size - side + 1, size=2))
    piece = Image.fromarray(frame_HW3[top : top + side, left : left + side])
    return np.asarray(piece.resize((size, size), Image.Resampling.BILINEAR))


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


def _lightest_side(luma_HW: NDArray[np.float32]) -> str:
    """Name the third of the picture that is lighter than the one opposite by the most, or say none."""
    third = max(1, luma_HW.shape[0] // 3)
    rightward = float(luma_HW[:, -third:].mean() - luma_HW[:, :third].mean())
    downward = float(luma_HW[-third:].mean() - luma_HW[:third].mean())
    if max(abs(rightward), abs(downward)) < LIGHT_STEP:
        return NOWHERE
    if abs(rightward) > abs(downward):
        return "right" if rightward > 0 else "left"
    return "bottom" if downward > 0 else "top"
