from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longvila.config.sources import SourceDefaults, TableEntry
from longvila.curation.listing.listing import Listing
from longvila.curation.listing.tables import list_table
from longvila.errors import ConfigError, InputError

SHA = "ab" * 32


def listed(path: Path, data: bytes | str = b"", *, url: str | None = None, **fields: Any) -> Listing:
    if data:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    listing = Listing()
    entry = TableEntry.model_validate({"url": url or path.name} | fields)
    list_table(listing, entry, SourceDefaults(author="Somebody"), path=path)
    return listing


def problems(listing: Listing) -> dict[str, str]:
    return {item.item_id: item.detail.partition(": ")[2] for item in listing.rejections}


def test_every_field_of_a_csv(tmp_path: Path) -> None:
    listing = listed(
        tmp_path / "t.csv",
        "url,source_id,split,title,author,license,sha256,size_bytes,other\r\n"
        f'https://x.org/a.mp4,one,HELDOUT,"Two, ""lines""\nof title",Ann,CC0,{SHA.upper()},12.0,x\r\n'
        "clips/b.mp4,,,,,,,,\r\n",
    )
    first, second = listing.sources
    assert (first.source_id, first.split, first.title) == ("one", "heldout", 'Two, "lines"\nof title')
    assert (first.author, first.license, first.sha256, first.size_bytes) == ("Ann", "CC0", SHA, 12)
    assert (second.url, second.author, second.split) == ("clips/b.mp4", "Somebody", "train")
    assert second.source_id.startswith("b-")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings_are_found(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [
        ["link", "name", "n"],
        ["https://x.org/ä.mp4", "Grüße, a; b", "1"],
        ["https://x.org/b.mp4", "b", "2"],
    ]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    listing = listed(tmp_path / "t.csv", text.encode(encoding), columns={"url": "link", "title": "name"})
    assert [source.title for source in listing.sources] == ["Grüße, a; b", "b"]
    assert listing.sources[0].url == "https://x.org/ä.mp4"


def test_bad_rows_are_rejected_by_line_and_the_others_go_on(tmp_path: Path) -> None:
    rows = [
        "url,split,size_bytes,sha256,title",
        "https://x.org/1.mp4,,,,",
        ",,,,no url",
        "https://x.org/2.mp4,val,,,",
        "https://x.org/3.mp4,,many,,",
        "https://x.org/4.mp4,,,beef,",
        "ftp://x.org/5.mp4,,,,",
        "https://,,,,",
        "https://x.org/6.mp4,,,",
        "https://x.org/7.mp4,,,,a,b",
        '"https://x.org/8.mp4,,,,',
        'https://x.org/9.mp4,,,,"half" quoted',
        "https://x.org/1.mp4,,,,again",
        "",
        "https://x.org/" + "x" * 9000 + ",,,,",
        "https://x.org/tab\there.mp4,,,,",
        "https://x.org/last.mp4,,,,",
    ]
    listing = listed(tmp_path / "t.csv", "\n".join(rows).encode() + b"\nhttps://x.org/z.mp4,,,,\xff\xfe\n")
    assert [source.url for source in listing.sources] == ["https://x.org/1.mp4", "https://x.org/last.mp4"]
    assert list(problems(listing)) == [
        f"t.csv line {n}" for n in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 18)
    ]
    said = problems(listing)
    assert said["t.csv line 3"] == "it has no url."
    assert said["t.csv line 4"] == "its split 'val' is neither train nor heldout."
    assert "'many' is not a whole number" in said["t.csv line 5"]
    assert "not 64 hex digits" in said["t.csv line 6"]
    assert "begins with 'ftp'" in said["t.csv line 7"]
    assert "it has 4 fields, the first line names 5" in said["t.csv line 9"]
    assert "quotes do not match" in said["t.csv line 11"]
    assert "quotes do not match" in said["t.csv line 12"]
    assert said["t.csv line 13"].startswith("https://x.org/1.mp4 is listed before")
    assert "not UTF-8" in said["t.csv line 18"]
    assert listing.num_listed == 16


