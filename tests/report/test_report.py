import re
from html.parser import HTMLParser

import pytest

from longvila.errors import InputError
from longvila.report import Picture, ReportData, build_report
from longvila.report.page import render_report
from longvila.report.templating import data_uri
from tests.report.example import png, report_data

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a page refers to, and refuses tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(given)
        if tag == "a":
            self.links.append(given["href"])
        assert tag not in {"script", "link", "iframe"}
        self.ids.update({given["id"]} if "id" in given else set())

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


def test_the_report_is_one_file_that_refers_to_nothing_outside(tmp_path):
    path = build_report(report_data(), tmp_path / "reports" / "report.html")
    html = path.read_text()
    page = parse(html)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.images)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert "@import" not in html
    assert "url(" not in html


def test_the_report_shows_every_part():
    page = parse(render_report(report_data()))
    for text in (
        "2 × truncated",
        "moov atom not found",
        "135 shots",
        "Blender Foundation",
        "What is the main colour between 0:08 and 0:16?",
        "0:08.0–0:16.0",
        "extend_context",
        "stands in for SigLIP's pre-training",
        "(control)",
        "192 questions about 8 real",
        "276\u202f000",
        "workspace/demo/checkpoints/long_sft",
        "longvila ask",
        "6 min 46 s",
    ):
        assert text in page.text, text
    assert "does not add up" not in page.text
    heat_maps = [image for image in page.images if image["alt"].startswith("needle grid")]
    assert [image["alt"].split(":")[0] for image in heat_maps] == [
        "needle grid of 3 short_sft",
        "needle grid of 5 long_sft",
        "needle grid of 4 extend_context",
        "needle grid of θ raised, no training",
        "needle grid of Stage 5 without stage 4",
    ]


def test_text_from_outside_is_escaped():
    evil = '<script>alert("x")</script>'
    data = report_data(title=evil)
    sheet = data.sheets[0].model_copy(update={"title": evil, "attribution": evil})
    question = data.questions[0].model_copy(update={"question": evil, "answer": evil, "predicted": evil})
    html = render_report(data.model_copy(update={"sheets": (sheet,), "questions": (question,)}))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
    parse(html)


def test_parts_that_are_empty_are_left_out():
    data = report_data()
    page = parse(render_report(ReportData(title="t", created=data.created)))
    assert page.images == []
    assert page.links == []
    without_after = data.model_copy(update={"before": None, "after": None})
    assert "All other checkpoints" in parse(render_report(without_after)).text


def test_a_picture_must_be_a_picture():
    assert data_uri(Picture(data=png(), alt="a")).startswith("data:image/png;base64,iVBOR")
    with pytest.raises(InputError, match="Encode it before"):
        data_uri(Picture(data=b"<html>", alt="not a picture"))


def test_the_data_survives_a_json_round_trip():
    data = report_data()
    assert ReportData.model_validate_json(data.model_dump_json()) == data
