from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.errors import InputError
from longvila.records import Caption, Evidence, Question, Record, Sample, Shot, Source, Turn
from longvila.storage import Storage, open_storage, read_manifest, write_manifest
from longvila.storage.manifests import dump_manifest, load_manifest

CAPTIONS = [
    Caption(
        caption_id="c1",
        clip_id="k1",
        video_id="v1",
        start_s=0.1,
        stop_s=1 / 3,
        text="ein Häschen 🐰\n\"'",
        facts={"colour": "green", "share": 0.1 + 0.2, "list": [1, None, {"a": True}]},
        captioner="measured",
    ),
    Caption(
        caption_id="c2",
        clip_id="k2",
        video_id="v1",
        start_s=1e-300,
        stop_s=1e300,
        text="",
        captioner="",
    ),
]
QUESTION = Question(
    question_id="q",
    video_id="v",
    kind="attribute",
    question="?",
    answer="green",
    options=("green", "red"),
    start_s=0,
    stop_s=2.5,
    evidence=(Evidence(start_s=0, stop_s=1), Evidence(start_s=1, stop_s=2, clip_id="")),
    writer="measured",
    split="heldout",
)


def test_records_come_back_equal(storage: Storage) -> None:
    write_manifest(storage, "manifests/captions/1.parquet", CAPTIONS)
    assert read_manifest(storage, "manifests/captions/1.parquet", Caption) == CAPTIONS
    write_manifest(storage, "q.parquet", [QUESTION])
    assert read_manifest(storage, "q.parquet", Question) == [QUESTION]


texts = st.text(st.characters(codec="utf-8"), max_size=20)
facts = st.dictionaries(
    texts,
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.builds(
            Sample,
            key=st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True),
            kind=st.sampled_from(["video", "image", "text", "needle"]),
            split=st.sampled_from(["train", "heldout"]),
            conversations=st.lists(
                st.builds(Turn, role=st.sampled_from(["human", "gpt"]), text=texts), max_size=3
            ).map(tuple),
            video_id=st.none() | texts,
            frame_times_s=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
            provenance=facts,
        ),
        max_size=4,
    )
)
def test_any_sample_comes_back_equal(rows: list[Sample]) -> None:
    assert load_manifest(dump_manifest(rows, cls=Sample), Sample, name="x") == rows


def test_none_and_empty_differ() -> None:
    rows = [
        Source(source_id="a", url="u", sha256=None, size_bytes=0),
        Source(source_id="b", url="u", sha256=""),
    ]
    assert load_manifest(dump_manifest(rows), Source, name="x") == rows


def test_the_same_records_give_the_same_bytes() -> None:
    assert dump_manifest(CAPTIONS) == dump_manifest(list(CAPTIONS))


def test_an_empty_manifest_keeps_its_columns(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_manifest(storage, "x.parquet", [], cls=Shot)
    assert read_manifest(storage, "x.parquet", Shot) == []
    assert duckdb.sql(f"SELECT shot_id, score FROM '{tmp_path}/x.parquet'").fetchall() == []


def test_manifests_can_be_queried(tmp_path: Path) -> None:
    write_manifest(open_storage(tmp_path), "x.parquet", CAPTIONS)
    query = f"SELECT caption_id, facts->>'colour' FROM '{tmp_path}/x.parquet' WHERE start_s > 0.05"
    assert duckdb.sql(query).fetchall() == [("c1", "green")]


def test_wrong_and_damaged_manifests_are_told(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_manifest(storage, "x.parquet", CAPTIONS)
    with pytest.raises(InputError, match="holds Caption, not Shot"):
        read_manifest(storage, "x.parquet", Shot)
    storage.put_bytes("y.parquet", storage.get_bytes("x.parquet")[:-9])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_manifest(storage, "y.parquet", Caption)
    with pytest.raises(InputError, match="Check the workspace"):
        read_manifest(storage, "none.parquet", Caption)


def test_an_older_schema_is_told(tmp_path: Path) -> None:
    class Narrow(Record):
        caption_id: str

    Narrow.__name__ = "Caption"
    storage = open_storage(tmp_path)
    write_manifest(storage, "x.parquet", [Narrow(caption_id="c")])
    with pytest.raises(InputError, match="run the step again"):
        read_manifest(storage, "x.parquet", Caption)


def test_mixed_classes_are_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="one class"):
        dump_manifest([*CAPTIONS, QUESTION])
