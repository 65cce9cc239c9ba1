"""The page about one build as HTML, and the same as JSON for programs."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from longvila.report.dataset.content import BuildReport, Distribution, VideoSheet
from longvila.report.templating import template_environment

PACKAGE = "longvila.report.dataset"
TRANSITIONS = ("start", "cut", "fade", "dissolve")


def render_build_report(report: BuildReport) -> str:
    """Return the page. Every text is escaped, and nothing is fetched when it is opened.

    The one script filters the table of rejections; the page's policy allows it by its hash and no other.
    Raises ``InputError`` for a picture that is none.
    """
    script = (resources.files(PACKAGE) / "templates" / "filter.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = template_environment(PACKAGE, "longvila.report")
    environment.filters |= {
        "bar": _bar,
        "hours": _hours,
        "dollars": _dollars,
        "rate": _rate,
        "clip_lines": _clip_lines,
    }
    page = environment.get_template("build.html")
    return page.render(report=report, script=script, script_hash=digest, transitions=TRANSITIONS)


def report_json(report: BuildReport) -> str:
    """Return what the page shows as JSON, without pictures and date: the same build gives the same text."""
    return json.dumps(_plain(report.model_dump(mode="json")), indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Leave out pictures, wherever they are."""
    if isinstance(value, dict):
        dropped = {"picture", "pictures", "kept_picture", "created", "segments"}
        return {name: _plain(one) for name, one in value.items() if name not in dropped}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _bar(count: int, distribution: Distribution) -> str:
    """The length of a bar in percent of the longest."""
    longest = max(bar.count for bar in distribution.bars)
    return f"{100 * count / longest:.1f}" if longest else "0"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.01 or not amount else f"${amount:.5f}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}".replace(",", "\u202f") if per_s >= 100 else f"{per_s:.3g}"


def _clip_lines(sheet: VideoSheet) -> str:
    """How many clips of a video are shown."""
    shown = len(sheet.clips)
    return f"{shown} of {sheet.num_clips} clips" if shown < sheet.num_clips else f"{shown} clips"
