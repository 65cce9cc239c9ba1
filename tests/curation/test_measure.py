from __future__ import annotations

import numpy as np
import pytest

from longvila.curation import measure
from longvila.curation.measure import Span
from tests.curation.pictures import grey, measure_pictures, plain, scene, split_picture


def span(pictures: list[np.ndarray], *, cuts_s: tuple[float, ...] = ()) -> Span:
    return Span(measure_pictures(pictures), 0.0, len(pictures) / 4, cuts_s)


@pytest.mark.parametrize(
    ("level", "word"),
    [(0.1, "dark"), (0.4, "dark"), (0.45, None), (0.52, "medium"), (0.6, None), (0.9, "bright")],
)
def test_brightness(level, word):
    assert measure.brightness(span([grey(level)] * 4)) == word


@pytest.mark.parametrize("colour", ["red", "green", "blue", "white", "brown", "pink"])
def test_main_colour(colour):
    other = "black"
    assert measure.main_colour(span([split_picture(colour, other, axis=0, share=0.7)] * 4)) == colour
    assert measure.main_colour(span([split_picture(colour, other, axis=0, share=0.5)] * 4)) is None


@pytest.mark.parametrize(
    ("axis", "share", "place", "opposite"), [(0, 0.35, "top", "bottom"), (1, 0.35, "left", "right")]
)
def test_colour_place(axis, share, place, opposite):
    found = span([split_picture("blue", "green", axis=axis, share=share)] * 4)
    assert measure.colour_place(found, "blue") == place
    found = span([split_picture("green", "blue", axis=axis, share=1 - share)] * 4)
    assert measure.colour_place(found, "blue") == opposite
    assert measure.colour_place(found, "red") is None


def test_a_colour_in_a_corner_or_everywhere_has_no_side():
    corner = plain("green")
    corner[:30, :53] = (40, 90, 220)
    assert measure.colour_place(span([corner] * 4), "blue") is None
    assert measure.colour_place(span([plain("blue")] * 4), "blue") is None


def test_lightest_side():
    assert measure.lightest_side(span([split_picture("white", "grey", axis=0)] * 4)) == "top"
    assert measure.lightest_side(span([split_picture("black", "grey", axis=1)] * 4)) == "right"
    assert measure.lightest_side(span([plain("grey")] * 4)) is None


@pytest.mark.parametrize(
    ("start", "stop", "word"),
    [(0.3, 0.7, "brighter"), (0.7, 0.3, "darker"), (0.5, 0.51, "same"), (0.5, 0.58, None), (0.58, 0.5, None)],
)
def test_light_change(start, stop, word):
    assert measure.light_change(span([grey(level) for level in np.linspace(start, stop, 16)])) == word


@pytest.mark.parametrize(("place", "word"), [(0, "early"), (1, "middle"), (2, "late")])
def test_which_part_is_extreme(place, word):
    levels = [0.5] * 12
    levels[4 * place : 4 * place + 4] = [0.2] * 4
    assert measure.part_of_extreme(span([grey(x) for x in levels]), darkest=True) == word
    assert measure.part_of_extreme(span([grey(1 - x) for x in levels]), darkest=False) == word
    assert measure.part_of_extreme(span([grey(0.5)] * 12), darkest=True) is None


def rolled(pixels: int, *, axis: int, count: int = 12) -> list[np.ndarray]:
    large = scene(3, size=(90, 160), blocks=12)
    return [np.roll(large, pixels * i, axis=axis) for i in range(count)]


def test_motion():
    assert measure.motion(span([scene(1)] * 8)) == "still"
    assert measure.motion(span(rolled(8, axis=1))) == "fast"
    assert measure.motion(span([scene(1)] * 2)) is None


def test_a_cut_is_not_motion():
    assert measure.motion(span([scene(1)] * 8 + [scene(2)] * 8, cuts_s=(2.0,))) == "still"
    assert measure.motion(span([scene(1)] * 8 + [scene(2)] * 8)) != "still"


@pytest.mark.parametrize(
    ("pixels", "axis", "word"),
    [(-4, 1, "right"), (4, 1, "left"), (-4, 0, "down"), (4, 0, "up"), (0, 1, "nowhere")],
)
def test_camera_direction_is_against_the_picture(pixels, axis, word):
    assert measure.camera_direction(span(rolled(pixels, axis=axis))) == word


def test_camera_direction_needs_one_shot():
    assert measure.camera_direction(span(rolled(4, axis=1), cuts_s=(1.0,))) is None


def test_texture():
    noise = np.random.default_rng(0).integers(0, 2, (90, 160, 1), dtype=np.uint8) * 200
    assert measure.texture(span([np.repeat(noise, 3, axis=2)] * 4)) == "fine"
    assert measure.texture(span([plain("blue")] * 4)) == "smooth"


@pytest.mark.parametrize(
    ("cuts_s", "word"),
    [((), "one"), ((1.0,), "two"), ((1.0, 2.0, 3.0), "four"), ((0.5, 1.0, 1.5, 2.0, 2.5, 3.0), "many"),
     ((3.75,), None), ((3.9,), "one")],
)  # fmt: skip
def test_shot_count(cuts_s, word):
    assert measure.shot_count(span([plain("blue")] * 16, cuts_s=cuts_s)) == word


def test_a_view_returns():
    first, second = [scene(1)] * 4, [scene(2)] * 4
    back = measure.view_returns(span(first + second + first, cuts_s=(1.0, 2.0)))
    assert back == ("yes", ((0.0, 1.0), (2.0, 3.0)))
    other = measure.view_returns(span(first + second + [scene(5)] * 4, cuts_s=(1.0, 2.0)))
    assert other is not None
    assert other[0] == "no"
    assert measure.view_returns(span(first + second, cuts_s=(1.0,))) is None


def test_another_colour_is_another_view():
    white, red = split_picture("white", "grey", axis=0), split_picture("red", "black", axis=0)
    found = measure.view_returns(span([white] * 4 + [scene(2)] * 4 + [red] * 4, cuts_s=(1.0, 2.0)))
    assert found is not None
    assert found[0] == "no"


def test_hash_distances():
    first = np.array([0, 2**64 - 1], dtype=np.uint64)
    second = np.array([0, 1, 2**63], dtype=np.uint64)
    np.testing.assert_array_equal(measure.hash_distances(first, second), [[0, 1, 1], [64, 63, 63]])


def test_a_part_is_a_share_of_the_span():
    part = Span(measure_pictures([grey(0.5)] * 16), 0.0, 4.0, ()).part(0.25, 0.5)
    assert (part.start_s, part.stop_s, part.num_samples) == (1.0, 2.0, 4)
