from __future__ import annotations

import pytest

from longvila.errors import ItemError
from longvila.media.probe import probe
from longvila.media.verify import check_decodes
from tests.media.making import DEMO, ffmpeg, grey_ramp, write_video


def test_a_good_file_is_decoded_at_three_places(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(40), gop=8, options={"x264-params": "scenecut=0"})
    assert check_decodes(path, probe(path)) == 24


def test_one_group_of_pictures_is_decoded_once(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(5), gop=8)
    assert check_decodes(path, probe(path)) == 5


def test_a_damaged_end_is_found(tmp_path):
    whole = (DEMO / "10-meadow-again.mp4").read_bytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(whole[:-30_000] + b"\x00" * 30_000)
    facts = probe(path)
    assert not facts.is_truncated
    with pytest.raises(ItemError) as caught:
        check_decodes(path, facts)
    assert caught.value.reason == "damaged"


def test_a_program_stream_without_an_index_is_whole(tmp_path):
    ffmpeg("-i", DEMO / "05-workshop.mp4", "-t", "3", "-c:v", "mpeg2video", tmp_path / "a.mpg")
    facts = probe(tmp_path / "a.mpg")
    assert check_decodes(tmp_path / "a.mpg", facts) > 10
    whole = (tmp_path / "a.mpg").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "b.mpg").write_bytes(whole[:middle] + bytes(60_000) + whole[middle + 60_000 :])
    with pytest.raises(ItemError):
        check_decodes(tmp_path / "b.mpg", facts)
