from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from longvila.config.sources import FolderEntry, SourceDefaults
from longvila.curation.listing.folders import list_folder
from longvila.curation.listing.listing import Listing
from longvila.errors import ConfigError, InputError
from longvila.records import Source


def listed(base: Path, **fields: Any) -> Listing:
    listing = Listing()
    entry = FolderEntry.model_validate({"url": "videos"} | fields)
    list_folder(listing, entry, SourceDefaults(license="CC0"), base=base)
    return listing


def make(base: Path, *names: str) -> None:
    for name in names:
        path = base / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def by_url(listing: Listing) -> dict[str, Source]:
    return {source.url: source for source in listing.sources}


def reasons(listing: Listing) -> dict[str, str]:
    return {item.item_id: item.reason for item in listing.rejections}


def test_videos_become_sources_and_the_rest_is_left_aside(tmp_path: Path) -> None:
    make(tmp_path, "b.mp4", "deep/er/a.MKV", "notes.txt", "b.srt", ".hidden.mp4", ".git/c.mp4")
    (tmp_path / "videos" / "empty").mkdir()
    listing = listed(tmp_path, author="Me")
    assert list(by_url(listing)) == ["videos/b.mp4", "videos/deep/er/a.MKV"]
    first = listing.sources[0]
    assert (first.size_bytes, first.author, first.license, first.split) == (5, "Me", "CC0", "train")
    assert (listing.parts[0].num_left_aside, listing.rejections) == (2, [])
    assert list(by_url(listed(tmp_path, recursive=False))) == ["videos/b.mp4"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.mp4", ["a.mp4", "x/B.MP4", "x/y/c.mp4"]),
        ("x/*.mp4", ["x/B.MP4"]),
        ("x/**/*.mp4", ["x/B.MP4", "x/y/c.mp4"]),
        ("**", ["a.mp4", "d.bin", "x/B.MP4", "x/y/c.mp4"]),
        ("[a-b].mp4", ["a.mp4", "x/B.MP4"]),
        ("[!a-b].*", ["d.bin", "x/y/c.mp4"]),
        ("?.bin", ["d.bin"]),
        ("no such", []),
        ("a.mp4.*", []),
        ("[", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, found: list[str]) -> None:
    make(tmp_path, "a.mp4", "x/B.MP4", "x/y/c.mp4", "d.bin")
    assert sorted(by_url(listed(tmp_path, pattern=pattern))) == [f"videos/{name}" for name in found]


def test_a_pattern_that_is_none(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    with pytest.raises(ConfigError, match=r"'\[z-a\].mp4' cannot be read"):
        listed(tmp_path, pattern="[z-a].mp4")


def test_ids_and_splits_stay_when_the_folder_grows(tmp_path: Path) -> None:
    make(tmp_path, *(f"{i}/clip.mp4" for i in range(0, 200, 2)))
    before = {
        url: (source.source_id, source.split)
        for url, source in by_url(listed(tmp_path, heldout_share=0.2)).items()
    }
    make(tmp_path, *(f"{i}/clip.mp4" for i in range(1, 200, 2)), "clip.mp4", "0/Clip.mp4")
    after = by_url(listed(tmp_path, heldout_share=0.2))
    assert all((after[url].source_id, after[url].split) == known for url, known in before.items())
    assert len({source.source_id for source in after.values()}) == len(after) == 202
    held_out = sum(source.split == "heldout" for source in after.values())
    assert 20 <= held_out <= 60
    more = by_url(listed(tmp_path, heldout_share=0.5))
    assert all(more[url].split == "heldout" for url, source in after.items() if source.split == "heldout")


def test_a_name_keeps_the_ids_when_the_folder_moves(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    (tmp_path / "moved").symlink_to(tmp_path / "videos")
    ids = [
        listed(tmp_path, url=url, name="mine").sources[0].source_id
        for url in ("videos", "moved", "./videos/")
    ]
    assert len(set(ids)) == 1
    assert listed(tmp_path).sources[0].source_id != listed(tmp_path, url="moved").sources[0].source_id


def test_links(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "sub/b.mp4")
    make(tmp_path / "elsewhere", "c.mp4", "d.mp4")
    videos, outside = tmp_path / "videos", tmp_path / "elsewhere" / "videos"
    (videos / "inside.mp4").symlink_to("a.mp4")
    (videos / "loop").symlink_to(".")
    (videos / "sub" / "up").symlink_to("..")
    (videos / "broken.mp4").symlink_to("nowhere")
    (videos / "round.mp4").symlink_to("round.mp4")
    (videos / "out.mp4").symlink_to(outside / "c.mp4")
    (videos / "outdir").symlink_to(outside)
    (outside / "back").symlink_to(videos)
    listing = listed(tmp_path)
    assert list(by_url(listing)) == ["videos/a.mp4", "videos/inside.mp4", "videos/sub/b.mp4"]
    assert reasons(listing) == {
        "videos/broken.mp4": "missing",
        "videos/round.mp4": "missing",
        "videos/out.mp4": "leads-outside",
        "videos/outdir/": "leads-outside",
    }
    followed = by_url(listed(tmp_path, follow_links=True))
    assert str(videos / "outdir" / "d.mp4") in followed
    assert str(videos / "out.mp4") in followed
    assert all(Path(url).is_file() or (tmp_path / url).is_file() for url in followed)
    assert len(followed) == 6


def test_names_that_no_text_can_hold(tmp_path: Path) -> None:
    make(tmp_path, "good.mp4", "new\nline.mp4", "Ünïcödé 视频.mp4", "x?y#z%20 &.mp4", "..mp4", "-rf.mp4")
    Path(os.fsdecode(os.fsencode(tmp_path / "videos") + b"/\xff\xfe.mp4")).write_bytes(b"x")
    listing = listed(tmp_path)
    assert reasons(listing) == {
        "videos/new\\x0aline.mp4": "bad-name",
        "videos/\\xff\\xfe.mp4": "bad-name",
    }
    assert len(listing.sources) == 4
    for source in listing.sources:
        assert source.source_id.replace("-", "").replace("_", "").isalnum()
        assert source.source_id.isascii()


def test_what_is_neither_file_nor_folder_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "videos" / "pipe.mp4")
    assert list(by_url(listed(tmp_path))) == ["videos/a.mp4"]


@pytest.mark.parametrize(
    ("url", "said"),
    [("nowhere", "There is no folder"), ("https://x.org/videos", "write a table of their addresses")],
)
def test_no_folder(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        listed(tmp_path, url=url)


def test_other_ways_to_name_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a b.mp4")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(by_url(listed(tmp_path / "videos", url="."))) == ["a b.mp4"]
    assert list(by_url(listed(tmp_path, url=str(tmp_path / "videos")))) == [
        str(tmp_path / "videos" / "a b.mp4")
    ]
    assert list(by_url(listed(tmp_path, url="~/videos"))) == [str(tmp_path / "videos" / "a b.mp4")]
    address = (tmp_path / "videos").as_uri()
    assert list(by_url(listed(tmp_path, url=address))) == [f"{address}/a%20b.mp4"]
