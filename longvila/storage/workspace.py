"""A workspace: one local folder, and the storage where its large results lie.

On the storage: ``videos/ manifests/ shards/ checkpoints/ reports/``. Always local: ``ledger.sqlite runs/ cache/
scratch/``. With local storage both are the same folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from longvila.errors import InputError
from longvila.records import content_id
from longvila.storage.base import Storage
from longvila.storage.files import os_errors
from longvila.storage.ledger import Ledger
from longvila.storage.local import LocalStorage
from longvila.storage.opening import open_storage


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps everything. Open it with ``Workspace.open``, which checks both places first."""

    root: Path
    storage: Storage

    @classmethod
    def open(cls, root: str | Path, storage_url: str | None = None) -> Workspace:
        """Open or make a workspace.

        ``storage_url`` None or ``"local"`` keeps everything below ``root``; else a folder or ``s3://bucket/prefix``.
        Raises ``InputError`` when ``root`` is a file, ``MachineError`` when it or the storage cannot be written.
        """
        folder = LocalStorage(Path(root))
        with os_errors(f"open the workspace {folder.root}"):
            is_file = folder.root.exists() and not folder.root.is_dir()
        if is_file:
            raise InputError(f"The workspace {folder.root} is a file. Give a folder; it is made when missing.")
        folder.check_writable()
        storage: Storage = folder
        if storage_url not in (None, "", "local"):
            storage = open_storage(storage_url)
            storage.check_writable()
        return cls(root=folder.root, storage=storage)

    @cached_property
    def ledger(self) -> Ledger:
        """What is done of the steps that run."""
        return Ledger(self.root / "ledger.sqlite")

    @property
    def is_remote(self) -> bool:
        """Whether the storage is not a local folder."""
        return self.storage.local_path("probe") is None

    def url(self, key: str) -> str:
        """Return the address of an object or of a folder of objects, for another process to open."""
        return f"{self.storage.url}/{key}"

    def scratch(self, name: str) -> Path:
        """Return an existing local folder for intermediate files."""
        return self._folder("scratch", name)

    def run_dir(self, name: str) -> Path:
        """Return an existing local folder for one training run."""
        return self._folder("runs", name)

    def fetch_local(self, key: str) -> Path:
        """Return a local file with the object's content; a remote object is downloaded once per content."""
        path = self.storage.local_path(key)
        if path is not None:
            self.storage.size(key)  # tells in words when it is missing
            return path
        version = content_id(self.storage.url, key, self.storage.fingerprint(key))
        cached = self.root / "cache" / version / Path(key).name
        if not cached.is_file():
            self.storage.get_file(key, cached)
        return cached

    def _folder(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        if not path.is_relative_to(self.root) or ".." in path.parts:
            raise InputError(f"{'/'.join(parts)!r} leaves the workspace {self.root}. Use a plain name.")
        with os_errors(f"make {path}"):
            path.mkdir(parents=True, exist_ok=True)
        return path
