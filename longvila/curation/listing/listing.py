"""What a source list comes to when its folders and tables are looked into."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from longvila.config.addresses import canonical, redacted, scheme_of
from longvila.config.sources import ID_PATTERN
from longvila.records import Rejection, Source, Split, content_id

STEP = "sources"


@dataclass
class Part:
    """How much one entry of a source list gave. ``num_left_aside`` counts files that it does not mean."""

    what: str
    where: str
    num_sources: int = 0
    num_rejected: int = 0
    num_left_aside: int = 0


@dataclass
class Listing:
    """All sources in their order, each id once, and what cannot be one. Every row is in one of the two."""

    sources: list[Source] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def begin(self, what: str, where: str) -> Part:
        """Count what comes next as that of one entry."""
        self.parts.append(Part(what, redacted(where)))
        return self.parts[-1]

    def add(self, source: Source, place: str) -> None:
        """Add a source, or reject it when another has its id. ``place`` says where it is written."""
        known = self._places.get(source.source_id)
        if known is None:
            self._places[source.source_id] = len(self.sources)
            self.sources.append(source)
            self.parts[-1].num_sources += 1
            return
        first = self.sources[known]
        if canonical(first.url) == canonical(source.url):
            self.reject(place, "listed-twice", f"{redacted(source.url)} is listed before. Keep one of them.")
        else:
            self.reject(
                place,
                "same-id",
                f"{redacted(source.url)} has the source_id {source.source_id!r} of {redacted(first.url)}. "
                "Give one of them another.",
            )

    def reject(self, place: str, reason: str, detail: str) -> None:
        """Say that what is written at ``place`` is no source."""
        self.parts[-1].num_rejected += 1
        self.rejections.append(
            Rejection(item_id=place, step=STEP, reason=reason, detail=f"{place}: {detail}")
        )

    @property
    def num_listed(self) -> int:
        """Sources and rejections together."""
        return len(self.sources) + len(self.rejections)

    def counts(self) -> dict[str, Counter[str]]:
        """How many sources there are of each split, way of fetching and licence, and why others are none."""
        return {
            "split": Counter(source.split for source in self.sources),
            "fetched by": Counter(kind_of(source) for source in self.sources),
            "licence": Counter(source.license or "not given" for source in self.sources),
            "rejected": Counter(rejection.reason for rejection in self.rejections),
        }

    def table(self) -> str:
        """The counts as text for a person."""
        head = ("listed in", "", "sources", "rejected", "left aside")
        rows = [
            (
                part.what,
                part.where,
                f"{part.num_sources:,}",
                f"{part.num_rejected:,}",
                f"{part.num_left_aside:,}",
            )
            for part in self.parts
        ]
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        for name, counter in self.counts().items():
            if counter:
                shown = ", ".join(f"{value:,} {key}" for key, value in counter.most_common(8))
                lines.append(f"{name}: {shown}{', …' if len(counter) > 8 else ''}")
        return "\n".join(lines)


def kind_of(source: Source) -> str:
    """How a source is fetched: yt-dlp, http, s3 or file."""
    if source.fetcher == "yt-dlp":
        return "yt-dlp"
    return {"https": "http", "": "file"}.get(scheme := scheme_of(source.url), scheme)


def safe_id(text: str) -> str:
    """``text`` when it can be an id; else its plain letters and a hash, so that two stay two."""
    if re.fullmatch(ID_PATTERN, text):
        return text
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:80].strip("-") or "source"
    return f"{plain}-{content_id('source id', text, length=12)}"


def split_of(source_id: str, *, heldout_share: float, otherwise: Split) -> Split:
    """Hold out a share of sources by a hash of the id: nothing moves when others come or go."""
    bucket = int(content_id("held out", source_id, length=12), 16) / 16**12
    return "heldout" if bucket < heldout_share else otherwise
