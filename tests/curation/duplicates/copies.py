"""Changed copies of real video, each made by one ffmpeg filter graph.

x264's fastest preset everywhere: what a copy is worth as a test is in its filter and its quality, not its
size.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from longvila.curation.duplicates.fingerprint import Fingerprint
from longvila.curation.duplicates.steps import fingerprint_file
from longvila.media.ffmpeg import ffmpeg_program

_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "30")
_LOGO = "drawbox=x=iw*0.8:y=ih*0.05:w=iw*0.15:h=ih*0.1:color=white@0.9:t=fill"


class Change(NamedTuple):
    """How a copy differs from its original."""

    graph: str
    encoding: tuple[str, ...] = _H264
    suffix: str = ".mp4"
    speed: float = 1.0
    mirrored: bool = False


CHANGES = {
    "low quality": Change("null", ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "42")),
    "MPEG-4 in AVI": Change("null", ("-c:v", "mpeg4", "-q:v", "14"), ".avi"),
    "MPEG-2": Change("null", ("-c:v", "mpeg2video", "-q:v", "14"), ".mpg"),
    "a quarter of the size": Change("scale=160:-2"),
    "squeezed to 4:3": Change("scale=320:240"),
    "squeezed to upright": Change("scale=202:360"),
    "12 frames per second": Change("fps=12"),
    "letterboxed": Change("pad=iw:iw*3/4:0:(oh-ih)/2"),
    "pillarboxed": Change("pad=ih*64/27:ih:(ow-iw)/2:0"),
    "boxed on all sides": Change("scale=320:180,pad=480:300:80:60"),
    "white bars": Change("pad=iw:iw*3/4:0:(oh-ih)/2:white"),
    "blurred bars": Change(
        "split[a][b];[a]scale=360:640,boxblur=20:2[x];[b]scale=360:-2[y];[x][y]overlay=0:(H-h)/2"
    ),
    "cropped by 5 % of a side": Change("crop=iw*0.95:ih*0.95"),
    "cropped by 5 % on each side": Change("crop=iw*0.9:ih*0.9"),
    "cropped by 5 % below": Change("crop=iw:ih*0.95:0:0"),
    "cropped by 5 % in a corner": Change("crop=iw*0.95:ih*0.95:0:0"),
    "1.1 times as fast": Change("setpts=PTS/1.1", speed=1.1),
    "0.9 times as fast": Change("setpts=PTS/0.9", speed=0.9),
    "mirrored": Change("hflip", mirrored=True),
    "brighter, more contrast": Change("eq=brightness=0.1:contrast=1.2"),
    "darker, less contrast": Change("eq=brightness=-0.1:contrast=0.8"),
    "another gamma": Change("eq=gamma=1.5:saturation=0.5"),
    "grey": Change("hue=s=0"),
    "with a logo": Change(_LOGO),
    "with a caption band": Change("drawbox=x=iw*0.2:y=ih*0.85:w=iw*0.6:h=ih*0.07:color=black@0.8:t=fill"),
    "blurred": Change("gblur=sigma=3"),
    "noisy": Change("noise=alls=20:allf=t"),
    "quarter, boxed, 1.1 times, cropped, logo": Change(
        f"crop=iw*0.95:ih*0.95,setpts=PTS/1.1,{_LOGO},scale=160:-2,pad=iw:iw*3/4:0:(oh-ih)/2", speed=1.1
    ),
}


def make_copy(path: Path, out: Path, change: Change, *, start_s: float, seconds: float) -> Path:
    """Write a changed copy of ``[start_s, start_s + seconds)`` of a video; return its path, with a suffix."""
    out = out.with_suffix(change.suffix)
    command = [ffmpeg_program(), "-nostdin", "-y", "-v", "error", "-ss", str(start_s), "-t", str(seconds)]
    command += ["-i", str(path), "-an", "-filter_complex", f"[0:v]{change.graph}[v]", "-map", "[v]"]
    command += ["-pix_fmt", "yuv420p", *change.encoding, str(out)]
    subprocess.run(command, check=True, timeout=120)
    return out


def fingerprint_of_copy(
    path: Path, folder: Path, name: str, *, start_s: float, seconds: float
) -> Fingerprint:
    """Make one of ``CHANGES``, and take its fingerprint."""
    out = folder / "".join(letter if letter.isalnum() else "_" for letter in name)
    copy = make_copy(path, out, CHANGES[name], start_s=start_s, seconds=seconds)
    found = fingerprint_file(copy)
    copy.unlink()
    return found
