"""Everything that a configuration asks to be measured of one checkpoint, in one call that can be killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from longvila.config.evaluation import EvalConfig, QaEvalConfig
from longvila.curation.composing.frame_bank import FrameBank
from longvila.data.reader import open_reader
from longvila.errors import ConfigError
from longvila.evaluation import frames_curve, needle, qa
from longvila.evaluation.asking import Progress
from longvila.evaluation.features import FeatureCache
from longvila.evaluation.results import EvalResult, PartSize, QaResult, write_result
from longvila.evaluation.trials import TrialLog
from longvila.evaluation.weights import tower_digest, weight_digest
from longvila.model import LongVila, count_parameters, rope_theta
from longvila.model.checkpoint import load_checkpoint

logger = logging.getLogger(__name__)

RESULT_FILE = "result.json"
TRIALS_FILE = "trials.jsonl"

PartProgress = Callable[[str, int, int], None]
"""Told (what is measured, done, total)."""


@dataclass(frozen=True)
class _Subject:
    """A loaded checkpoint and where what it says is kept."""

    model: LongVila
    tokenizer: PreTrainedTokenizerFast
    log: TrialLog
    features: FeatureCache


def evaluate_checkpoint(
    checkpoint: Path,
    config: EvalConfig,
    *,
    name: str,
    out_dir: Path,
    haystack: FrameBank | None = None,
    datasets: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
    device: str | torch.device = "cpu",
    progress: PartProgress | None = None,
) -> EvalResult:
    """Measure a checkpoint, write ``out_dir/result.json`` and ``out_dir/trials.jsonl``, return the result.

    ``haystack`` holds held-out film frames at the model's size (see ``haystack.load_haystack``); needle grid
    and frames curve need it. ``datasets`` names the folders of shards (…/shards/NAME). A run that was killed
    goes on where it was; a checkpoint whose weights changed since is measured anew.

    Raises ConfigError when something is to be measured without what it needs, InputError for a folder that
    is no checkpoint.
    """
    began = time.perf_counter()
    _check(config, haystack, datasets or {})
    digest = weight_digest(checkpoint)
    model, tokenizer, _ = load_checkpoint(checkpoint)
    subject = _Subject(
        model.to(device).eval(),
        tokenizer,
        TrialLog(out_dir / TRIALS_FILE, weight_digest=digest),
        FeatureCache(cache_dir, tower_digest=tower_digest(checkpoint)),
    )
    result = EvalResult(
        name=name,
        checkpoint=str(checkpoint),
        weight_digest=digest,
        rope_theta=rope_theta(model.llm),
        max_context=int(model.llm.config.max_position_embeddings),
        parts=part_sizes(model),
    )
    result = result.model_copy(update=_measure(subject, config, haystack, datasets or {}, progress))
    result = result.model_copy(update={"seconds": time.perf_counter() - began})
    write_result(out_dir / RESULT_FILE, result)
    logger.info("evaluated %s in %.1f s", name, result.seconds)
    return result


def part_sizes(model: LongVila) -> tuple[PartSize, ...]:
    """Return how large each part of a model is."""
    size = next(model.parameters()).element_size()
    counts = count_parameters(model)
    return tuple(PartSize(part=part, parameters=n, size_bytes=n * size) for part, n in counts.items())


def _measure(
    subject: _Subject,
    config: EvalConfig,
    haystack: FrameBank | None,
    datasets: Mapping[str, str],
    progress: PartProgress | None,
) -> dict[str, object]:
    found: dict[str, object] = {}
    if config.needle is not None and haystack is not None:
        found["needle"] = needle.run_grid(
            subject.model,
            subject.tokenizer,
            config.needle,
            bank=haystack,
            log=subject.log,
            max_row_tokens=config.max_row_tokens,
            features=subject.features,
            progress=_named("needle", progress),
        )
    if config.frames_curve is not None and haystack is not None:
        found["frames_curve"] = frames_curve.run(
            subject.model,
            subject.tokenizer,
            config.frames_curve,
            bank=haystack,
            log=subject.log,
            max_row_tokens=config.max_row_tokens,
            features=subject.features,
            progress=_named("frames curve", progress),
        )
    if config.qa is not None:
        found["qa"] = _questions(subject, config.qa, config.max_row_tokens, datasets, progress)
    return found


def _questions(
    subject: _Subject,
    config: QaEvalConfig,
    max_row_tokens: int,
    datasets: Mapping[str, str],
    progress: PartProgress | None,
) -> QaResult:
    url = datasets[config.dataset]
    return qa.run(
        subject.model,
        subject.tokenizer,
        config,
        reader=open_reader(url, split="heldout"),
        training=open_reader(url, split="train"),
        log=subject.log,
        max_row_tokens=max_row_tokens,
        progress=_named("questions", progress),
    )


def _check(config: EvalConfig, haystack: FrameBank | None, datasets: Mapping[str, str]) -> None:
    if haystack is None and (config.needle is not None or config.frames_curve is not None):
        raise ConfigError(
            "the needle grid and the frames curve hide their cards in held-out film, and none was given. "
            "Build a data set with a source of split heldout, or set evaluation.needle and "
            "evaluation.frames_curve to null"
        )
    if config.qa is not None and config.qa.dataset not in datasets:
        raise ConfigError(
            f"evaluation.qa.dataset={config.qa.dataset!r} is not among the data sets {sorted(datasets)}. "
            "Name one of them, or build it"
        )


def _named(name: str, progress: PartProgress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
