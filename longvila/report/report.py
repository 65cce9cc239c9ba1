"""One self-contained page about a run: it opens offline, prints, and follows light or dark mode."""

from __future__ import annotations

from pathlib import Path

from longvila.report.content import ReportData
from longvila.storage.files import write_text


def build_report(data: ReportData, path: Path) -> Path:
    """Write the report to ``path`` (e.g. report.html), whole or absent, and return it.

    Pictures lie inside the file and nothing is fetched when it is opened. Every text is escaped: captions,
    titles and questions are outside input. Raises InputError for a picture that is none.
    """
    from longvila.report.page import render_report  # draws with matplotlib, which is not needed before

    write_text(path, render_report(data))
    return path
