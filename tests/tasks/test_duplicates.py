from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config.sourcing import DedupConfig, FetchConfig, ValidateConfig
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.errors import InputError
from longvila.records import Source, VideoRecord
from tasks import curation, duplicates
from tasks.fetch import fetch_batch, served_base, validate_batch
from tasks.refs import WorkspaceRef, read_records, read_rejections, write_batches
from tests.media.making import DEMO, ffmpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exam of two short videos, and a training list with a part of one of them in a film of its own."""
    folder = tmp_path_factory.mktemp("lists")
    small = ("-vf", "scale=320:-2", "-an", "-preset", "ultrafast", "-crf", "30")
    ffmpeg("-ss", "5", "-t", "12", "-i", DEMO / "09-lesson.mp4", *small, folder / "asked.mp4")
    ffmpeg(
        "-ss",
        "9",
        "-t",
        "5",
        "-i",
        DEMO / "09-lesson.mp4",
        *small,
        "-vf",
        "scale=160:120",
        folder / "part.mp4",
    )
    ffmpeg(
        "-ss",
        "20",
        "-t",
        "14",
        "-i",
        DEMO / "07-chase.mp4",
        *small,
        "-vf",
        "scale=160:120",
        folder / "own.mp4",
    )
    (folder / "both.txt").write_text(f"file '{folder}/own.mp4'\nfile '{folder}/part.mp4'\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", folder / "both.txt", "-c", "copy", folder / "leaking.mp4")
    (folder / "exam.yaml").write_text("sources: [{url: asked.mp4}, {url: lost.mp4}]")
    (folder / "train.yaml").write_text("sources: [{url: leaking.mp4}, {url: own.mp4}]")
    return folder


def brought_in(reference: WorkspaceRef, listed: str) -> tuple:
    from longvila.config.sources import load_sources

    sources = write_batches(reference.open(), "sources", load_sources(listed), Source, size=9)
    fetched = fetch_batch.fn(reference, sources[0], FetchConfig(), served_base(listed))
    return sources, validate_batch.fn(reference, fetched, ValidateConfig())


def test_a_published_file_of_fingerprints_keeps_a_part_of_its_videos_out(
    folder: Path, tmp_path: Path
) -> None:
    """The owner's side makes the file; the user's side knows the file alone, and not the videos."""
    out = tmp_path / "exam.parquet"
    owner = WorkspaceRef(root=str(tmp_path / "owner"))
    written = duplicates.fingerprint_videos.fn(owner, str(folder / "exam.yaml"), str(out))
    assert (written.num_videos, written.num_rejections) == (1, 1)
    assert out.stat().st_size < 20_000

    user = WorkspaceRef(root=str(tmp_path / "user"))
    sources, videos = brought_in(user, str(folder / "train.yaml"))
    evaluation = duplicates.list_evaluation.fn(user, str(out))
    names = [video.name for video in read_records(user.open(), evaluation, EvaluationVideo)]
    assert names == ["asked"]
    scans = curation.scan_batch.fn(user, videos, **scan_settings())
    pairs = duplicates.find_duplicates.fn(user, [videos], [scans], DedupConfig(), [evaluation], sources)
    kept = curation.dedup_all.fn(user, [videos], [scans], pairs)
    opened = user.open()
    assert [video.source_id for video in read_records(opened, kept, VideoRecord)] == ["own"]
    rejected = read_rejections(opened, [kept])
    assert [(r.source, r.reason) for r in rejected] == [("leaking", "evaluation-leak")]
    assert "with the evaluation video asked" in rejected[0].detail
    leak = next(p for p in read_records(opened, pairs, DuplicatePair) if p.against == "evaluation")
    assert leak.passages[0].start_s == pytest.approx(14.0, abs=1.0)
    assert leak.passages[0].other_start_s == pytest.approx(4.0, abs=1.0)
    again = duplicates.find_duplicates.fn(user, [videos], [scans], DedupConfig(), [evaluation], sources)
    assert again.reused


def scan_settings() -> dict:
    from longvila.config.footage import FramesConfig, ShotConfig

    return {"shots": ShotConfig(), "frames": FramesConfig(fps=1.0, size=32)}


def test_a_list_of_which_nothing_can_be_read_makes_no_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "exam.yaml").write_text("sources: [{url: lost.mp4}]")
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    with pytest.raises(InputError, match=r"No video of .* could be read"):
        duplicates.fingerprint_videos.fn(
            reference, str(tmp_path / "exam.yaml"), str(tmp_path / "out.parquet")
        )
    assert not (tmp_path / "out.parquet").exists()
    with pytest.raises(InputError, match="does not exist"):
        duplicates.list_evaluation.fn(reference, str(tmp_path / "none.parquet"))
