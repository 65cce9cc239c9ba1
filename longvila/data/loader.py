"""From the run's plan to this rank's micro-batches, made ahead by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.config.stage import StageConfig
from longvila.data.collate import Collator, PackedBatch
from longvila.data.lengths import Encoder, measure_lengths
from longvila.data.mixture import Draws
from longvila.data.packing import plan_run
from longvila.data.prefetch import Ahead
from longvila.data.reader import ShardReader, open_reader
from longvila.data.skipping import Agree, Skipper
from longvila.errors import ConfigError, InputError
from longvila.records import Record

PREFETCH_BYTES = 2 * 2**30
MadeT = TypeVar("MadeT")


class LoaderState(Record):
    """All that a resume needs. Numbers of ranks are not in it: they may change between runs."""

    index_hashes: dict[str, str]
    plan_hash: str
    seed: int
    epoch: float
    steps_consumed: int


@dataclass(frozen=True)
class StepInfo:
    """What is known of an optimizer step before any of it is computed, the same on every rank.

    Counts are over the whole world and all micro-steps. ``num_rows`` counts rows as they were packed, before
    any are joined. ``epoch`` is how many are drawn when the step is done. ``num_broken`` of the samples
    cannot be read and are not trained on; ``total_scored`` is without theirs.
    """

    step: int
    total_scored: int
    total_tokens: int
    num_rows: int
    num_samples: int
    epoch: float
    num_broken: int = 0


class MicroBatches:
    """The micro-batches of one step, in order: sized, and iterated once as they become ready."""

    def __init__(self, source: Iterator[PackedBatch], count: int) -> None:
        self._source = source
        self._count = count
        self._left = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PackedBatch]:
        while self._left:
            self._left -= 1
            yield next(self._source)


class TrainStep(NamedTuple):
    """One optimizer step of one rank."""

    info: StepInfo
    batches: MicroBatches


class PackedLoader:
    """Yields each optimizer step of a run, from ``consumed_steps`` on, as this rank's micro-batches.

    ``rank`` and ``world_size`` are those of the whole world. All ranks have equally many micro-batches, and
    each has the same of the stage's degrees on all of them. ``datasets`` gives the address of the folder of
    each data set that the stage's mixture names; their training split is used. The order of samples and their
    packing are a pure function of the data sets, the tokenizer and the stage, so a resume goes on exactly,
    with another number of ranks or ``workers`` too. ``cache_dir`` keeps the measured lengths.

    ``workers`` threads read and decode ahead. What they work on and what waits are at most ``prefetch``
    micro-batches, of at most ``prefetch_bytes`` together (or one, if that is larger).

    Where the stage skips broken samples the micro-batches of a step are all made before it begins, and
    ``agree``, the largest of each number over all ranks, is called once a step, on all of them.
    """

    def __init__(
        self,
        datasets: Mapping[str, str],
        stage: StageConfig,
        tokenizer: PreTrainedTokenizerFast,
        model: ModelConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        consumed_steps: int = 0,
        cache_dir: Path | None = None,
        prefetch: int = 4,
        prefetch_bytes: int = PREFETCH_BYTES,
        workers: int = 2,
        agree: Agree = list,
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.dp_size = _replicas(stage, world_size)
        self.consumed_steps = consumed_steps
        self._seed = stage.seed
        self._prefetch, self._prefetch_bytes, self._workers = max(1, prefetch), prefetch_bytes, workers
        skips = stage.on_broken_sample == "skip"
        self._readers = _open_readers(datasets, stage, frame_size=model.vision.image_size)
        encoder = Encoder.of(tokenizer, model, max_frames=stage.max_frames, max_tokens=stage.max_tokens)
        lengths = [
            measure_lengths(reader, encoder, cache_dir=cache_dir, skip_broken=skips)
            for reader in self._readers
        ]
        self.plan = plan_run(
            lengths,
            [entry.weight for entry in stage.mixture],
            seed=stage.seed,
            order=stage.order,
            max_tokens=stage.max_tokens,
            rows_per_step=stage.rows_per_step,
            rows_per_bundle=stage.rows_per_bundle,
            steps=stage.steps,
            epochs=stage.epochs,
        )
        self._plan_hash = self.plan.hash()
        self._collate = Collator(
            self._readers,
            encoder,
            model,
            rank=rank,
            degrees=stage.degrees,
            pad_id=tokenizer.get_vocab()[str(tokenizer.pad_token)],
            lengths=lengths,
        )
        self._skipper = Skipper(self._collate, lengths, agree) if skips else None

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run, those consumed included."""
        return self.plan.num_steps

    @property
    def micro_steps(self) -> int:
        """Micro-batches of this rank in each optimizer step."""
        return self.plan.rows_per_step // self.dp_size

    def __len__(self) -> int:
        return self.num_steps - self.consumed_steps

    def __iter__(self) -> Iterator[TrainStep]:
        return self._steps() if self._skipper is None else self._settled_steps(self._skipper)

    def _steps(self) -> Iterator[TrainStep]:
        batches = self._ahead(self._collate)
        try:
            for step in range(self.consumed_steps, self.num_steps):
                micro_batches = MicroBatches(batches, self.micro_steps)
                yield TrainStep(self.info(step), micro_batches)
                for _ in micro_batches:  # what the consumer left
                    pass
        finally:
            batches.close()

    def _settled_steps(self, skipper: Skipper) -> Iterator[TrainStep]:
        """Yield steps on whose broken samples all ranks have agreed."""
        made = self._ahead(skipper.make)
        try:
            for step in range(self.consumed_steps, self.num_steps):
                mine = list(islice(made, self.micro_steps))
                draws = self.plan.draws_of(self.plan.rows_of(step))
                batches, num_broken, lost = skipper.settle(draws, mine)
                info = self.info(step)
                info = replace(info, total_scored=info.total_scored - lost, num_broken=num_broken)
                yield TrainStep(info, MicroBatches(iter(batches), len(batches)))
        finally:
            made.close()

    def _ahead(self, make: Callable[[Draws, int], MadeT]) -> Ahead[tuple[Draws, int], MadeT]:
        return Ahead(
            lambda row: make(*row),
            self._my_rows(),
            workers=self._workers,
            limit=self._prefetch,
            limit_bytes=self._prefetch_bytes,
            cost_bytes=lambda row: self._collate.cost_bytes(*row),
        )

    def info(self, step: int) -> StepInfo:
        """Return what is known of a step beforehand."""
        rows = self.plan.rows_of(step)
        part = slice(rows.start, rows.stop)
        return StepInfo(
            step=step,
            total_scored=int(self.plan.row_scored[part].sum()),
            total_tokens=int(self.plan.row_tokens[part].sum()),
            num_rows=len(rows),
            num_samples=int(self.plan.row_starts[rows.stop] - self.plan.row_starts[rows.start]),
            epoch=self.plan.epoch_at(step + 1),
        )

    def state(self, steps_consumed: int) -> LoaderState:
        """Return the state after ``steps_consumed`` optimizer steps of the run."""
        return LoaderState(
            index_hashes={reader.index.name: reader.index.hash for reader in self._readers},
            plan_hash=self._plan_hash,
            seed=self._seed,
            epoch=self.plan.epoch_at(steps_consumed),
            steps_consumed=steps_consumed,
        )

    def check_state(self, state: LoaderState) -> None:
        """Raise ``InputError`` unless a run that was saved in ``state`` goes on exactly here."""
        mine = self.state(0)
        changed = sorted(
            name for name, value in state.index_hashes.items() if mine.index_hashes.get(name) != value
        )
        if changed:
            raise InputError(
                f"The data sets {', '.join(changed)} changed since the checkpoint was written, so its run "
                "cannot go on exactly. Restore them, or start the stage anew from its first weights."
            )
        if state.plan_hash != mine.plan_hash:
            raise InputError(
                "The order of samples differs from that of the checkpoint: the tokenizer or the stage's "
                "mixture, seed, order, max_frames, max_tokens, rows_per_step, steps, epochs or the ratios of "
                "smaller_degrees to the largest changed. Set them back, or start the stage anew."
            )

    def _my_rows(self) -> Iterator[tuple[Draws, int]]:
        """Yield the samples of each row that this rank works on, and the number of its degree."""
        for step in range(self.consumed_steps, self.num_steps):
            for micro_step in self.plan.micro_steps(step, self.dp_size):
                rows = micro_step.row_of(self.rank, self.world_size)
                yield self.plan.draws_of(rows), micro_step.degree_index


