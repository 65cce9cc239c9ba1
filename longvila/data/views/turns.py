"""A sample's conversation in the words of other trainers: where media stand, and who speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from longvila.errors import ItemError
from longvila.records import Sample, Turn
from longvila.text.tokenizer import FRAMES_MARK

VIDEO, IMAGE = "<video>", "<image>"
OTHERS_MARKS = (VIDEO, IMAGE, "<audio>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>")
Media = Literal["none", "video", "images"]


class Shown(NamedTuple):
    """What a sample shows, and its turns with the reader's own placeholder where each medium stands."""

    media: Media
    turns: tuple[Turn, ...]

    @property
    def placeholder(self) -> str:
        """What stands in the text for one medium."""
        return {"none": "", "video": VIDEO, "images": IMAGE}[self.media]


def show(sample: Sample) -> Shown:
    """Put ``<video>`` or ``<image>`` where our ``<frames>`` stands.

    One ``<frames>`` for several frames is a video; for the one frame of an image sample, or one for each
    frame, they are images. Raises ``ItemError``: ``placeholders`` when marks and frames do not agree,
    ``foreign-mark`` when the text itself has a word that a reader would take for a medium.
    """
    _refuse_foreign_marks(sample)
    marks = sum(turn.text.count(FRAMES_MARK) for turn in sample.conversations if turn.role == "human")
    stray = sum(turn.text.count(FRAMES_MARK) for turn in sample.conversations if turn.role != "human")
    if stray or marks not in {min(sample.num_frames, 1), sample.num_frames}:
        raise ItemError(
            "placeholders", f"Sample {sample.key!r} has {sample.num_frames} frames and {marks + stray} marks."
        )
    if not sample.num_frames:
        return Shown("none", sample.conversations)
    are_images = marks > 1 or sample.kind == "image"
    media: Media = "images" if are_images else "video"
    mark = IMAGE if are_images else VIDEO
    turns = tuple(
        Turn(role=turn.role, text=turn.text.replace(FRAMES_MARK, mark)) for turn in sample.conversations
    )
    return Shown(media, turns)


def llava_turns(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Return LLaVA's ``conversations``: human and gpt in turn. A system turn leads the first question.

    Text that is trained on as it stands follows an empty question.
    """
    system = "".join(f"{turn.text}\n" for turn in turns if turn.role == "system")
    spoken = [{"from": turn.role, "value": turn.text} for turn in turns if turn.role != "system"]
    if spoken and spoken[0]["from"] == "gpt":
        spoken.insert(0, {"from": "human", "value": ""})
    if spoken:
        spoken[0]["value"] = system + spoken[0]["value"]
    return spoken


def chat_messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Return the turns as OpenAI-style ``messages``, which ms-swift takes."""
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    return [{"role": roles[turn.role], "content": turn.text} for turn in turns]


def _refuse_foreign_marks(sample: Sample) -> None:
    for turn in sample.conversations:
        found = [mark for mark in OTHERS_MARKS if mark in turn.text]
        if found:
            raise ItemError(
                "foreign-mark",
                f"Sample {sample.key!r} has {found[0]!r} in its text, which readers would take for a medium.",
            )
