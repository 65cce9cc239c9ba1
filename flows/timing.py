"""Wall time of the parts of a flow, added up over its runs: a life that was interrupted counts as one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longvila.storage import write_text


class Timer:
    """``with timer("part"):`` adds up how long a part took, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        if path.is_file():
            self.seconds = json.loads(path.read_text(encoding="utf-8"))

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            write_text(self._path, json.dumps(self.seconds))
