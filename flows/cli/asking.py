"""What ``longvila ask`` does."""

from __future__ import annotations

from pathlib import Path

from flows.cli.runtime import prepare_environment, set_up_logging


def answer(checkpoint: Path, video: Path, question: str, *, max_frames: int | None, as_json: bool) -> str:
    """Ask a checkpoint about a video; what makes the answer doubtful follows it."""
    set_up_logging(debug=False)
    prepare_environment()
    from longvila.inference import load

    found = load(checkpoint).ask(video, question, frames=max_frames)
    if as_json:
        return found.model_dump_json()
    notes = "".join(f"\n  ({note})" for note in found.notes)
    return f"{found.text}{notes}\n  {found.frames_used} frames, {found.seconds:.1f} s"
