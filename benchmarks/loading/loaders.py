"""Three loaders over the same tars. Each yields a sample's key when its frames are decoded, and can go on.

Ours does more: it encodes the text, packs, and makes the tensors of a rank. All decode with the same decoder.
"""

from __future__ import annotations

import glob
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.loading.samples import NAME, QUESTION, Shape

BUFFER = 64  # samples among which the streaming loaders shuffle


class Loaded(NamedTuple):
    """One sample, and what would have to be saved to go on after it."""

    key: str
    num_frames: int
    save: Callable[[], bytes]


Loader = Callable[[Path, Shape, bytes, int, int], Iterator[Loaded]]


def ours(folder: Path, shape: Shape, state: bytes, sp_size: int, epochs: int) -> Iterator[Loaded]:
    """The packed loader, one sample to a row, as rank 0 of ``sp_size``."""
    from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
    from longvila.config.stage import MixtureEntry, OptimizerConfig, StageConfig
    from longvila.data import PackedLoader
    from longvila.text.tokenizer import build_word_tokenizer

    model = ModelConfig(
        vision=VisionConfig(image_size=shape.size, patch_size=14, hidden_size=32, num_heads=2),
        projector=ProjectorConfig(),
        frame_separator="\n",
        llm=LlmConfig(hidden_size=32, num_heads=2, num_kv_heads=1),
    )
    tokens = shape.num_frames * (model.tokens_per_frame + 1) + 64
    stage = StageConfig(
        name="long_sft", trains=("llm",), mixture=(MixtureEntry(dataset=NAME),), epochs=epochs,
        max_frames=shape.num_frames, max_tokens=tokens, ulysses_degree=sp_size,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )  # fmt: skip
    words = [QUESTION, "Window begins with picture.", *map(str, range(4000))]
    loader = PackedLoader(
        {NAME: f"{folder}/shards/{NAME}"}, stage, build_word_tokenizer(words), model, world_size=sp_size,
        consumed_steps=int(state or b"0"), cache_dir=folder / "lengths", workers=1,
    )  # fmt: skip
    for step in loader:
        (batch,) = step.batches
        (key,) = batch.keys
        yield Loaded(key, len(batch.frames_fHW3), lambda done=step.info.step + 1: str(done).encode())


def webdataset(folder: Path, shape: Shape, state: bytes, sp_size: int, epochs: int) -> Iterator[Loaded]:
    """webdataset with a seeded shuffle. It has no state: a resume reads up to the place and discards."""
    import webdataset

    package: Any = webdataset  # its names are made at import
    del shape, sp_size  # every rank reads and decodes whole samples
    urls = sorted(glob.glob(f"{folder}/shards/{NAME}/*.tar"))  # noqa: PTH207
    dataset = package.WebDataset(urls, shardshuffle=False, empty_check=False).compose(
        package.detshuffle(bufsize=BUFFER, initial=BUFFER, seed=1)
    )
    skip, seen = int(state or b"0"), 0
    for _ in range(epochs):
        for raw in dataset:
            seen += 1
            if seen <= skip:
                continue
            frames = _decode(raw["frames.bin"], np.load(io.BytesIO(raw["offsets.npy"])))
            yield Loaded(raw["__key__"], len(frames), lambda done=seen: str(done).encode())


def energon(folder: Path, shape: Shape, state: bytes, sp_size: int, epochs: int) -> Iterator[Loaded]:
    """Megatron Energon's savable loader over ``.nv-meta``, with its shuffle buffer."""
    from megatron.energon import WorkerConfig, get_savable_loader, get_train_dataset

    from longvila.data.views.energon_cooker import FramesTaskEncoder

    del shape, sp_size, epochs
    warnings.filterwarnings("ignore", message=".*pin_memory")
    dataset = get_train_dataset(
        f"{folder}/shards/{NAME}", batch_size=None, repeat=True, task_encoder=FramesTaskEncoder(),
        shuffle_buffer_size=BUFFER, max_samples_per_sequence=BUFFER,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
    )  # fmt: skip
    loader = get_savable_loader(dataset)
    if state:
        loader.restore_state_rank(pickle.loads(state))  # our own, a moment ago
    for sample in loader:
        yield Loaded(sample.__key__, len(sample.frames_NHW3), lambda: pickle.dumps(loader.save_state_rank()))


def _decode(data: bytes, offsets: Any) -> np.ndarray:
    from longvila.media.jpeg import unpack_frames

    return unpack_frames(data, offsets, range(len(offsets) - 1))


OURS, WEBDATASET, ENERGON = "ours", "webdataset", "energon"
LOADERS: dict[str, tuple[Loader, tuple[str, ...]]] = {
    OURS: (ours, ("longvila.data", "pyarrow.parquet", "longvila.text.tokenizer")),
    WEBDATASET: (webdataset, ("longvila.data", "webdataset")),
    ENERGON: (energon, ("longvila.data", "megatron.energon")),
}
