"""The readers of the frames benchmark give the same frames, and ours only its share of the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.frames import shares
from benchmarks.loading.frame_readers import ours, pyav, pyav_linear, vila
from benchmarks.loading.long_video import VIDEOS, Source, describe, join_excerpts, wanted_indices, write_strip

SIZE, COUNT = 64, 40


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("film")
    join_excerpts(VIDEOS, folder / "film.mp4", duration_s=8)
    found = describe(folder / "film.mp4", folder / "data")
    write_strip(found, found.dataset, count=COUNT, size=SIZE, quality=95)
    return found


def test_all_readers_give_the_same_frames(source: Source) -> None:
    frames = {}
    for reader in (pyav_linear, pyav, vila, ours):
        frames[reader.__name__] = np.zeros((COUNT, SIZE, SIZE, 3), dtype=np.uint8)
        reader(source, frames[reader.__name__])
    truth = frames.pop("pyav_linear").astype(int)
    assert np.array_equal(frames.pop("pyav"), truth)
    for name, found in frames.items():  # other scaling, or JPEG, but no other frame
        errors = np.abs(found[:, None].astype(np.int16) - truth[None]).mean(axis=(2, 3, 4))
        assert (errors.diagonal() <= errors.min(axis=1) + 0.5).all(), name


def test_a_rank_of_eight_reads_its_share(source: Source) -> None:
    found = shares(source, COUNT)
    assert 1 / 8 <= found["bytes_share_sp8"] < 1 / 7 + 0.05  # of a small sample the offsets count
    assert found["bytes_share_sp8_most"] >= found["bytes_share_sp8"]


def test_frames_are_spread_evenly_with_both_ends() -> None:
    assert wanted_indices(100, 5).tolist() == [0, 25, 50, 74, 99]


def test_excerpts_are_where_the_benchmark_looks() -> None:
    assert len(list(Path(VIDEOS).glob("0*.mp4"))) == 9
