"""Many short real videos, each a file of its own content: copies of a few clips with a number in each."""

from __future__ import annotations

from pathlib import Path

from longvila.media.ffmpeg import transcode

CLIP_S = 3.0
HEIGHT = 90


def make_many(folder: Path, films: list[Path], *, count: int, clips_per_film: int = 4) -> Path:
    """Write ``count`` videos and ``sources.yaml``, which lists them, and return the list's path."""
    clips = [
        _clip(folder, film, number)
        for number in range(clips_per_film)
        for film in films
    ]  # fmt: skip
    lines = ["sources:"]
    for number in range(count):
        name = f"v{number:05d}.mp4"
        (folder / name).write_bytes(clips[number % len(clips)] + _free_box(number))
        lines.append(f"  - {{url: {folder / name}, split: train}}")
    listed = folder / "sources.yaml"
    listed.write_text("\n".join(lines) + "\n")
    return listed


def _clip(folder: Path, film: Path, number: int) -> bytes:
    out = folder / f"{film.stem}-{number}.clip.mp4"
    transcode(film, out, height=HEIGHT, audio=False, start_s=3.0 + 7.0 * number, duration_s=CLIP_S)
    data = out.read_bytes()
    out.unlink()
    return data


def _free_box(number: int) -> bytes:
    """An MP4 box that readers skip."""
    content = f"{number:08d}".encode()
    return (8 + len(content)).to_bytes(4, "big") + b"free" + content
