"""Needle videos: real film frames, some of which hide a coloured card with a handwritten digit.

The card's colour is the key, its digit the value. A question names a colour and the answer is the digit, so
that nothing but the frames can tell it. All cards but the one asked for are distractors. The digits are
scikit-learn's, and training and held-out videos share neither a digit's picture nor a film frame.

Cards lie on a grid of cells: a tower that starts from scratch sees a card that is cut by its patches as
nothing but noise for the first minutes of its life.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from longvila.config.synthetic import NeedleSetConfig
from longvila.curation.composing.frame_bank import FrameBank, Frames
from longvila.errors import ConfigError
from longvila.records import Sample, Split, Turn

VERSION = 1
CELLS_PER_SIDE = 2
HELD_OUT_EVERY = 5  # each fifth digit picture is held out
BORDER_SHARE = 1 / 8  # of a card's side, around the digit
QUESTION = "digit on {key}"  # the key comes last: the answer follows the word that finds it
FRAMES_MARK = "<frames>"

# Bright, so that the black digit stands out, and far from one another.
COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (230, 40, 40),
        "green": (40, 200, 60),
        "blue": (70, 110, 255),
        "yellow": (250, 230, 40),
        "cyan": (60, 220, 230),
        "magenta": (240, 80, 220),
        "orange": (255, 150, 30),
        "white": (245, 245, 245),
    }
)

# N frames, H × W pixels, s pixels of a card's side, n digit pictures.


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: ``ink_n88`` from 0 (paper) to 1 (ink), and the ``values`` they show."""

    ink_n88: NDArray[np.float32]
    values: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Needle:
    """One card: what it shows, which picture of that digit, in which frame, in which cell of the grid."""

    colour: str
    value: int
    digit: int
    position: int
    cell: int


@lru_cache(maxsize=4)
def load_digits(split: Split) -> Digits:
    """Load the digit pictures of one split; the splits share none."""
    from sklearn import datasets  # slow to import, and needed for the first digit only

    pixels, values = datasets.load_digits(return_X_y=True)
    ink_n88 = np.asarray(pixels, dtype=np.float32).reshape(-1, 8, 8) / 16.0
    held_out = np.arange(len(ink_n88)) % HELD_OUT_EVERY == 0
    chosen = held_out if split == "heldout" else ~held_out
    return Digits(ink_n88[chosen], np.asarray(values, dtype=np.int64)[chosen])


def draw_card(colour: str, ink_88: NDArray[np.float32], *, size: int) -> Frames:
    """Draw a card [s, s, 3] of one colour with a black digit on it; ``size`` is its side s in pixels."""
    border = max(1, round(size * BORDER_SHARE))
    ink_ss = np.pad(_resize(ink_88, size - 2 * border), border)
    paper = np.array(COLOURS[colour], dtype=np.float32)
    return np.rint(paper * (1 - ink_ss[..., None])).astype(np.uint8)


