"""Ask a checkpoint about a video: ``load(path).ask(video, question)``.

A video is decoded and encoded once, and its keys and values are kept: the next question about it starts
where the video ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from longvila.errors import InputError, ItemError
from longvila.inference.answer import Answer, Timing, doubts
from longvila.inference.cache import KvCache
from longvila.inference.features import encode_frames
from longvila.inference.generate import Generated, generate
from longvila.inference.memory import check_fits
from longvila.inference.prefill import prefill
from longvila.inference.watching import look, watch
from longvila.model.checkpoint import load_checkpoint
from longvila.model.module import LongVila
from longvila.parallel import register_attention
from longvila.records import Turn
from longvila.text.encode import Encoded, encode_prompt
from longvila.text.tokenizer import FRAMES_MARK, separator_ids

logger = logging.getLogger(__name__)

DEFAULT_FPS = 2.0
DEFAULT_NEW_TOKENS = 64
FRAMES_AT_ONCE = 64
END_MARKS = "?!."

# F frames, k visual tokens of a frame, H × W pixels, D width.


@dataclass(frozen=True)
class _Video:
    """A video as the session holds it: ``features`` are its visual tokens [F, k, D]."""

    key: tuple[Any, ...]
    times_s: tuple[float, ...]
    features: Tensor


class LongVilaSession:
    """A loaded model that answers questions about one video after another. Not to be shared by threads."""

    def __init__(
        self, model: LongVila, tokenizer: PreTrainedTokenizerFast, info: dict[str, Any] | None = None
    ) -> None:
        register_attention()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.info = info or {}
        self._separator = separator_ids(tokenizer, model.frame_separator)
        self._video: _Video | None = None
        self._cache = KvCache()
        self._read_ids = np.zeros(0, dtype=np.int64)

    @property
    def default_frames(self) -> int:
        """Frames per video where none are asked for: what the checkpoint was trained with."""
        return int(self.info.get("config", {}).get("num_video_frames") or 8)

    def ask(
        self,
        video: Path | str,
        question: str,
        *,
        frames: int | None = None,
        fps: float = DEFAULT_FPS,
        start_s: float = 0.0,
        stop_s: float | None = None,
        max_new_tokens: int | None = None,
    ) -> Answer:
        """Answer a question about ``[start_s, stop_s)`` of a video, greedily.

        At most ``frames`` frames are shown, and no more than ``fps`` per second, spread evenly. The answer
        has at most ``max_new_tokens`` (64, or a quarter of a very short context). Raises InputError for what
        is no video, an empty span, or more frames than the model can take.
        """
        question = self._worded(question)
        frames = self.default_frames if frames is None else frames
        clock = [time.perf_counter()]
        looked = look(Path(video), frames=frames, fps=fps, start_s=start_s, stop_s=stop_s)
        prompt = self._encode(question, len(looked.times_s), max_new_tokens)
        stat = looked.video.stat()
        key = (str(looked.video.resolve()), stat.st_mtime_ns, stat.st_size, looked.times_s)
        if self._video is None or self._video.key != key:
            frames_FHW3 = watch(looked, size=self.model.image_size)
            clock.append(time.perf_counter())
            self._hold(key, looked.times_s, frames_FHW3)
        return self._answer(question, prompt, max_new_tokens, clock)

    def ask_frames(
        self,
        frames_FHW3: np.ndarray,
        question: str,
        *,
        times_s: Sequence[float] | None = None,
        max_new_tokens: int | None = None,
    ) -> Answer:
        """Answer a question about frames (uint8 RGB, of the model's size) that are decoded already."""
        question = self._worded(question)
        clock = [time.perf_counter()]
        times = tuple(times_s) if times_s is not None else tuple(float(i) for i in range(len(frames_FHW3)))
        prompt = self._encode(question, len(times), max_new_tokens)
        key = ("frames", frames_FHW3.shape, frames_FHW3.tobytes(), times)
        if self._video is None or self._video.key != key:
            clock.append(time.perf_counter())
            self._hold(key, times, frames_FHW3)
        return self._answer(question, prompt, max_new_tokens, clock)

    def _room(self, max_new_tokens: int | None) -> int:
        """Tokens that are kept free for the answer."""
        if max_new_tokens is not None:
            return max_new_tokens
        return min(DEFAULT_NEW_TOKENS, int(self.model.llm.config.max_position_embeddings) // 4)

    def _hold(self, key: tuple[Any, ...], times_s: tuple[float, ...], frames_FHW3: np.ndarray) -> None:
        """Encode a video's frames and forget the one before."""
        features = encode_frames(self.model, frames_FHW3, frames_at_once=FRAMES_AT_ONCE)
        self._video = _Video(key, times_s, features)
        self._cache = KvCache()
        self._read_ids = self._read_ids[:0]

    def _answer(
        self, question: str, prompt: Encoded, max_new_tokens: int | None, clock: list[float]
    ) -> Answer:
        """Answer about the video that is held. ``clock``: when the call began, and when decoding was done."""
        video = self._video
        assert video is not None
        reused = common_prefix(self._read_ids, prompt.input_ids[:-1])
        self._cache.roll_back(reused)
        self._read_ids = prompt.input_ids[:reused]
        clock.append(time.perf_counter())
        with torch.no_grad():
            last_D = prefill(self.model, prompt, video.features, self._cache)
            self._read_ids = prompt.input_ids
            clock.append(time.perf_counter())
            said = generate(
                self.model,
                last_D,
                self._cache,
                end_ids=self._end_ids(),
                max_new_tokens=self._room(max_new_tokens),
            )
        clock.append(time.perf_counter())
        return self._report(question, video, prompt, reused, said, clock)

    def _report(
        self,
        question: str,
        video: _Video,
        prompt: Encoded,
        reused: int,
        said: Generated,
        clock: list[float],
    ) -> Answer:
        text = str(self.tokenizer.decode(list(said.tokens), skip_special_tokens=True)).strip()
        notes = doubts(text, said.finish, self._unknown_words(question))
        for note in notes:
            logger.debug("asked %r: %s", question, note)
        *_, encoded, read, ended = clock
        decoded = clock[1] if len(clock) > 4 else clock[0]
        return Answer(
            text=text,
            frames_used=len(video.times_s),
            times_s=video.times_s,
            seconds=ended - clock[0],
            timing=Timing(
                decode_s=decoded - clock[0],
                encode_s=encoded - decoded,
                prefill_s=read - encoded,
                generate_s=ended - read,
            ),
            prompt_tokens=prompt.num_tokens,
            reused_tokens=reused,
            answer_tokens=len(said.tokens),
            finish=said.finish,
            notes=notes,
        )

    def _encode(self, question: str, num_frames: int, max_new_tokens: int | None) -> Encoded:
        """Encode the prompt; raise before any work when it cannot be asked or does not fit."""
        mark = f"{FRAMES_MARK} " if num_frames else ""
        try:
            prompt = encode_prompt(
                [Turn(role="human", text=mark + question)],
                self.tokenizer,
                num_frames=num_frames,
                tokens_per_frame=self.model.tokens_per_frame,
                frame_separator_ids=self._separator,
            )
        except ItemError as error:
            raise InputError(f"this question cannot be asked: {error.detail}") from error
        check_fits(
            self.model,
            num_tokens=prompt.num_tokens + self._room(max_new_tokens),
            num_frames=num_frames,
            tokens_per_frame=self.model.tokens_per_frame + len(self._separator),
        )
        return prompt

    def _end_ids(self) -> set[int]:
        """The tokens that close an answer: the tokenizer's end, and those that the configuration names."""
        stated = getattr(self.model.llm.generation_config, "eos_token_id", None)
        ends = [self.tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])]
        return {end for end in ends if isinstance(end, int)}

    def _worded(self, question: str) -> str:
        """The question without a mark at its end that the tokenizer has no word for; an empty one is refused.

        A model trained on questions without marks answers after the last word, not after an unknown one.
        """
        if not question.strip():
            raise InputError("the question is empty. Say what to look for in the video")
        bare = question.rstrip().rstrip(END_MARKS).rstrip()
        return bare if bare and set(self._unknown_words(question)) & set(END_MARKS) else question

    def _unknown_words(self, question: str) -> list[str]:
        encoding = self.tokenizer.backend_tokenizer.encode(question, add_special_tokens=False)
        unknown = self.tokenizer.unk_token_id
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        return [question[start:stop] for token, (start, stop) in spans if token == unknown]


def load(checkpoint: Path | str, *, device: str | torch.device = "cpu") -> LongVilaSession:
    """Load an exported checkpoint to ask it questions. Raises InputError when it is none."""
    model, tokenizer, info = load_checkpoint(Path(checkpoint))
    return LongVilaSession(model.to(device), tokenizer, info)


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    """Return how many ids two sequences begin with in common."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length
