from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.data import open_reader, write_dataset
from longvila.data.lengths import Encoder, measure_lengths
from longvila.data.reader import ShardReader
from longvila.errors import InputError
from longvila.storage import open_storage
from longvila.text.tokenizer import build_word_tokenizer
from tests.data.conftest import WORDS, make_item, make_items


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> Encoder:
    return Encoder.of(tokenizer, model, max_frames=6, max_tokens=64)


def test_lengths_are_those_of_the_encodings(datasets: dict[str, str], encoder: Encoder) -> None:
    reader = open_reader(datasets["a"])
    lengths = measure_lengths(reader, encoder)
    for i in range(len(reader)):
        encoded = encoder(reader.sample(i))
        assert lengths.num_tokens[i] == len(encoded.input_ids)
        assert lengths.num_scored[i] == (encoded.labels[1:] != -100).sum() == 3  # the number, "now", the end
    assert len(lengths.usable) == len(reader)


def test_lengths_are_measured_once(
    datasets: dict[str, str], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_reader(datasets["a"])
    first = measure_lengths(reader, encoder, cache_dir=tmp_path)
    monkeypatch.setattr(ShardReader, "sample", None)
    again = measure_lengths(reader, encoder, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.num_tokens, again.num_tokens)
    np.testing.assert_array_equal(first.num_scored, again.num_scored)


def test_a_damaged_cache_is_measured_anew(datasets: dict[str, str], encoder: Encoder, tmp_path: Path) -> None:
    reader = open_reader(datasets["a"])
    first = measure_lengths(reader, encoder, cache_dir=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    for damaged in (b"", b"PK\x03\x04 no zip", path.read_bytes()[:100]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(
            measure_lengths(reader, encoder, cache_dir=tmp_path).num_tokens, first.num_tokens
        )


def test_whatever_changes_the_encoding_changes_the_cache(
    datasets: dict[str, str], tokenizer: PreTrainedTokenizerFast, model: ModelConfig, tmp_path: Path
) -> None:
    reader = open_reader(datasets["a"])
    other_words = build_word_tokenizer([f"{WORDS} more"])
    encoders = [
        Encoder.of(tokenizer, model, max_frames=6, max_tokens=64),
        Encoder.of(tokenizer, model, max_frames=5, max_tokens=64),
        Encoder.of(
            tokenizer, model.model_copy(update={"frame_separator": None}), max_frames=6, max_tokens=64
        ),
        Encoder.of(other_words, model, max_frames=6, max_tokens=64),
    ]
    for encoder in encoders:
        measure_lengths(reader, encoder, cache_dir=tmp_path)
    measure_lengths(open_reader(datasets["b"]), encoders[0], cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 5


def test_processes_that_start_at_once_measure_once(
    datasets: dict[str, str], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    reader = open_reader(datasets["a"])
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            counted = open_reader(datasets["a"])
            measure_lengths(counted, encoder, cache_dir=tmp_path / "cache")
            (tmp_path / f"read-{number}").write_text(str(counted.bytes_read))
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    bytes_read = sorted(int(path.read_text()) for path in tmp_path.glob("read-*"))
    assert bytes_read[:2] == [0, 0]
    assert bytes_read[2] > 0
    assert len(measure_lengths(reader, encoder, cache_dir=tmp_path / "cache").usable) == len(reader)


def test_what_cannot_be_encoded_is_left_out_and_said(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, model: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(open_storage(tmp_path), "demo", "train", make_items(14))
    reader = open_reader(f"{tmp_path}/shards/demo")
    encoder = Encoder.of(tokenizer, model, max_frames=6, max_tokens=30)
    with caplog.at_level(logging.WARNING):
        lengths = measure_lengths(reader, encoder)
    kept = [i for i in range(14) if i % 7 * 5 + 8 <= 30]
    assert lengths.usable.tolist() == kept
    assert f"{14 - len(kept)} of 14 samples are left out: {{'too-long': {14 - len(kept)}}}" in caplog.text
    assert "Raise max_tokens or lower max_frames" in caplog.text


def test_a_data_set_without_any_usable_sample_is_told(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, model: ModelConfig
) -> None:
    write_dataset(open_storage(tmp_path), "demo", "train", [make_item(5, 5)])
    reader = open_reader(f"{tmp_path}/shards/demo")
    with pytest.raises(
        InputError, match=r"No sample of data set 'demo' can be trained on: \{'too-long': 1\}"
    ):
        measure_lengths(reader, Encoder.of(tokenizer, model, max_frames=6, max_tokens=10))