def test_an_open_quote_costs_one_row_of_very_many(tmp_path: Path) -> None:
    rows = ["url,title", *(f"https://x.org/{i}/v.mp4,{i}" for i in range(3000))]
    rows[1000] = 'https://x.org/bad.mp4,"never closed'
    listing = listed(tmp_path / "t.csv", "\n".join(rows))
    assert len(listing.sources) == 2999
    assert list(problems(listing)) == ["t.csv line 1001"]
    assert len({source.source_id for source in listing.sources}) == 2999


def test_a_quote_that_swallows_good_rows_gives_them_back(tmp_path: Path) -> None:
    text = 'url,title\nhttps://x.org/1.mp4,"open\nhttps://x.org/2.mp4,b\nhttps://x.org/3.mp4,""",c"\n'
    listing = listed(tmp_path / "t.csv", text + "https://x.org/4.mp4,d\n")
    assert [source.url[-5] for source in listing.sources] == ["2", "3", "4"]
    assert list(problems(listing)) == ["t.csv line 2"]


def test_ids_do_not_depend_on_the_other_rows(tmp_path: Path) -> None:
    few = listed(tmp_path / "a.csv", "url\nhttps://x.org/1/video.mp4\n", heldout_share=0.3)
    many = listed(
        tmp_path / "b.csv",
        "title,url\n" + "".join(f"t,https://x.org/{i}/video.mp4\n" for i in range(50)),
        heldout_share=0.3,
    )
    ours = next(source for source in many.sources if source.url == "https://x.org/1/video.mp4")
    assert (ours.source_id, ours.split) == (few.sources[0].source_id, few.sources[0].split)
    assert {source.split for source in many.sources} == {"train", "heldout"}


def test_ids_that_are_no_ids_become_safe_and_stay_different(tmp_path: Path) -> None:
    rows = ["../../etc/passwd", "..-..-etc-passwd", "视频", "影片", "a b", "a  b", "x" * 500, "fine_id-1"]
    text = "url,source_id\n" + "".join(f"https://x.org/{i}.mp4,{name}\n" for i, name in enumerate(rows))
    ids = [source.source_id for source in listed(tmp_path / "t.csv", text).sources]
    assert len(set(ids)) == len(rows)
    assert all(name.isascii() and "/" not in name and "." not in name and len(name) <= 120 for name in ids)
    assert ids[-1] == "fine_id-1"


def test_the_same_id_for_two_addresses(tmp_path: Path) -> None:
    listing = listed(tmp_path / "t.csv", "url,source_id\nhttps://x.org/a.mp4,a\nhttps://x.org/b.mp4,a\n")
    assert [item.reason for item in listing.rejections] == ["same-id"]


@pytest.mark.parametrize(
    ("text", "fields", "said"),
    [
        ("link,title\nx,y\n", {}, r"no column 'url'; it has 'link', 'title'"),
        ("url,url\nx,y\n", {}, r"more than one column 'url'"),
        ("url\nx\n", {"columns": {"title": "name"}}, r"no column 'name'.*columns: \{title: NAME\}"),
        ("https://x.org/a.mp4\n", {}, r"format: lines"),
        ("\n\n", {}, r"it has none at all"),
        ("\0\1\rPK\3\4 no text\r", {}, r"no column 'url'"),
    ],
)
def test_a_table_without_its_columns_is_a_mistake_in_the_list(
    tmp_path: Path, text: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        listed(tmp_path / "t.csv", text, **fields)


def test_jsonl(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"video": {"link": "https://x.org/a.mp4", "bytes": 12}, "id": 7, "title": None},
        {"video": {"link": "https://x.org/b.mp4", "bytes": float("nan")}, "id": "b"},
        {"video": "https://x.org/c.mp4"},
        ["https://x.org/d.mp4"],
        {"video": {"link": ["https://x.org/e.mp4"]}},
        {"video": {"link": True}},
    ]
    text = "\n\n".join([*(json.dumps(row) for row in rows), "{not json", "[" * 100_000])
    columns = {"url": "video.link", "size_bytes": "video.bytes", "source_id": "id"}
    listing = listed(tmp_path / "t.jsonl", text, columns=columns)
    assert [(source.source_id, source.size_bytes) for source in listing.sources] == [("7", 12), ("b", None)]
    assert list(problems(listing)) == [f"t.jsonl line {n}" for n in (5, 7, 9, 11, 13, 15)]


