"""How templates are filled: everything is escaped, pictures lie inside the page, figures read well."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from longvila.errors import InputError
from longvila.evaluation.results import KindScore
from longvila.evaluation.statistics import Share
from longvila.report.content import Picture

if TYPE_CHECKING:
    from longvila.report.page import Panel

SIGNATURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"<?xml": "image/svg+xml",
    b"<svg": "image/svg+xml",
    b"RIFF": "image/webp",
}


def template_environment(*packages: str) -> Environment:
    """Return an environment that finds ``templates/`` of these packages, the first that has a name wins.

    Every text that a template shows is escaped, whatever it came from.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def data_uri(picture: Picture) -> str:
    """Return an image as a data URI; raise InputError when the bytes are no image that browsers show."""
    for signature, kind in SIGNATURES.items():
        if picture.data.startswith(signature):
            return f"data:{kind};base64,{base64.b64encode(picture.data).decode()}"
    raise InputError(
        f"the picture {picture.alt!r} starts with {picture.data[:8]!r}, which is no PNG, JPEG, WebP or SVG. "
        "Encode it before it is given to the report"
    )


def _percent(share: Share) -> str:
    return f"{share.value:.0%}" if share.total else "–"


def _bounds(share: Share) -> str:
    return f"{share.interval.low:.0%} – {share.interval.high:.0%}"


def _gain(score: KindScore) -> str:
    gain = score.gain
    text = f"{gain.value * 100:+.0f} [{gain.interval.low * 100:+.0f}, {gain.interval.high * 100:+.0f}]"
    return text.replace("-", "−")


def _duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 41 s, 3 min 20 s, 1 h 02 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _clock(seconds: float) -> str:
    """A place in a video: 1:04.5."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _mean_accuracy(panel: Panel) -> str:
    needle = panel.evaluated.result.needle
    assert needle is not None
    right: Sequence[int] = [row.generated.right for row in needle.rows]
    total = sum(row.generated.total for row in needle.rows)
    return f"{sum(right) / total:.0%}" if total else "–"


FILTERS: dict[str, Callable[..., str]] = {
    "data_uri": data_uri,
    "percent": _percent,
    "bounds": _bounds,
    "gain": _gain,
    "duration": _duration,
    "clock": _clock,
    "size": _size,
    "count": _count,
    "mean_accuracy": _mean_accuracy,
}
