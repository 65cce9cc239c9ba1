from __future__ import annotations

import pytest

from flows.cli.errors import block, report
from longvila import errors


@pytest.mark.parametrize(
    ("error", "heading", "code"),
    [
        (errors.ConfigError("wrong field"), "error:", 2),
        (errors.MachineError("no disk"), "error:", 2),
        (errors.NetworkError("away"), "not now", 4),
        (errors.TooManyRejections("3 of 4"), "too much was rejected", 3),
        (errors.TrainingFailed("nan"), "training failed", 1),
        (errors.Stopped("asked"), "stopped", 5),
        (errors.InternalError("broken promise"), "please report", 1),
        (RuntimeError("oh"), "unexpected RuntimeError", 1),
    ],
)
def test_each_kind_of_error_has_its_heading_and_code(
    error: Exception, heading: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, debug=False) == code
    said = capsys.readouterr().err
    assert heading in said.splitlines()[0]
    assert str(error) in said


def test_long_lines_are_wrapped_and_lines_of_their_own_stay() -> None:
    said = block(errors.ConfigError("first " * 40 + "\nsecond line"))
    assert max(len(line) for line in said.splitlines()) <= 104
    assert "\n  second line" in said
