"""Turns at a host: so many requests in a second, whoever asks: threads, and processes that share a folder."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from longvila.records import content_id
from longvila.storage.files import os_errors

_BUCKETS = 64  # files that the hosts are spread over
_MOST_WAITING = 256  # turns given out ahead; more is a clock that was set back


class Pacer:
    """Gives out turns in the order in which they are asked for. Times are of the wall clock, seconds."""

    def __init__(self, rate: float, *, host_rates: dict[str, float], folder: Path | None = None) -> None:
        self._rate = rate
        self._host_rates = {name.lower(): value for name, value in host_rates.items()}
        self._folder = folder
        self._lock = threading.Lock()
        self._turns: dict[str, float] = {}

    def turn(self, host: str, port: int) -> float:
        """Take the next turn at a host and return in how many seconds it comes."""
        name, interval_s = self._pace(host, port)

        def take(next_turn: float, now: float) -> float:
            if next_turn - now > _MOST_WAITING * interval_s + 3600.0:
                next_turn = now
            return max(now, next_turn) + interval_s

        after, now = self._change(name, take)
        return max(0.0, after - interval_s - now)

    def hold(self, host: str, port: int, seconds: float) -> None:
        """Give out no turn at a host for so long, because it asked for that."""
        self._change(self._pace(host, port)[0], lambda next_turn, now: max(next_turn, now + seconds))

    def _pace(self, host: str, port: int) -> tuple[str, float]:
        for name in (f"{host.lower()}:{port}", host.lower()):
            if name in self._host_rates:
                return name, 1.0 / self._host_rates[name]
        return host.lower(), 1.0 / self._rate

    def _change(self, name: str, change: Callable[[float, float], float]) -> tuple[float, float]:
        with self._lock:
            if self._folder is None:
                now = time.time()
                self._turns[name] = change(self._turns.get(name, 0.0), now)
                return self._turns[name], now
            path = self._folder / f"{int(content_id(name, length=8), 16) % _BUCKETS:02d}.json"
            with os_errors(f"write {path}"), FileLock(f"{path}.lock").acquire(poll_interval=0.002):
                now = time.time()
                turns = {key: turn for key, turn in _read(path).items() if turn > now or key == name}
                turns[name] = change(turns.get(name, 0.0), now)
                path.write_text(json.dumps(turns))
                return turns[name], now


def _read(path: Path) -> dict[str, float]:
    """The turns that were written; none when a process was killed while it wrote."""
    try:
        return {str(key): float(turn) for key, turn in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
