"""One packed row as the tensors of one rank.

F frames of the row, f frames held here, T tokens of the row, t tokens held here (padded), n seats held here.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from longvila.config.model import ModelConfig
from longvila.data.lengths import Encoder, Lengths
from longvila.data.mixture import Draws
from longvila.data.reader import FAR_THREADS, BrokenSample, ShardReader
from longvila.errors import InputError, ItemError
from longvila.media.jpeg import WrongSize
from longvila.parallel.layout import IGNORE_INDEX, shift_labels
from longvila.parallel.plan import Plan, make_plan
from longvila.text.encode import Encoded

ArgT = TypeVar("ArgT")
ResultT = TypeVar("ResultT")

_CACHED_TOKENS = 4_000_000

Member = tuple[int, int]  # number of the data set in the mixture, number of the sample in its index


class BrokenMember(InputError):
    """A sample of a row cannot be read."""

    def __init__(self, member: Member, message: str) -> None:
        super().__init__(message)
        self.member = member


def members_of(row: Draws) -> list[Member]:
    """Return the samples of a row."""
    return list(zip(row.dataset.tolist(), row.sample.tolist(), strict=True))


@dataclass(frozen=True)
class PackedBatch:
    """One rank's part of one packed row: a micro-batch.

    ``degree_index`` says at which of the stage's degrees (smallest first) the row is worked on, the same on
    every rank of the world. ``num_tokens`` and ``num_scored`` count the whole row, over all ranks that share
    it. ``keys`` names the row's samples in order, for logs.
    """

    degree_index: int
    plan: Plan
    input_ids_t: Tensor  # int64
    labels_t: Tensor  # int64, shifted over the whole row before it was divided
    position_ids_t: Tensor  # int64, from 0 in each document
    frames_fHW3: Tensor  # uint8, of this rank's frames only
    local_seats_n: Tensor  # int64, where in t the visual tokens sit
    num_tokens: int
    num_scored: int
    keys: tuple[str, ...]


class Collator:
    """Makes micro-batches for one rank of the world, at any of ``degrees``, pairs of (ulysses, ring).

    Encodings of short samples are kept, since epochs repeat them. Safe to call from many threads.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        encoder: Encoder,
        model: ModelConfig,
        *,
        rank: int,
        degrees: Sequence[tuple[int, int]],
        pad_id: int,
        lengths: Sequence[Lengths] = (),
    ) -> None:
        self._readers = readers
        self._lengths = lengths
        self._lock = threading.Lock()
        self._encoder = encoder
        self._vision = model.vision
        self._rank = rank
        self._degrees = degrees
        self._pad_id = pad_id
        self._encoded: OrderedDict[tuple[int, int], Encoded] = OrderedDict()
        self._cached_tokens = 0
        is_far = any(reader.is_far for reader in readers)
        self._pool = ThreadPoolExecutor(FAR_THREADS, "collate") if is_far else None

    def __call__(
        self, row: Draws, degree_index: int = 0, *, broken: Collection[Member] = frozenset()
    ) -> PackedBatch:
        """Read, encode, pack and shard the samples of one row; decode this rank's frames of it.

        In the place of a sample of ``broken`` stands padding of its length, which has no frames and no label.
        Raises ``BrokenMember`` for any other sample that cannot be read.
        """
        ulysses_degree, ring_degree = self._degrees[degree_index]
        sp_rank = self._rank % (ulysses_degree * ring_degree)
        members = members_of(row)
        documents = self._encodings(members, broken)
        lengths = [document.num_tokens for document in documents]
        starts = np.cumsum([0, *lengths[:-1]])
        seats = [document.frame_seats + start for document, start in zip(documents, starts, strict=True)]
        plan = make_plan(
            lengths,
            np.concatenate(seats),
            tokens_per_frame=self._encoder.tokens_per_frame,
            patches_per_frame=self._vision.patches_per_frame,
            ulysses_degree=ulysses_degree,
            ring_degree=ring_degree,
        )
        labels_T = shift_labels(np.concatenate([one.labels for one in documents]), plan.layout.cu_seqlens)
        ids_T = np.concatenate([one.input_ids for one in documents])
        mine = plan.layout.positions_of(sp_rank)
        return PackedBatch(
            degree_index=degree_index,
            plan=plan,
            input_ids_t=_shard(ids_T, mine, plan.layout.padded_length, self._pad_id),
            labels_t=_shard(labels_T, mine, plan.layout.padded_length, IGNORE_INDEX),
            position_ids_t=torch.from_numpy(plan.layout.position_ids()[mine]),
            frames_fHW3=self._frames(plan.frames_of(sp_rank), members, documents),
            local_seats_n=torch.from_numpy(plan.local_seats(sp_rank)),
            num_tokens=plan.layout.num_tokens,
            num_scored=int((labels_T != IGNORE_INDEX).sum()),
            keys=tuple(str(self._readers[d].index.columns["key"][i]) for d, i in members),
        )

    def cost_bytes(self, row: Draws, degree_index: int = 0) -> int:
        """Return what making one row takes at its fullest on this rank: pixels, JPEGs and ids."""
        ranks = math.prod(self._degrees[degree_index])
        frame_bytes = 3 * self._vision.image_size**2
        pixels = jpegs = tokens = 0
        for dataset, i in members_of(row):
            columns = self._readers[dataset].index.columns
            num_frames = int(columns["num_frames"][i])
            shown = min(num_frames, self._encoder.max_frames)
            pixels += shown * frame_bytes
            jpegs += int(columns["frames_size"][i]) * shown // max(1, num_frames)
            tokens += int(self._lengths[dataset].num_tokens[i]) if self._lengths else 0
        return (pixels + jpegs + 3 * 8 * tokens) // ranks + frame_bytes

    def _encodings(self, members: list[Member], broken: Collection[Member]) -> list[Encoded]:
        """Return the encodings of a row's samples, new ones and those that were kept."""
        with self._lock:
            encodings = {member: self._encoded[member] for member in members if member in self._encoded}
            for member in encodings:
                self._encoded.move_to_end(member)
        encodings |= {member: self._stand_in(member) for member in members if member in broken}
        new = [member for member in dict.fromkeys(members) if member not in encodings]
        fresh = dict(zip(new, self._map(self._encode, new), strict=True))
        with self._lock:
            for member in fresh.keys() - self._encoded.keys():
                self._encoded[member] = fresh[member]
                self._cached_tokens += fresh[member].num_tokens
            while self._cached_tokens > _CACHED_TOKENS:
                self._cached_tokens -= self._encoded.popitem(last=False)[1].num_tokens
        encodings |= fresh
        return [encodings[member] for member in members]

    def _stand_in(self, member: Member) -> Encoded:
        dataset, i = member
        count = int(self._lengths[dataset].num_tokens[i])
        nothing = np.zeros(0, dtype=np.int64)
        return Encoded(np.full(count, self._pad_id), np.full(count, IGNORE_INDEX), nothing, nothing)

    def _map(self, function: Callable[[ArgT], ResultT], arguments: Sequence[ArgT]) -> list[ResultT]:
        """Call for each argument: side by side where data lie far away, and the wait is the cost."""
        if self._pool is None:
            return [function(argument) for argument in arguments]
        return list(self._pool.map(function, arguments))

    def _encode(self, member: Member) -> Encoded:
        dataset, i = member
        reader = self._readers[dataset]
        try:
            sample = reader.sample(i)
            return self._encoder(sample)
        except BrokenSample as error:
            raise BrokenMember(member, str(error)) from error
        except ItemError as error:  # it was encoded before, when lengths were measured
            row = reader.index.row(i)
            raise BrokenMember(
                member,
                f"Sample {row.key!r} of shard {row.shard} changed while it was in use: "
                f"{error} Build the data set again and start anew.",
            ) from error

    def _frames(self, wanted: np.ndarray, members: list[Member], documents: list[Encoded]) -> Tensor:
        """Decode the frames ``wanted`` of the row, uint8 [f, H, W, 3]."""
        side = self._vision.image_size
        frames_fHW3 = np.empty((len(wanted), side, side, 3), dtype=np.uint8)
        if not len(wanted):
            return torch.from_numpy(frames_fHW3)
        document_of = np.repeat(np.arange(len(documents)), [len(one.frame_indices) for one in documents])
        frame_of = np.concatenate([one.frame_indices for one in documents])

        def decode(number: int) -> None:
            first, stop = np.searchsorted(document_of[wanted], (number, number + 1))
            mine = slice(int(first), int(stop))  # frames of a row are in the order of its documents
            self._decode(members[number], frame_of[wanted[mine]], frames_fHW3[mine])

        self._map(decode, np.unique(document_of[wanted]).tolist())
        return torch.from_numpy(frames_fHW3)

    def _decode(self, member: Member, frame_indices: np.ndarray, out_nHW3: np.ndarray) -> None:
        dataset, i = member
        try:
            self._readers[dataset].frames(i, frame_indices, out_nHW3=out_nHW3)
        except BrokenSample as error:
            if not isinstance(error.__cause__, WrongSize):
                raise BrokenMember(member, str(error)) from error
            row, side = self._readers[dataset].index.row(i), self._vision.image_size
            height, width = error.__cause__.found
            raise InputError(
                f"Sample {row.key!r} of shard {row.shard} has frames of {width}×{height} pixels, but the "
                f"model takes {side}×{side}. Build the data set with frames.size={side}."
            ) from error


def _shard(values_T: np.ndarray, mine: np.ndarray, padded_length: int, padding: int) -> Tensor:
    padded = np.full(padded_length, padding, dtype=np.int64)
    padded[: len(values_T)] = values_T
    return torch.from_numpy(padded[mine])
