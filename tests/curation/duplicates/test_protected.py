from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates import store
from longvila.curation.duplicates.judge import judge
from longvila.curation.duplicates.lists import is_source_list, read_list
from longvila.curation.duplicates.protected import EvaluationVideo, address_names, find_named
from longvila.curation.duplicates.steps import find_all
from longvila.errors import InputError
from longvila.records import Source
from longvila.storage import Workspace
from tests.curation.duplicates.prints import evaluation_video, moving, noisy, of
from tests.curation.pictures import video_record


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("https://www.youtube.com/watch?v=fFjv93ACGo8&t=3", ("fFjv93ACGo8",)),
        ("https://youtu.be/fFjv93ACGo8?si=x", ("fFjv93ACGo8",)),
        ("https://m.youtube.com/shorts/fFjv93ACGo8", ("fFjv93ACGo8",)),
        ("http://www.example.org/a/b.mp4/", ("example.org/a/b.mp4",)),
        ("https://example.org/play?id=7", ("example.org/play?id=7",)),
        ("s3://bucket/exam/1.mp4", ("bucket/exam/1.mp4",)),
        ("/data/1.mp4", ()),
        ("videos/1.mp4", ()),
        ("file:///data/1.mp4", ()),
    ],
)
def test_names_of_an_address(url, names):
    assert address_names(url) == names


def test_a_list_of_ids_and_addresses(tmp_path, workspace):
    path = tmp_path / "exam.txt"
    path.write_text("# Video-MME\n\n-Fjv93ACGo8  # one\nhttps://youtu.be/aaaaaaaaaaa\n-Fjv93ACGo8\n", "utf-8")
    listed = read_list(str(path), workspace)
    assert [video.names for video in listed] == [("-Fjv93ACGo8",), ("aaaaaaaaaaa",)]
    videos = [video_record(name) for name in ("tube", "by-stem", "by-id", "other", "held")]
    videos[2] = videos[2].model_copy(update={"source_id": "-Fjv93ACGo8"})
    videos[4] = videos[4].model_copy(update={"split": "heldout"})
    urls = [
        "https://www.youtube.com/watch?v=aaaaaaaaaaa",
        "/data/-Fjv93ACGo8.mp4",
        "x.mp4",
        "https://example.org/aaaaaaaaaab",
        "https://youtu.be/aaaaaaaaaaa",
    ]
    sources = {v.source_id: Source(source_id=v.source_id, url=u) for v, u in zip(videos, urls, strict=True)}
    named = find_named(videos, sources, listed)
    assert [(found.video.video_id, found.evaluation.name) for found in named] == [
        ("tube", "https://youtu.be/aaaaaaaaaaa"),
        ("by-stem", "-Fjv93ACGo8"),
        ("by-id", "-Fjv93ACGo8"),
    ]


def test_the_source_ids_of_two_lists_have_nothing_to_do_with_one_another(tmp_path, workspace):
    path = tmp_path / "exam.yaml"
    path.write_text("sources: [{url: 'https://example.org/1.mp4'}, {url: 'two.mp4'}]")
    listed = read_list(str(path), workspace)
    assert [video.name for video in listed] == ["1", "two"]
    ours = [video_record("1").model_copy(update={"source_id": "1", "url": "mine/1.mp4"})]
    assert find_named(ours, {}, listed) == []


def test_the_same_file_as_an_evaluation_video_also_after_normalising():
    exam = evaluation_video("e", sha256="a" * 64)
    same = video_record("x").model_copy(update={"sha256": "a" * 64})
    normalised = video_record("y").model_copy(update={"normalised_from": "a" * 64})
    assert len(find_named([same, normalised, video_record("z")], {}, [exam])) == 2


def keep_prints(workspace: Workspace, **codes: np.ndarray) -> dict[str, str]:
    return {
        name: store.store_fingerprint(workspace.storage, name, of(found)) for name, found in codes.items()
    }


