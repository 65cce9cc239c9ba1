from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config.addresses import (
    canonical,
    is_partial,
    is_relative,
    path_of,
    public,
    redacted,
    resolve_url,
    scrubbed,
    stem_of,
)


@pytest.mark.parametrize(
    ("url", "relative"),
    [
        ("videos/a.mp4", True),
        ("a:b.mp4", True),
        ("/videos/a.mp4", False),
        ("s3://bucket/a.mp4", False),
        ("HTTPS://x.org/a", False),
    ],
)
def test_what_is_relative(url: str, relative: bool) -> None:
    assert is_relative(url) is relative


def test_a_path_is_put_below_an_address_in_letters_that_it_may_have() -> None:
    assert resolve_url("a b/x?y#z%.mp4", "http://h:1/") == "http://h:1/a%20b/x%3Fy%23z%25.mp4"
    assert resolve_url("x?y#z%.mp4", Path("/list")) == "/list/x?y#z%.mp4"


@pytest.mark.parametrize(
    ("url", "path", "stem"),
    [
        ("/a b/x?y.mp4", "/a b/x?y.mp4", "x-y"),
        ("file:///a%20b.mp4", "/a b.mp4", "a-b"),
        ("s3://bucket/raw/k?x#y.mp4", "/raw/k?x#y.mp4", "k-x-y"),
        ("https://x.org/one%20two.mp4?sig=1", "/one two.mp4", "one-20two"),
        ("https://x.org", "/", "source"),
        ("https://x.org/../.mp4", "/../.mp4", "-mp4"),
    ],
)
def test_path_and_stem(url: str, path: str, stem: str) -> None:
    assert (path_of(url), stem_of(url)) == (path, stem)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hush@x.org/a.mp4",
        "https://me:hu/hush@x.org/a.mp4",
        "https://x.org/a.mp4?X-Amz-Signature=hush&X-Amz-Date=3",
        "https://x.org/a.mp4?unheard_of=hush#hush",
        "https://x.org/a.mp4#hush",
        "https://x.org/watch?v=hush hush hush hush hush",
        "HTTPS://me:hush@x.org/a.mp4",
    ],
)
def test_nothing_secret_is_shown(url: str) -> None:
    assert "hush" not in redacted(url) + public(url)
    assert "x.org" in public(url)


def test_what_is_left_out_leaves_a_mark() -> None:
    first, second = (public(f"https://x.org/get?file={number}") for number in (1, 2))
    assert first != second
    assert is_partial(first)
    assert not is_partial(public("https://x.org/get.mp4"))
    assert public("https://www.youtube.com/watch?v=abc_-1") == "https://www.youtube.com/watch?v=abc_-1"


def test_an_address_signed_anew_is_the_same() -> None:
    one = "https://x.org/a.mp4?n=1&Expires=1&Signature=a&Key-Pair-Id=k"
    two = "https://x.org/a.mp4?n=1&Expires=2&Signature=b&Key-Pair-Id=k"
    assert canonical(one) == canonical(two) == "https://x.org/a.mp4?n=1"
    assert public(one) == public(two)
    azure = "https://x.org/a.mp4?sv=2020&se=1&sp=r&sig="
    assert canonical(azure + "a") == canonical(azure + "b")
    assert canonical("https://x.org/a?sv=1") != canonical("https://x.org/a?sv=2")
    assert canonical("https://x.org/a?key=1") != canonical("https://x.org/a?key=2")


def test_what_others_say_of_an_address_is_scrubbed() -> None:
    url = "https://me:pass%20word@x.org/page?id=abc123&token=hush&n=1#frag"
    text = "page?id=abc123&token=hush&n=1: at https://y.org/a?sig=hush (1 of 3, pass word, pass%20word, frag)"
    said = scrubbed(text, url)
    assert not any(secret in said for secret in ("hush", "abc123", "pass", "frag"))
    assert said.endswith("at https://y.org/a (1 of 3, …, …, …)")
    video = "https://www.youtube.com/watch?v=abcdef"
    assert scrubbed("[youtube] abcdef: gone", video) == "[youtube] abcdef: gone"
