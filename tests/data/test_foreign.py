"""Tars of others as a data set; what no honest tar has is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.config.stage import MixtureEntry, StageConfig
from longvila.data import PackedLoader, open_reader, verify_dataset, write_dataset
from longvila.data.foreign import ForeignReport, index_foreign
from longvila.data.views.video import encode_video
from longvila.errors import InputError
from longvila.media.jpeg import pack_frames
from longvila.storage import Storage, open_storage
from tests.data.conftest import SIDE, files_of, picture

TALK = {
    "conversations": [{"from": "human", "value": "<video>\nwhat is it"}, {"from": "gpt", "value": "a card"}]
}


def video(num_frames: int = 6) -> bytes:
    frames = np.stack([picture(5 * i, 64) for i in range(num_frames)])
    return encode_video(pack_frames(frames, quality=95), [0.5 * i for i in range(num_frames)])


def png(number: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path) -> None:
    """Two tars with the same keys, as public sets have them."""
    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(folder / "b-000.tar")) as tar:
        tar.write({"__key__": "0001", "mp4": video(), "json": TALK})
        tar.write({"__key__": "dir/0 2", "png": png(), "txt": "a card now"})
    with webdataset.TarWriter(str(folder / "b-001.tar")) as tar:
        tar.write(
            {"__key__": "0001", "jpg": np.full((20, 30, 3), 200, np.uint8), "json": {"caption": "number 7"}}
        )
        tar.write({"__key__": "0003", "json": {"messages": [
            {"role": "user", "content": "what"}, {"role": "assistant", "content": "card 3"},
        ]}})  # fmt: skip


def test_foreign_tars_are_trained_on_where_they_lie(
    storage: Storage, tmp_path: Path, make_stage: Callable[..., StageConfig],
    tokenizer: PreTrainedTokenizerFast, model: ModelConfig,
) -> None:  # fmt: skip
    fill(tmp_path / "tars")
    for path in sorted((tmp_path / "tars").iterdir()):
        storage.put_file(path.name, path)
    report = index_foreign(storage, "public")
    assert (report.num_samples, report.num_frames, report.left_out) == (4, 8, {})
    reader = open_reader(storage.url, frame_size=SIDE)
    found = [reader.sample(i) for i in range(4)]
    assert [sample.kind for sample in found] == ["video", "image", "image", "text"]
    assert [turn.text for turn in found[0].conversations] == ["<frames>\nwhat is it", "a card"]
    assert [turn.text for turn in found[1].conversations] == ["<frames>", "a card now"]
    assert found[0].frame_times_s == (0, 0.5, 1, 1.5, 2, 2.5)
    assert len({sample.key for sample in found}) == 4
    frames = reader.frames(0, [5, 0])
    truth = np.stack([picture(5 * i, 64) for i in (5, 0)]).reshape(2, SIDE, 4, SIDE, 4, 3).mean(axis=(2, 4))
    assert np.abs(frames - truth).mean() < 12
    assert (reader.frames(2, [0]) > 190).all()
    assert verify_dataset(storage, "public", folder="").ok
    stage = make_stage(mixture=(MixtureEntry(dataset="public"),), steps=2, rows_per_step=2)
    loader = PackedLoader({"public": storage.url}, stage, tokenizer, model)
    batches = [batch for step in loader for batch in step.batches]
    assert {key for batch in batches for key in batch.keys} == {sample.key for sample in found}
    assert all(batch.frames_fHW3.shape[1:] == (SIDE, SIDE, 3) for batch in batches if len(batch.frames_fHW3))


def test_they_can_be_written_anew_as_our_shards(tmp_path: Path) -> None:
    fill(tmp_path)
    storage = open_storage(tmp_path)
    index_foreign(storage, "public")
    reader = open_reader(storage.url, frame_size=SIDE)
    write_dataset(storage, "ours", "train", (reader.with_frames(i) for i in range(len(reader))))
    assert verify_dataset(storage, "ours").ok
    assert open_reader(f"{storage.url}/shards/ours").frames(0, range(6)).shape == (6, SIDE, SIDE, 3)


def test_a_second_run_reads_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    storage = open_storage(tmp_path)
    first = index_foreign(storage, "public")
    before = files_of(tmp_path)
    read: list[str] = []
    whole = type(storage).read_range
    monkeypatch.setattr(
        type(storage), "read_range", lambda self, key, *place: read.append(key) or whole(self, key, *place)
    )
    assert index_foreign(storage, "public") == first
    assert read == []
    assert {name: one for name, one in files_of(tmp_path).items() if name != "index.parquet"} == {
        name: one for name, one in before.items() if name != "index.parquet"
    }
    with webdataset.TarWriter(str(tmp_path / "b-001.tar")) as tar:
        tar.write({"__key__": "0009", "json": {"text": "card 9"}})
    assert index_foreign(storage, "public").num_samples == 3
    assert set(read) == {"b-001.tar"}


def test_a_changed_tar_is_found_by_verify(tmp_path: Path) -> None:
    fill(tmp_path)
    storage = open_storage(tmp_path)
    index_foreign(storage, "public")
    row = open_reader(storage.url).index.row(0)
    data = bytearray(storage.get_bytes("b-000.tar"))
    data[row.frames_offset + 50] ^= 255
    storage.put_bytes("b-000.tar", bytes(data))
    report = verify_dataset(storage, "public", folder="")
    assert [problem for problem in report.problems if row.key in problem] == [
        f"sample {row.key} of b-000.tar: its content changed (sha256)"
    ]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"mp4": b"no video at all", "json": TALK}, "not-a-video"),
        ({"mp4": b"", "json": TALK}, "empty"),
        ({"png": b"no picture", "txt": "x"}, "not-a-picture"),
        ({"png": png()}, "no-text"),
        ({"png": png(), "txt": "  "}, "no-text"),
        ({"png": png(), "txt": b"\xff\xfe\xff"}, "not-text"),
        ({"json": b"{"}, "bad-json"),
        ({"json": b"[" * 100_000}, "bad-json"),
        ({"json": {"label": 3}}, "no-text"),
        ({"json": {"conversations": [{"from": "gpt", "value": "x"}]}}, "turns"),
        ({"json": {"conversations": ["x", 3]}}, "turns"),
        ({"png": png(), "json": {"caption": "see <frames>"}}, "foreign-mark"),
    ],
)  # fmt: skip
def test_a_sample_that_cannot_be_used_is_left_out(
    tmp_path: Path, sample: dict[str, Any], reason: str
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in {
            **{f"bad.{end}": one for end, one in sample.items()},
            "good.txt": "card 1",
        }.items():
            add(tar, name, data)
    report = index_foreign(open_storage(tmp_path), "x")
    assert (report.num_samples, report.left_out) == (1, {reason: 1})
    assert report.examples[0].startswith("x.tar: sample 'bad': ")


def add(tar: tarfile.TarFile, name: str, data: Any = b"", **header: Any) -> None:
    data = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in header.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def index(tmp_path: Path, *members: tuple[str, dict[str, Any]]) -> ForeignReport:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, header in members:
            add(tar, name, b"" if header else b"card 1", **header)
    return index_foreign(open_storage(tmp_path), "x")


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("../a.txt", {})], "its name leads out of the archive"),
        ([("/etc/a.txt", {})], "its name leads out of the archive"),
        ([("a/../../b.txt", {})], "its name leads out of the archive"),
        ([("a\\b.txt", {})], "its name leads out of the archive"),
        ([("a.txt", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "it is a link"),
        ([("a.txt", {"type": tarfile.LNKTYPE, "linkname": "b"})], "it is a link"),
        ([("a.txt", {"type": tarfile.CHRTYPE})], "it is a link, a device"),
        ([("a.txt", {}), ("a.txt", {})], "it comes twice"),
        ([("a.txt", {}), ("b.txt", {}), ("a.json", {})], "its sample has come before"),
    ],
)
def test_a_hostile_tar_is_refused(
    tmp_path: Path, members: list[tuple[str, dict[str, Any]]], why: str
) -> None:
    with pytest.raises(InputError, match=rf"x\.tar is refused for .*{why}.* Pack the archive anew"):
        index(tmp_path, *members)


def test_folders_hidden_files_and_metadata_are_passed_over(tmp_path: Path) -> None:
    folder = {"type": tarfile.DIRTYPE}
    report = index(
        tmp_path, ("d", folder), ("./d/a.txt", {}), ("d/._a.txt", {}), ("__meta__/x.txt", {}), ("README", {})
    )
    assert (report.num_samples, report.left_out) == (1, {})


@pytest.mark.parametrize("cut", [1, 600, 1100, 1536, 2000])
def test_a_tar_that_is_cut_short_is_told(tmp_path: Path, cut: int) -> None:
    fill(tmp_path)
    (tmp_path / "b-000.tar").unlink()
    data = (tmp_path / "b-001.tar").read_bytes()
    (tmp_path / "b-001.tar").write_bytes(data[:cut])
    with pytest.raises(InputError, match=r"b-001\.tar is (cut short|not a whole)"):
        index_foreign(open_storage(tmp_path), "x")


def test_no_tar_and_our_own_shards_are_told(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with pytest.raises(InputError, match=r"There is no \*\.tar"):
        index_foreign(storage, "x")
    fill(tmp_path)
    index_foreign(storage, "public")
    reader = open_reader(storage.url, frame_size=SIDE)
    write_dataset(storage, "ours", "train", (reader.with_frames(i) for i in range(len(reader))))
    before = storage.get_bytes("shards/ours/index.parquet")
    with pytest.raises(InputError, match=r"is a data set of ours already"):
        index_foreign(open_storage(tmp_path / "shards/ours"), "x")
    assert storage.get_bytes("shards/ours/index.parquet") == before
