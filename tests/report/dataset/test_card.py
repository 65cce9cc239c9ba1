from __future__ import annotations

import re

import pytest
import yaml

from longvila.data import open_index
from longvila.report.dataset import CARD_FILE, card_facts, render_card
from longvila.report.dataset.card import license_id
from longvila.report.dataset.content import TermsRow
from longvila.storage import Workspace
from tests.report.dataset.making import make_build, write_shards


@pytest.fixture(scope="module")
def card(small, report) -> str:
    return render_card(card_facts(open_index(small[0].storage, "questions")), report)


def header_of(card: str) -> dict:
    opening, header, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(header)


def test_the_header_says_what_the_hub_reads(card):
    header = header_of(card)
    assert header["license"] == "cc-by-3.0"
    assert header["language"] == ["en"]
    assert header["size_categories"] == ["n<1K"]
    assert header["task_categories"] == ["video-text-to-text", "visual-question-answering"]
    assert header["configs"][0]["data_files"] == [
        {"split": "train", "path": "questions-train-*.tar"},
        {"split": "heldout", "path": "questions-heldout-*.tar"},
    ]
    splits = header["dataset_info"]["splits"]
    assert [(split["name"], split["num_examples"]) for split in splits] == [("train", 2), ("heldout", 1)]


def test_the_hubs_own_library_reads_it(card):
    from huggingface_hub import DatasetCard

    found = DatasetCard(card)
    assert found.data.license == "cc-by-3.0"
    assert found.data.tags[:3] == ["long-video", "webdataset", "longvila"]
    assert "## How to load it" in found.text


def test_hostile_texts_break_neither_header_nor_tables(card):
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert header_of(card)["license"] == "cc-by-3.0"
    body = card.split("---\n", 2)[2]
    assert "\nlicense: mit" not in body
    for table in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        columns = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(columns) == 1, table


def test_the_card_is_the_same_for_the_same_build(tmp_path, card):
    from longvila.report.dataset import gather_build
    from tests.report.dataset.conftest import ABOUT, SPLITS

    workspace = Workspace.open(tmp_path / "elsewhere")
    outputs = make_build(workspace)
    later = ABOUT._replace(created=ABOUT.created.replace(year=2031))
    found = gather_build(workspace, outputs, later, splits=SPLITS)
    assert render_card(card_facts(open_index(workspace.storage, "questions")), found) == card


def test_the_card_survives_a_rebuild_of_the_shards(tmp_path):
    workspace = Workspace.open(tmp_path)
    write_shards(workspace)
    workspace.storage.put_bytes(f"shards/questions/{CARD_FILE}", b"card")
    write_shards(workspace)
    assert workspace.storage.get_bytes(f"shards/questions/{CARD_FILE}") == b"card"


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        ("CC BY 3.0", "cc-by-3.0"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("Creative Commons CC-BY 4.0 International", "cc-by-4.0"),
        ("CC0", "cc0-1.0"),
        ("MIT License", "mit"),
        ("Apache 2.0", "apache-2.0"),
        ("public domain", None),
        ("", None),
        ("all rights reserved", None),
    ],
)
def test_licences_are_named_as_the_hub_names_them(stated, known):
    assert license_id(stated) == known


def test_a_licence_that_is_not_known_is_other(small, report):
    row = TermsRow(license="", author="", videos=1, hours=0.1, example="x")
    mixed = report.model_copy(update={"terms": (*report.terms, row)})
    text = render_card(card_facts(open_index(small[0].storage, "questions")), mixed)
    assert header_of(text)["license"] == "other"
    assert "**not stated**" in text


def test_a_setting_with_a_fence_in_it_stays_inside_its_own(small, report):
    changed = report.model_copy(update={"settings": "sources: '```'\n"})
    text = render_card(card_facts(open_index(small[0].storage, "questions")), changed)
    assert "````yaml\nsources: '```'\n````" in text
