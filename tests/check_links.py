"""Dead links in the Markdown pages: every relative link must name a file, every anchor a heading."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    text = re.sub(r"[`*_]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return all anchors of one page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(line.lstrip("#")) for line in text.splitlines() if line.startswith("#")}


def broken_links(page: Path) -> list[str]:
    """Return one line for each link of the page that leads nowhere."""
    text = INLINE_CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    problems = []
    for target in LINK.findall(text):
        if re.match(r"^[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            problems.append(f"{page.relative_to(ROOT)}: {target} names no file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            problems.append(f"{page.relative_to(ROOT)}: {target} names no heading")
    return problems


def main() -> int:
    """Check all pages; print what is broken; return the exit code."""
    skipped = {".venv", "node_modules", ".git"}
    pages = [p for p in ROOT.rglob("*.md") if not skipped & set(p.relative_to(ROOT).parts)]
    problems = [line for page in sorted(pages) for line in broken_links(page)]
    sys.stdout.write("\n".join([*problems, f"{len(pages)} pages, {len(problems)} dead links"]) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
