"""The needle grid: is a card found in videos of these lengths, at these depths? (paper, section 4.2)

Every trial hides several cards in a run of real film and asks for one of them, whose depth is chosen; the
others distract. Unlike the published grid, every cell has an interval, the answer must also end where it
should, and a control row asks the same questions without any frame.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from longvila.config.evaluation import NeedleEvalConfig
from longvila.curation.composing import needles as cards
from longvila.curation.composing.frame_bank import FrameBank
from longvila.evaluation.asking import Asker, Progress, counting_from
from longvila.evaluation.features import FeatureCache
from longvila.evaluation.needle_trials import CHANCE, Haystack, Trial, ask_trials, encode_haystack, prompt_id
from longvila.evaluation.results import NeedleCell, NeedleResult
from longvila.evaluation.scoring import EXTRACTOR_ID
from longvila.evaluation.statistics import share_of
from longvila.evaluation.trials import TrialAnswer, TrialLog
from longvila.model.module import LongVila
from longvila.records import content_id

Grid = dict[tuple[int, float], list[Trial]]


def run_grid(
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    config: NeedleEvalConfig,
    *,
    bank: FrameBank,
    log: TrialLog,
    max_row_tokens: int = 8192,
    features: FeatureCache | None = None,
    progress: Progress | None = None,
) -> NeedleResult:
    """Ask all trials of the grid that ``log`` does not hold yet, and count the answers.

    ``bank`` holds frames of held-out videos at the model's size; raises InputError for another size. The
    blind row asks the shortest videos' questions without any frame.
    """
    began = time.perf_counter()
    haystack = encode_haystack(model, bank, features)
    asker = Asker(model, tokenizer, log, prompt_id(), max_row_tokens)
    grid = draw_grid(config, haystack)
    blind = [
        trial.blind for (frames, _), cell in grid.items() if frames == min(config.frames) for trial in cell
    ]
    asker.ask(blind, haystack.features)
    _ask_rows(asker, grid, haystack, progress)
    return NeedleResult(
        prompt_id=asker.prompt_id,
        extractor_id=EXTRACTOR_ID,
        needles=config.needles,
        tokens_per_frame=asker.seats_per_frame,
        chance=CHANCE,
        cells=tuple(_count(n, depth, asker.answers(_ids(cell))) for (n, depth), cell in grid.items()),
        rows=tuple(_count(n, None, asker.answers(_ids(_row(grid, n)))) for n in _frames(grid)),
        blind=_count(0, None, asker.answers([ask.trial_id for ask in blind])),
        seconds=time.perf_counter() - began,
    )


def draw_grid(config: NeedleEvalConfig, haystack: Haystack) -> Grid:
    """Draw the trials of every cell. Each depends on the seed, its cell and its own number alone."""
    return {
        (frames, depth): [
            _draw_trial(config, haystack, frames=frames, depth=depth, number=number)
            for number in range(config.trials_per_cell)
        ]
        for frames in sorted(set(config.frames))
        for depth in sorted(set(config.depths))
    }


def _draw_trial(
    config: NeedleEvalConfig, haystack: Haystack, *, frames: int, depth: float, number: int
) -> Trial:
    rng = np.random.default_rng([config.seed, frames, round(depth * 1000), number])
    film = cards.draw_haystack(rng, haystack.bank, frames)
    needles = cards.draw_needles(
        rng, cards.load_digits("heldout"), num_frames=frames, count=config.needles, depth=depth
    )
    made_from = [prompt_id(), haystack.digest, config.seed, config.needles, frames, depth, number]
    return Trial(content_id("needle", *made_from), f"{frames}@{depth:g}", film, needles, needles[0])


def _ask_rows(asker: Asker, grid: Grid, haystack: Haystack, progress: Progress | None) -> None:
    """Ask one row of the grid after another, so that only one row's cards are in memory."""
    done, total = 0, sum(len(cell) for cell in grid.values())
    for frames in _frames(grid):
        row = _row(grid, frames)
        ask_trials(asker, row, haystack, progress=counting_from(done, total, progress))
        done += len(row)


def _frames(grid: Grid) -> list[int]:
    return sorted({frames for frames, _ in grid})


def _row(grid: Grid, frames: int) -> list[Trial]:
    return [trial for (n, _), cell in grid.items() if n == frames for trial in cell]


def _ids(trials: Sequence[Trial]) -> list[str]:
    return [trial.trial_id for trial in trials]


def _count(frames: int, depth: float | None, answers: Sequence[TrialAnswer]) -> NeedleCell:
    return NeedleCell(
        frames=frames,
        depth=depth,
        num_tokens=max(answer.num_tokens for answer in answers),
        teacher_forced=share_of([answer.teacher_forced for answer in answers]),
        generated=share_of([answer.generated for answer in answers]),
    )
