from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from longvila.config.footage import FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig, LanguageModelConfig, ReadTextConfig
from longvila.curation import build
from longvila.curation import on_screen_text as ost
from longvila.curation.on_screen_text import Line, SeenText
from longvila.curation.scan import Scanned, store_scan
from longvila.curation.scan_file import FrameStrip
from longvila.errors import ConfigError, MachineError
from longvila.media.decode import decode_frames
from longvila.media.jpeg import pack_frames, unpack_frames
from longvila.records import Clip
from longvila.storage import Workspace
from tests.curation.pictures import fingerprint_pictures, measure_pictures, scene, spool, video_record
from tests.media.making import DEMO

CONFIG = ReadTextConfig()
WIDE = 16 / 9


def strip_of(pictures: list[np.ndarray]) -> FrameStrip:
    """Squares as they are stored for training, two a second."""
    squares = [np.asarray(Image.fromarray(picture).resize((384, 384))) for picture in pictures]
    return FrameStrip(pack_frames(np.stack(squares), quality=90), np.arange(len(pictures)) / 2)


def titled(picture: np.ndarray, text: str, *, size: int = 40, at: tuple[int, int] = (120, 300)) -> np.ndarray:
    """The picture with a title, as film titles are: light, with a dark edge."""
    image = Image.fromarray(picture)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(
        at, text, font=font, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return np.asarray(image)


@pytest.fixture(scope="module")
def film() -> list[np.ndarray]:
    """Frames of real film without any text."""
    return list(decode_frames(DEMO / "03-meadow.mp4", [5, 20, 40, 60], size=(480, 854)))


@pytest.fixture(scope="module")
def reader() -> ost.RapidReader:
    pytest.importorskip("rapidocr_onnxruntime")
    return ost.RapidReader(CONFIG)


def test_a_title_is_read_with_its_times(film, reader):
    title = titled(film[0], "Six weeks later", size=56)
    found = ost.read_texts(strip_of([film[0]] * 4 + [title] * 5 + [film[1]] * 3), reader, CONFIG, aspect=WIDE)
    assert [text.text.replace(" ", "").lower() for text in found] == ["sixweekslater"]
    assert (found[0].start_s, found[0].stop_s) == (2.0, 4.0)
    assert found[0].score >= 0.9


def test_film_without_text_gives_none(film, reader):
    pictures = [film[i // 2] for i in range(8)]
    assert ost.read_texts(strip_of(pictures), reader, CONFIG, aspect=WIDE) == []


class Scripted:
    """Reads what it is told to, frame after frame; the frames show their number as a grey bar."""

    name = "scripted"

    def __init__(self, pages: dict[int, list[Line]]) -> None:
        self.pages = pages
        self.asked: list[int] = []

    def read(self, picture_HW3: np.ndarray) -> list[Line]:
        number = round(float(picture_HW3[:100].mean()) / 10)
        self.asked.append(number)
        return self.pages.get(number, [])


def numbered(count: int) -> FrameStrip:
    frames = np.zeros((count, 256, 256, 3), dtype=np.uint8)
    for i in range(count):
        frames[i, :128] = 10 * i
        frames[i, 200:] = 255
    return FrameStrip(pack_frames(frames, quality=95), np.arange(count) / 2)


def test_what_only_one_frame_shows_is_not_believed():
    reader = Scripted({4: [Line("flicker", 0.99)]})
    assert ost.read_texts(numbered(12), reader, CONFIG, aspect=1.0) == []
    assert reader.asked == [0, 4, 8, 5, 3]  # every two seconds, then both sides of the one


def test_a_short_title_is_confirmed_by_its_neighbour():
    reader = Scripted({4: [Line("Five years later", 0.95)], 5: [Line("Five years 1ater", 0.97)]})
    (found,) = ost.read_texts(numbered(12), reader, CONFIG, aspect=1.0)
    assert (found.start_s, found.stop_s, found.text) == (2.0, 2.5, "Five years 1ater")


def test_readings_of_one_text_are_one_and_the_commonest_is_told():
    lines = {0: [Line("CHAPTER ONE", 0.93)], 4: [Line("CHAPTER 0NE", 0.99)], 8: [Line("CHAPTER ONE", 0.95)]}
    (found,) = ost.read_texts(numbered(12), Scripted(lines), CONFIG, aspect=1.0)
    assert (found.text, found.start_s, found.stop_s, found.score) == ("CHAPTER ONE", 0.0, 4.0, 0.95)


def test_unsure_and_tiny_readings_are_left_out():
    lines = [Line("surely", 0.89), Line("口", 0.99), Line("a1", 0.99), Line("!!!!", 0.99)]
    assert ost.read_texts(numbered(12), Scripted({0: lines, 4: lines}), CONFIG, aspect=1.0) == []


def test_two_texts_of_one_frame_stay_two():
    page = [Line("Director of photography", 0.95), Line("Original music", 0.95)]
    found = ost.read_texts(numbered(6), Scripted({0: page, 4: page}), CONFIG, aspect=1.0)
    assert [text.text for text in found] == ["Director of photography", "Original music"]


def test_a_picture_that_stands_still_is_read_once():
    frames = np.zeros((20, 256, 256, 3), dtype=np.uint8)
    frames[:, :128] = 40
    still = FrameStrip(pack_frames(frames, quality=95), np.arange(20) / 2)
    reader = Scripted({4: [Line("SLIDE", 0.99)]})
    (found,) = ost.read_texts(still, reader, CONFIG, aspect=1.0)
    assert (found.start_s, found.stop_s) == (0.0, 8.0)
    assert len(reader.asked) == 1


def test_a_square_is_stretched_to_the_videos_shape():
    shapes = []

    class Shapes(Scripted):
        def read(self, picture_HW3: np.ndarray) -> list[Line]:
            shapes.append(picture_HW3.shape[:2])
            return []

    ost.read_texts(numbered(1), Shapes({}), CONFIG, aspect=WIDE)
    ost.read_texts(numbered(1), Shapes({}), CONFIG, aspect=9 / 16)
    assert shapes == [(256, 455), (455, 256)]


def test_frames_that_are_too_small_are_refused_with_the_mend():
    small = FrameStrip(pack_frames(np.zeros((2, 32, 32, 3), dtype=np.uint8), quality=90), np.arange(2) / 2)
    with pytest.raises(ConfigError, match=r"Set data\.frames\.size to 256 or more"):
        ost.read_texts(small, Scripted({}), CONFIG, aspect=1.0)


def test_no_frames_hold_no_text():
    empty = FrameStrip(pack_frames(np.zeros((0, 8, 8, 3), dtype=np.uint8), quality=90), np.zeros(0))
    assert ost.read_texts(empty, Scripted({}), CONFIG, aspect=1.0) == []


def test_what_was_read_is_not_read_again(tmp_path: Path):
    workspace = Workspace.open(tmp_path)
    reader = Scripted({0: [Line("Once upon", 0.95)], 4: [Line("Once upon", 0.95)]})
    read = [
        ost.texts_of_video(workspace, video_record("v"), lambda: numbered(6), reader, CONFIG)
        for _ in range(2)
    ]
    assert read[0] == read[1]
    assert read[0][0].text == "Once upon"
    assert reader.asked == [0, 4]
    other = ReadTextConfig(every_s=1.0)
    ost.texts_of_video(workspace, video_record("v"), lambda: numbered(6), reader, other)
    assert len(reader.asked) > 2


def test_texts_are_cut_to_the_clip():
    text = SeenText(text="long", start_s=3.0, stop_s=9.0, score=0.9)
    assert [(one.start_s, one.stop_s) for one in ost.between([text], 5.0, 8.0)] == [(5.0, 8.0)]
    assert ost.between([text], 9.5, 12.0) == []
    assert ost.between([text], 0.0, 3.0) == []


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(MachineError, match=r"longvila-pipeline\[ocr\]"):
        ost.RapidReader(CONFIG)


def test_settings_that_contradict_are_refused():
    model = LanguageModelConfig(kind="endpoint", model="m", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ValidationError, match="read_text is for captioner: measured"):
        CaptionConfig(captioner="model", model=model, read_text=CONFIG)
    with pytest.raises(ValidationError, match="give both, or none"):
        ReadTextConfig(model_path="x.onnx")


def test_settings_without_it_decide_the_same_captions_as_before():
    assert CaptionConfig().decides_captions() == {"captioner": "measured"}
    assert "read_text" in CaptionConfig(read_text=CONFIG).decides_captions()


def test_the_build_tells_the_text_of_a_clip(tmp_path, film, reader):
    workspace = Workspace.open(tmp_path)
    record = video_record("v", duration_s=4.0)
    strip = strip_of([titled(film[0], "Six weeks later", size=56)] * 8)
    frames = unpack_frames(strip.blob.data, strip.blob.offsets, range(8))
    spools = [spool(frames, strip.times_s) for _ in range(2)]
    pictures = [scene(1)] * 16
    scanned = Scanned(measure_pictures(pictures), *spools, fingerprint_pictures(pictures), [], 4.0)
    settings = {"shots": ShotConfig(), "frames": FramesConfig()}
    found = store_scan(workspace, record, scanned, **settings)
    clips = [
        Clip(clip_id=f"c{i}", video_id="v", index=i, start_s=2.0 * i, stop_s=2.0 * i + 2, shot_ids=())
        for i in range(2)
    ]
    made = build.caption_batch(workspace, [record], [found], clips, CaptionConfig(read_text=CONFIG))
    assert [len(caption.facts["text"]) for caption in made.results] == [1, 1]
    assert "text reads “Six" in made.results[0].text
    assert len(workspace.storage.list("texts/")) == 1
