"""What the command line prints of a result, and how compared results are told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli.asking import check_folder
from flows.cli.evaluating import column_titles
from flows.cli.running import check_server, print_result
from flows.state import check_rejections
from longvila.config import DataConfig
from longvila.errors import ConfigError, InputError, TooManyRejections
from longvila.evaluation.results import EvalResult
from tasks.contents import BuiltDataset
from tasks.refs import ManifestRef

REFS = [ManifestRef(step="sources", key=f"manifests/sources/{name}.parquet") for name in "ab"]


def test_a_list_of_records_is_printed_as_objects(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(REFS, json_lines=True)
    said = json.loads(capsys.readouterr().out)
    assert [item["key"] for item in said["result"]] == [ref.key for ref in REFS]


def test_a_list_is_printed_line_by_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(REFS, json_lines=False)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_results_of_one_checkpoint_have_different_titles() -> None:
    result = EvalResult.model_construct(name="long_sft")
    other = EvalResult.model_construct(name="align")
    first, second = Path("/r/long_sft-1/result.json"), Path("/r/long_sft-2/result.json")
    assert column_titles([result, other], [first, second]) == ["long_sft", "align"]
    assert column_titles([result, result], [first, second]) == ["long_sft-1", "long_sft-2"]
    third = Path("/s/long_sft-1/result.json")
    assert column_titles([result, result], [first, third]) == [str(first), str(third)]


def test_a_workspace_is_no_checkpoint_but_names_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "align").mkdir(parents=True)
    with pytest.raises(InputError, match=r"is a workspace.*checkpoints/align"):
        check_folder(tmp_path)


def test_an_address_that_is_none_is_not_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "nonsense")
    with pytest.raises(ConfigError, match="is no address"):
        check_server()


def test_rejections_are_a_share_of_all_that_is_listed() -> None:
    """A source that may be reachable later is not remembered, but it was listed all the same."""
    result = BuiltDataset.model_construct(
        steps=(ManifestRef(step="fetch", key="k", num_items=4),), sources={"a": "1"}, num_rejected_sources=2
    )
    check_rejections(result, DataConfig(sources="demo"))
    with pytest.raises(TooManyRejections, match="2 of 4 sources"):
        check_rejections(result, DataConfig(sources="demo", max_rejected_share=0.4))
