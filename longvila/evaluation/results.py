"""What an evaluation found, as typed records and one JSON file per checkpoint.

Each result names the prompt and the extractor it was made with and the digest of the weights, because numbers
made with other prompts, extractors or weights are not comparable.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from longvila.errors import InputError
from longvila.evaluation.statistics import Difference, McNemar, Share
from longvila.records import SCHEMA_VERSION, Record
from longvila.storage.files import write_text


class NeedleCell(Record):
    """One cell of the grid: videos of so many frames with the asked needle at one depth.

    ``depth`` is the needle's place as a share of the video; none for a row's sum over depths.
    """

    frames: int
    depth: float | None
    num_tokens: int = Field(description="of the longest prompt in the cell")
    teacher_forced: Share = Field(description="every answer token is the argmax (the published protocol)")
    generated: Share = Field(description="the greedy answer, up to its end, is exactly the expected one")


class NeedleResult(Record):
    """The needle grid of one checkpoint."""

    prompt_id: str
    extractor_id: str
    needles: int = Field(description="cards per video; all but one are distractors")
    tokens_per_frame: int = Field(description="seats of one frame in the sequence, its separator included")
    chance: float
    cells: tuple[NeedleCell, ...]
    rows: tuple[NeedleCell, ...] = Field(description="one per frame count, summed over depths")
    blind: NeedleCell = Field(description="the control: the same questions without any frame")
    seconds: float

    def row(self, frames: int) -> NeedleCell:
        """Return the row of one frame count; raise InputError when the grid lacks it."""
        for row in self.rows:
            if row.frames == frames:
                return row
        raise InputError(f"no row of {frames} frames in the grid; it has {[row.frames for row in self.rows]}")


class CurvePoint(Record):
    """Accuracy when so many frames of the video are sampled."""

    sampled: int
    measured: Share
    predicted: float


class FramesCurveResult(Record):
    """Accuracy against the number of frames sampled from a long video."""

    prompt_id: str
    extractor_id: str
    video_frames: int
    needles: int
    chance: float
    ceiling: float = Field(description="accuracy with every frame sampled: the a of the prediction")
    points: tuple[CurvePoint, ...]
    seconds: float


class KindScore(Record):
    """Held-out questions of one kind: the model with frames, without them, and the commonest answer."""

    kind: str
    model: Share
    text_only: Share = Field(description="the same model with the frames' tokens left out")
    majority: Share = Field(description="always the commonest answer of this kind in the training split")
    gain: Difference = Field(description="model − text_only, bootstrapped by cluster")
    gain_over_majority: Difference
    mcnemar: McNemar


class QaExample(Record):
    """One held-out question, what is expected, and what was said with and without the frames."""

    question_id: str
    video_id: str
    kind: str
    question: str
    answer: str
    said: str
    said_blind: str


class QaResult(Record):
    """Held-out questions on real video."""

    dataset: str
    prompt_id: str
    extractor_id: str
    max_frames: int
    mean_frames: float = Field(description="frames that were really used per question")
    cluster: str = Field(description="what the bootstrap resamples, e.g. video")
    num_videos: int
    unanswered: int = Field(description="questions to which the model said nothing at all; counted as wrong")
    overall: KindScore
    kinds: tuple[KindScore, ...]
    examples: tuple[QaExample, ...] = Field(default=(), description="some of each kind, right or wrong")
    seconds: float


class LossCurve(Record):
    """The loss of one stage by optimizer step."""

    stage: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]


class PartSize(Record):
    """How large one part of the model is."""

    part: str
    parameters: int
    size_bytes: int


class EvalResult(Record):
    """Everything that was measured of one checkpoint."""

    schema_version: int = SCHEMA_VERSION
    name: str
    checkpoint: str
    weight_digest: str
    rope_theta: float | None = None
    max_context: int | None = None
    parts: tuple[PartSize, ...] = ()
    needle: NeedleResult | None = None
    frames_curve: FramesCurveResult | None = None
    qa: QaResult | None = None
    seconds: float = 0.0


def write_result(path: Path, result: EvalResult) -> Path:
    """Write a result as JSON, whole or absent."""
    write_text(path, result.model_dump_json(indent=2))
    return path


def read_result(path: Path) -> EvalResult:
    """Read a result back; raise InputError when it is missing or not one of ours."""
    if not path.is_file():
        raise InputError(f"no evaluation result at {path}. Run the evaluation, or name its results file")
    try:
        return EvalResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is not an evaluation result of schema {SCHEMA_VERSION}: {error.errors()[0]['msg']}. "
            "Delete it and evaluate again"
        ) from error
