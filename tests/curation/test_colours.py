from __future__ import annotations

import numpy as np
import pytest

from longvila.curation.colours import COLOURS, colour_map
from tests.curation.pictures import PAINT, plain, split_picture


@pytest.mark.parametrize("colour", COLOURS)
def test_everyday_colours_have_their_names(colour):
    assert set(PAINT) == set(COLOURS)
    found = colour_map(plain(colour, size=(3, 4)))
    assert found.shape == (3, 4)
    assert {COLOURS[i] for i in found.ravel()} == {colour}


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((135, 190, 235), "blue"),  # sky
        ((90, 140, 40), "green"),  # grass
        ((139, 69, 19), "brown"),  # wood
        ((255, 190, 190), "pink"),
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((255, 0, 0), "red"),
        ((255, 0, 60), "red"),
        ((0, 0, 255), "blue"),
    ],
)
def test_colours_of_things(rgb, name):
    assert COLOURS[int(colour_map(np.array([[rgb]], dtype=np.uint8))[0, 0])] == name


def test_every_colour_of_the_cube_has_a_name():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, len(levels), 3)
    assert set(np.unique(colour_map(cube))) == set(range(len(COLOURS)))


def test_it_is_pixel_by_pixel():
    found = colour_map(split_picture("red", "blue", axis=1))
    assert (found[:, :80] == COLOURS.index("red")).all()
    assert (found[:, 80:] == COLOURS.index("blue")).all()
