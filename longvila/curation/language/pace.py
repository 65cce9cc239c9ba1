"""When the next request may leave, and whether the endpoint is there at all."""

from __future__ import annotations

import threading
import time

from longvila.errors import LongVilaError, NetworkError


class Pace:
    """Requests and tokens per minute, and pauses that the server asks for. Shared by all threads."""

    def __init__(self, *, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._lock = threading.Lock()
        self._next_request = self._next_tokens = self._paused_until = 0.0

    def take_turn(self, tokens: int) -> float:
        """Return how many seconds a request of about ``tokens`` has to wait from now."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_request, self._next_tokens, self._paused_until)
            self._next_request = max(turn, self._next_request) + self._request_s
            self._next_tokens = max(turn, self._next_tokens) + tokens * self._token_s
            return turn - now

    def correct(self, tokens: int) -> None:
        """Count ``tokens`` more (or fewer) than ``take_turn`` was told."""
        with self._lock:
            self._next_tokens += tokens * self._token_s

    def pause(self, seconds: float) -> None:
        """Let nobody begin for so long."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def paused(self) -> float:
        """Return for how many seconds nobody may begin yet."""
        with self._lock:
            return max(0.0, self._paused_until - time.monotonic())


class Health:
    """Tells one request that fails from an endpoint that is down for all.

    A request that failed in all its attempts while others were answered is that item's misfortune. When
    nothing was answered meanwhile, and ``STRIKES`` requests failed so in a row or not even a probe is
    answered, the endpoint counts as down: who comes or waits in the next ``rest_s`` hears so at once.
    """

    STRIKES = 3

    def __init__(self, *, rest_s: float) -> None:
        self._rest_s = rest_s
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._answers = self._strikes = 0
        self._down_until = 0.0
        self._error: LongVilaError = NetworkError("")

    @property
    def answers(self) -> int:
        """How many requests were answered so far."""
        return self._answers

    def check(self) -> None:
        """Raise what ended it while the endpoint counts as down."""
        with self._lock:
            if time.monotonic() < self._down_until:
                raise type(self._error)(*self._error.args)
            self._woken.clear()

    def answered(self) -> None:
        """Count an answer."""
        with self._lock:
            self._answers += 1
            self._strikes = 0

    def struck(self, answers_before: int) -> bool:
        """Count a request that failed for good; say whether the endpoint may be down for all."""
        with self._lock:
            self._strikes += 1
            return self._answers == answers_before

    @property
    def out(self) -> bool:
        """Whether too many requests failed in a row."""
        return self._strikes >= self.STRIKES

    def down(self, error: LongVilaError) -> LongVilaError:
        """Count the endpoint as down for a while, wake who waits, and return the error that all will hear."""
        with self._lock:
            self._error = error
            self._down_until = time.monotonic() + self._rest_s
            self._woken.set()
        return error

    def sleep(self, seconds: float) -> None:
        """Sleep, or wake early with an error when the endpoint is found to be down."""
        if seconds > 0 and self._woken.wait(seconds):
            self.check()
