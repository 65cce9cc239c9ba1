"""Where the boundaries of some real videos are, by eye.

Found by looking at the frames before and after everything that any of four detectors took for a boundary, and
at every twelfth frame between. A gradual transition is (last frame before, first frame after).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from benchmarks.video.compose import Piece, Truth

DEMO = Path(__file__).resolve().parents[2] / "datasets" / "demo" / "videos"

# The detector's thresholds were chosen on the demo's excerpts 01 to 05; none of them is here.
_CUTS: dict[str, tuple[int, ...]] = {
    "06-stalking.mp4": (180, 260, 298, 492, 567, 667, 713, 780, 828, 899, 936, 1191, 1252, 1258),
    "07-chase.mp4": (791, 855, 926, 994),
    "08-flight.mp4": (
        41, 89, 128, 196, 205, 214, 340, 416, 471, 512, 608, 637, 702, 718, 746, 805, 855, 881, 924, 960,
        1030, 1074, 1089, 1195, 1234,
    ),
    "09-lesson.mp4": (205, 362, 675, 712, 887, 923, 975, 1034),
    "11-cut-short.mp4": (205,),
    "bikes.mp4": (30, 76, 137, 187, 242),
    "cityCC0.mpg": (116,),
    "trailer_bbb.mp4": (593, 864, 900, 988, 1049),
}  # fmt: skip
_GRADUAL: dict[str, tuple[Truth, ...]] = {
    "06-stalking.mp4": (Truth(331, 391, "fade"),),
    "09-lesson.mp4": (Truth(415, 475, "fade"), Truth(545, 556, "dissolve")),
    "trailer_bbb.mp4": (
        Truth(218, 258, "fade"), Truth(308, 352, "fade"), Truth(745, 792, "fade"), Truth(1104, 1138, "fade"),
        Truth(1205, 1250, "fade"),
    ),
}  # fmt: skip
QUICK = DEMO / "11-cut-short.mp4"
DEMO_NAMES = tuple(name for name in _CUTS if (DEMO / name).is_file() and name != QUICK.name)
_MARGIN = 4  # frames kept away from a boundary
_SHORTEST = 36


def truth_of(path: Path) -> list[Truth]:
    """Return the boundaries of a video known by its file's name, in order."""
    cuts = [Truth(frame - 1, frame, "cut") for frame in _CUTS[path.name]]
    return sorted([*cuts, *_GRADUAL.get(path.name, ())])


def known_videos(folder: Path) -> list[Path]:
    """Return the files of a folder whose boundaries are known."""
    return [folder / name for name in _CUTS if (folder / name).is_file()]


def pieces_of(path: Path, num_frames: int) -> list[Piece]:
    """Return the shots of a known video that are long enough to be put together anew."""
    edges = [Truth(-1, 0, "cut"), *truth_of(path), Truth(num_frames - 1, num_frames, "cut")]
    spans = [(before.first_new + _MARGIN, after.last_old + 1 - _MARGIN) for before, after in pairwise(edges)]
    return [Piece(path, start, stop) for start, stop in spans if stop - start >= _SHORTEST]
