from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from longvila.curation.listing.sources import list_sources, load_sources, redacted
from longvila.errors import ConfigError, InputError

DEMO = Path(__file__).resolve().parents[3] / "datasets" / "demo"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.yaml"
    path.write_text(text)
    return path


def test_relative_addresses_go_below_the_base(tmp_path):
    path = write(tmp_path, "sources: [{url: a/b.mp4}, {url: 'https://x.org/c.mp4'}, {url: /d.mp4}]")
    assert [s.url for s in load_sources(path)] == [
        str(tmp_path / "a/b.mp4"), "https://x.org/c.mp4", "/d.mp4"
    ]  # fmt: skip
    assert load_sources(path, base_url="http://127.0.0.1:8/")[0].url == "http://127.0.0.1:8/a/b.mp4"
    assert [s.source_id for s in load_sources(path)] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [{url: 'ftp://x.org/a.mp4'}]", "ftp://x.org/a.mp4"),
        ("sources: [{url: a.mp4, split: test}]", "split"),
        ("sources: [{url: a.mp4, sha256: abc}]", "sha256"),
        ("sources: [{url: a.mp4, licence: MIT}]", "licence"),
        ("sources: [{url: a.mp4, size_bytes: -1}]", "size_bytes"),
        ("sources: [{title: none}]", "url"),
        ("sources: []", "sources"),
        ("sources: [{url: x/a.mp4}, {url: y/a.mp4}]", "same source_id 'a'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_sources(write(tmp_path, text))


def test_no_such_list(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_sources(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"Known names: .*demo"):
        load_sources("none")


def test_the_example_lists_what_it_says_and_reaches_out_of_its_folder(tmp_path):
    listing = list_sources("example", scratch=tmp_path)
    assert listing.rejections == []
    assert [part.num_sources for part in listing.parts] == [1, 3, 2]
    assert all(Path(source.url).is_file() for source in listing.sources)
    assert {source.split for source in listing.sources} == {"train", "heldout"}
    assert listing.sources[-1].title == "Big Buck Bunny (2008), the last lesson"
    assert {source.license for source in listing.sources} == {"CC BY 3.0"}


def test_redacted():
    assert redacted("https://me:pw@x.org:8/a/b.mp4?sig=1#t") == "https://x.org:8/a/b.mp4"
    assert redacted("/a b.mp4") == "/a b.mp4"


def test_the_demo_files_are_what_their_list_says():
    sources = load_sources("demo")
    present = [source for source in sources if source.sha256]
    for source in present:
        data = Path(source.url).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (source.sha256, source.size_bytes)
        assert (source.author, source.license) == ("Blender Foundation", "CC BY 3.0")
        assert "Big Buck Bunny" in source.title
    listed = {Path(source.url).name for source in present}
    assert listed == {path.name for path in (DEMO / "videos").iterdir()}
    assert sum(source.size_bytes or 0 for source in present) < 30_000_000
    assert not list(DEMO.rglob("*.py"))
    text = (DEMO / "README.md").read_text()
    assert "Blender Foundation" in text
    assert "creativecommons.org/licenses/by/3.0" in text
    assert all(name in text for name in listed)
