from __future__ import annotations

import random

import numpy as np
import pytest

from longvila.curation.duplicates.fingerprint import MIRROR
from longvila.records import VideoRecord
from tests.curation.duplicates.prints import CONFIG, evaluation_video, find, moving, noisy, of, still
from tests.curation.pictures import video_record


def video(name: str, seconds: float, **changed: object) -> VideoRecord:
    return video_record(name, duration_s=seconds).model_copy(update=changed)


def test_a_copy_is_rejected_and_its_original_named_with_times():
    videos = [video("small", 20, height=240, width=426), video("large", 40), video("other", 30)]
    body = moving(1, 40)
    prints = {"small": of(noisy(body[40:120], 4)), "large": of(body), "other": of(moving(2, 30))}
    kept, rejections, pairs = find(videos, prints)
    assert kept == ["large", "other"]
    assert rejections["small"].reason == "near-duplicate"
    assert "100% of it is in source-large: 0.0–20.0 s is 10.0–30.0 s there" in rejections["small"].detail
    assert [(pair.video_id, pair.other_video_id, pair.kind) for pair in pairs] == [
        ("small", "large", "excerpt")
    ]
    assert pairs[0].passages[0].offset_s == pytest.approx(10, abs=0.2)
    assert pairs[0].other_share == pytest.approx(0.5, abs=0.05)


def test_an_excerpt_with_more_pixels_does_not_hide_in_the_longer_video():
    body = moving(1, 100)
    videos = [video("excerpt", 20, width=1920, height=1080), video("film", 100)]
    kept, rejections, _ = find(videos, {"excerpt": of(body[80:160]), "film": of(body)})
    assert kept == ["film"]
    assert rejections["excerpt"].reason == "near-duplicate"


def test_of_whole_copies_the_one_with_most_pixels_is_kept():
    body = moving(1, 40)
    prints = {name: of(noisy(body, 2, seed)) for seed, name in enumerate("abc")}
    prints["b"] = of(body[4:-4])
    videos = [video("a", 40), video("b", 38, width=1920, height=1080), video("c", 40)]
    kept, rejections, pairs = find(videos, prints)
    assert kept == ["b"]
    assert set(rejections) == {"a", "c"}
    turned = next(pair for pair in pairs if pair.video_id == "a")
    assert turned.other_video_id == "b"
    assert turned.passages[0].start_s == pytest.approx(1.0, abs=0.3)
    assert turned.passages[0].offset_s == pytest.approx(-1.0, abs=0.3)


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.1, 1.25])
def test_another_speed_is_found_and_told(speed):
    body = moving(1, 100)
    times = np.arange(0, 60 / speed, 0.25)
    copy = body[np.round(times * speed * 4).astype(int)]
    _, _, pairs = find(
        [video("copy", len(copy) / 4), video("film", 100)], {"copy": of(copy), "film": of(body)}
    )
    assert pairs[0].rejects
    assert pairs[0].share > 0.95
    assert pairs[0].passages[0].speed == pytest.approx(speed, abs=0.01)


def test_a_mirrored_copy_is_found_and_told():
    body = moving(1, 30)
    prints = {"a": of(body), "b": of(body ^ MIRROR)}
    _, rejections, pairs = find([video("a", 30), video("b", 29)], prints)
    assert "mirrored" in rejections["b"].detail
    assert pairs[0].passages[0].mirrored


def test_what_lies_in_other_order_is_found_piece_by_piece():
    body = moving(1, 60)
    cut = np.concatenate([body[160:240], body[:80]])
    _, _, pairs = find([video("cut", 40), video("film", 60)], {"cut": of(cut), "film": of(body)})
    assert [round(passage.other_start_s) for passage in pairs[0].passages] == [40, 0]
    assert pairs[0].share > 0.95


def test_a_video_of_pieces_of_several_others_is_rejected_for_all_together():
    films = {name: moving(seed, 100) for seed, name in enumerate("abcd")}
    pieces = [films[name][40:88] for name in "abcd"]  # 12 s each
    own = moving(99, 52)
    prints = {name: of(codes) for name, codes in films.items()} | {"mix": of(*pieces, own)}
    videos = [video(name, 100) for name in films] + [video("mix", 99.75)]
    kept, rejections, _ = find(videos, prints)
    assert kept == ["a", "b", "c", "d"]
    assert "48% of it is in 4 others: 12% in source-a, 12% in source-b, 12% in source-c and 1 more" in (
        rejections["mix"].detail
    )


def test_in_a_chain_only_what_is_in_a_kept_one_is_rejected():
    a, b, c = moving(1, 60), moving(2, 40), moving(3, 30)
    middle = of(a[120:180], b[:80])  # 15 s of a, 20 s of its own
    last = of(b[:80], c)
    prints = {"a": of(a), "middle": middle, "last": last}
    videos = [video("a", 60), video("middle", 35), video("last", 34)]
    kept, rejections, _ = find(videos, prints)
    assert kept == ["a", "last"]
    assert rejections["middle"].reason == "near-duplicate"


def test_a_common_intro_is_shared_but_makes_no_duplicate():
    intro = moving(50, 12)
    videos = [video(name, 72) for name in "abc"]
    prints = {name: of(intro, moving(seed, 60)) for seed, name in enumerate("abc")}
    kept, _, pairs = find(videos, prints)
    assert kept == ["a", "b", "c"]
    assert [round(pair.share, 2) for pair in pairs] == [0.17, 0.17, 0.17]
    assert not any(pair.rejects for pair in pairs)


