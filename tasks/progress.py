"""Progress of a step, for the three who watch: a terminal or pipe, the UI's artifact, the log.

``StepProgress`` is called with (done, all). It writes to the logger ``longvila.progress`` with a ``progress``
attribute (the command line draws bars or JSON lines from it; every half minute one is worth a log line) and
keeps a Prefect progress artifact up to date inside a task run. It also looks whether a stop was asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tasks.stopping import check_stop

logger = logging.getLogger("longvila.progress")
ARTIFACT_EVERY_S = 3.0
REPORT_EVERY_S = 0.2
LOG_EVERY_S = 30.0


class StepProgress:
    """Call it with (done, all) as the work goes on."""

    def __init__(self, name: str, *, unit: str = "items") -> None:
        self.name = name
        self.unit = unit
        self._artifact_id: UUID | None = None
        self._lock = threading.Lock()
        self._reported_at = self._artifact_at = self._logged_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` are done. Raises ``Stopped`` when a stop was asked for."""
        self.show(done, total)
        if done < total:
            check_stop(self.name)

    def show(self, done: int, total: int, *, note: str = "") -> None:
        """Tell where the work is, and never interrupt it."""
        with self._lock:
            self._report(done, total, note)

    def _report(self, done: int, total: int, note: str) -> None:
        now, last = time.monotonic(), done >= total
        if last or now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            facts = {"name": self.name, "done": done, "total": total, "unit": self.unit, "note": note}
            level = logging.DEBUG
            if last or now - self._logged_at >= LOG_EVERY_S:
                self._logged_at, level = now, logging.INFO
            text = f"{self.name}: {done} of {total} {self.unit} {note}".rstrip()
            logger.log(level, "%s", text, extra={"progress": facts})
        if TaskRunContext.get() is not None and (last or now - self._artifact_at >= ARTIFACT_EVERY_S):
            self._artifact_at = now
            self._update_artifact(100.0 * done / max(total, 1), last)

    def _update_artifact(self, percent: float, last: bool) -> None:
        if self._artifact_id is None:
            if last:
                return  # it was over before anyone could look
            self._artifact_id = cast(UUID, create_progress_artifact(progress=percent, description=self.name))
        else:
            update_progress_artifact(artifact_id=self._artifact_id, progress=percent)
