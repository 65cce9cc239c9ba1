"""The ledger: what is done of a step that is still running, in SQLite on the local disk.

It is a cache. What counts as done for good is an output that a manifest names; a ledger that is lost or
damaged costs only the items that were in flight.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from longvila.errors import MachineError
from longvila.storage.files import os_errors

logger = logging.getLogger(__name__)

_KEYS_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    step TEXT NOT NULL, item TEXT NOT NULL, result TEXT NOT NULL, recorded_at REAL NOT NULL,
    PRIMARY KEY (step, item)
) WITHOUT ROWID
"""


class Ledger:
    """Results of items by step, safe to use from many threads and processes of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    def done(self, step: str, item_key: str) -> str | None:
        """Return the JSON result of an item, or None when it is not done."""
        with self._connection() as connection:
            row = connection.execute(
                "SELECT result FROM items WHERE step = ? AND item = ?", (step, item_key)
            ).fetchone()
        return None if row is None else row[0]

    def results(self, step: str, item_keys: Sequence[str]) -> dict[str, str]:
        """Return the JSON results of those of ``item_keys`` that are done.

        A step's other items are not read: with many batches that would cost their number squared.
        """
        found: dict[str, str] = {}
        with self._connection() as connection:
            for start in range(0, len(item_keys), _KEYS_AT_ONCE):
                keys = item_keys[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(keys))
                query = f"SELECT item, result FROM items WHERE step = ? AND item IN ({marks})"
                found.update(connection.execute(query, (step, *keys)))
        return found

    def count(self, step: str) -> int:
        """Return how many items of a step are done."""
        with self._connection() as connection:
            return connection.execute("SELECT count(*) FROM items WHERE step = ?", (step,)).fetchone()[0]

    def record(self, step: str, item_key: str, result_json: str) -> None:
        """Write down that an item is done. A later record of the same item replaces the earlier."""
        row = (step, item_key, result_json, time.time())
        with self._connection() as connection, connection:
            connection.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", row)

    def forget(self, step: str) -> None:
        """Drop what is known of a step."""
        with self._connection() as connection, connection:
            connection.execute("DELETE FROM items WHERE step = ?", (step,))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._open()
        except sqlite3.OperationalError as error:
            raise MachineError(
                f"Cannot use the ledger {self.path}: {error}. It needs a local disk with free space; "
                "delete the file if it stays locked (it is a cache)."
            ) from error

    def _open(self) -> sqlite3.Connection:
        """This thread's connection in this process; a damaged file is set aside and begun anew."""
        if getattr(self._local, "pid", None) != os.getpid():
            with os_errors(f"make {self.path.parent}"):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._local.connection = self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._set_aside(error)
                self._local.connection = self._connect()
            self._local.pid = os.getpid()
        return self._local.connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
        return connection

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        logger.warning(
            "The ledger %s is damaged (%s): set aside as %s, begun anew.", self.path, error, aside.name
        )
        with os_errors(f"rename {self.path}"):
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