def test_a_shared_title_card_or_still_camera_is_no_evidence():
    card = still(7, 30)
    prints = {name: of(card, moving(seed, 20)) for seed, name in enumerate("ab")}
    assert find([video("a", 50), video("b", 50)], prints)[2] == []
    room = moving(8, 1)[:1]
    talks = {name: of(noisy(np.repeat(room, 240), 4, seed)) for seed, name in enumerate("ab")}
    assert find([video("a", 60), video("b", 60)], talks)[2] == []


def test_slides_with_much_time_each_are_found():
    slides = np.concatenate([still(seed, 20) for seed in range(100, 106)])
    kept, _, pairs = find(
        [video("a", 120), video("b", 118)], {"a": of(slides), "b": of(noisy(slides, 1)[8:])}
    )
    assert kept == ["a"]
    assert pairs[0].share > 0.95


def test_blank_videos_and_empty_lists():
    black = of(np.zeros(80, dtype=np.uint64))
    blank = black.codes * np.uint64(0)
    prints = {name: type(black)(blank) for name in "ab"}
    assert find([video("a", 20), video("b", 20, split="heldout")], prints)[0] == ["a", "b"]
    assert find([], {}) == ([], {}, [])
    assert find([video("a", 0.25)], {"a": of(moving(1, 0.25))})[0] == ["a"]


def test_the_same_file_twice_and_in_both_splits():
    first = video("a", 10)
    second = first.model_copy(update={"source_id": "source-z", "split": "heldout"})
    kept, rejections, pairs = find([first, second], {"a": of(moving(1, 10))})
    assert kept == ["a"]
    assert rejections["a"].reason == "duplicate"
    assert rejections["a"].source == "source-a"
    assert pairs[0].kind == "exact"


@pytest.mark.parametrize(("seconds", "rejected"), [(2, False), (5, True)])
def test_a_passage_of_a_heldout_video_rejects_the_training_video(seconds, rejected):
    secret = moving(5, 60)
    videos = [video("t", 100, width=1920), video("h", 60, split="heldout")]
    shown = noisy(secret[100 : 100 + 4 * seconds], 3)
    prints = {"t": of(moving(1, 50), shown, moving(2, 40)), "h": of(secret)}
    kept, rejections, _ = find(videos, prints)
    assert ("t" not in kept) == rejected
    assert "h" in kept
    if rejected:
        assert rejections["t"].reason == "shared-with-heldout"
        assert "in the held-out source-h: 50." in rejections["t"].detail


def test_a_passage_of_an_evaluation_video_rejects_a_training_video_and_no_other():
    secret = moving(5, 60)
    exam = evaluation_video("e")
    piece = secret[40:64]
    videos = [video("t", 50), video("h", 51, split="heldout"), video("fine", 30)]
    prints = {
        "t": of(moving(1, 40), piece),
        "h": of(moving(2, 40), piece),
        "fine": of(moving(3, 30)),
        "e": of(secret),
    }
    kept, rejections, pairs = find(videos, prints, evaluation=[exam])
    assert kept == ["h", "fine"]
    assert rejections["t"].reason == "evaluation-leak"
    assert "evaluation video exam-e: 40.0–46.0 s is 10.0–16.0 s there" in rejections["t"].detail
    assert {pair.against for pair in pairs if pair.rejects} == {"evaluation"}


def test_the_order_of_the_videos_changes_nothing():
    bodies = [moving(seed, 60) for seed in range(4)]
    prints = {f"v{i}": of(noisy(bodies[i % 4][i : 200 + i], 3, i)) for i in range(12)}
    videos = [video(name, len(found.codes) / 4) for name, found in prints.items()]
    kept, rejections, pairs = find(videos, prints)
    assert len(kept) == 4
    for seed in range(3):
        mixed = random.Random(seed).sample(videos, len(videos))
        again = find(mixed, prints)
        assert sorted(again[0]) == sorted(kept)
        assert again[1] == rejections
        assert again[2] == pairs


def test_buckets_find_what_exact_comparison_finds():
    """With the bands of a large set, on a set small enough to compare everything."""
    bodies = [moving(seed, 60) for seed in range(60)]
    prints = {f"v{i:02}": of(bodies[i]) for i in range(60)}
    prints |= {f"w{i:02}": of(noisy(bodies[i][20:220], 7, i)) for i in range(0, 60, 4)}
    videos = [video(name, len(found.codes) / 4) for name, found in prints.items()]
    exact = find(videos, prints)
    bucketed = find(videos, prints, exact_below=100)
    assert exact[0] == bucketed[0] == [f"v{i:02}" for i in range(60)]
    assert [pair.share for pair in bucketed[2]] == pytest.approx([pair.share for pair in exact[2]], abs=0.05)


def test_many_copies_are_compared_with_one():
    body = moving(1, 20)
    prints = {f"v{i:04}": of(noisy(body, 1, i)) for i in range(150)}
    videos = [video(name, 20) for name in prints]
    kept, rejections, pairs = find(videos, prints, exact_below=1000)
    assert kept == ["v0000"]
    assert len(rejections) == len(pairs) == 149


def test_nothing_is_shared_by_chance():
    prints = {f"v{i}": of(moving(1000 + i, 300)) for i in range(20)}
    _, _, pairs = find([video(name, 300) for name in prints], prints, config=CONFIG)
    assert pairs == []