def test_copies_of_a_video_that_is_named_are_found_by_its_pictures(workspace):
    """A list of ids holds no picture; the training video that it names does."""
    body = moving(1, 60)
    keys = keep_prints(workspace, named=body, copy=noisy(body, 4)[40:200], other=moving(2, 60))
    listed = [
        EvaluationVideo(evaluation_id="e", name="exam-7", listed_in="exam.txt", names=("source-named",))
    ]
    videos = [video_record(name, duration_s=60) for name in ("copy", "named", "other")]
    pairs = find_all(workspace.storage, videos, keys, DedupConfig(), evaluation=listed)
    kept, rejections = judge(videos, pairs)
    assert [video.video_id for video in kept] == ["other"]
    assert {(r.item_id, r.reason) for r in rejections} == {
        ("named", "evaluation-leak"),
        ("copy", "evaluation-leak"),
    }
    assert "shares 40.0 s with the evaluation video exam-7" in rejections[0].detail


def test_a_file_of_fingerprints_goes_there_and_back(tmp_path, workspace):
    found = of(moving(3, 30))
    video = evaluation_video("e", name="007", sha256="b" * 64, duration_s=30.0)
    path = tmp_path / "exam.parquet"
    store.write_fingerprint_file(path, [(video, "https://youtu.be/aaaaaaaaaaa", found)], origin="exam.yaml")
    assert not is_source_list(str(path))
    read = read_list(str(path), workspace)[0]
    assert (read.name, read.sha256, read.names) == ("007", "b" * 64, ("aaaaaaaaaaa",))
    again = store.load_fingerprint(workspace.storage, read.key)
    np.testing.assert_array_equal(again.codes, found.codes)
    first = path.read_bytes()
    store.write_fingerprint_file(path, [(video, "https://youtu.be/aaaaaaaaaaa", found)], origin="exam.yaml")
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", ["exam.parquet", "exam.txt", "exam.yaml"])
def test_a_list_that_is_not_there(tmp_path, workspace, name):
    with pytest.raises(InputError, match="does not exist"):
        read_list(str(tmp_path / name), workspace)


@pytest.mark.parametrize("content", [b"PAR1 no", b""])
def test_a_file_of_fingerprints_that_is_damaged(tmp_path, workspace, content):
    path = tmp_path / "exam.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        store.read_fingerprint_file(path, workspace)


def test_fingerprints_of_another_version_and_of_no_whole_samples(tmp_path, workspace):
    path = tmp_path / "exam.parquet"
    store.write_fingerprint_file(path, [(evaluation_video("e"), "", of(moving(3, 5)))], origin="x")
    table = pq.read_table(path)
    other = table.schema.metadata[b"longvila.fingerprints"].replace(
        b'"samples_per_s": 4.0', b'"samples_per_s": 2.0'
    )
    pq.write_table(table.replace_schema_metadata({b"longvila.fingerprints": other}), path)
    with pytest.raises(InputError, match="Make it again with this version"):
        read_list(str(path), workspace)
    cut = table.set_column(4, "codes", pa.array([b"12345"]))
    pq.write_table(cut.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(InputError, match="fingerprint_videos"):
        read_list(str(path), workspace)


@pytest.mark.parametrize("content", ["", "# nothing\n\n"])
def test_an_empty_list_of_ids(tmp_path, workspace, content):
    path = tmp_path / "exam.txt"
    path.write_text(content)
    with pytest.raises(InputError, match="Write one id or address per line"):
        read_list(str(path), workspace)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="UTF-8"):
        read_list(str(path), workspace)


def test_a_damaged_fingerprint_is_named(workspace):
    key = keep_prints(workspace, a=moving(1, 5))["a"]
    workspace.storage.put_bytes(key, workspace.storage.get_bytes(key)[:-7])
    with pytest.raises(InputError, match="Delete it and build again"):
        store.load_fingerprint(workspace.storage, key)
