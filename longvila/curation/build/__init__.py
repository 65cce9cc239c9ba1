"""The steps of a build in their order, each as one call that resumes where an earlier run stopped.

::

    sources → fetch → validate → scan → dedup → shots → clips → captions → questions → filter → samples

The scan is the one decode pass; all that follows reads what it measured. A step's output is named by the hash
of its inputs and settings (``longvila.storage.steps``), so a changed setting redoes just what it touches.
"""

from longvila.curation.build.bringing import NORMALISE, validate_batch
from longvila.curation.build.footage import (
    Timeline,
    check_splits,
    clips_batch,
    dedup_all,
    find_duplicates,
    fingerprint_batch,
    scan_batch,
    shots_of,
    timelines,
)
from longvila.curation.build.telling import (
    caption_batch,
    filter_all,
    question_batch,
    question_samples,
    summary_batch,
)
from longvila.curation.fetching.fetch_many import fetch_batch

__all__ = [
    "NORMALISE",
    "Timeline",
    "caption_batch",
    "check_splits",
    "clips_batch",
    "dedup_all",
    "fetch_batch",
    "filter_all",
    "find_duplicates",
    "fingerprint_batch",
    "question_batch",
    "question_samples",
    "scan_batch",
    "shots_of",
    "summary_batch",
    "timelines",
    "validate_batch",
]
