"""Accuracy against the number of frames sampled from a long video (paper, figure on frames and accuracy).

Each card stands in one frame of the long video, so N sampled frames of V show the asked card with the
probability N / V. A model that finds the cards it is shown and guesses otherwise follows a line that is known
beforehand: a · N / V + chance · (1 − N / V), where a is its accuracy with every frame shown. A model whose
context is too short falls below it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerFast

from longvila.config.evaluation import FramesCurveConfig
from longvila.curation.composing import needles as cards
from longvila.curation.composing.frame_bank import FrameBank
from longvila.errors import ConfigError
from longvila.evaluation.asking import Asker, Progress, counting_from
from longvila.evaluation.features import FeatureCache
from longvila.evaluation.needle_trials import CHANCE, Haystack, Trial, ask_trials, encode_haystack, prompt_id
from longvila.evaluation.results import CurvePoint, FramesCurveResult
from longvila.evaluation.scoring import EXTRACTOR_ID
from longvila.evaluation.statistics import Share, share_of
from longvila.evaluation.trials import TrialLog
from longvila.model.module import LongVila
from longvila.records import content_id


def run(
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    config: FramesCurveConfig,
    *,
    bank: FrameBank,
    log: TrialLog,
    max_row_tokens: int = 8192,
    features: FeatureCache | None = None,
    progress: Progress | None = None,
) -> FramesCurveResult:
    """Ask about the same long videos with more and more of their frames; see :func:`needle.run_grid`.

    Raises ConfigError when more frames are to be sampled than the video has.
    """
    began = time.perf_counter()
    counts = sorted(set(config.sampled))
    if not counts or counts[-1] > config.video_frames:
        raise ConfigError(
            f"frames_curve.sampled={config.sampled} must name at least one count and none above "
            f"video_frames={config.video_frames}"
        )
    haystack = encode_haystack(model, bank, features)
    asker = Asker(model, tokenizer, log, prompt_id(), max_row_tokens)
    shares = []
    for done, sampled in enumerate(counts):
        trials = draw_trials(config, haystack, sampled=sampled)
        total = len(trials) * len(counts)
        ask_trials(asker, trials, haystack, progress=counting_from(done * len(trials), total, progress))
        answers = asker.answers([trial.trial_id for trial in trials])
        shares.append(share_of([answer.generated for answer in answers]))
    ceiling = ceiling_of(shares[-1], counts[-1] / config.video_frames)
    return FramesCurveResult(
        prompt_id=asker.prompt_id,
        extractor_id=EXTRACTOR_ID,
        video_frames=config.video_frames,
        needles=config.needles,
        chance=CHANCE,
        ceiling=ceiling,
        points=_points(counts, shares, ceiling, config.video_frames),
        seconds=time.perf_counter() - began,
    )


def draw_trials(config: FramesCurveConfig, haystack: Haystack, *, sampled: int) -> list[Trial]:
    """Draw the long videos, the same for every ``sampled``, and show so many of their frames."""
    shown = spread(config.video_frames, sampled)
    place = {int(frame): i for i, frame in enumerate(shown)}
    trials = []
    for number in range(config.trials):
        rng = np.random.default_rng([config.seed, config.video_frames, number])
        film = cards.draw_haystack(rng, haystack.bank, config.video_frames)
        needles = cards.draw_needles(
            rng, cards.load_digits("heldout"), num_frames=config.video_frames, count=config.needles
        )
        seen = tuple(replace(n, position=place[n.position]) for n in needles if n.position in place)
        made_from = [prompt_id(), haystack.digest, config.seed, config.needles, config.video_frames, number]
        trial_id = content_id("frames-curve", *made_from, sampled)
        trials.append(Trial(trial_id, f"{sampled} of {config.video_frames}", film[shown], seen, needles[0]))
    return trials


def spread(num_frames: int, sampled: int) -> np.ndarray:
    """Return ``sampled`` of ``num_frames`` frames, the middles of equal parts, int64."""
    return ((2 * np.arange(sampled, dtype=np.int64) + 1) * num_frames) // (2 * sampled)


def predict(ceiling: float, share_shown: float) -> float:
    """Return the expected accuracy when this share of the frames is shown."""
    return ceiling * share_shown + CHANCE * (1 - share_shown)


def ceiling_of(measured: Share, share_shown: float) -> float:
    """Return the accuracy on cards that are shown, from what was measured with the most frames."""
    return min(1.0, max(0.0, (measured.value - CHANCE * (1 - share_shown)) / share_shown))


def _points(
    counts: Sequence[int], shares: Sequence[Share], ceiling: float, video_frames: int
) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(sampled=sampled, measured=measured, predicted=predict(ceiling, sampled / video_frames))
        for sampled, measured in zip(counts, shares, strict=True)
    )
