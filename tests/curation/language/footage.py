"""A workspace with scanned videos and their clips, ready to be captioned; and captioning it as a process."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig
from longvila.config.sourcing import FetchConfig, ValidateConfig
from longvila.curation import build
from longvila.curation.scan import Scan
from longvila.records import Caption, Clip, Source, VideoRecord
from longvila.storage import StepResult, Workspace, read_manifest
from tests.curation.language.serving import ChatServer
from tests.curation.pictures import scene
from tests.media.making import write_video

SCENES, SCENE_S, FPS = 4, 3, 5


@dataclass(frozen=True)
class Footage:
    """Manifests of a workspace by their keys, so that another process can read them."""

    root: Path
    videos_key: str
    scans_key: str
    clips_key: str

    @classmethod
    def make(cls, root: Path, *, count: int) -> Footage:
        workspace = Workspace.open(root / "workspace")
        sources = [
            Source(source_id=f"v{n}", url=str(_film(root / f"v{n}.mp4", seed=10 * n))) for n in range(count)
        ]
        fetched = build.fetch_batch(workspace, sources, FetchConfig())
        videos = build.validate_batch(workspace, fetched.results, ValidateConfig())
        scans = build.scan_batch(
            workspace, videos.results, shot_config=ShotConfig(), frames=FramesConfig(fps=4.0, size=32)
        )
        clips = build.clips_batch(
            workspace, videos.results, scans.results, ClipConfig(target_s=SCENE_S, min_s=1.0, max_s=8.0)
        )
        return cls(workspace.root, videos.manifest_key, scans.manifest_key, clips.manifest_key)

    def copy(self, root: Path) -> Footage:
        """The same in another workspace, where nothing is captioned."""
        shutil.copytree(self.root, root)
        return Footage(root, self.videos_key, self.scans_key, self.clips_key)

    def open(self) -> Workspace:
        return Workspace.open(self.root)

    @property
    def videos(self) -> list[VideoRecord]:
        return read_manifest(self.open().storage, self.videos_key, VideoRecord)

    @property
    def scans(self) -> list[Scan]:
        return read_manifest(self.open().storage, self.scans_key, Scan)

    @property
    def clips(self) -> list[Clip]:
        return read_manifest(self.open().storage, self.clips_key, Clip)

    def caption(self, config: CaptionConfig) -> StepResult[Caption]:
        return build.caption_batch(self.open(), self.videos, self.scans, self.clips, config)


def captions_config(server: ChatServer | str, *, prompt: str = "caption-clip", **model: Any) -> CaptionConfig:
    url = server if isinstance(server, str) else server.url
    plain = {"model": "tiny", "base_url": url, "backoff_s": 0.01, "read_timeout_s": 5.0, "attempts": 3}
    return CaptionConfig.model_validate(
        {"captioner": "model", "frames_per_clip": 3, "prompt": prompt, "model": {**plain, **model}}
    )


def _film(path: Path, *, seed: int) -> Path:
    frames = [scene(seed + number) for number in range(SCENES) for _ in range(SCENE_S * FPS)]
    return write_video(path, frames, fps=FPS)


if __name__ == "__main__":
    url, *where = sys.argv[1:]
    root, videos_key, scans_key, clips_key = where
    made = Footage(Path(root), videos_key, scans_key, clips_key).caption(
        captions_config(url, requests_at_once=2)
    )
    sys.stdout.write(f"{len(made.results)}\n")
