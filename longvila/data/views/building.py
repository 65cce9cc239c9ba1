"""A folder of files that is whole or absent, and goes on where a killed build stopped.

On a disk the folder is built under a hidden name and renamed at the end. In S3 nothing can be renamed: the
files lie at their places, and the reader's entry file (``llava.json``, ``wids-meta.json``, …) and then
``view.json`` are written last. Either way what was finished is not made again, as long as data set, settings
and code are the same.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from longvila.errors import InputError
from longvila.records import Record
from longvila.storage import Storage
from longvila.storage.base import check_key
from longvila.storage.files import PART_SUFFIX, os_errors

logger = logging.getLogger(__name__)

VIEW_FILE = "view.json"
_BUILDING_FILE = "building.json"


class ViewReport(Record):
    """A finished view: what is in it, and what is not and why."""

    view_id: str
    view: str
    dataset: str
    index_hash: str
    split: str
    url: str
    num_samples: int
    num_frames: int
    files: dict[str, int]  # name → bytes, of the files that name all others
    num_files: int
    left_out: dict[str, int] = {}  # noqa: RUF012 (pydantic copies it)
    examples: tuple[str, ...] = ()
    reused: bool = False

    @property
    def last_word(self) -> str:
        """For the terminal."""
        gone = "".join(f", {count} left out ({reason})" for reason, count in self.left_out.items())
        return f"{self.url}: {self.num_samples} samples{gone}"


class _Building(Record):
    view_id: str


class Building:
    """The files of one view while it is made. ``place`` is where they lie when it is done."""

    def __init__(self, storage: Storage, folder: str, view_id: str) -> None:
        check_key(folder)
        self._storage = storage
        self._folder = folder
        self.view_id = view_id
        parent, _, name = folder.rpartition("/")
        self._is_local = storage.local_path(folder) is not None
        hidden = f".{name}.{view_id}.part"
        self._work = "/".join(filter(None, (parent, hidden))) if self._is_local else folder
        self.num_files = 0

    def finished(self) -> ViewReport | None:
        """Return the report of this very view when it is there already, and nothing is missing."""
        key = f"{self._folder}/{VIEW_FILE}"
        if not self._storage.exists(key):
            return None
        try:
            report = ViewReport.model_validate_json(self._storage.get_bytes(key))
        except ValidationError:
            return None
        names = [f"{self._folder}/{name}" for name in report.files]
        whole = all(
            self._storage.exists(name) and self._storage.size(name) == size
            for name, size in zip(names, report.files.values(), strict=True)
        )
        same = report.view_id == self.view_id and whole
        return report.model_copy(update={"reused": True}) if same else None

    def begin(self) -> None:
        """Keep what an earlier, unfinished build of the same view made; remove any other's."""
        if self._is_local:
            self._refuse_strangers()
            self._mark_local()
            return
        key = f"{self._folder}/{_BUILDING_FILE}"
        mine = _Building(view_id=self.view_id).model_dump_json().encode()
        if self._storage.exists(key) and self._storage.get_bytes(key) == mine:
            return
        self._refuse_strangers()
        for old in (f"{self._folder}/{VIEW_FILE}", *self._storage.list(f"{self._folder}/")):
            self._storage.delete(old)
        self._storage.put_bytes(key, mine)

    def put(self, name: str, make: Callable[[], bytes]) -> int:
        """Write one file unless it is there; return its size in bytes."""
        key = f"{self._work}/{check_key(name)}"
        self.num_files += 1
        if self._storage.exists(key):
            return self._storage.size(key)
        data = make()
        self._storage.put_bytes(key, data)
        return len(data)

    def put_folder(self, name: str, make: Callable[[], Iterator[tuple[str, bytes]]]) -> None:
        """Write a folder of small files unless it is there; on a disk it appears at once."""
        key = f"{self._work}/{check_key(name)}"
        if not self._is_local:
            for file, data in make():
                self.put(f"{name}/{file}", lambda data=data: data)
            return
        target = self._local(key)
        part = target.with_name(f".{target.name}{PART_SUFFIX}")
        with os_errors(f"write {target}"):
            if not target.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                for file, data in make():
                    (part / check_key(file)).write_bytes(data)
                part.rename(target)
            self.num_files += len(list(target.iterdir()))

    def put_file(self, name: str, make: Callable[[Path], None], scratch: Path) -> int:
        """Write one large file, which ``make`` writes to a local path, unless it is there."""
        key = f"{self._work}/{check_key(name)}"
        self.num_files += 1
        if not self._storage.exists(key):
            path = scratch / hashlib.sha256(name.encode()).hexdigest()[:16]
            make(path)
            self._storage.put_file(key, path)
            path.unlink()
        return self._storage.size(key)

    def finish(self, report: ViewReport) -> ViewReport:
        """Write ``view.json`` and give the folder its name. A view that stood there is replaced."""
        data = report.model_dump_json(indent=1).encode()
        self._storage.put_bytes(f"{self._work}/{VIEW_FILE}", data)
        if not self._is_local:
            self._storage.delete(f"{self._folder}/{_BUILDING_FILE}")
            return report
        work, target = self._local(self._work), self._local(self._folder)
        with os_errors(f"write {target}"):
            if target.exists():
                old = target.with_name(f".{target.name}.old.part")
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
                work.rename(target)
                shutil.rmtree(old)
            else:
                work.rename(target)
        return report

    def place(self, name: str) -> str:
        """Return the address that a file has when the view is done: a path, or ``s3://…``."""
        return f"{self._storage.url}/{self._folder}/{name}"

    def _local(self, key: str) -> Path:
        path = self._storage.local_path(key)
        assert path is not None
        return path

    def _mark_local(self) -> None:
        work = self._local(self._work)
        for other in work.parent.glob(f".{self._local(self._folder).name}.*.part"):
            if other != work:
                logger.info("Removing %s, an unfinished view of other data or settings.", other)
                shutil.rmtree(other, ignore_errors=True)
        with os_errors(f"write {work}"):
            work.mkdir(parents=True, exist_ok=True)
            for unfinished in work.rglob(f".*{PART_SUFFIX}"):
                shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()

    def _refuse_strangers(self) -> None:
        """Never write over a folder that is not a view of ours."""
        keys = self._storage.list(f"{self._folder}/")
        ours = {f"{self._folder}/{VIEW_FILE}", f"{self._folder}/{_BUILDING_FILE}"}
        if keys and not ours & set(keys):
            raise InputError(
                f"{self._storage.url}/{self._folder} has files, and is no view that was exported before "
                f"(no {VIEW_FILE}). Give another folder, or empty it."
            )
