"""What a workspace spent on a model, and the limit it may not pass.

The sum lies in SQLite on the local disk, so that it outlives a killed run and is shared by the processes of
one machine. Money is set aside before a request leaves and settled when the answer came: threads of one
process together never pass the limit; several processes may, by what they have under way.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from longvila.errors import ConfigError, MachineError
from longvila.records import Usage
from longvila.storage.files import os_errors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    model TEXT PRIMARY KEY, requests INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cost_usd REAL NOT NULL
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO spent VALUES (?, 1, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET requests = requests + 1,
tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
cost_usd = cost_usd + excluded.cost_usd
"""


class Budget:
    """Counts what ``model`` cost; ``path`` is the SQLite file, ``limit_usd`` None sets no limit."""

    def __init__(self, path: Path, model: str, *, limit_usd: float | None) -> None:
        self._path = path
        self._model = model
        self._limit_usd = limit_usd
        self._set_aside_usd = 0.0
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def set_aside(self, usd: float) -> Iterator[None]:
        """Hold ``usd`` back while a request runs, waiting while others may still leave room for it.

        Raises ``ConfigError`` when the limit leaves no room.
        """
        self._take(usd)
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._set_aside_usd = self._set_aside_usd - usd if self._under_way else 0.0
                self._changed.notify_all()

    def add(self, usage: Usage) -> None:
        """Write down one answered request."""
        row = (self._model, usage.tokens_in, usage.tokens_out, usage.cost_usd)
        with self._connection() as connection, connection:
            connection.execute(_ADD, row)

    def spent(self) -> tuple[int, Usage]:
        """Return the answered requests and what they used, of all runs in this workspace."""
        with self._connection() as connection:
            row = connection.execute(
                "SELECT requests, tokens_in, tokens_out, cost_usd FROM spent WHERE model = ?",
                (self._model,),
            ).fetchone()
        requests, tokens_in, tokens_out, cost_usd = row or (0, 0, 0, 0.0)
        return requests, Usage(tokens_in=tokens_in, tokens_out=tokens_out, cost_usd=cost_usd)

    def _take(self, usd: float) -> None:
        with self._changed:
            while self._limit_usd is not None:
                spent_usd = self.spent()[1].cost_usd
                if spent_usd + self._set_aside_usd + usd <= self._limit_usd:
                    break
                if not self._under_way:
                    raise ConfigError(
                        f"max_cost_usd={self._limit_usd:g} for the model {self._model} is used up: "
                        f"{spent_usd:.4f} USD spent, and the next request may cost {usd:.4f}. All answers "
                        "are kept; raise the limit and start again to go on."
                    )
                self._changed.wait()
            self._under_way += 1
            self._set_aside_usd += usd

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with os_errors(f"make {self._path.parent}"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._path, timeout=60.0)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_SCHEMA)
                yield connection
        except sqlite3.DatabaseError as error:
            raise MachineError(
                f"Cannot use {self._path}, where the cost of language models is counted: {error}. It needs a "
                "local disk with free space; a damaged file may be deleted, then counting begins at 0."
            ) from error
