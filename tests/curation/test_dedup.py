from __future__ import annotations

import numpy as np
import pytest

from longvila.config.sourcing import DedupConfig
from longvila.curation.dedup import find_duplicates, nearest_in, pictures, split_leakage
from longvila.curation.sampling import Measures
from longvila.records import Rejection, VideoRecord
from tests.curation.pictures import grey, measure_pictures, scene, video_record

CONFIG = DedupConfig(frames_per_s=4.0)


def views(*seeds: int, noise: int = 0) -> Measures:
    """Two samples of each view, optionally with noise as another encoding gives."""
    rng = np.random.default_rng(9)
    shown = [scene(seed) for seed in seeds for _ in range(2)]
    noisy = [np.clip(p + rng.integers(-noise, noise + 1, p.shape), 0, 255).astype(np.uint8) for p in shown]
    return measure_pictures(noisy)


def find(videos: list[VideoRecord], measured: dict[str, Measures]) -> tuple[list[str], list[Rejection]]:
    kept, rejections = find_duplicates(videos, measured, CONFIG)
    return [video.video_id for video in kept], rejections


def test_a_near_duplicate_is_rejected_and_its_twin_named():
    videos = [video_record("small", height=240), video_record("large"), video_record("other")]
    measured = {"small": views(1, 2, 3, noise=12), "large": views(1, 2, 3, 4, 5), "other": views(6, 7, 8)}
    kept, rejections = find(videos, measured)
    assert kept == ["large", "other"]
    assert [(r.item_id, r.reason) for r in rejections] == [("small", "near-duplicate")]
    assert "100%" in rejections[0].detail
    assert "source-large" in rejections[0].detail


def test_a_little_in_common_is_no_duplicate_within_a_split():
    videos = [video_record("a"), video_record("b")]
    kept, rejections = find(videos, {"a": views(1, 2, 3, 4), "b": views(4, 5, 6, 7)})
    assert (kept, rejections) == (["a", "b"], [])


def test_one_shared_picture_with_a_heldout_video_rejects_the_training_video():
    videos = [video_record("a"), video_record("b", split="heldout", height=100)]
    kept, rejections = find(videos, {"a": views(1, 2, 3, 4, 5, 6), "b": views(6, 7, 8, 9, 10)})
    assert kept == ["b"]
    assert rejections[0].reason == "shared-with-heldout"


def test_the_same_bytes():
    first = video_record("a")
    second = first.model_copy(update={"source_id": "source-z"})
    kept, rejections = find_duplicates([second, first], {"a": views(1)}, CONFIG)
    assert [video.source_id for video in kept] == ["source-a"]
    assert rejections[0].reason == "duplicate"


def test_blank_pictures_are_not_compared():
    black = measure_pictures([grey(0.0)] * 8)
    assert len(pictures(black, per_s=4.0).hashes) == 0
    kept, _ = find([video_record("a"), video_record("b", split="heldout")], {"a": black, "b": black})
    assert kept == ["a", "b"]


def test_fewer_pictures_per_second():
    assert len(pictures(views(1, 2, 3, 4), per_s=1.0).hashes) == 2


def test_leakage_names_both_places():
    report = split_leakage({"t": views(1, 2)}, {"h": views(3, 2)}, max_distance=8)
    assert {(s.heldout_video_id, s.train_video_id) for s in report.shared} == {("h", "t")}
    assert [(s.heldout_time_s, s.train_time_s) for s in report.shared] == [(0.5, 0.5), (0.75, 0.5)]
    assert (report.nearest_distance, report.num_train_pictures, report.num_heldout_pictures) == (0, 4, 4)


def test_no_leakage_and_no_video():
    clean = split_leakage({"t": views(1, 2)}, {"h": views(3, 4)}, max_distance=8)
    assert clean.shared == ()
    assert clean.nearest_distance is not None
    assert clean.nearest_distance > 8
    assert split_leakage({}, {"h": views(3)}, max_distance=8).nearest_distance is None


@pytest.mark.parametrize("count", [1, 5000])
def test_nearest_in_against_a_plain_loop(count):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2**63, count, dtype=np.uint64)
    second = rng.integers(0, 2**63, 7, dtype=np.uint64)
    distances, places = nearest_in(first, second)
    for i in range(0, count, 997):
        plain = [bin(int(first[i]) ^ int(other)).count("1") for other in second]
        assert distances[i] == min(plain)
        assert plain[places[i]] == min(plain)
