from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from longvila.errors import InputError, ItemError
from longvila.media.decode import decode_frames
from longvila.media.opening import open_video, shown_name
from longvila.media.probe import probe
from tests.media.making import ffmpeg, grey_ramp, write_video

NAMES = [
    "-dash.mp4",
    "per%03d.mp4",
    "co:lon.mp4",
    "concat:a|b.mp4",
    "new\nline.mp4",
    'it\'s [1] "x".mp4',
    "日本.mp4",
]


def rejection(path: Path) -> ItemError:
    with pytest.raises(ItemError) as caught:
        probe(path)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(tmp_path, monkeypatch, name):
    write_video(tmp_path / "plain.mp4", grey_ramp(3)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)  # relative, as options and addresses would be
    assert len(decode_frames(Path(name), [0.0, 0.25])) == 2


def test_a_name_that_is_not_utf8_is_told_from_a_bad_video(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    write_video(tmp_path / "plain.mp4", grey_ramp(3)).rename(tmp_path / name)
    error = rejection(tmp_path / name)
    assert (error.reason, error.detail) == (
        "bad-name",
        r"caf\udce9.mp4: the name is not UTF-8. Rename the file",
    )


def test_messages_show_no_control_characters():
    assert shown_name("a\x1b[31m\nb.mp4") == r"a\x1b[31m\nb.mp4"


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"]
)
def test_lists_of_other_files_are_not_followed(tmp_path, text):
    secret = write_video(tmp_path / "secret.ts", grey_ramp(10), codec="mpeg2video", fps=25)
    (tmp_path / "a.mp4").write_text(text.format(secret))
    assert rejection(tmp_path / "a.mp4").reason == "not-a-video"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b'{"error": "no such video, please log in"}', "JSON"),
        (b"%PDF-1.7\n" + bytes(range(256)), "PDF"),
        (b"some text\n" * 50, "plain text"),
        (bytes(100_000), "nothing but zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path, content, words):
    (tmp_path / "a.mp4").write_bytes(content)
    error = rejection(tmp_path / "a.mp4")
    assert error.reason == "not-a-video"
    assert words in error.detail


def test_archives_and_pictures_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.mp4", "w") as archive:
        archive.writestr("a.txt", "text")
    assert "ZIP" in rejection(tmp_path / "zip.mp4").detail
    for kind, words in (("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WebP")):
        Image.fromarray(grey_ramp(1)[0]).save(tmp_path / "picture.mp4", format=kind)
        assert words in rejection(tmp_path / "picture.mp4").detail


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="no video file"):
        probe(tmp_path / "pipe.mp4")


def test_metadata_that_is_not_text_does_not_matter(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(tmp_path / "plain.mp4", grey_ramp(3))
    ffmpeg("-i", tmp_path / "plain.mp4", "-c", "copy", "-metadata", "title=QQQQ", path)
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xfd\xfc"))
    with open_video(path) as (container, _):
        assert container.metadata["title"]


def test_of_several_streams_the_default_one_is_watched(tmp_path):
    small = write_video(tmp_path / "small.mp4", grey_ramp(5, size=(32, 32)))
    large = write_video(tmp_path / "large.mp4", grey_ramp(7, size=(48, 64)))
    both = ["-i", small, "-i", large, "-map", "0:v", "-map", "1:v", "-c", "copy"]
    ffmpeg(*both, "-disposition:v:0", "0", "-disposition:v:1", "default", tmp_path / "second.mkv")
    assert (probe(tmp_path / "second.mkv").width, probe(tmp_path / "second.mkv").stream_index) == (64, 1)
    ffmpeg(*both, "-disposition:v:0", "default", "-disposition:v:1", "0", tmp_path / "first.mkv")
    assert probe(tmp_path / "first.mkv").width == 32


def test_a_cover_picture_is_not_the_video(tmp_path):
    Image.fromarray(grey_ramp(1, size=(200, 200))[0]).save(tmp_path / "cover.png")
    video = write_video(tmp_path / "video.mp4", grey_ramp(5))
    ffmpeg(
        "-i", video, "-i", tmp_path / "cover.png", "-map", "1", "-map", "0", "-c", "copy",
        "-disposition:v:0", "attached_pic", tmp_path / "a.mp4",
    )  # fmt: skip
    assert (probe(tmp_path / "a.mp4").codec, probe(tmp_path / "a.mp4").num_frames) == ("h264", 5)
