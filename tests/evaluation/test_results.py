import pytest

from longvila.errors import InputError
from longvila.evaluation.results import read_result, write_result
from tests.report.example import evaluation, needle


def test_a_result_survives_its_file(tmp_path):
    result = evaluation("long_sft", limit=400, ceiling=0.95, answers=0.75)
    path = write_result(tmp_path / "a" / "result.json", result)
    assert read_result(path) == result
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_missing_or_foreign_file_is_said(tmp_path):
    with pytest.raises(InputError, match="Run the evaluation"):
        read_result(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="evaluate again"):
        read_result(tmp_path / "other.json")


def test_a_row_is_found_by_its_frames():
    assert needle(32).row(64).frames == 64
    with pytest.raises(InputError, match="it has"):
        needle(32).row(63)
