"""The default detector: on films that are composed here, with inputs that users bring."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from longvila.curation.shot_detection import cascade
from longvila.curation.shot_detection.boundary import Boundary
from longvila.curation.shot_detection.cascade import Cascade
from longvila.curation.shot_detection.network import INPUT_SHAPE, TransNetV2
from longvila.media.decode import iterate_frames
from tests.media.making import DEMO

FPS = 24


@pytest.fixture(scope="module")
def shots() -> list[np.ndarray]:
    """Four shots of a real film, [48, 27, 48, 3] each."""
    cuts = [(0, 40), (45, 88), (131, 195), (345, 415)]  # of the excerpt, by eye
    size = INPUT_SHAPE
    frames = []
    for _, picture in iterate_frames(DEMO / "08-flight.mp4", size=size):
        frames.append(picture)
        if len(frames) == cuts[-1][1]:
            break
    return [np.stack(frames[start:stop])[:48] for start, stop in cuts]


def found_in(frames: np.ndarray, *, fps: float = FPS) -> list[Boundary]:
    detector = Cascade(fps=fps)
    for frame in frames:
        detector.add(np.ascontiguousarray(frame))
    return detector.boundaries()


def mixed(old: np.ndarray, new: np.ndarray, length: int) -> np.ndarray:
    """A dissolve of so many frames between two shots."""
    share = ((np.arange(length) + 1) / (length + 1))[:, None, None, None]
    blend = old[-length:] * (1 - share) + new[:length] * share
    return np.concatenate([old[:-length], np.rint(blend).astype(np.uint8), new[length:]])


def through(level: int, old: np.ndarray, new: np.ndarray, length: int, hold: int) -> np.ndarray:
    """A fade: so many frames down, so many of ``level``, as many up."""
    down = np.linspace(1, 0, length)[:, None, None, None]
    first = level + (old[-length:] - float(level)) * down
    second = level + (new[:length] - float(level)) * down[::-1]
    blank = np.full((hold, *old.shape[1:]), level)
    ramps = [np.rint(part).astype(np.uint8) for part in (first, blank, second)]
    return np.concatenate([old[:-length], *ramps, new[length:]])


def test_hard_cuts_are_exact(shots):
    found = found_in(np.concatenate(shots))
    lengths = np.cumsum([len(shot) for shot in shots])[:-1]
    assert [b.first_new for b in found] == list(lengths)
    assert {b.transition for b in found} == {"cut"}


@pytest.mark.parametrize("fps", [12, 48, 120])
def test_any_frame_rate(shots, fps):
    frames = np.concatenate(shots)
    lengths = np.cumsum([len(shot) for shot in shots])[:-1]
    if fps < FPS:
        found = found_in(frames[::2], fps=fps)
        assert [2 * b.first_new for b in found] == pytest.approx(lengths, abs=1)
    else:
        found = found_in(frames.repeat(fps // FPS, axis=0), fps=fps)
        assert [b.first_new for b in found] == list(lengths * (fps // FPS))


@pytest.mark.parametrize("length", [8, 16, 30])
def test_a_dissolve_is_one_boundary_inside_it(shots, length):
    found = found_in(mixed(shots[0], shots[3], length))
    start = len(shots[0]) - length
    assert [b.transition for b in found] == ["dissolve"]
    assert start <= found[0].frame <= start + length


@pytest.mark.parametrize("level", [0, 255])
def test_a_fade_through_black_or_white(shots, level):
    found = found_in(through(level, shots[0], shots[3], 10, 6))
    start = len(shots[0]) - 10
    assert [b.transition for b in found] == ["fade"]
    assert start <= found[0].frame <= start + 26


def test_a_flash_a_blink_and_a_strobe_are_no_boundaries(shots):
    for changed in (slice(20, 22), slice(20, 21)):
        flash = shots[3].copy()
        flash[changed] = 255
        assert found_in(flash) == []
    strobe = shots[3].copy()
    strobe[10:30:2] = 255 - strobe[10:30:2] // 2
    assert found_in(strobe) == []


def test_black_between_two_shots(shots):
    black = np.zeros((40, *INPUT_SHAPE, 3), dtype=np.uint8)
    brief = found_in(np.concatenate([shots[0], black[:8], shots[3]]))
    assert [(b.last_old, b.first_new, b.transition) for b in brief] == [(39, 48, "fade")]
    long = found_in(np.concatenate([shots[0], black, shots[3]]))
    assert [(b.first_new, b.transition) for b in long] == [(40, "cut"), (80, "cut")]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 300])
def test_nothing_happens_in_a_still(shots, count):
    assert found_in(shots[0][:1].repeat(count, axis=0)) == []


def test_grey_letterboxed_and_noisy_films(shots):
    film = np.concatenate(shots)
    lengths = list(np.cumsum([len(shot) for shot in shots])[:-1])
    grey = np.stack([cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for f in film])
    boxed = film.copy()
    boxed[:, :4] = boxed[:, -4:] = 0
    noise = np.random.default_rng(0).normal(0, 8, film.shape)
    noisy = np.clip(film + noise, 0, 255).astype(np.uint8)
    for changed in (grey, boxed, noisy):
        assert [b.first_new for b in found_in(changed)] == lengths


def test_the_network_is_not_made_while_there_is_no_doubt(shots):
    def refuse() -> TransNetV2:
        raise AssertionError("asked for the network")

    detector = Cascade(fps=FPS, network=refuse)
    for frame in np.concatenate([shots[0], shots[3]]):
        detector.add(frame)
    assert len(detector.boundaries()) == 1
    assert detector.num_looks == 0


def test_where_it_is_asked_makes_no_difference(shots, monkeypatch):
    """Frames are judged in blocks while they come; the outcome is that of all at once."""
    film = np.concatenate([mixed(shots[0], shots[3], 12), shots[1][::3], shots[2]])
    expected = found_in(film)
    monkeypatch.setattr(cascade, "_EVERY", 400)
    assert [b[:3] for b in found_in(film)] == [b[:3] for b in expected]


def test_memory_does_not_grow_with_pictures(shots):
    detector = Cascade(fps=FPS)
    held = detector._pictures.nbytes
    for frame in shots[0][:1].repeat(3000, axis=0):
        detector.add(frame)
    assert detector._pictures.nbytes == held < 4 * 2**20
    assert len(detector._meter._coarse) < 200
