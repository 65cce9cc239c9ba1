"""A language model behind an OpenAI-compatible chat completions endpoint: vLLM, SGLang, llama.cpp, hosted.

::

    complete → cache → budget → pace → attempts → transport
                                          └ Again: later, with backoff · Refused: another format, or ItemError

One object is shared by all threads of a process, so that limits, prices and pauses hold for all of them.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import tenacity

from longvila.config.language import LanguageModelConfig
from longvila.curation.language import wire
from longvila.curation.language.budget import Budget
from longvila.curation.language.cache import AnswerCache, answer_key
from longvila.curation.language.pace import Health, Pace
from longvila.curation.language.protocol import Completion, Message
from longvila.curation.language.schema import Schema, complete_json
from longvila.curation.language.transport import Again, Refused, Transport
from longvila.errors import ConfigError, ItemError, LongVilaError, NetworkError
from longvila.records import Usage, content_id

logger = logging.getLogger(__name__)
_PATIENCE = 2  # times as many attempts where only the rate is limited
REST_S = 30.0  # after it was found to be down
_ALL_REFUSED = 10  # requests refused before any was answered: a setting is wrong, not the items
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|does not support|unrecognized|unknown|unexpected|not permitted|not allowed",
    re.I,
)
_MAY_GO = ("seed", "temperature", "top_p", "max_tokens")


class EndpointModel:
    """Answers over HTTP. ``key`` is sent as a bearer token; see ``LanguageModel`` for the promises."""

    def __init__(
        self, config: LanguageModelConfig, *, key: str | None, cache: AnswerCache, budget: Budget
    ) -> None:
        self._config = config
        self._cache = cache
        self._budget = budget
        self._transport = Transport(config, key=key)
        self._pace = Pace(
            requests_per_minute=config.requests_per_minute, tokens_per_minute=config.tokens_per_minute
        )
        self._health = Health(rest_s=REST_S)
        self._slots = threading.BoundedSemaphore(config.requests_at_once)
        self._lock = threading.Lock()
        self._gone: set[str] = set()  # fields that this server does not take
        self._forms: dict[str, int] = {}  # by schema, the place in wire.FORMATS that it takes
        self._proven: set[str] = set()  # schemas whose form gave JSON
        self._refusals = 0
        self._tokens_per_estimate = 1.0  # the most that was seen: pictures differ much between models

    @property
    def name(self) -> str:
        """The model's name, as the recipe says it."""
        return self._config.model

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Completion:
        """Answer; see ``LanguageModel.complete``.

        Also raises ``ItemError`` "unreachable" for a request that failed in all attempts while others were
        answered, and ``ConfigError`` for what the user has to mend (key, address, name, cost limit).
        """
        if schema is None:
            return self._answer(messages, max_tokens, None, seed)
        return complete_json(
            lambda turns: self._answer(turns, max_tokens, schema, seed),
            messages,
            schema,
            told=lambda good: self._told(content_id(schema), good),
        )

    def _answer(
        self, messages: Sequence[Message], max_tokens: int, schema: Schema | None, seed: int
    ) -> Completion:
        key = answer_key(
            self._config.decides_answers(), messages, max_tokens=max_tokens, schema=schema, seed=seed
        )
        with self._cache.alone(key):
            found = self._cache.get(key)
            if found is None:
                found = self._ask(messages, max_tokens, schema, seed)
                self._cache.put(key, found)
        return found

    def _ask(
        self, messages: Sequence[Message], max_tokens: int, schema: Schema | None, seed: int
    ) -> Completion:
        plain_in = wire.estimate_tokens(messages)
        estimated_in = math.ceil(plain_in * self._tokens_per_estimate)
        with self._slots, self._budget.set_aside(self._usage(estimated_in, max_tokens).cost_usd):
            payload = self._negotiated(messages, max_tokens, schema, seed, estimated_in + max_tokens)
            answer = wire.read_answer(payload)
            counted = answer.tokens_in is not None and answer.tokens_out is not None
            tokens_out = answer.tokens_out
            if tokens_out is None:
                tokens_out = wire.estimate_text(answer.text)
            tokens_in = estimated_in if answer.tokens_in is None else answer.tokens_in
            usage = self._usage(tokens_in, tokens_out, estimated=not counted)
            self._budget.add(usage)
        if counted:
            self._tokens_per_estimate = max(self._tokens_per_estimate, tokens_in / plain_in)
        self._pace.correct(tokens_in + tokens_out - estimated_in - max_tokens)
        if answer.finish == "blocked":
            raise ItemError(
                "blocked", f"{self.name} refused to answer: {answer.text[:200] or 'content filter'}"
            )
        return Completion(
            text=answer.text, finish=answer.finish, model=answer.model or self.name, usage=usage
        )

    def _usage(self, tokens_in: int, tokens_out: int, *, estimated: bool = False) -> Usage:
        price_in, price_out = self._config.usd_per_million_tokens_in, self._config.usd_per_million_tokens_out
        cost_usd = (tokens_in * price_in + tokens_out * price_out) / 1e6
        return Usage(tokens_in=tokens_in, tokens_out=tokens_out, cost_usd=cost_usd, estimated=estimated)

    def _negotiated(
        self, messages: Sequence[Message], max_tokens: int, schema: Schema | None, seed: int, tokens: int
    ) -> Any:
        """Send in the form that this server takes; find that out where it refuses one."""
        schema_id = content_id(schema)
        first = self._forms.get(schema_id, 0)
        while True:
            form = self._forms.get(schema_id, 0)
            body = self._adapted(
                wire.request_body(
                    self._config,
                    messages,
                    max_tokens=max_tokens,
                    seed=seed,
                    schema=schema,
                    form=wire.FORMATS[form],
                )
            )
            try:
                return self._send(body, tokens)
            except Refused as refused:
                if self._adapt(str(refused), body) or (
                    schema is not None and self._lower(schema_id, form, about=str(refused))
                ):
                    continue
                if not wire.is_about_format(str(refused)):
                    self._forms[schema_id] = first  # it was not the form
                raise self._refused(str(refused)) from None

    def _send(self, body: dict[str, Any], tokens: int) -> Any:
        """Send with retries. Raises ``Refused`` and what ``complete`` says."""
        config, answers_before = self._config, self._health.answers
        backoff = tenacity.wait_exponential_jitter(
            initial=config.backoff_s, max=config.max_wait_s, jitter=config.backoff_s
        )
        retrying = tenacity.Retrying(
            stop=lambda state: (
                state.attempt_number >= config.attempts * (_PATIENCE if _limited(state) else 1)
            ),
            wait=lambda state: max(backoff(state), _asked_wait(state)),
            retry=tenacity.retry_if_exception_type(Again),
            sleep=self._health.sleep,
            reraise=True,
        )
        try:
            return retrying(self._attempt, body, tokens)
        except Again as again:
            raise self._given_up(again, answers_before) from None

    def _attempt(self, body: dict[str, Any], tokens: int) -> Any:
        self._health.check()
        self._health.sleep(self._pace.take_turn(tokens))
        while (pause_s := self._pace.paused()) > 0:
            self._health.sleep(pause_s)
        try:
            payload = self._transport.chat(body)
            wire.read_answer(payload)
        except ValueError as error:
            raise Again(str(error)) from None
        except Again as again:
            self._heed(again)
            raise
        except ConfigError as error:
            raise self._health.down(error) from None  # the others need not ask to hear the same
        self._health.answered()
        with self._lock:
            self._refusals = 0
        return payload

    def _heed(self, again: Again) -> None:
        """Hold everybody back when the server limits the rate; give up when it asks for too long."""
        wait_s = again.wait_s or 0.0
        if wait_s > self._config.max_wait_s:
            raise self._down(
                f"asks to wait {wait_s:.0f} s ({again}), longer than max_wait_s={self._config.max_wait_s:g}. "
                "Run it again later"
            ) from None
        if again.limited and wait_s:
            self._pace.pause(wait_s)
        logger.info("%s: %s; tried again", self.name, again)

    def _given_up(self, again: Again, answers_before: int) -> LongVilaError:
        """The error after the last attempt: this item's, or the endpoint's."""
        told = f"{again} (tried {self._config.attempts * (_PATIENCE if again.limited else 1)} times)"
        if again.limited:
            mend = "Lower requests_at_once or set requests_per_minute, and run it again"
            return self._down(f"limits the rate: {told}. {mend}")
        silent = self._health.struck(answers_before)
        if silent and (self._health.out or not self._is_there()):
            return self._down(f"does not answer: {told}. Run it again when it is up")
        return ItemError("unreachable", f"{self._transport.url}: {told}")

    def _down(self, why: str) -> LongVilaError:
        return self._health.down(NetworkError(f"{self._transport.url} {why}; what is done is kept."))

    def _is_there(self) -> bool:
        try:
            self._transport.models()
        except Again:
            return False
        except (Refused, ConfigError, ItemError):
            return True  # it answers, though not to this
        return True

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        fitted = {name: value for name, value in body.items() if name not in self._gone}
        if "max_tokens" in self._gone:
            fitted["max_completion_tokens"] = body["max_tokens"]
        return fitted

    def _adapt(self, said: str, body: dict[str, Any]) -> bool:
        """Leave out a field that the server says it does not take; say whether that is new."""
        if not _UNSUPPORTED.search(said):
            return False
        for name in _MAY_GO:
            if re.search(rf"\b{name}\b", said) and name in body:
                logger.warning("%s does not take %s: left out from now on", self._transport.url, name)
                with self._lock:
                    self._gone.add(name)
                return True
        return False

    def _lower(self, schema_id: str, form: int, *, about: str) -> bool:
        """Ask for JSON in a plainer way from now on, unless this one worked before; False: none is left."""
        with self._lock:
            if form + 1 >= len(wire.FORMATS):
                return False
            if schema_id in self._proven and not wire.is_about_format(about):
                return False
            if self._forms.get(schema_id, 0) == form:
                self._forms[schema_id] = form + 1
                logger.warning(
                    "%s: %s; JSON is asked for as %s from now on", self.name, about, wire.FORMATS[form + 1]
                )
            return True

    def _told(self, schema_id: str, good: bool) -> None:
        """Hear whether an answer was JSON that fits: a form that never gave any is not heeded by the server.

        That form is given up for a plainer one, with the schema in words.
        """
        if good:
            self._proven.add(schema_id)
        elif schema_id not in self._proven:
            self._lower(schema_id, self._forms.get(schema_id, 0), about="the answer does not fit the schema")

    def _refused(self, said: str) -> LongVilaError:
        with self._lock:
            self._refusals += 1
            refusals = self._refusals
        if self._health.answers == 0 and refusals >= _ALL_REFUSED:
            return ConfigError(
                f"{self._transport.url} refused the first {refusals} requests and answered none; last: "
                f"{said}. Correct the model's settings, or the server's."
            )
        return ItemError("refused", said)


def _limited(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, Again) and error.limited


def _asked_wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (error.wait_s or 0.0) if isinstance(error, Again) else 0.0
