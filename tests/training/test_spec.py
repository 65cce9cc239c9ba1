from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from longvila.errors import ConfigError, InputError
from longvila.training import RunSpec, fingerprint
from longvila.training.runfiles import write_model
from longvila.training.spec import read_spec
from tests.training import tiny


def test_a_spec_survives_its_json(inputs: Path, tmp_path: Path) -> None:
    spec = tiny.spec(inputs)
    write_model(tmp_path / "spec.json", spec)
    assert read_spec(tmp_path / "spec.json") == spec


def test_a_wrong_spec_names_the_field(tmp_path: Path, inputs: Path) -> None:
    settings = json.loads(tiny.spec(inputs).model_dump_json())
    settings["stage"]["optimizer"]["learning_rate"] = -1
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"stage\.optimizer\.learning_rate"):
        read_spec(path)
    with pytest.raises(ConfigError, match="there is no spec"):
        read_spec(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"engine": "torch"}, "engine=deepspeed, or set num_processes=1"),
        ({"dtype": "bfloat16", "zero_stage": 0}, "zero_stage=1 or higher"),
        ({"mixture": ({"dataset": "faces"},)}, r"datasets has only \['colours'\]"),
        ({"num_processes": 3}, "must be a multiple of the 3 replicas"),
    ],
)
def test_what_cannot_work_is_refused_at_the_edge(inputs: Path, changes: dict[str, object], mend: str) -> None:
    with pytest.raises(ValidationError, match=mend):
        tiny.spec(inputs, **changes)


def test_the_fingerprint_follows_what_decides_the_result(inputs: Path, tmp_path: Path) -> None:
    spec = tiny.spec(inputs)
    mark = fingerprint(spec)
    assert mark == fingerprint(tiny.spec(inputs, "elsewhere", max_retries=7, label="again"))
    assert mark == fingerprint(
        tiny.spec(inputs, mlp_tiles=4, offload_activations=True, gradient_checkpointing=True)
    )
    assert mark != fingerprint(tiny.spec(inputs, seed=1))
    other = tmp_path / "other"
    tiny.write_inputs(other, seed=1)
    assert mark != fingerprint(spec.model_copy(update={"init_from": str(other / "init")}))
    assert mark == fingerprint(RunSpec.model_validate({**spec.model_dump(), "datasets": {
        "colours": str(other / "workspace/shards/colours")}}))  # fmt: skip


def test_missing_inputs_are_named(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        fingerprint(tiny.spec(inputs, init_from=str(tmp_path / "none")))


def test_the_supervising_side_loads_neither_torch_nor_deepspeed() -> None:
    code = (
        "import sys, longvila.training, longvila.training.supervise, longvila.training.launch;"
        "print(sorted({'torch', 'deepspeed', 'transformers', 'prefect'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
