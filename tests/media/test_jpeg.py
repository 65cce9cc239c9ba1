from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from longvila.errors import InputError
from longvila.media.jpeg import decode_frame, decode_frames, pack_frames, unpack_frames


@pytest.fixture
def frames() -> np.ndarray:
    photo = load_sample_image("flower.jpg")
    return np.stack([photo[20 * i : 20 * i + 48, 30 * i : 30 * i + 64] for i in range(5)])


def test_frames_come_back_in_the_order_asked_for(frames: np.ndarray) -> None:
    blob = pack_frames(frames, quality=95)
    assert blob.num_frames == 5
    assert blob.offsets.dtype == np.int64
    assert blob.offsets[0] == 0
    assert blob.offsets[-1] == len(blob.data)
    found = unpack_frames(blob.data, blob.offsets, [4, 0, 4])
    assert found.shape == (3, 48, 64, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - frames[[4, 0, 4]]).mean() < 3
    np.testing.assert_array_equal(found[0], found[2])


def test_the_same_frames_give_the_same_bytes(frames: np.ndarray) -> None:
    assert pack_frames(frames, quality=90).data == pack_frames(frames.copy(), quality=90).data
    flipped = frames[:, :, ::-1]  # not contiguous
    assert pack_frames(flipped, quality=90).data == pack_frames(flipped.copy(), quality=90).data


def test_colour_is_kept_in_small_details() -> None:
    frame = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    frame[0, :, ::2, 0] = 255  # red lines of one pixel
    full = unpack_frames(*pack_frames(frame, quality=95), [0])
    half = unpack_frames(*pack_frames(frame, quality=95, subsampling="420"), [0])
    assert np.abs(full.astype(int) - frame).max() < 30
    assert np.abs(half.astype(int) - frame).max() > 60


def test_no_frames(frames: np.ndarray) -> None:
    blob = pack_frames(frames[:0], quality=90)
    assert blob.data == b""
    assert blob.offsets.tolist() == [0]
    assert unpack_frames(blob.data, blob.offsets, []).shape == (0, 0, 0, 3)


@pytest.mark.parametrize("cut", [0, 2, 100, -1, -300])
def test_a_damaged_jpeg_is_told(frames: np.ndarray, cut: int) -> None:
    jpeg = pack_frames(frames[:1], quality=90).data
    with pytest.raises(InputError, match="not a whole JPEG"):
        decode_frame(jpeg[:cut] if cut else b"")


def test_frames_of_two_sizes_are_told(frames: np.ndarray) -> None:
    jpegs = [pack_frames(one, quality=90).data for one in (frames[:1], frames[:1, :32])]
    with pytest.raises(InputError, match="differ in size"):
        decode_frames(jpegs)


def test_what_is_not_pixels_is_our_mistake(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        pack_frames(frames.astype(np.float32), quality=90)
    with pytest.raises(ValueError, match="uint8"):
        pack_frames(frames[0], quality=90)
