from __future__ import annotations

import numpy as np

from longvila.curation.captions import MeasuredCaptioner
from longvila.records import Clip
from tests.curation.pictures import grey, measure_pictures, scene, shots_at, split_picture


def clip(start_s: float, stop_s: float, index: int = 0) -> Clip:
    return Clip(
        clip_id=f"c{index}", video_id="v", index=index, start_s=start_s, stop_s=stop_s, shot_ids=("v-0",)
    )


def test_what_is_said_is_true():
    pictures = [split_picture("blue", "green", axis=0, share=0.4)] * 8
    captioner = MeasuredCaptioner(measure_pictures(pictures), shots_at("v", 2.0, []))
    caption = captioner.caption(clip(0.0, 2.0))
    assert caption.text == (
        "A dark picture in green at the bottom and blue at the top; smooth in detail; almost nothing moves."
    )
    assert caption.facts["main_colour"] == "green"
    assert caption.facts["places"] == {"green": "bottom", "blue": "top"}
    assert caption.facts["colours"]["green"] > 0.5
    assert caption.facts["camera"] == "nowhere"
    assert caption.captioner.startswith("measured")


def test_light_and_shots_are_told():
    pictures = [grey(level) for level in np.linspace(0.7, 0.3, 8)] + [grey(0.3)] * 8
    captioner = MeasuredCaptioner(measure_pictures(pictures), shots_at("v", 4.0, [2.0]))
    text = captioner.caption(clip(0.0, 4.0)).text
    assert "it grows darker" in text
    assert "2 shots" in text


def test_what_is_not_clear_is_left_out():
    captioner = MeasuredCaptioner(measure_pictures([grey(0.45)] * 8), shots_at("v", 2.0, []))
    caption = captioner.caption(clip(0.0, 2.0))
    assert caption.facts["brightness"] is None
    assert "dark" not in caption.text
    assert "bright" not in caption.text


def test_a_view_seen_before_is_recognised():
    pictures = [scene(1)] * 4 + [scene(2)] * 4 + [scene(1)] * 4
    captioner = MeasuredCaptioner(measure_pictures(pictures), shots_at("v", 3.0, [1.0, 2.0]))
    captions = [captioner.caption(clip(float(i), i + 1.0, i)) for i in range(3)]
    assert [c.facts["seen_before_at_s"] for c in captions] == [None, None, 0.0]
    assert "seen before at 0.0 s" in captions[2].text
