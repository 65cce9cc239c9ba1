from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from longvila.report.content import Picture
from longvila.report.dataset import BuildReport, render_build_report, report_json
from longvila.report.dataset.content import ClipEntry, RejectedItem, ShotPicture
from tests.report.dataset.making import HOSTILE

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a page holds, and refuses tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [given for name, given in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(report: BuildReport) -> str:
    return render_build_report(report)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    found = Page()
    found.feed(html)
    assert found.open == []
    return found


def test_the_page_refers_to_nothing_outside(html, page):
    assert page.all("link") == page.all("iframe") == []
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "@import" not in html
    assert "url(" not in html
    assert "fetch(" not in html.split("<script>")[1]


def test_links_lead_somewhere_and_ids_are_unique(page):
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)
    assert {label["for"] for label in page.all("label")} <= set(ids)


def test_it_can_be_read_aloud(page):
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("h1")) == 1
    assert all("scope" in head for head in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"


def test_hostile_texts_are_only_text(html, page):
    assert len(page.all("script")) == 1
    assert "alert(1)" not in html.split("<script>")[1]
    assert HOSTILE.split("\n")[0] in page.text
    assert "&lt;script&gt;alert(1)" in html


def test_the_policy_allows_the_pages_own_script_and_no_other(html):
    import base64
    import hashlib

    script = re.search(r"<script>(.*)</script>", html, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "'unsafe-inline'" not in html.split("script-src")[1].split('"')[0]


def test_every_part_is_shown(page):
    for text in (
        "in = out + rejected",
        "near-duplicate",
        "4.0 s",
        "Place of the right option",
        "caption-ab12",
        "some/model",
        "$1.50",
        "$7.50",
        "sources: demo",
        "2026-01-02",
        "Training and held-out videos share no passage",
        "dissolve 0:04.0",
    ):
        assert text in page.text, text


def test_the_json_twin_has_the_figures_and_no_picture(report):
    text = report_json(report)
    found = json.loads(text)
    assert found["num_videos"] == 3
    assert found["funnel"][0]["taken_in"] == 6
    assert found["stages"][5]["cost_usd"] == 1.5
    assert "base64" not in text
    assert "picture" not in text.replace("pictures are in", "").replace("share no passage", "").replace(
        " pictures, nearest", ""
    )
    later = report.model_copy(update={"created": report.created.replace(year=2030)})
    assert report_json(later) == text


def test_nothing_rejected_and_nothing_doubled_is_said_in_words(report):
    html = render_build_report(
        report.model_copy(
            update={"rejections": (), "num_rejections": 0, "duplicates": (), "num_duplicates": 0}
        )
    )
    assert "Nothing was rejected." in html
    assert "No video shows what another one shows." in html
    assert "<script>" not in html


def test_a_large_build_stays_below_twenty_megabytes(report):
    """The most that the gatherer hands over: 10 MiB of pictures, 24 sheets, 5,000 rejections."""
    picture = Picture(data=b"\xff\xd8\xff" + bytes(5000), alt="frame")
    shot = ShotPicture(start_s=0, stop_s=1, transition="cut", begins_here=True, picture=picture)
    clip = ClipEntry(start_s=0, stop_s=9, text="word " * 60, shots=(shot,) * 3, num_shots=3)
    sheet = report.sheets[0].model_copy(
        update={"clips": (clip,) * 28, "segments": report.sheets[0].segments * 300}
    )
    listed = RejectedItem(step="fetch", item="x" * 60, source="y" * 80, reason="gone", detail="z" * 400)
    html = render_build_report(
        report.model_copy(
            update={"sheets": (sheet,) * 24, "rejections": (listed,) * 5000, "num_rejections": 10**6}
        )
    )
    assert sum(len(picture.data) for _ in range(28 * 3 * 24)) > 10 * 2**20 * 0.95
    assert len(html) < 20e6
