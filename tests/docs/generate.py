"""Writes the generated parts of the reference pages: ``python -m tests.docs.generate``.

A page keeps what people wrote; only what stands between ``<!-- generated:NAME -->`` and ``<!-- end -->`` is
replaced. A test compares the pages with what this would write.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from tests.docs.commands import command_tables
from tests.docs.models import recipe_tables, record_tables
from tests.docs.names import public_names

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
BLOCK = re.compile(r"(<!-- generated:(?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

BLOCKS: dict[str, Callable[[], str]] = {
    "commands": command_tables,
    "recipe": recipe_tables,
    "records": record_tables,
    "names": lambda: public_names(ROOT / "longvila"),
}
PAGES = ("cli.md", "recipe.md", "manifests.md", "python.md")


def renewed(text: str) -> str:
    """The page with every generated block as it should be now."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}\n{BLOCKS[match['name']]().strip()}\n\n{match[3]}"

    return BLOCK.sub(replace, text)


def main() -> None:
    """Renew the pages that are out of date."""
    for name in PAGES:
        path = REFERENCE / name
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"renewed {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
