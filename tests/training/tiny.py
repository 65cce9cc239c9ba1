"""A model of a few thousand parameters, a data set of a few samples, and a spec that joins them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.config.stage import MixtureEntry, OptimizerConfig, StageConfig
from longvila.data.parts import SampleWithFrames
from longvila.data.shards import write_dataset
from longvila.media.jpeg import pack_frames
from longvila.model import build_model, export_checkpoint
from longvila.records import Sample, Turn
from longvila.storage import open_storage
from longvila.text import build_word_tokenizer
from longvila.training import RunSpec

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (120, 120, 120)}
IMAGE_SIZE = 16

MODEL = ModelConfig(
    vision=VisionConfig(
        image_size=IMAGE_SIZE,
        patch_size=4,
        hidden_size=16,
        intermediate_size=32,
        num_layers=2,
        num_heads=2,
        select_layer=-1,
    ),
    projector=ProjectorConfig(output_norm=True),
    llm=LlmConfig(
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        rope_theta=100.0,
        max_context=512,
    ),
)


def stage(**changes: Any) -> StageConfig:
    """A stage of a few fast steps on the CPU; learning rates of parts that do not train are left out."""
    settings: dict[str, Any] = {
        "name": "short_sft",
        "trains": ("vision_tower", "projector", "llm"),
        "mixture": (MixtureEntry(dataset="colours"),),
        "steps": 4,
        "max_frames": 8,
        "max_tokens": 96,
        "rows_per_step": 2,
        "optimizer": OptimizerConfig(learning_rate=3e-3, weight_decay=0.01),
        "num_processes": 2,
        "zero_stage": 2,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "checkpoint_every_steps": 2,
        "step_timeout_s": 120.0,
    }
    settings |= changes
    optimizer: OptimizerConfig = settings["optimizer"]
    rates = {part: rate for part, rate in optimizer.part_learning_rates.items() if part in settings["trains"]}
    settings["optimizer"] = optimizer.model_copy(update={"part_learning_rates": rates})
    return StageConfig.model_validate(settings)


def samples(count: int = 24) -> list[SampleWithFrames]:
    """Videos of coloured frames that ask for the colour of one of them; every fourth sample is text alone."""
    chance = np.random.default_rng(0)
    names = list(COLOURS)
    made: list[SampleWithFrames] = []
    for number in range(count):
        colours = [names[i] for i in chance.integers(0, len(names), size=1 + number % 5)]
        if number % 4 == 3:
            made.append(SampleWithFrames(_sample(number, f"say {colours[0]}", colours[0], 0)))
            continue
        pixels = np.array([COLOURS[colour] for colour in colours], dtype=np.uint8)
        frames = np.broadcast_to(pixels[:, None, None], (len(colours), IMAGE_SIZE, IMAGE_SIZE, 3))
        blob = pack_frames(np.ascontiguousarray(frames), quality=90)
        sample = _sample(number, "<frames> what colour came last", colours[-1], len(colours))
        made.append(SampleWithFrames(sample, blob))
    return made


def _sample(number: int, question: str, answer: str, num_frames: int) -> Sample:
    return Sample(
        key=f"colours-{number:04d}",
        kind="video" if num_frames else "text",
        split="train",
        conversations=(Turn(role="human", text=question), Turn(role="gpt", text=answer)),
        frame_times_s=tuple(float(i) for i in range(num_frames)),
    )


def write_inputs(root: Path, *, seed: int = 0) -> None:
    """Write the shards and a checkpoint to start from below ``root``."""
    made = samples()
    write_dataset(open_storage(root / "workspace"), "colours", "train", made)
    texts = [turn.text for item in made for turn in item.sample.conversations]
    tokenizer = build_word_tokenizer(texts)
    model = build_model(MODEL, vocab_size=len(tokenizer), seed=seed)
    export_checkpoint(model, tokenizer, root / "init", stage_info={"made_by": "tests"})


def spec(root: Path, name: str = "run", **changes: Any) -> RunSpec:
    """A spec over the inputs below ``root``; what is not a field of the spec changes the stage."""
    own = {key: changes.pop(key) for key in ("engine", "init_from", "label") if key in changes}
    return RunSpec.model_validate(
        {
            "stage": stage(**changes),
            "model": MODEL,
            "init_from": str(root / "init"),
            "datasets": {"colours": str(root / "workspace" / "shards" / "colours")},
            "run_dir": str(root / "runs" / name),
            "device": "cpu",
            **own,
        }
    )


def same_weights(one: Path, other: Path, *, atol: float = 0.0) -> None:
    """Fail unless two exported checkpoints hold the same tensors."""
    from longvila.model import load_checkpoint

    first, second = (load_checkpoint(path).model.state_dict() for path in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
