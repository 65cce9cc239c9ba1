from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_image
from transformers import PreTrainedTokenizerFast

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.config.stage import MixtureEntry, OptimizerConfig, StageConfig
from longvila.data import SampleWithFrames, write_dataset
from longvila.media.jpeg import pack_frames
from longvila.records import Sample, Split, Turn
from longvila.storage import open_storage
from longvila.text.tokenizer import build_word_tokenizer
from tests.storage.fixtures import s3_server, s3_url, storage

__all__ = ["s3_server", "s3_url", "storage"]

SIDE = 16
WORDS = "what is on the card in frame number now " + " ".join(map(str, range(100)))


@cache
def _photo() -> np.ndarray:
    return load_sample_image("china.jpg")


def picture(number: int, side: int = SIDE) -> np.ndarray:
    """A different piece of a photograph for each number, uint8 [side, side, 3]."""
    photo = _photo()
    rows, columns = photo.shape[0] // side, photo.shape[1] // side
    row, column = divmod(number % (rows * columns), columns)
    return photo[row * side : (row + 1) * side, column * side : (column + 1) * side]


def make_item(number: int, num_frames: int, split: Split = "train", *, name: str = "a") -> SampleWithFrames:
    """Sample ``number``, whose answer is its number modulo 100 and whose frames are all different."""
    question = f"<frames>\nwhat is on card {number % 100}" if num_frames else f"what is card {number % 100}"
    sample = Sample(
        key=f"{name}-{split}-{number:04d}",
        kind="video" if num_frames else "text",
        split=split,
        conversations=(Turn(role="human", text=question), Turn(role="gpt", text=f"{number % 100} now")),
        video_id=f"v{number}",
        frame_times_s=tuple(0.5 * i for i in range(num_frames)),
    )
    if not num_frames:
        return SampleWithFrames(sample)
    frames = np.stack([picture(17 * number + i) for i in range(num_frames)])
    return SampleWithFrames(sample, pack_frames(frames, quality=90))


def make_items(count: int, split: Split = "train", *, name: str = "a") -> Iterator[SampleWithFrames]:
    """Samples of 0 to 6 frames."""
    return (make_item(number, number % 7, split, name=name) for number in range(count))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_word_tokenizer([WORDS])


@pytest.fixture(scope="session")
def model() -> ModelConfig:
    """4 × 4 patches, 4 visual tokens per frame and a line end after each."""
    return ModelConfig(
        vision=VisionConfig(image_size=SIDE, patch_size=4, hidden_size=32, num_heads=2),
        projector=ProjectorConfig(),
        llm=LlmConfig(hidden_size=32, num_heads=2, num_kv_heads=1),
    )


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two data sets on disk: 40 samples of 0 to 6 frames in several shards, and 12 of text."""
    root = tmp_path_factory.mktemp("datasets")
    here = open_storage(root)
    write_dataset(here, "a", "train", make_items(40), target_bytes=100_000)
    write_dataset(here, "a", "heldout", make_items(5, "heldout"))
    write_dataset(here, "b", "train", (make_item(number, 0, name="b") for number in range(12)))
    return {name: f"{root}/shards/{name}" for name in ("a", "b")}


@pytest.fixture
def make_stage() -> Callable[..., StageConfig]:
    def make(**changed: object) -> StageConfig:
        settings: dict = {
            "name": "short_sft",
            "trains": ("llm",),
            "mixture": (MixtureEntry(dataset="a"),),
            "max_frames": 6,
            "max_tokens": 64,
            "rows_per_step": 4,
            "optimizer": OptimizerConfig(learning_rate=1e-3),
        }
        return StageConfig(**(settings | changed))

    return make


def killed(work: Callable[[], None]) -> bool:
    """Run ``work`` in a child process and say whether it killed itself."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of each file."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}
