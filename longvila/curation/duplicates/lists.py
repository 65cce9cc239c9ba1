"""Evaluation lists of every kind: which videos they name."""

from __future__ import annotations

from pathlib import Path

from longvila.config.sources import load_sources
from longvila.curation.duplicates.protected import EvaluationVideo, from_sources, read_ids
from longvila.curation.duplicates.store import is_fingerprint_file, read_fingerprint_file
from longvila.errors import InputError
from longvila.storage import Workspace


def is_source_list(name_or_path: str) -> bool:
    """Whether the videos of an evaluation list are to be fetched and fingerprinted.

    Raises ``InputError`` for a file that is not there.
    """
    path = Path(name_or_path)
    if path.suffix in (".txt", ".parquet") and not path.is_file():
        raise InputError(
            f"The evaluation list {path} does not exist. Correct data.dedup.evaluation_lists of the recipe."
        )
    return path.suffix != ".txt" and not (path.suffix == ".parquet" and is_fingerprint_file(path))


def read_list(name_or_path: str, workspace: Workspace) -> list[EvaluationVideo]:
    """Read what an evaluation list names; fingerprints that it holds are brought into the workspace.

    Raises ``InputError`` when it is missing or cannot be read.
    """
    path = Path(name_or_path)
    if is_source_list(name_or_path):
        return from_sources(load_sources(name_or_path), name_or_path)
    return read_ids(path) if path.suffix == ".txt" else read_fingerprint_file(path, workspace)
