import io

import numpy as np
import pytest
from PIL import Image

from longvila.errors import InputError
from longvila.evaluation import plots
from longvila.evaluation.results import LossCurve
from tests.report.example import curve, needle, qa

FOUND = (0x9A, 0xD5, 0xB3)
MISSED = (0xF0, 0x49, 0x6E)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def share_of_colour(png: bytes, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels(png) - colour).max(-1) <= 3).mean())


def test_heat_map_is_green_where_needles_are_found():
    assert share_of_colour(plots.needle_heat_map(needle(512)), FOUND) > 0.4
    assert share_of_colour(plots.needle_heat_map(needle(512)), MISSED) < 0.001
    few = needle(1)  # everything missed: at chance, close to the red end
    assert share_of_colour(plots.needle_heat_map(few), FOUND) < 0.001


def test_heat_map_marks_the_trained_length_only_inside_the_grid():
    plain = plots.needle_heat_map(needle(32))
    assert plots.needle_heat_map(needle(32), trained_frames=32) != plain
    assert plots.needle_heat_map(needle(32), trained_frames=4096) == plain


def test_pictures_are_the_same_each_time_and_readable():
    curves = [
        LossCurve(stage=name, steps=(1, 2, 3), losses=(3.0, 2.0, 1.0)) for name in ("align", "pretrain")
    ]
    for draw in (
        lambda: plots.needle_heat_map(needle(64), title="a"),
        lambda: plots.frames_curve([("3", curve(0.2)), ("5", curve(0.9))]),
        lambda: plots.losses(curves, title="losses"),
        lambda: plots.accuracy_by_kind(qa()),
    ):
        image = draw()
        assert image == draw()
        assert min(pixels(image).shape[:2]) > 200


def test_svg_is_svg():
    assert b"<svg" in plots.needle_heat_map(needle(64), fmt="svg")[:600]


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="at least one"):
        plots.losses([])
    with pytest.raises(InputError, match="at least one"):
        plots.frames_curve([])
