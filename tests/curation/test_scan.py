from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from longvila.config.footage import FramesConfig, ShotConfig
from longvila.curation import scan
from longvila.curation.scan_file import StripSpool, read_arrays, read_strip, write_scan
from longvila.errors import InputError
from longvila.media.jpeg import decode_frame, pack_frames
from longvila.storage import Workspace
from tests.curation.pictures import scene, video_record
from tests.media.making import write_video

SHOTS = ShotConfig(detector="adaptive")
FRAMES = FramesConfig(fps=2, size=32)


def spool_of(pictures: list[np.ndarray], *, times: int = 1) -> StripSpool:
    spool = StripSpool(np.arange(len(pictures) * times, dtype=np.float64), quality=90)
    for picture in pictures:
        spool.add(picture, times=times)
    return spool


@pytest.fixture
def written(tmp_path) -> Path:
    pictures = [scene(seed, size=(32, 48)) for seed in range(4)]
    path = tmp_path / "scan.npz"
    write_scan(path, {"luma": np.arange(3.0)}, {"strip": spool_of(pictures, times=2), "thumbs": spool_of([])})
    return path


def test_a_strip_comes_back_as_it_was(written):
    strip = read_strip(written, "strip")
    assert strip.blob.num_frames == len(strip.times_s) == 8
    part = strip.part(2, 5)
    assert part.num_frames == 3
    expected = pack_frames(scene(2, size=(32, 48))[None], quality=90).data
    assert part.data[part.offsets[2] : part.offsets[3]] == expected
    assert decode_frame(part.data[: part.offsets[1]]).shape == (32, 48, 3)
    np.testing.assert_array_equal(read_arrays(written, ["luma"])["luma"], [0.0, 1.0, 2.0])
    assert read_strip(written, "thumbs").blob.num_frames == 0


def test_the_same_scan_has_the_same_bytes(written, tmp_path):
    again = tmp_path / "again.npz"
    pictures = [scene(seed, size=(32, 48)) for seed in range(4)]
    write_scan(
        again, {"luma": np.arange(3.0)}, {"strip": spool_of(pictures, times=2), "thumbs": spool_of([])}
    )
    assert again.read_bytes() == written.read_bytes()


def test_long_strips_go_to_the_disk():
    spool = StripSpool(np.arange(60.0), quality=95)
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    for _ in range(60):
        spool.add(noise, times=1)
    assert spool.offsets[-1] > 16 * 2**20
    assert spool._file._rolled  # type: ignore[attr-defined]


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_file_cut_short_is_told(written, keep):
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"is damaged \(.*Delete it and build again"):
        read_strip(written, "strip")


def test_a_strip_that_does_not_fit_its_offsets_is_told(written, tmp_path):
    other = tmp_path / "other.npz"
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read("thumbs_data.npy" if name == "strip_data.npy" else name)
            new.writestr(name, data)
    with pytest.raises(InputError, match="strip has 0 bytes, not"):
        read_strip(other, "strip")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Two shots of 2 s at 12 frames a second."""
    pictures = [np.roll(scene(seed), 2 * i, axis=1) for seed in (1, 2) for i in range(24)]
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", pictures, fps=12)


def test_one_pass_gives_everything(video, tmp_path):
    workspace = Workspace.open(tmp_path / "w")
    found = scan.scan_video(video, shots=SHOTS, frames=FRAMES)
    record = scan.store_scan(workspace, video_record("v"), found, shots=SHOTS, frames=FRAMES)
    assert [(shot.start_s, shot.stop_s) for shot in record.shots] == [(0.0, 2.0), (2.0, 4.0)]
    assert record.num_frames == 8
    assert scan.load_strip(workspace, record).blob.num_frames == 8
    assert scan.load_thumbs(workspace, record).blob.num_frames == 4
    measures = scan.load_measures(workspace, record)
    assert len(measures.times_s) == len(measures.hashes) == record.num_samples == 16
    assert not list(workspace.scratch("scan").iterdir())


@pytest.mark.parametrize("fps", [0.5, 24.0])
def test_fewer_and_more_frames_than_the_video_has(video, fps):
    found = scan.scan_video(video, shots=SHOTS, frames=FramesConfig(fps=fps, size=16))
    assert found.strip.num_frames == len(found.strip.times_s) == 4 * fps
