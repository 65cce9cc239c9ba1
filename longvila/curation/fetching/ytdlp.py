"""Videos of pages that yt-dlp can read: an extra, and never to be relied on, because sites refuse it.

The program runs by itself, behind a gate with our guard, pace and limits. What it has downloaded of a video
stays in a folder of that video, so that it goes on there after a break or a kill.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvila.config.addresses import redacted, scrubbed
from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.download import Downloader
from longvila.curation.fetching.gate import Gate
from longvila.curation.fetching.partial import too_large
from longvila.errors import ItemError
from longvila.media.ffmpeg import ffmpeg_program
from longvila.storage.files import os_errors

if TYPE_CHECKING:
    from longvila.curation.fetching.fetch import Facts

_MAX_TEXT = 1000
_KEPT = ("unreachable", "too-slow")  # what is there may be gone on with
_REASONS = {
    "unreachable": r"HTTP Error (408|425|429|5\d\d)|Too Many Requests|timed? ?out|Temporary failure|"
    r"Connection (reset|refused|aborted)|Remote end closed|IncompleteRead|bytes read|not known",
    "forbidden": r"HTTP Error (401|403|407|451)|[Ss]ign in|log ?in|Private|not a bot|members|not available",
    "gone": r"HTTP Error (404|410)|[Uu]navailable|removed|does not exist|no longer|terminated",
}


def download_video(
    url: str, part: Path, *, config: FetchConfig, downloader: Downloader, max_size_bytes: int
) -> Facts:
    """Bring the video of a page into ``part`` and return what the page says of it.

    Raises ``ItemError``: no-yt-dlp without the extra, private-address, too-large, too-slow, forbidden, gone,
    unreachable, and refused for everything else that the site or yt-dlp does not like.
    """
    if importlib.util.find_spec("yt_dlp") is None:
        raise ItemError(
            "no-yt-dlp",
            f"{redacted(url)} needs yt-dlp. Install it with pip install 'longvila-pipeline[yt-dlp]', "
            "then run it again",
        )
    folder = part.with_suffix(".page")
    with os_errors(f"make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with Gate(
            downloader.guard, downloader.pacer, max_bytes=2 * max_size_bytes, timeout_s=config.timeout_s
        ) as gate:
            found = _run(url, folder, gate, config, max_size_bytes)
        facts = _facts(url, folder, found.suffix)
        with os_errors(f"move {found}"):
            found.replace(part)
    except ItemError as error:
        if error.reason not in _KEPT:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return facts


def _run(url: str, folder: Path, gate: Gate, config: FetchConfig, max_size_bytes: int) -> Path:
    """Run yt-dlp on one page; return the file that it made."""
    process = subprocess.Popen(
        _command(folder, gate.url, config, max_size_bytes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=folder,
        start_new_session=True,
    )
    try:  # the address goes by stdin: what stands on a command line can be read by all users
        said, errors = process.communicate(f"{url}\n", timeout=config.total_timeout_s)
    except subprocess.TimeoutExpired as error:
        words = f"{redacted(url)}: not whole after {config.total_timeout_s:g} s. Run it again to go on"
        raise ItemError("too-slow", words) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if gate.refusal is not None:
        raise ItemError(gate.refusal.reason, f"{redacted(url)}: {gate.refusal.detail}")
    found = [folder / Path(line).name for line in said.splitlines() if line.startswith("/")]
    if process.returncode == 0 and found and found[-1].is_file():
        return found[-1]
    if "max-filesize" in said + errors:
        raise too_large(url, max_size_bytes)
    raise _refusal(url, errors)


def _command(folder: Path, proxy: str, config: FetchConfig, max_size_bytes: int) -> list[str]:
    options: dict[str, Any] = {
        "--proxy": proxy,
        "--format": config.video_format,
        "--max-filesize": max_size_bytes,
        "--limit-rate": config.max_bytes_s,
        "--socket-timeout": config.timeout_s,
        "--retries": config.attempts - 1,
        "--fragment-retries": config.attempts - 1,
        "--extractor-retries": config.attempts - 1,
        "--retry-sleep": f"exp={config.backoff_s:g}:60",
        "--playlist-items": 1,
        "--match-filters": "!is_live",
        "--ffmpeg-location": ffmpeg_program(),
        "--cache-dir": folder.parent / "yt-dlp-cache",
        "--paths": folder,
        "--output": "video.%(ext)s",
        "--print": "after_move:filepath",
        "--batch-file": "-",
    }
    flags = [
        "--ignore-config", "--no-playlist", "--no-simulate", "--no-progress", "--continue", "--no-mtime",
        "--write-info-json", "--no-write-playlist-metafiles", "--color=never",
    ]  # fmt: skip
    pairs = [f"{name}={value}" for name, value in options.items() if value is not None]
    return [sys.executable, "-m", "yt_dlp", *flags, *pairs]


def _facts(url: str, folder: Path, suffix: str) -> Facts:
    """What the sidecar ``info.json`` says; nothing when there is none."""
    from longvila.curation.fetching.fetch import Facts

    try:
        info = json.loads((folder / "video.info.json").read_text())
    except (OSError, ValueError):
        info = {}
    author = info.get("uploader") or info.get("channel") or info.get("creator")
    texts = [scrubbed(_text(value), url) for value in (info.get("title"), author, info.get("license"))]
    return Facts(*texts, suffix=f"video{suffix}")


def _text(value: Any) -> str:
    return " ".join(value.split())[:_MAX_TEXT] if isinstance(value, str) else ""


def _refusal(url: str, errors: str) -> ItemError:
    """What yt-dlp complained of, as a reason and in its own words, without addresses that hold secrets."""
    lines = [line for line in errors.splitlines() if line.startswith("ERROR:")]
    words = (lines or errors.splitlines() or ["nothing was downloaded: no video, or a live one"])[-1]
    words = scrubbed(words.removeprefix("ERROR: "), url)
    reason = next((reason for reason, pattern in _REASONS.items() if re.search(pattern, words)), "refused")
    return ItemError(reason, f"{redacted(url)}: yt-dlp says: {words[:400]}")
