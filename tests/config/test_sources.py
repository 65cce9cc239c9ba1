from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config import load_sources
from longvila.config.addresses import is_relative, resolve_url
from longvila.errors import ConfigError, InputError


def write(folder: Path, text: str) -> str:
    path = folder / "sources.yaml"
    path.write_text(text)
    return str(path)


def test_defaults_and_names_are_filled_in(tmp_path: Path) -> None:
    listed = write(
        tmp_path,
        "defaults: {author: A, license: CC0}\n"
        "sources:\n"
        "  - {url: videos/one two.mp4}\n"
        "  - {url: 'https://example.org/b.mp4?x=1', license: CC BY, split: heldout}\n",
    )
    first, second = load_sources(listed)
    assert (first.source_id, first.author, first.license, first.split) == ("one-two", "A", "CC0", "train")
    assert (second.source_id, second.license, second.split) == ("b", "CC BY", "heldout")


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    listed = write(tmp_path, "sources:\n  - {url: a/x.mp4}\n  - {url: b/x.mp4}\n")
    with pytest.raises(ConfigError, match=r"b/x.mp4 and a/x.mp4 have the same source_id 'x'"):
        load_sources(listed)


def test_empty_list_and_wrong_fields_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 must be given"):
        load_sources(write(tmp_path, "sources: []\n"))
    with pytest.raises(
        ConfigError, match=r"sources.0.licence \(line 2\): unknown key. Did you mean 'license'"
    ):
        load_sources(write(tmp_path, "sources:\n  - {url: a.mp4, licence: CC0}\n"))
    with pytest.raises(ConfigError, match=r"sources.0.source_id"):
        load_sources(write(tmp_path, "sources:\n  - {url: a.mp4, source_id: ../../etc}\n"))


def test_missing_list_says_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine", "sources:\n  - {url: a.mp4}\n")
    monkeypatch.setenv("LONGVILA_DATASETS_DIR", str(tmp_path))
    assert load_sources("mine")[0].url == "a.mp4"
    with pytest.raises(InputError, match=r"Known names: .*mine"):
        load_sources("yours")
    with pytest.raises(InputError, match="does not exist"):
        load_sources(str(tmp_path / "none.yaml"))


def test_relative_addresses_are_put_below_a_base(tmp_path: Path) -> None:
    assert is_relative("videos/a.mp4")
    assert not is_relative("/videos/a.mp4")
    assert not is_relative("s3://bucket/a.mp4")
    assert resolve_url("videos/a.mp4", "http://127.0.0.1:8000/") == "http://127.0.0.1:8000/videos/a.mp4"
    assert resolve_url("videos/a.mp4", tmp_path) == str(tmp_path / "videos/a.mp4")
    assert resolve_url("https://x.org/a.mp4", "http://127.0.0.1") == "https://x.org/a.mp4"