def _replicas(stage: StageConfig, world_size: int) -> int:
    """Return how many sequences of the largest degree a world works on at once."""
    if world_size % stage.sp_size:
        raise ConfigError(
            f"world_size={world_size} is not a multiple of sp_size={stage.sp_size} of stage {stage.name} "
            f"(ulysses_degree={stage.ulysses_degree} × ring_degree={stage.ring_degree}). Start a multiple "
            "of that many processes, or lower the degrees."
        )
    dp_size = world_size // stage.sp_size
    if stage.rows_per_step % dp_size:
        raise ConfigError(
            f"rows_per_step={stage.rows_per_step} of stage {stage.name} must be a multiple of the "
            f"{dp_size} replicas (world size ÷ sp_size), so that all have equally many rows."
        )
    return dp_size


def _open_readers(datasets: Mapping[str, str], stage: StageConfig, *, frame_size: int) -> list[ShardReader]:
    readers = []
    for entry in stage.mixture:
        if entry.dataset not in datasets:
            raise ConfigError(
                f"Stage {stage.name} trains on {entry.dataset!r}, but only {sorted(datasets)} are given. "
                "Build it, or change the mixture."
            )
        reader = open_reader(datasets[entry.dataset], split="train", frame_size=frame_size)
        if not len(reader):
            raise InputError(f"Data set {entry.dataset!r} has no sample in its training split.")
        readers.append(reader)
    return readers
