"""Examples marked ``<!-- run -->`` print what the page shows below them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"<!-- run -->\n```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(code, output, id=f"{page.relative_to(ROOT)}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, (code, output) in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8")))
]


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_example_prints_what_the_page_shows(code: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example", "exec"), {})

    assert printed.getvalue() == output
