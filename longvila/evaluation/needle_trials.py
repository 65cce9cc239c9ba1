"""Videos with hidden cards for the needle grid and the frames curve: composed when they are asked.

Film frames are encoded once and shared by all trials; only the frames with cards on them are new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from longvila.curation.composing import needles as cards
from longvila.curation.composing.frame_bank import FrameBank
from longvila.errors import InputError
from longvila.evaluation.asking import Ask, Asker, Progress, counting_from, without_frames
from longvila.evaluation.features import FeatureCache
from longvila.inference.features import encode_frames
from longvila.model.module import LongVila
from longvila.records import Sample, content_id

VERSION = 1
CHANCE = 0.1  # ten digits

# F frames of the bank, N frames of a trial, k visual tokens of a frame, D width, H × W pixels.


@dataclass(frozen=True)
class Trial:
    """One video and the card that is asked for.

    ``haystack`` int64 [N] are its frames, as rows of the bank. ``needles`` are the cards that are in it, each
    at its position in the video; the asked one may be in a frame that is not shown.
    """

    trial_id: str
    group: str
    haystack: np.ndarray
    needles: tuple[cards.Needle, ...]
    asked: cards.Needle

    @property
    def sample(self) -> Sample:
        """The question and its answer, and how many frames are shown."""
        return Sample(
            key=self.trial_id,
            kind="needle",
            split="heldout",
            conversations=cards.question_turns([self.asked]),
            frame_times_s=tuple(float(i) for i in range(len(self.haystack))),
        )

    @property
    def blind(self) -> Ask:
        """The same question without any frame."""
        sample = without_frames(self.sample)
        return Ask(content_id("blind", self.trial_id), "blind", sample, np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Haystack:
    """Held-out film frames, their visual tokens [F, k, D] under one model, and a digest of their pixels."""

    bank: FrameBank
    features: Tensor
    digest: str


def prompt_id() -> str:
    """Name the question's wording and the cards' looks: results of others are not comparable."""
    return f"needle-{VERSION}-{content_id(cards.QUESTION, cards.VERSION, length=6)}"


def bank_digest(bank: FrameBank) -> str:
    """Return a hex digest of a bank's frames."""
    digest = hashlib.sha256(str(bank.frames_NHW3.shape).encode())
    digest.update(np.ascontiguousarray(bank.frames_NHW3).data)
    return digest.hexdigest()[:16]


def encode_haystack(model: LongVila, bank: FrameBank, features: FeatureCache | None = None) -> Haystack:
    """Encode a bank once for all trials. Raises InputError when its frames are not of the model's size."""
    shape = bank.frames_NHW3.shape[1:3]
    if shape != (model.image_size, model.image_size):
        raise InputError(
            f"the haystack's frames are {shape[0]} × {shape[1]} pixels, the model takes {model.image_size} × "
            f"{model.image_size}. Decode the held-out videos with size={model.image_size}"
        )
    cache = features or FeatureCache(None, tower_digest="")
    return Haystack(bank, cache.encode(model, bank.frames_NHW3), bank_digest(bank))


def ask_trials(
    asker: Asker, trials: Sequence[Trial], haystack: Haystack, *, progress: Progress | None = None
) -> None:
    """Compose the videos of trials that were not asked yet, encode their cards' frames, and ask."""
    pending = [trial for trial in trials if asker.log.get(trial.trial_id) is None]
    card_frames, rows = compose_cards(pending, haystack.bank)
    features_FkD = torch.cat([haystack.features, encode_frames(asker.model, card_frames)])
    asks = [
        Ask(trial.trial_id, trial.group, trial.sample, row) for trial, row in zip(pending, rows, strict=True)
    ]
    asker.ask(asks, features_FkD, progress=counting_from(len(trials) - len(pending), len(trials), progress))


def compose_cards(trials: Sequence[Trial], bank: FrameBank) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the frames with cards of all trials [·, H, W, 3], and each trial's frames as feature rows [N].

    Rows below ``len(bank)`` are film frames; the frames with cards follow the bank's.
    """
    digits = cards.load_digits("heldout")
    frames, rows, made = [bank.frames_NHW3[:0]], [], len(bank)
    for trial in trials:
        positions = np.array([needle.position for needle in trial.needles], dtype=np.int64)
        in_order = [replace(needle, position=i) for i, needle in enumerate(trial.needles)]
        frames.append(cards.compose(bank.frames_NHW3[trial.haystack[positions]], in_order, digits))
        row = trial.haystack.copy()
        row[positions] = made + np.arange(len(positions))
        made += len(positions)
        rows.append(row)
    return np.concatenate(frames), rows
