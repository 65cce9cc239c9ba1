"""How long every sample of a data set is in tokens: all that order and packing need.

Measured once with the very encoder that training uses, and kept on disk under the hash of all it depends on.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.data.reader import BrokenSample, ShardReader
from longvila.errors import InputError, ItemError
from longvila.records import Sample, content_id
from longvila.storage import atomic_path
from longvila.text.encode import Encoded, encode_sample
from longvila.text.tokenizer import separator_ids

logger = logging.getLogger(__name__)

_FORMAT = 1


@dataclass(frozen=True)
class Encoder:
    """Encodes samples as one stage sees them."""

    tokenizer: PreTrainedTokenizerFast
    tokens_per_frame: int
    separator_ids: tuple[int, ...]
    max_frames: int
    max_tokens: int

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerFast, model: ModelConfig, *, max_frames: int, max_tokens: int
    ) -> Encoder:
        """Return the encoder for a model and a stage's limits."""
        separator = separator_ids(tokenizer, model.frame_separator)
        return cls(tokenizer, model.tokens_per_frame, separator, max_frames, max_tokens)

    def __call__(self, sample: Sample) -> Encoded:
        """Encode one sample; ``ItemError`` when this stage cannot use it."""
        encoded = encode_sample(
            sample,
            self.tokenizer,
            tokens_per_frame=self.tokens_per_frame,
            frame_separator_ids=self.separator_ids,
            max_frames=self.max_frames,
            max_tokens=self.max_tokens,
        )
        if not encoded.num_scored:
            raise ItemError("no-answer", f"Sample {sample.key!r} has no text that is scored.")
        return encoded

    def digest(self) -> str:
        """Return a hash of all that decides what a sample is encoded to."""
        tokenizer = self.tokenizer
        text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template) + str(tokenizer.eos_token)
        limits = [self.tokens_per_frame, list(self.separator_ids), self.max_frames, self.max_tokens]
        return content_id(hashlib.sha256(text.encode()).hexdigest(), limits, _FORMAT)


@dataclass(frozen=True)
class Lengths:
    """One entry per sample of an index. A sample that the stage cannot use has no tokens."""

    num_tokens: np.ndarray  # int64 [samples]
    num_scored: np.ndarray  # int64 [samples]

    @property
    def usable(self) -> np.ndarray:
        """Which samples can be trained on, int64."""
        return np.flatnonzero(self.num_tokens)


def measure_lengths(
    reader: ShardReader, encoder: Encoder, *, cache_dir: Path | None = None, skip_broken: bool = False
) -> Lengths:
    """Return the lengths of all samples of ``reader``'s index.

    With ``cache_dir``, they are read from there when they were measured before; processes that start at once
    measure once. Samples that cannot be encoded (too long, nothing scored) are counted in one warning and
    left out; ``InputError`` when none is left. So are, with ``skip_broken``, samples whose record cannot be
    read; without, they raise ``BrokenSample``.
    """
    if cache_dir is None:
        return _measure(reader, encoder, skip_broken)
    from filelock import FileLock

    parts = (reader.index.hash, encoder.digest(), *(("skip",) if skip_broken else ()))
    path = cache_dir / f"lengths-{content_id(*parts)}.npz"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        lengths = _read_cached(path, len(reader))
        if lengths is None:
            lengths = _measure(reader, encoder, skip_broken)
            with atomic_path(path) as part, part.open("wb") as file:
                np.savez(file, num_tokens=lengths.num_tokens, num_scored=lengths.num_scored)
    return lengths


def _read_cached(path: Path, num_samples: int) -> Lengths | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            lengths = Lengths(file["num_tokens"], file["num_scored"])
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return lengths if len(lengths.num_tokens) == num_samples else None


def _measure(reader: ShardReader, encoder: Encoder, skip_broken: bool) -> Lengths:
    num_tokens = np.zeros(len(reader), dtype=np.int64)
    num_scored = np.zeros(len(reader), dtype=np.int64)
    refused: Counter[str] = Counter()
    example = ""
    for i, sample in enumerate(_samples(reader, skip_broken)):
        try:
            if isinstance(sample, BrokenSample):
                raise ItemError("broken", str(sample))
            encoded = encoder(sample)
        except ItemError as error:
            refused[error.reason] += 1
            example = example or error.detail
            continue
        num_tokens[i], num_scored[i] = encoded.num_tokens, encoded.num_scored
    name = reader.index.name
    if sum(refused.values()) == len(reader):
        raise InputError(
            f"No sample of data set {name!r} can be trained on: {dict(refused)}. The first: {example} "
            "Change the stage's limits, or the data set."
        )
    if refused:
        logger.warning(
            "Data set %r: %d of %d samples are left out: %s. The first: %s",
            name, sum(refused.values()), len(reader), dict(refused), example,
        )  # fmt: skip
    return Lengths(num_tokens, num_scored)


def _samples(reader: ShardReader, skip_broken: bool) -> Iterator[Sample | BrokenSample]:
    """Yield the records of all samples; with ``skip_broken`` what is wrong with those that cannot be read."""
    if not skip_broken:
        yield from reader.samples(range(len(reader)))
        return
    for i in range(len(reader)):
        try:
            yield reader.sample(i)
        except BrokenSample as error:
            yield error
