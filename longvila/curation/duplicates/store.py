"""Where fingerprints lie: one small array per video in the workspace, and one Parquet file to give away.

The file holds no picture: of each video its name, address, sha256 and length, and 8 bytes per sample and view
that say how its lowest frequencies are signed. S samples, V views.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from longvila.curation.duplicates.fingerprint import VERSION, VIEWS, Fingerprint
from longvila.curation.duplicates.protected import EvaluationVideo, address_names
from longvila.curation.sampling import SAMPLES_PER_S
from longvila.errors import InputError
from longvila.records import content_id
from longvila.storage import Workspace
from longvila.storage.base import Storage

_KIND = b"longvila.fingerprints"
_IN_MEMORY = 1024


def fingerprint_key(name: str) -> str:
    """Where the fingerprint of a video lies; ``name`` is the video_id, or another hash of its content."""
    return f"fingerprints/{name}-v{VERSION}.npy"


def store_fingerprint(storage: Storage, name: str, fingerprint: Fingerprint) -> str:
    """Write a fingerprint and return its key."""
    buffer = io.BytesIO()
    np.save(buffer, fingerprint.codes.astype("<u8"), allow_pickle=False)
    storage.put_bytes(fingerprint_key(name), buffer.getvalue())
    return fingerprint_key(name)


def load_fingerprint(storage: Storage, key: str) -> Fingerprint:
    """Read a fingerprint; ``InputError`` when it is missing or damaged."""
    try:
        codes = np.load(io.BytesIO(storage.get_bytes(key)), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"The fingerprint {key} is damaged ({error}). Delete it and build again.") from error
    if codes.ndim != 2 or codes.shape[1] != len(VIEWS) or codes.dtype != np.uint64:
        raise InputError(f"The fingerprint {key} has the shape {codes.shape}. Delete it and build again.")
    return Fingerprint(codes)


class StoredFingerprints(Mapping[str, Fingerprint]):
    """Fingerprints by id, read when they are asked for; the last thousand stay in memory."""

    def __init__(self, storage: Storage, keys: Mapping[str, str]) -> None:
        self._storage = storage
        self._keys = dict(keys)
        self._recent: OrderedDict[str, Fingerprint] = OrderedDict()

    def __getitem__(self, name: str) -> Fingerprint:
        if name in self._recent:
            self._recent.move_to_end(name)
            return self._recent[name]
        found = load_fingerprint(self._storage, self._keys[name])
        self._recent[name] = found
        if len(self._recent) > _IN_MEMORY:
            self._recent.popitem(last=False)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def write_fingerprint_file(
    path: Path, videos: Iterable[tuple[EvaluationVideo, str, Fingerprint]], *, origin: str
) -> None:
    """Write a Parquet file of fingerprints, whole or absent; each video comes with its address."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from longvila.storage import write_bytes

    rows = [
        {
            "name": video.name,
            "url": url,
            "sha256": video.sha256,
            "duration_s": video.duration_s,
            "codes": fingerprint.codes.astype("<u8").tobytes(),
        }
        for video, url, fingerprint in videos
    ]
    facts = {
        "origin": origin,
        "version": VERSION,
        "samples_per_s": SAMPLES_PER_S,
        "views": [list(view) for view in VIEWS],
    }
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("url", pa.string()),
            ("sha256", pa.string()),
            ("duration_s", pa.float64()),
            ("codes", pa.binary()),
        ],
        metadata={_KIND: _facts_json(facts)},
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_fingerprint_file(path: Path, workspace: Workspace) -> list[EvaluationVideo]:
    """Bring a file of fingerprints into the workspace. Raises ``InputError`` when it is no such file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The evaluation list {path} is not a readable Parquet file ({error}).") from error
    _check_facts((table.schema.metadata or {}).get(_KIND), path)
    return [_bring_in(row, path, workspace) for row in table.to_pylist()]


def is_fingerprint_file(path: Path) -> bool:
    """Whether a Parquet file holds fingerprints, and not a list of sources."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _KIND in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _bring_in(row: dict, path: Path, workspace: Workspace) -> EvaluationVideo:
    width = len(VIEWS) * 8
    if not row["codes"] or len(row["codes"]) % width:
        raise InputError(
            f"{path}: the fingerprint of {row['name']!r} has {len(row['codes'] or b'')} bytes, which is no "
            f"multiple of {width}. Make the file again with longvila task run fingerprint_videos."
        )
    codes = np.frombuffer(row["codes"], dtype="<u8").reshape(-1, len(VIEWS)).astype(np.uint64)
    name = content_id("fingerprint", row["codes"].hex())
    if not workspace.storage.exists(fingerprint_key(name)):
        store_fingerprint(workspace.storage, name, Fingerprint(codes))
    return EvaluationVideo(
        evaluation_id=content_id("evaluation", path.name, row["name"], name),
        name=row["name"],
        listed_in=path.name,
        names=address_names(row["url"] or ""),
        sha256=row["sha256"] or "",
        duration_s=row["duration_s"],
        key=fingerprint_key(name),
    )


def _facts_json(facts: dict) -> bytes:
    import json

    return json.dumps(facts, sort_keys=True).encode()


def _check_facts(text: bytes | None, path: Path) -> None:
    import json

    if text is None:
        raise InputError(
            f"The evaluation list {path} holds no fingerprints. Give a file that longvila task run "
            "fingerprint_videos made, or a source list."
        )
    found = json.loads(text)
    ours = {"version": VERSION, "samples_per_s": SAMPLES_PER_S, "views": [list(view) for view in VIEWS]}
    differs = {name: found.get(name) for name, value in ours.items() if found.get(name) != value}
    if differs:
        raise InputError(
            f"{path} was made with other settings ({differs}, here {ours}). Make it again with this version."
        )
