from pathlib import Path

import numpy as np

from longvila.evaluation.haystack import load_haystack

VIDEO = Path(__file__).parents[2] / "datasets" / "demo" / "videos" / "05-workshop.mp4"


def test_a_haystack_is_decoded_once(tmp_path, monkeypatch):
    videos = [("workshop", VIDEO)]
    bank = load_haystack(videos, fps=1.0, size=32, cache_dir=tmp_path)
    assert bank.frames_NHW3.shape == (len(bank), 32, 32, 3)
    assert 40 <= len(bank) <= 60
    assert np.allclose(np.diff(bank.times_s), 1.0)
    monkeypatch.setattr("longvila.evaluation.haystack.decode_bank", None)  # a second decode would fail
    kept = load_haystack(videos, fps=1.0, size=32, cache_dir=tmp_path)
    np.testing.assert_array_equal(kept.frames_NHW3, bank.frames_NHW3)
    assert kept.video_ids == bank.video_ids
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_or_another_cache_is_not_used(tmp_path):
    videos = [("workshop", VIDEO)]
    bank = load_haystack(videos, fps=0.5, size=16, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    again = load_haystack(videos, fps=0.5, size=16, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.frames_NHW3, bank.frames_NHW3)
    assert len(load_haystack(videos, fps=0.25, size=16, cache_dir=tmp_path)) < len(bank)
    assert len(load_haystack(videos, fps=0.25, size=16, cache_dir=None)) < len(bank)
