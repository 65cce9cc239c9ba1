"""Every view, read by its reader or as its reader reads it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longvila.data import SampleWithFrames, open_index, open_reader, write_dataset
from longvila.data.views import ViewName, ViewReport, export_view
from longvila.data.views.video import encode_video, frame_rate
from longvila.errors import ConfigError, InputError
from longvila.media.jpeg import decode_frame, pack_frames, unpack_frames
from longvila.records import Sample, SampleKind, Split
from longvila.storage import Storage, open_storage
from tests.data.conftest import files_of, killed, make_item, make_items, picture

SIDE = 32


def item(
    key: str, kind: SampleKind, turns: list[tuple[str, str]], times_s: tuple[float, ...] = ()
) -> SampleWithFrames:
    sample = Sample.model_validate(
        {
            "key": key, "kind": kind, "split": "train", "frame_times_s": times_s,
            "conversations": [{"role": role, "text": text} for role, text in turns],
        }
    )  # fmt: skip
    frames = np.stack([picture(3 * i + len(key), SIDE) for i in range(len(times_s))]) if times_s else None
    return SampleWithFrames(sample, None if frames is None else pack_frames(frames, quality=95))


CHOICE = "<frames>\nWhich comes first?\nA. fish\nB. bird"
ITEMS = [
    item(
        "choice",
        "video",
        [("human", CHOICE), ("gpt", "B"), ("human", "Why?"), ("gpt", "Seen.")],
        (0, 0.5, 1, 1.5),
    ),
    item(
        "film",
        "needle",
        [("system", "Be short."), ("human", "See <frames> and tell."), ("gpt", "x")],
        (2, 2.5),
    ),
    item("interleaved", "video", [("human", "<frames> then <frames>?"), ("gpt", "yes")], (0, 9)),
    item("mark", "video", [("human", "<frames> what is <video>?"), ("gpt", "a tag")], (0, 1)),
    item("photo", "image", [("human", "<frames>"), ("gpt", "a “tower”")], (0,)),
    item("plain", "text", [("gpt", "Only text.")]),
]
LEFT_OUT = {"foreign-mark": 1}


@pytest.fixture
def here(tmp_path: Path) -> Storage:
    storage = open_storage(tmp_path)
    write_dataset(storage, "a", "train", ITEMS)
    write_dataset(storage, "a", "heldout", make_items(3, "heldout"))
    return storage


def rows_of(report: ViewReport, name: str) -> dict[str, Any]:
    return {row["id"]: row for row in json.loads((Path(report.url) / name).read_text())}


def test_llava_json(here: Storage) -> None:
    report = export_view(here, "a", "llava")
    assert (report.num_samples, report.left_out) == (5, LEFT_OUT)
    assert "'mark' has '<video>' in its text" in report.examples[0]
    rows = rows_of(report, "llava.json")
    assert rows["choice"]["conversations"] == [
        {"from": "human", "value": "<video>\nWhich comes first?\nA. fish\nB. bird"},
        {"from": "gpt", "value": "B"},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "Seen."},
    ]
    assert rows["film"]["conversations"][0]["value"] == "Be short.\nSee <video> and tell."
    plain = [{"from": "human", "value": ""}, {"from": "gpt", "value": "Only text."}]
    assert rows["plain"] == {"id": "plain", "conversations": plain}
    assert rows["interleaved"]["conversations"][0]["value"] == "<image> then <image>?"
    assert len(rows["interleaved"]["image"]) == 2
    assert isinstance(rows["photo"]["image"], str)
    lines = (Path(report.url) / "llava.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(rows.values())
    for name in (rows["choice"]["video"], rows["photo"]["image"], *rows["interleaved"]["image"]):
        assert (Path(report.url) / name).is_file()


def test_the_mp4_has_the_samples_frames(here: Storage) -> None:
    import cv2

    report = export_view(here, "a", "llava", crf=4)
    capture = cv2.VideoCapture(str(Path(report.url) / rows_of(report, "llava.json")["choice"]["video"]))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (4, 2)
    truth = open_reader(f"{here.url}/shards/a").frames(0, range(4)).astype(int)
    for index in (0, 3, 1, 2):  # by index, as VILA reads
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        found = capture.read()[1][..., ::-1].astype(int)
        errors = np.abs(truth - found).mean(axis=(1, 2, 3))
        assert errors.argmin() == index
        assert errors[index] < 8


def test_swift_jsonl_takes_frames_or_videos(here: Storage) -> None:
    for media in ("frames", "mp4"):
        report = export_view(here, "a", "swift", media=media, folder=f"views/swift-{media}")
        rows = [json.loads(line) for line in (Path(report.url) / "swift.jsonl").read_text().splitlines()]
        assert rows[1]["messages"][0] == {"role": "system", "content": "Be short."}
        for row in rows:
            text = "".join(message["content"] for message in row["messages"])
            assert text.count("<video>") == len(row.get("videos", ()))
            assert text.count("<image>") == len(row.get("images", ()))
        (video,) = rows[0]["videos"]
        paths = video if media == "frames" else [video]
        assert all(Path(path).is_absolute() and Path(path).is_file() for path in paths)
        if media == "frames":
            jpegs = [decode_frame(Path(path).read_bytes()) for path in sorted(paths)]
            np.testing.assert_array_equal(jpegs, open_reader(f"{here.url}/shards/a").frames(0, range(4)))


def test_vila_webdataset(here: Storage) -> None:
    import webdataset

    report = export_view(here, "a", "vila")
    assert report.left_out == {**LEFT_OUT, "no-video": 3}
    meta = json.loads((Path(report.url) / "wids-meta.json").read_text())
    assert (meta["__kind__"], meta["wids_version"]) == ("VILA-WebDataset", 1)
    (shard,) = meta["shardlist"]
    tar = Path(report.url) / shard["url"]
    assert shard == {"url": "a-train-000000.tar", "nsamples": 2, "filesize": tar.stat().st_size}
    read = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == ["choice", "film"]
    for sample in read:
        assert {name for name in sample if not name.startswith("__")} == {"json", "mp4"}
        assert json.loads(sample["json"])["conversations"][-1]["from"] == "gpt"


def test_parquet_is_opened_by_datasets(
    here: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    report = export_view(here, "a", "parquet")
    loaded = datasets.load_dataset(report.url, cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = list(loaded["train"])
    assert [row["key"] for row in rows] == ["choice", "film", "interleaved", "photo", "plain"]
    assert rows[0]["times_s"] == [0, 0.5, 1, 1.5]
    truth = open_reader(f"{here.url}/shards/a").frames(0, range(4)).astype(int)
    found = np.stack([np.asarray(image) for image in rows[0]["frames"]])
    assert np.abs(found - truth).max() <= 2  # another JPEG decoder
    assert rows[-1]["frames"] == []


@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_energon_opens_our_shards(tmp_path: Path) -> None:
    energon = pytest.importorskip("megatron.energon")
    from longvila.data.views.energon_cooker import FramesTaskEncoder

    storage = open_storage(tmp_path)
    write_dataset(storage, "a", "train", make_items(20), target_bytes=50_000)
    write_dataset(storage, "a", "heldout", make_items(3, "heldout"))
    report = export_view(storage, "a", "energon")
    config = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)

    def load(part: str) -> list[Any]:
        once = {"shuffle_buffer_size": None, "max_samples_per_sequence": None, "repeat": False}
        given = {"batch_size": None, "worker_config": config, "task_encoder": FramesTaskEncoder()}
        get = getattr(energon, f"get_{part}_dataset")
        dataset = get(report.url, **given, **(once if part == "train" else {}))
        return list(energon.get_loader(dataset))

    found = {sample.__key__: sample for sample in load("train")}
    assert set(found) == {one.sample.key for one in make_items(20)}
    six = make_item(6, 6)
    assert six.frames is not None
    np.testing.assert_array_equal(
        found[six.sample.key].frames_NHW3.numpy(),
        unpack_frames(six.frames.data, six.frames.offsets, range(6)),
    )
    assert found[six.sample.key].times_s.tolist() == list(six.sample.frame_times_s)
    assert found["a-train-0000"].conversations[1]["text"] == "0 now"
    export_view(storage, "a", "energon", split="heldout")
    assert {sample.__key__ for sample in load("val")} == {f"a-heldout-{i:04d}" for i in range(3)}
    assert len(load("train")) == 20
    write_dataset(storage, "a", "train", make_items(21), target_bytes=50_000)
    assert not [key for key in storage.list("shards/a/") if ".nv-meta" in key or key.endswith(".idx")]


@pytest.mark.parametrize("view", ["llava", "vila", "parquet"])
def test_views_lie_in_s3_as_on_disk(s3_url: str, tmp_path: Path, view: ViewName) -> None:
    local, remote = open_storage(tmp_path), open_storage(s3_url)
    for storage in (local, remote):
        write_dataset(storage, "a", "train", ITEMS)
        export_view(storage, "a", view)
    folder = f"views/a/{view}-train/"
    keys = local.list(folder)
    assert remote.list(folder) == keys
    same = [key for key in keys if not key.endswith("view.json")]
    assert all(local.get_bytes(key) == remote.get_bytes(key) for key in same)
    assert export_view(remote, "a", view).reused


def test_splits_are_kept_apart(here: Storage) -> None:
    train, heldout = (
        rows_of(export_view(here, "a", "llava", split=split), "llava.json") for split in ("train", "heldout")
    )
    assert not set(train) & set(heldout)
    assert set(heldout) == {f"a-heldout-{i:04d}" for i in range(3)}


def test_a_view_is_left_as_it_is_until_the_data_change(here: Storage) -> None:
    first = export_view(here, "a", "llava")
    before = files_of(Path(first.url))
    again = export_view(here, "a", "llava")
    assert again.reused
    assert again == first.model_copy(update={"reused": True})
    assert files_of(Path(first.url)) == before
    write_dataset(here, "a", "train", ITEMS[:2])
    assert export_view(here, "a", "llava").num_samples == 2
    assert len(rows_of(first, "llava.json")) == 2
    assert not [path for path in Path(first.url).parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("view", ["llava", "swift", "vila", "parquet"])
def test_a_killed_export_is_absent_and_goes_on(tmp_path: Path, view: ViewName) -> None:
    storage = open_storage(tmp_path / "killed")
    write_dataset(storage, "a", "train", make_items(12), target_bytes=30_000)

    def work() -> None:
        def stop(done: int, total: int) -> None:
            if done == 8:
                os.kill(os.getpid(), signal.SIGKILL)

        export_view(storage, "a", view, on_progress=stop)

    assert killed(work)
    folder = tmp_path / f"killed/views/a/{view}-train"
    assert not folder.exists()
    made = {
        path: path.stat().st_mtime_ns for path in folder.parent.rglob("*") if path.suffix in (".mp4", ".jpg")
    }
    assert made or view in ("vila", "parquet")
    report = export_view(storage, "a", view)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert all(kept[path.name] == time for path, time in made.items() if view == "llava")
    whole = open_storage(tmp_path / "whole")
    write_dataset(whole, "a", "train", make_items(12), target_bytes=30_000)
    export_view(whole, "a", view)
    keys = [key for key in whole.list("views/") if not key.endswith(("view.json", "swift.jsonl"))]
    assert [key for key in storage.list("views/") if not key.endswith(("view.json", "swift.jsonl"))] == keys
    assert all(storage.get_bytes(key) == whole.get_bytes(key) for key in keys)
    assert report.num_samples == len(open_index(storage, "a")) - sum(report.left_out.values())


def test_wrong_wishes_are_told(here: Storage, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"media='frames' is not for view='vila', which has mp4"):
        export_view(here, "a", "vila", media="frames")
    with pytest.raises(ConfigError, match=r"view='coco' is not known. Use one of llava, swift"):
        export_view(here, "a", "coco")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="There is no data set 'none'"):
        export_view(here, "none", "llava")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"is no view that was exported before .* Give another folder"):
        export_view(here, "a", "llava", folder="mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"
    with pytest.raises(InputError, match="cannot be a storage key"):
        export_view(here, "a", "llava", folder="../outside")
    write_dataset(here, "b", "train", [ITEMS[-1]])
    with pytest.raises(InputError, match=r"None of the 1 samples .* fits the view 'vila': .'no-video': 1"):
        export_view(here, "b", "vila")
    empty: Split = "heldout"
    with pytest.raises(InputError, match=r"no sample in split 'heldout'"):
        export_view(here, "b", "llava", split=empty)


@pytest.mark.parametrize(
    ("times_s", "rate"), [((0.0,), 1), ((0, 0.5, 1), 2), ((3, 3.1, 3.2, 9), 10), ((1, 1), 1), ((0, 1 / 3), 3)]
)
def test_frame_rate(times_s: tuple[float, ...], rate: int) -> None:
    assert frame_rate(times_s) == rate


def test_videos_of_odd_size_keep_every_pixel() -> None:
    frames = np.stack([picture(i, 33) for i in range(3)])
    data = encode_video(pack_frames(frames, quality=95), (0, 1, 2))
    assert data == encode_video(pack_frames(frames, quality=95), (0, 1, 2))
    import io

    import av

    with av.open(io.BytesIO(data)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in decoded] == [(33, 33, 3)] * 3
