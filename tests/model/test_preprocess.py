"""Pixels as SigLIP's own image processor gives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from longvila.errors import InputError
from longvila.model import normalise


def test_equals_the_siglip_processor() -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    expected = processor([Image.fromarray(frame) for frame in frames], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalise(frames), expected)


def test_bytes_become_minus_one_to_one() -> None:
    frames = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    frames[0, 0] = 255
    pixels = normalise(frames)
    assert pixels.shape == (1, 3, 2, 2)
    assert pixels[0, :, 0].unique().tolist() == [1.0]
    assert pixels[0, :, 1].unique().tolist() == [-1.0]


@pytest.mark.parametrize("frames", [np.zeros((1, 2, 2, 3), np.float32), np.zeros((2, 2, 3), np.uint8)])
def test_other_shapes_and_types_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(InputError, match="decode_frames"):
        normalise(frames)
