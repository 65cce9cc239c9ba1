from __future__ import annotations

import numpy as np

from longvila.curation.captions import MeasuredCaptioner, _moving_thing
from longvila.curation.on_screen_text import SeenText
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


def test_text_is_quoted_with_its_times():
    texts = [SeenText(text=f"line {i}", start_s=0.5, stop_s=1.0, score=0.95) for i in range(6)]
    captioner = MeasuredCaptioner(measure_pictures([scene(1)] * 8), shots_at("v", 2.0, []), texts)
    caption = captioner.caption(clip(0.0, 2.0))
    assert "text reads “line 0”, “line 1”, “line 2”, “line 3” and 2 more lines" in caption.text
    assert caption.facts["text"][5] == {"text": "line 5", "start_s": 0.5, "stop_s": 1.0}


def test_nothing_is_said_of_text_that_nobody_looked_for():
    captioner = MeasuredCaptioner(measure_pictures([scene(1)] * 8), shots_at("v", 2.0, []))
    assert "text" not in captioner.caption(clip(0.0, 2.0)).facts
    looked = MeasuredCaptioner(measure_pictures([scene(1)] * 8), shots_at("v", 2.0, []), [])
    assert looked.caption(clip(0.0, 2.0)).facts["text"] == []


def test_something_that_moves_is_told_with_its_way():
    back = scene(3, size=(90, 160), blocks=12)
    pictures = []
    for i in range(16):
        picture = back.copy()
        picture[30:60, 4 + 6 * i : 34 + 6 * i] = scene(9, size=(30, 30), blocks=5)
        pictures.append(picture)
    captioner = MeasuredCaptioner(measure_pictures(pictures), shots_at("v", 4.0, []))
    caption = captioner.caption(clip(0.0, 4.0))
    assert caption.facts["object_motion"]["direction"] == "right"
    assert "moves to the right" in caption.text
    still = MeasuredCaptioner(measure_pictures([back] * 16), shots_at("v", 4.0, []))
    found = still.caption(clip(0.0, 4.0))
    assert found.facts["object_motion"] is None
    assert found.facts["zoom"] == "none"
    assert "moves to" not in found.text


def test_only_a_camera_that_is_known_to_stand_still_is_called_so():
    motion = {"direction": "up", "place": "left", "size": "small", "camera": "still"}
    assert _moving_thing(motion) == "something small at the left moves up"
    moved = motion | {"camera": "not known to be still", "place": "middle", "size": None}
    assert _moving_thing(moved) == "something in the middle moves up against the rest of the picture"
