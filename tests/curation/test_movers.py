"""Motions of known truth: crops of real film that are shifted, grown, or have a moving piece pasted in."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from longvila.curation import movers
from longvila.curation.measure import Span, camera_direction
from longvila.curation.movement import NOT_KNOWN, STILL, Tracker
from longvila.media.decode import decode_frames
from tests.curation.pictures import grey, measure_pictures, plain
from tests.media.making import DEMO

SIZE = (160, 90)
COUNT = 16
SECONDS = COUNT / 4
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
Scene = Callable[[int], np.ndarray]


@pytest.fixture(scope="module")
def film() -> list[np.ndarray]:
    """Six frames of different shots, uint8 [360, 640, 3]."""
    name = DEMO / "03-meadow.mp4"
    return [
        np.ascontiguousarray(frame) for frame in decode_frames(name, [2, 15, 28, 41, 55, 70], size=(360, 640))
    ]


def window(frame: np.ndarray, x: float, y: float, *, growth: float = 1.0) -> np.ndarray:
    """A window of the frame around (x, y), 160 × 90."""
    width, height = 400 / growth, 225 / growth
    matrix = np.array([[width / 160, 0, x - width / 2], [0, height / 90, y - height / 2]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    soft = cv2.GaussianBlur(frame, (0, 0), 1.0)
    return cv2.warpAffine(soft, matrix, SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def paste(back: np.ndarray, piece: np.ndarray, x: float, y: float) -> np.ndarray:
    """Put a round piece with its corner at (x, y), to a fraction of a pixel."""
    size = piece.shape[0]
    mask = np.zeros((size, size), dtype=np.float32)
    cv2.circle(mask, (size // 2, size // 2), size // 2 - 1, 1.0, -1)
    matrix = np.array([[1, 0, x], [0, 1, y]], dtype=np.float32)
    mask_HW1 = cv2.warpAffine(mask, matrix, SIZE)[..., None]
    moved = cv2.warpAffine(piece, matrix, SIZE)
    return (back * (1 - mask_HW1) + moved * mask_HW1).astype(np.uint8)


def span(scene: Scene, *, cuts_s: tuple[float, ...] = ()) -> Span:
    """The scene's pictures with the noise of a camera."""
    rng = np.random.default_rng(0)
    pictures = [
        np.clip(scene(i) + rng.normal(0, 1.5, (*SIZE[::-1], 3)), 0, 255).astype(np.uint8)
        for i in range(COUNT)
    ]
    return Span(measure_pictures(pictures), 0.0, SECONDS, cuts_s)


def moving_piece(film: list[np.ndarray], way: str, *, size: int = 32, pan: float = 0.0) -> Scene:
    """A piece of one shot that crosses another one, whose camera pans by ``pan`` pixels a sample."""
    across, down = WAYS[way]
    piece = cv2.resize(film[2][100:260, 200:360], (size, size), interpolation=cv2.INTER_AREA)
    reach = 80 if across else 90 - size - 4

    def scene(i: int) -> np.ndarray:
        turn = i if across + down > 0 else COUNT - 1 - i
        x = 24 + reach * turn / COUNT if across else 64
        y = 2 + reach * turn / COUNT if down else 28
        return paste(window(film[0], 320 + pan * i, 180), piece, x, y)

    return scene


@pytest.mark.parametrize("way", WAYS)
def test_the_way_something_moves_over_a_still_picture(film, way):
    found = movers.object_motion(span(moving_piece(film, way)))
    assert found is not None
    assert found.direction == way
    assert found.samples >= 4


@pytest.mark.parametrize("way", ["left", "right"])
def test_the_way_something_moves_while_the_camera_turns(film, way):
    pan = 4.0 if way == "right" else -4.0  # the picture moves the other way
    found = movers.object_motion(span(moving_piece(film, way, pan=pan)))
    assert found is not None
    assert found.direction == way