def test_parquet_and_its_odd_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "link": pa.array(["https://x.org/a.mp4", None, "https://x.org/c.mp4"]).dictionary_encode(),
            "bytes": pa.array([1.0, 2.0, float("nan")]),
            "name": pa.array([b"A", b"B", b"\xff"]),
            "unused": pa.array([[1], [2], [3]]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    columns = {"url": "link", "size_bytes": "bytes", "title": "name"}
    listing = listed(tmp_path / "t.parquet", columns=columns)
    assert [(source.title, source.size_bytes) for source in listing.sources] == [("A", 1)]
    assert problems(listing) == {
        "t.parquet row 2": "it has no url.",
        "t.parquet row 3": "its title is not UTF-8 text. Save the table as UTF-8.",
    }
    with pytest.raises(ConfigError, match="no column 'url'"):
        listed(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        listed(tmp_path / "bad.parquet", b"PAR1 not really")


def test_one_address_in_a_line(tmp_path: Path) -> None:
    listing = listed(tmp_path / "t.txt", "\ufeff# ours\nhttps://x.org/a,b.mp4 \r\n\r\nclips/c.mp4")
    assert [source.url for source in listing.sources] == ["https://x.org/a,b.mp4", "clips/c.mp4"]


def test_packed_tables(tmp_path: Path) -> None:
    data = gzip.compress(b"url\nhttps://x.org/a.mp4\n" * 1)
    assert len(listed(tmp_path / "t.csv.gz", data).sources) == 1
    with pytest.raises(InputError, match="cut short or damaged"):
        listed(tmp_path / "cut.csv.gz", data[:-9])


def test_an_ending_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Say what it is with format"):
        listed(tmp_path / "t.dat", "url\nx\n")
    assert len(listed(tmp_path / "t.dat", format="csv").sources) == 1


def test_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    def urls(table_url: str) -> list[str]:
        path = tmp_path / "t.csv"
        return [source.url for source in listed(path, "url\nclips/a.mp4\n", url=table_url).sources]

    assert urls("t.csv") == ["clips/a.mp4"]
    assert urls("lists/t.csv") == ["lists/clips/a.mp4"]
    assert urls("/data/t.csv") == ["/data/clips/a.mp4"]
    assert urls("https://x.org/lists/t.csv?token=x") == ["https://x.org/lists/clips/a.mp4"]
    assert urls("s3://bucket/lists/t.csv") == ["s3://bucket/lists/clips/a.mp4"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "~/.ssh/id_rsa", "FILE:///etc/passwd"])
def test_a_table_from_elsewhere_names_no_file_of_this_machine(tmp_path: Path, url: str) -> None:
    listing = listed(tmp_path / "t.csv", f"url\n{url}\n", url="https://x.org/t.csv")
    assert listing.sources == []
    assert "a table from elsewhere may not name" in problems(listing)["https://x.org/t.csv line 2"]


def test_ids_of_videos_with_a_prefix_for_yt_dlp(tmp_path: Path) -> None:
    prefix = "https://www.youtube.com/watch?v="
    listing = listed(tmp_path / "t.csv", "url\nabc\ndef\n", url_prefix=prefix, fetcher="yt-dlp")
    assert [source.url for source in listing.sources] == [f"{prefix}abc", f"{prefix}def"]
    assert {source.fetcher for source in listing.sources} == {"yt-dlp"}
    assert len({source.source_id for source in listing.sources}) == 2
    without = listed(tmp_path / "t.csv", fetcher="yt-dlp")
    assert "no page for yt-dlp" in problems(without)["t.csv line 2"]
