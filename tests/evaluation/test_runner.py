import json

import pytest
import torch

from longvila.config.evaluation import EvalConfig, FramesCurveConfig, NeedleEvalConfig, QaEvalConfig
from longvila.curation.composing import needles as cards
from longvila.errors import ConfigError, InputError
from longvila.evaluation.results import read_result
from longvila.evaluation.runner import evaluate_checkpoint
from longvila.evaluation.weights import tower_digest, weight_digest
from longvila.model import set_rope_theta
from longvila.model.checkpoint import export_checkpoint
from tests.evaluation.test_qa import films  # noqa: F401 (a fixture)
from tests.evaluation.tiny import bigram_model, noise_bank, tiny_tokenizer

TOKENIZER = tiny_tokenizer("what is the main colour", "how strong is the motion", "still", "on off")
FOLLOWS = {
    **dict.fromkeys(cards.COLOURS, "7"), **{str(digit): "<eos>" for digit in range(10)},
    "colour": "red", "motion": "still", "still": "<eos>",
}  # fmt: skip
CONFIG = EvalConfig(
    max_row_tokens=500,
    needle=NeedleEvalConfig(frames=(4, 8), depths=(0.0, 1.0), trials_per_cell=4, needles=2),
    frames_curve=FramesCurveConfig(video_frames=16, sampled=(4, 16), trials=6),
    qa=QaEvalConfig(dataset="films", max_frames=6),
)
BANK = noise_bank(30)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "export"
    export_checkpoint(bigram_model(TOKENIZER, FOLLOWS), TOKENIZER, path, stage_info={"stage": "long_sft"})
    return path


def test_a_checkpoint_is_measured_and_the_result_written(checkpoint, films, tmp_path):  # noqa: F811
    seen = []
    out = tmp_path / "out"
    result = evaluate_checkpoint(
        checkpoint, CONFIG, name="long_sft", out_dir=out, haystack=BANK, datasets={"films": films},
        cache_dir=tmp_path / "cache", progress=lambda part, done, total: seen.append((part, done, total)),
    )  # fmt: skip
    assert read_result(out / "result.json") == result
    assert result.rope_theta == 100.0
    assert [part.part for part in result.parts] == ["vision_tower", "projector", "llm"]
    assert all(part.size_bytes == 4 * part.parameters > 0 for part in result.parts)
    assert result.needle.rows[0].generated.total == 8
    assert len(result.frames_curve.points) == 2
    assert result.qa.overall.model.total == 5
    assert {part for part, _, _ in seen} == {"needle", "frames curve", "questions"}
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 2 * 4 + 8 + 12 + 10
    assert {line["weight_digest"] for line in lines} == {result.weight_digest}
    assert {line["prompt_id"][:2] for line in lines} == {"ne", "qa"}

    before = (out / "trials.jsonl").stat().st_size
    again = evaluate_checkpoint(
        checkpoint, CONFIG, name="long_sft", out_dir=out, haystack=BANK, datasets={"films": films},
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    assert again.needle.rows == result.needle.rows
    assert (out / "trials.jsonl").stat().st_size == before


def test_a_checkpoint_that_changed_is_measured_anew(checkpoint, tmp_path):
    config = EvalConfig(needle=CONFIG.needle)
    out = tmp_path / "out"
    first = evaluate_checkpoint(checkpoint, config, name="a", out_dir=out, haystack=BANK)
    export_checkpoint(bigram_model(TOKENIZER, {}), TOKENIZER, checkpoint, stage_info={})
    second = evaluate_checkpoint(checkpoint, config, name="a", out_dir=out, haystack=BANK)
    assert first.weight_digest != second.weight_digest
    assert sum(row.generated.right for row in second.needle.rows) == 0
    assert sum(row.generated.right for row in first.needle.rows) > 0


def test_what_lacks_its_input_is_said_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="split heldout"):
        evaluate_checkpoint(tmp_path, CONFIG, name="a", out_dir=tmp_path)
    with pytest.raises(ConfigError, match="Name one of them"):
        evaluate_checkpoint(tmp_path, CONFIG, name="a", out_dir=tmp_path, haystack=BANK, datasets={"b": "x"})
    with pytest.raises(InputError, match="not a checkpoint"):
        evaluate_checkpoint(tmp_path, EvalConfig(), name="a", out_dir=tmp_path, haystack=BANK)


def test_digests_know_what_matters(tmp_path):
    model = bigram_model(TOKENIZER, FOLLOWS)

    def digests(name, **info):
        export_checkpoint(model, TOKENIZER, tmp_path / name, stage_info=info)
        return weight_digest(tmp_path / name), tower_digest(tmp_path / name)

    first = digests("a", stage="short_sft")
    assert digests("b", stage="another", seconds=3.0) == first  # notes and the folder's name do not count
    set_rope_theta(model, 6400.0)
    raised = digests("c")
    assert raised[0] != first[0]  # a control may differ in nothing but the RoPE base
    assert raised[1] == first[1]
    with torch.no_grad():
        next(model.vision_tower.parameters()).add_(0.1)
    assert digests("d")[1] != first[1]