def compose(frames_NHW3: Frames, needles: Sequence[Needle], digits: Digits) -> Frames:
    """Return a copy of the frames with the needles' cards on them."""
    composed_NHW3 = frames_NHW3.copy()
    size = card_size(frames_NHW3.shape[1])
    for needle in needles:
        top, left = size * (needle.cell // CELLS_PER_SIDE), size * (needle.cell % CELLS_PER_SIDE)
        card_ss3 = draw_card(needle.colour, digits.ink_n88[needle.digit], size=size)
        composed_NHW3[needle.position, top : top + size, left : left + size] = card_ss3
    return composed_NHW3


def card_size(frame_size: int) -> int:
    """The side of a card, in pixels, on frames of that side. Raises ``ConfigError`` below 8 pixels."""
    size = frame_size // CELLS_PER_SIDE
    if size < 8:
        raise ConfigError(
            f"Frames of {frame_size} pixels are too small for cards with digits. "
            f"Use frames.size of at least {8 * CELLS_PER_SIDE}."
        )
    return size


def draw_needles(
    rng: np.random.Generator,
    digits: Digits,
    *,
    num_frames: int,
    count: int,
    depth: float | None = None,
) -> tuple[Needle, ...]:
    """Draw needles of different colours in different frames.

    With a ``depth`` from 0 (first frame) to 1 (last frame) the first needle lies there. There are fewer than
    ``count`` where the frames or the colours do not suffice.
    """
    count = min(count, num_frames, len(COLOURS))
    positions = rng.permutation(num_frames)
    if depth is not None:
        asked = round(depth * (num_frames - 1))
        positions = np.concatenate([[asked], positions[positions != asked]])
    colours = rng.permutation(np.array(list(COLOURS)))
    pictures = rng.integers(0, len(digits), count)
    cells = rng.integers(0, CELLS_PER_SIDE**2, count)
    return tuple(
        Needle(
            str(colours[i]),
            int(digits.values[pictures[i]]),
            int(pictures[i]),
            int(positions[i]),
            int(cells[i]),
        )
        for i in range(count)
    )


def draw_haystack(
    rng: np.random.Generator, bank: FrameBank, num_frames: int, *, max_stride: int = 2
) -> NDArray[np.int64]:
    """Draw which frames of the bank make the haystack: a run of film, at full or at half speed, in order."""
    start = int(rng.integers(0, len(bank)))
    return bank.run(start, num_frames, stride=int(rng.integers(1, max_stride + 1)))


def question_turns(needles: Sequence[Needle]) -> tuple[Turn, ...]:
    """Ask for each needle in the order given: one video, a question and an answer after another."""
    turns = []
    for number, needle in enumerate(needles):
        mark = "" if number else f"{FRAMES_MARK} "
        turns.append(Turn(role="human", text=mark + QUESTION.format(key=needle.colour)))
        turns.append(Turn(role="gpt", text=str(needle.value)))
    return tuple(turns)


def needle_sample(
    key: str,
    bank: FrameBank,
    haystack: NDArray[np.int64],
    needles: Sequence[Needle],
    *,
    asked: Sequence[Needle],
    split: Split,
    digits: Digits,
    fps: float = 1.0,
) -> tuple[Sample, Frames]:
    """Compose one video and the questions about its ``asked`` needles; its times are those of ``fps``."""
    frames_NHW3 = compose(bank.frames_NHW3[haystack], needles, digits)
    provenance = {
        "made_by": f"needles-{VERSION}",
        "needles": [asdict(needle) for needle in needles],
        "haystack": {
            "video_ids": sorted({bank.video_ids[i] for i in haystack}),
            "first_s": float(bank.times_s[haystack[0]]),
        },
    }
    sample = Sample(
        key=key,
        kind="needle",
        split=split,
        conversations=question_turns(asked),
        frame_times_s=tuple(i / fps for i in range(len(haystack))),
        provenance=provenance,
    )
    return sample, frames_NHW3


def needle_samples(config: NeedleSetConfig, bank: FrameBank, split: Split) -> Iterator[tuple[Sample, Frames]]:
    """Compose a whole set. Each sample depends on the seed, the split and its own number alone."""
    digits = load_digits(split)
    for number in range(config.num_samples):
        rng = np.random.default_rng([config.seed, split == "heldout", number])
        num_frames = draw_length(rng, config.min_frames, config.max_frames, lengths=config.lengths)
        haystack = draw_haystack(rng, bank, num_frames)
        needles = draw_needles(rng, digits, num_frames=num_frames, count=config.needles)
        asked = [needles[i] for i in rng.permutation(len(needles))]
        key = f"{config.name}-{split}-{number:06d}"
        yield needle_sample(key, bank, haystack, needles, asked=asked, split=split, digits=digits)


def draw_length(rng: np.random.Generator, low: int, high: int, *, lengths: str) -> int:
    """Draw a length in ``[low, high]``: each as likely (``uniform``), or each doubling (``log_uniform``)."""
    if lengths == "log_uniform":
        return min(high, int(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))
    return int(rng.integers(low, high + 1))


def _resize(ink_88: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Resize a picture bilinearly to ``side`` pixels."""
    from PIL import Image

    picture = Image.fromarray(ink_88, mode="F")
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
