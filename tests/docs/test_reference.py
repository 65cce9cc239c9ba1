import pytest

from tests.docs.generate import BLOCK, PAGES, REFERENCE, renewed


@pytest.mark.parametrize("page", PAGES)
def test_reference_pages_are_up_to_date(page: str) -> None:
    text = (REFERENCE / page).read_text(encoding="utf-8")

    assert BLOCK.search(text), f"{page} has no generated block"
    assert renewed(text) == text, "out of date: run python -m tests.docs.generate"