@pytest.mark.parametrize("number", range(6))
def test_a_still_a_turning_and_a_nearing_camera_move_nothing(film, number):
    frame = film[number]
    still = span(lambda i: window(frame, 320, 180))
    turning = span(lambda i: window(frame, 320 + 6.0 * (i - 8), 180))
    nearing = span(lambda i: window(frame, 320, 180, growth=1.02 ** (i - 8)))
    assert [movers.object_motion(one) for one in (still, turning, nearing)] == [None] * 3
    assert movers.zoom(still) in ("none", None)
    assert movers.zoom(turning) in ("none", None)
    assert camera_direction(turning) in ("right", None)


@pytest.mark.parametrize(("rate", "word"), [(1.02, "in"), (1 / 1.02, "out"), (1.0, "none")])
def test_zoom(film, rate, word):
    assert movers.zoom(span(lambda i: window(film[3], 320, 180, growth=rate ** (i - 8)))) == word


def test_a_little_zoom_is_not_told(film):
    found = movers.zoom(span(lambda i: window(film[3], 320, 180, growth=1.003 ** (i - 8))))
    assert found is None


def test_there_and_back_is_no_direction(film):
    there = moving_piece(film, "right")
    assert movers.object_motion(span(lambda i: there(i if i < 8 else 15 - i))) is None


def test_a_thing_that_stays_on_one_side_is_told_where(film):
    piece = cv2.resize(film[2][100:260, 200:360], (28, 28), interpolation=cv2.INTER_AREA)
    back = window(film[0], 320, 180)
    left = movers.object_motion(span(lambda i: paste(back, piece, 8, 2 + 3.6 * i)))
    right = movers.object_motion(span(lambda i: paste(back, piece, 124, 2 + 3.6 * i)))
    crossing = movers.object_motion(span(lambda i: paste(back, piece, 6 + 8 * i, 30)))
    assert (left.direction, left.place) == ("down", "left")
    assert (right.direction, right.place) == ("down", "right")
    assert crossing.place is None


def test_how_large_what_moves_is(film):
    back = window(film[0], 320, 180)
    large = cv2.resize(film[4][60:300, 200:440], (78, 78), interpolation=cv2.INTER_AREA)
    small = cv2.resize(film[2][100:260, 200:360], (14, 14), interpolation=cv2.INTER_AREA)
    found = movers.object_motion(span(lambda i: paste(back, large, 2 + 4.5 * i, 6)))
    assert found.size in ("large", None)
    found = movers.object_motion(span(lambda i: paste(back, small, 10 + 6 * i, 40)))
    assert found is None or found.size == "small"


def test_nothing_is_told_over_a_cut(film):
    scene = moving_piece(film, "right")
    assert movers.object_motion(span(scene, cuts_s=(2.0,))) is None
    assert movers.zoom(span(scene, cuts_s=(2.0,))) is None


def test_a_plain_picture_says_nothing():
    pictures = [plain("blue")] * 8
    found = Span(measure_pictures(pictures), 0.0, 2.0, ())
    assert movers.object_motion(found) is None
    fading = Span(measure_pictures([grey(level) for level in np.linspace(0.2, 0.8, 16)]), 0.0, 4.0, ())
    assert movers.object_motion(fading) is None
    assert movers.zoom(fading) is None


def test_a_fade_of_a_real_picture_moves_nothing(film):
    found = span(lambda i: window(film[1], 320, 180) * (1 - i / COUNT))
    assert movers.object_motion(found) is None
    assert movers.zoom(found) in ("none", None)


def test_every_second_picture_is_compared():
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 255, (90, 160), dtype=np.uint8)
    tracker = Tracker()
    assert [tracker.add(picture) for _ in range(4)] == [NOT_KNOWN, STILL, NOT_KNOWN, STILL]


def test_pictures_of_another_size_are_not_compared():
    tracker = Tracker()
    tracker.add(np.zeros((90, 160), dtype=np.uint8))
    assert tracker.add(np.zeros((160, 90), dtype=np.uint8)) == NOT_KNOWN
