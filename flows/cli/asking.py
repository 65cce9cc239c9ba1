"""What ``longvila ask`` does."""

from __future__ import annotations

from pathlib import Path

from flows.cli.runtime import prepare_environment, set_up_logging
from longvila.errors import InputError


def check_folder(checkpoint: Path) -> Path:
    """Return the folder; ``InputError`` with a nearer one for a workspace or the bare name of a stage."""
    inside = checkpoint / "checkpoints"
    if inside.is_dir() and not (checkpoint / "config.json").is_file():
        names = sorted(path.name for path in inside.iterdir() if path.is_dir())
        raise InputError(
            f"{checkpoint} is a workspace. Name a checkpoint in it, for example "
            f"{inside / (names[-1] if names else 'long_sft')}; there are: {', '.join(names) or 'none yet'}."
        )
    if not checkpoint.exists() and len(checkpoint.parts) == 1:
        raise InputError(
            f"There is no checkpoint folder {checkpoint}. A stage's checkpoint is "
            f"WORKSPACE/checkpoints/{checkpoint}."
        )
    return checkpoint


def answer(checkpoint: Path, video: Path, question: str, *, max_frames: int | None, as_json: bool) -> str:
    """Ask a checkpoint about a video; what makes the answer doubtful follows it."""
    set_up_logging(debug=False)
    prepare_environment()
    from longvila.inference import load

    found = load(check_folder(checkpoint)).ask(video, question, frames=max_frames)
    if as_json:
        return found.model_dump_json()
    notes = "".join(f"\n  ({note})" for note in found.notes)
    return f"{found.text}{notes}\n  {found.frames_used} frames, {found.seconds:.1f} s"
