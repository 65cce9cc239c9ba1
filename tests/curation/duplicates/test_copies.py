"""Recall on changed copies of real excerpts, and precision on different excerpts of one film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest

from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates.find import find_pairs
from longvila.curation.duplicates.fingerprint import Fingerprint
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.steps import fingerprint_file
from longvila.curation.duplicates.store import load_fingerprint
from longvila.curation.sampling import SAMPLES_PER_S
from longvila.records import VideoRecord
from tests.curation.build_once import Built
from tests.curation.duplicates.copies import CHANGES, fingerprint_of_copy
from tests.curation.pictures import video_record
from tests.media.making import DEMO

SECONDS = 14.0
HARD = {  # how many of four have to be found
    "blurred bars": 2,
    "with a logo": 3,
    "with a caption band": 3,
    "quarter, boxed, 1.1 times, cropped, logo": 2,
}
QUICK = (
    "low quality", "MPEG-4 in AVI", "a quarter of the size", "squeezed to 4:3", "letterboxed",
    "boxed on all sides", "cropped by 5 % of a side", "cropped by 5 % on each side", "cropped by 5 % below",
    "1.1 times as fast", "0.9 times as fast", "mirrored", "brighter, more contrast", "with a logo",
)  # fmt: skip


def compare_all(prints: Mapping[str, Fingerprint]) -> list[DuplicatePair]:
    videos = [video(name, found) for name, found in prints.items()]
    return find_pairs(videos, [], prints, DedupConfig())


def cut_at(found: Fingerprint, cuts_s: Sequence[float], *, at_least_s: float) -> list[Fingerprint]:
    """Cut a video at some of its cuts, into scenes of at least that length."""
    edges = [0.0]
    for cut_s in cuts_s:
        if min(cut_s - edges[-1], found.duration_s - cut_s) >= at_least_s:
            edges.append(cut_s)
    places = [round(edge * SAMPLES_PER_S) for edge in (*edges, found.duration_s)]
    return [Fingerprint(found.codes[start:stop]) for start, stop in pairwise(places)]


def video(name: str, found: Fingerprint) -> VideoRecord:
    return video_record(name).model_copy(update={"duration_s": found.duration_s})


@pytest.fixture(scope="module")
def originals(built: Built) -> dict[str, Fingerprint]:
    """The different videos of the build, by source_id."""
    names = {video.video_id: video.source_id for video in built.deduped.results}
    return {
        names[found.video_id]: load_fingerprint(built.workspace.storage, found.fingerprint_key)
        for found in built.scanned.results
        if found.video_id in names
    }


def test_a_scan_and_a_pass_of_its_own_give_one_fingerprint(originals):
    alone = fingerprint_file(DEMO / "05-workshop.mp4")
    assert alone.codes.shape == originals["05-workshop"].codes.shape
    assert float((alone.codes == originals["05-workshop"].codes).mean()) > 0.8


@pytest.mark.parametrize("name", QUICK)
def test_a_changed_excerpt_is_found_in_its_original_and_nowhere_else(originals, tmp_path, name):
    change = CHANGES[name]
    copy = fingerprint_of_copy(DEMO / "03-meadow.mp4", tmp_path, name, start_s=20.0, seconds=SECONDS)
    pairs = compare_all(originals | {"copy": copy})
    assert [(pair.video_id, pair.other_video_id) for pair in pairs] == [("copy", "03-meadow")]
    assert pairs[0].rejects
    assert pairs[0].share > 0.8
    first = pairs[0].passages[0]
    assert first.other_start_s - first.start_s * change.speed == pytest.approx(20.0, abs=0.7)
    assert first.speed == pytest.approx(change.speed, abs=0.04)
    assert first.mirrored == change.mirrored


def test_different_scenes_of_the_film_share_nothing(built, originals):
    """The same animals on the same meadow, cut where the film is cut: no pair may be found."""
    names = {video.video_id: video.source_id for video in built.deduped.results}
    starts = {names[f.video_id]: [shot.start_s for shot in f.shots] for f in built.scanned.results
              if f.video_id in names}  # fmt: skip
    scenes = {
        f"{name}-{i}": scene
        for name, found in originals.items()
        for i, scene in enumerate(cut_at(found, starts[name], at_least_s=4.0))
    }
    assert len(scenes) >= 20
    assert compare_all(scenes) == []


@pytest.fixture(scope="module")
def film() -> dict[str, Fingerprint]:
    """All nine excerpts of the demo."""
    return {path.stem: fingerprint_file(path) for path in sorted(DEMO.glob("0*.mp4"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_recall_and_precision_of_every_change(film, tmp_path, record_property, name):
    """Twenty seconds of each of four excerpts, changed, against the whole demo."""
    found = 0
    for path in (DEMO / f"{stem}.mp4" for stem in ("02-apple", "03-meadow", "05-workshop", "08-flight")):
        copy = fingerprint_of_copy(path, tmp_path, name, start_s=10.0, seconds=20.0)
        pairs = compare_all(film | {"copy": copy})
        assert {pair.other_video_id for pair in pairs} <= {path.stem}
        found += any(pair.rejects for pair in pairs)
    record_property("recall", found / 4)
    assert found >= HARD.get(name, 4)
