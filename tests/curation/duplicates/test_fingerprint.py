from __future__ import annotations

import cv2
import numpy as np
import pytest

from longvila.curation.duplicates.bars import find_bars, steady, without_bars
from longvila.curation.duplicates.candidates import key_samples
from longvila.curation.duplicates.fingerprint import (
    BLANK,
    MIRROR,
    VIEWS,
    Fingerprint,
    Fingerprinter,
)
from tests.curation.pictures import scene


def picture(seed: int, size: tuple[int, int] = (90, 160)) -> np.ndarray:
    """A grey picture with structure of every size."""
    coarse = cv2.cvtColor(scene(seed, size=size), cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = cv2.cvtColor(scene(seed + 1000, size=size, blocks=17), cv2.COLOR_RGB2GRAY)
    return cv2.GaussianBlur(0.7 * coarse + 0.3 * fine, (5, 5), 0).astype(np.uint8)


def fingerprint(pictures: list[np.ndarray]) -> Fingerprint:
    fingerprinter = Fingerprinter()
    for grey_HW in pictures:
        fingerprinter.add(grey_HW)
    return fingerprinter.fingerprint()


def bits(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.bitwise_count(first ^ second).mean())


def boxed(grey_HW: np.ndarray, *, down: int = 0, right: int = 0, level: int = 0) -> np.ndarray:
    return np.pad(grey_HW, ((down, down), (right, right)), constant_values=level)


PICTURES = [picture(seed) for seed in range(20)]
WHOLE = fingerprint(PICTURES).codes[:, 0]


def test_different_pictures_differ_in_half_of_the_bits():
    assert 26 < bits(WHOLE, np.roll(WHOLE, 1)) < 38


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda g: cv2.resize(g, (40, 24), interpolation=cv2.INTER_AREA), 2),
        (lambda g: cv2.resize(g, (100, 160)), 2),
        (lambda g: np.clip(g * 0.7 + 50, 0, 255).astype(np.uint8), 1),
        (lambda g: boxed(g, down=20), 1),
        (lambda g: boxed(g, right=30, level=16), 1),
        (lambda g: boxed(g, down=15, right=25, level=255), 1),
        (lambda g: np.clip(g + np.random.default_rng(0).normal(0, 12, g.shape), 0, 255).astype(np.uint8), 3),
    ],
    ids=["smaller", "other aspect", "contrast", "letterbox", "pillarbox", "white frame", "noise"],
)
def test_a_changed_picture_has_nearly_the_same_code(change, most):
    assert bits(fingerprint([change(grey) for grey in PICTURES]).codes[:, 0], WHOLE) <= most


def test_a_mirrored_picture_has_the_mirrored_code():
    mirrored = fingerprint([np.ascontiguousarray(grey[:, ::-1]) for grey in PICTURES]).codes[:, 0]
    assert bits(mirrored ^ MIRROR, WHOLE) == 0


@pytest.mark.parametrize("view", range(1, len(VIEWS)))
def test_a_cropped_picture_is_a_view_of_the_whole(view):
    box = VIEWS[view]
    rows = slice(round(360 * box.top), 360 - round(360 * box.bottom))
    columns = slice(round(640 * box.left), 640 - round(640 * box.right))
    large = [picture(seed, (360, 640)) for seed in range(20)]
    cropped = [grey[rows, columns] for grey in large]
    assert bits(fingerprint(cropped).codes[:, 0], fingerprint(large).codes[:, view]) < 1


def test_blank_pictures_have_no_code_in_any_view():
    grey = np.full((90, 160), 128, dtype=np.uint8)
    found = fingerprint([PICTURES[0], grey, np.zeros((90, 160), dtype=np.uint8)])
    assert found.clear.tolist() == [True, False, False]
    assert (found.codes[1:] == BLANK).all()


def test_long_videos_are_coded_as_short_ones_in_bounded_memory():
    """What is held back for the bars changes nothing, wherever batches end."""
    many = [PICTURES[i // 40 % 20] for i in range(600)]
    fingerprinter, waiting = Fingerprinter(), 0
    for grey in many:
        fingerprinter.add(grey)
        waiting = max(waiting, len(fingerprinter._waiting))
    found = fingerprinter.fingerprint()
    assert waiting < 200
    np.testing.assert_array_equal(found.codes[:, 0], WHOLE[np.arange(600) // 40 % 20])
    assert fingerprint([]).codes.shape == (0, len(VIEWS))


def test_a_dark_scene_between_others_is_not_taken_for_bars():
    dark = PICTURES[0].copy()
    dark[:20] = 2
    shown = [PICTURES[1]] * 20 + [dark] * 4 + [PICTURES[2]] * 20
    bars = np.stack([find_bars(grey) for grey in shown])
    assert bars[21, 0] == 20
    assert not steady(bars, np.zeros(len(shown), dtype=bool), 0, len(shown), reach=32).any()


def test_bars_with_a_logo_in_them_and_bars_of_everything():
    grey = boxed(PICTURES[0], down=20)
    grey[4:12, 140:158] = 220
    assert find_bars(grey).tolist() == [20, 20, 0, 0]
    assert without_bars(grey, find_bars(grey)).shape == (90, 160)
    assert find_bars(np.zeros((90, 160), dtype=np.uint8)).tolist() == [0, 0, 0, 0]


def test_key_samples_are_still_and_clear():
    codes = np.array([1, 1 << 20, 3, 3, 3, 0, 9, 9], dtype=np.uint64)
    found = Fingerprint(np.stack([codes] * len(VIEWS), axis=1))
    assert key_samples(found, 1.0).tolist() == [3, 7]
    assert key_samples(found, 4.0).tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert key_samples(Fingerprint(np.zeros((0, len(VIEWS)), dtype=np.uint64)), 1.0).tolist() == []
    assert key_samples(Fingerprint(codes[:1, None].repeat(len(VIEWS), axis=1)), 1.0).tolist() == [0]
