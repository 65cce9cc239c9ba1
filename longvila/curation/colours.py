"""Colour by name: eleven everyday words, each a region of hue, saturation and value.

H × W pixels, C colour names.
"""

from __future__ import annotations

from functools import cache

import numpy as np

COLOURS = (
    "black", "white", "grey", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink",
)  # fmt: skip

_BITS = 5  # per channel of the table: 32,768 entries
_BLACK_VALUE = 0.16
_GREY_SATURATION = 0.14
_WARM_GREY_SATURATION = 0.22  # cream and pale skin are called white, not orange
_WHITE_VALUE = 0.82
# The upper end of each hue, in degrees; what follows the last is red again.
_HUE_ENDS = (14.0, 42.0, 68.0, 165.0, 255.0, 300.0, 345.0)
_HUE_NAMES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "red")


def colour_map(picture_HW3: np.ndarray) -> np.ndarray:
    """Return the colour of each pixel of an RGB uint8 picture as an index into ``COLOURS``, uint8 [H, W]."""
    high = picture_HW3 >> (8 - _BITS)
    index = (
        (high[..., 0].astype(np.int32) << (2 * _BITS))
        | (high[..., 1].astype(np.int32) << _BITS)
        | high[..., 2]
    )
    return _table()[index]


@cache
def _table() -> np.ndarray:
    levels = (np.arange(1 << _BITS, dtype=np.float64) + 0.5) / (1 << _BITS)
    red, green, blue = (channel.ravel() for channel in np.meshgrid(levels, levels, levels, indexing="ij"))
    return _name_of(red, green, blue)


def _name_of(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    saturation = spread / np.maximum(value, 1e-9)
    safe = np.maximum(spread, 1e-9)
    sixths = np.select(
        [value == red, value == green],
        [((green - blue) / safe) % 6, (blue - red) / safe + 2],
        default=(red - green) / safe + 4,
    )
    hue = 60.0 * sixths
    names = np.array([COLOURS.index(name) for name in _HUE_NAMES])[
        np.searchsorted(_HUE_ENDS, hue, side="right")
    ]
    is_warm = (hue < 48.0) | (hue >= 345.0)
    names[is_warm & (value < 0.62) & (hue >= 8.0) & (hue < 48.0)] = COLOURS.index("brown")
    names[((hue < 14.0) | (hue >= 345.0)) & (saturation < 0.5) & (value > 0.75)] = COLOURS.index("pink")
    is_pale = saturation < np.where(is_warm, _WARM_GREY_SATURATION, _GREY_SATURATION)
    names[is_pale] = COLOURS.index("grey")
    names[is_pale & (value > _WHITE_VALUE)] = COLOURS.index("white")
    names[value < _BLACK_VALUE] = COLOURS.index("black")
    return names.astype(np.uint8)
