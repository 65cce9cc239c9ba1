"""The card of a data set: ``README.md`` beside its shards, with the header that the Hugging Face hub reads.

It holds no date and no address, so that the same data set has the same card, byte for byte.
"""

from __future__ import annotations

import re
from collections import Counter

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from longvila.data import Index
from longvila.records import Record
from longvila.report.dataset.content import BuildReport, TermsRow

CARD_FILE = "README.md"
_MAX_TERMS = 200
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TASKS = {
    "video": ("video-text-to-text", "visual-question-answering"),
    "needle": ("video-text-to-text", "visual-question-answering"),
    "image": ("image-to-text",),
    "text": ("text-generation",),
}
_WHAT = {
    "video": "questions about spans of long videos, with the frames of each span and their times",
    "needle": "videos composed of real frames in which cards are hidden, with questions about the cards",
    "image": "single frames with a short caption",
    "text": "text that names values and asks for them later, without any video",
}
_LICENSES = {
    *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "mit", "apache-2.0", "odbl", "pddl"),
}


class SplitFacts(Record):
    """One split of a data set as its index says."""

    name: str
    num_samples: int
    num_frames: int
    num_shards: int
    size_bytes: int


class CardFacts(Record):
    """What the index of one data set says."""

    name: str
    splits: tuple[SplitFacts, ...]
    kinds: tuple[str, ...]
    num_videos: int
    longest_frames: int
    index_hash: str


def card_facts(index: Index) -> CardFacts:
    """Read off an index what the card says of the shards."""
    splits = []
    for name in ("train", "heldout"):
        part = index.select(name)
        if len(part):
            splits.append(
                SplitFacts(
                    name=name,
                    num_samples=len(part),
                    num_frames=int(part.num_frames.sum()),
                    num_shards=len(part.shards),
                    size_bytes=sum(shard.size_bytes for shard in part.shards),
                )
            )
    videos = {str(video_id) for video_id in index.columns["video_id"] if video_id}
    return CardFacts(
        name=index.name,
        splits=tuple(splits),
        kinds=tuple(sorted({str(kind) for kind in index.columns["kind"]})),
        num_videos=len(videos),
        longest_frames=int(index.num_frames.max()) if len(index) else 0,
        index_hash=index.hash,
    )


def render_card(facts: CardFacts, report: BuildReport, *, language: tuple[str, ...] = ("en",)) -> str:
    """Return the card of one data set of a build. Texts from outside cannot break its tables or header."""
    has_video = facts.kinds != ("text",)
    environment = Environment(
        loader=PackageLoader("longvila.report.dataset", "templates"),
        autoescape=False,  # Markdown; outside text goes through md
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": _escaped, "count": lambda number: f"{number:,}", "size": _size}
    header = yaml.safe_dump(_header(facts, report, language), sort_keys=False, allow_unicode=True, width=110)
    return environment.get_template("card.md").render(
        header=header,
        facts=facts,
        report=report,
        what=[_WHAT[kind] for kind in facts.kinds],
        has_frames=facts.longest_frames > 0,
        has_questions="video" in facts.kinds,
        terms=report.terms[:_MAX_TERMS] if has_video else (),
        more_terms=max(len(report.terms) - _MAX_TERMS, 0) if has_video else 0,
        fence=_fence(report.settings),
    )


def _header(facts: CardFacts, report: BuildReport, language: tuple[str, ...]) -> dict[str, object]:
    total = sum(split.num_samples for split in facts.splits)
    tasks = dict.fromkeys(task for kind in facts.kinds for task in _TASKS[kind])
    return {
        **_license_fields(report.terms if facts.kinds != ("text",) else ()),
        "language": list(language),
        "task_categories": list(tasks),
        "size_categories": [next((word for limit, word in _SIZES if total < limit), "1M<n<10M")],
        "pretty_name": f"{report.name}: {facts.name}",
        "tags": ["long-video", "webdataset", "longvila", *facts.kinds],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split.name, "path": f"{facts.name}-{split.name}-*.tar"}
                    for split in facts.splits
                ],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "splits": [
                {"name": split.name, "num_bytes": split.size_bytes, "num_examples": split.num_samples}
                for split in facts.splits
            ],
            "download_size": sum(split.size_bytes for split in facts.splits),
            "dataset_size": sum(split.size_bytes for split in facts.splits),
        },
    }


def _license_fields(terms: tuple[TermsRow, ...]) -> dict[str, object]:
    """Return the hub's words for the sources' licences, or ``other`` when it has none for one of them."""
    if not terms:
        return {"license": "other", "license_name": "not-stated", "license_link": "README.md"}
    known = Counter(license_id(row.license) for row in terms)
    if None in known:
        return {"license": "other", "license_name": "of-each-source", "license_link": "README.md"}
    names = sorted(str(name) for name in known)
    return {"license": names[0] if len(names) == 1 else names}


def license_id(stated: str) -> str | None:
    """Return the hub's id of a licence as people write it (``CC BY-SA 4.0``), or none."""
    word = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-.")
    word = word.removeprefix("creative-commons-") if "cc" in word else word
    word = {"cc0": "cc0-1.0", "apache": "apache-2.0", "apache-license-2.0": "apache-2.0"}.get(word, word)
    word = re.sub(r"^(mit)-license$", r"\1", word)
    word = re.sub(r"^(cc-by(?:-[a-z]+)*-\d\.\d)-(?:international|unported)$", r"\1", word)
    return word if word in _LICENSES else None


def _escaped(text: str) -> str:
    """Return one line of Markdown that shows just this text."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", line)


def _fence(text: str) -> str:
    """Return a fence that the text itself does not hold."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
