"""Broken samples that are skipped: on all ranks at once, without moving anything else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.config.stage import StageConfig
from longvila.data import PackedBatch, PackedLoader, StepInfo, open_index, write_dataset
from longvila.data.index import IndexRow
from longvila.errors import InputError
from longvila.storage import open_storage
from tests.data.conftest import make_items

MakeStage = Callable[..., StageConfig]
KEY = "shards/a/a-train-000000.tar"


class Step(NamedTuple):
    info: StepInfo
    batches: list[PackedBatch]


class Agreement:
    """Ranks as threads: the largest of each number over all of them."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=60)
        self._given: dict[int, Sequence[int]] = {}
        self.calls = 0

    def of_rank(self, rank: int) -> Callable[[Sequence[int]], list[int]]:
        def agree(values: Sequence[int]) -> list[int]:
            self._given[rank] = values
            self._barrier.wait()
            most = np.max(list(self._given.values()), axis=0).tolist()
            self._barrier.wait()
            self.calls += rank == 0
            return most

        return agree


class World:
    """A data set with damaged samples, and what loads it."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> None:
        self.storage = open_storage(folder)
        write_dataset(self.storage, "a", "train", make_items(40))
        self.given = ({"a": f"{folder}/shards/a"}, tokenizer, model)
        self.cache = folder / "cache"

    def rows(self) -> list[IndexRow]:
        index = open_index(self.storage, "a")
        return [index.row(i) for i in range(len(index))]

    def damage(self, offset: int, size: int) -> None:
        data = bytearray(self.storage.get_bytes(KEY))
        data[offset : offset + size] = bytes(size)
        self.storage.put_bytes(KEY, bytes(data))

    def loader(self, stage: StageConfig, rank: int = 0, world_size: int = 1, **more: object) -> PackedLoader:
        datasets, tokenizer, model = self.given
        return PackedLoader(
            datasets, stage, tokenizer, model, rank=rank, world_size=world_size, cache_dir=self.cache,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip

    def take(self, stage: StageConfig, *, dp: int = 1, consumed_steps: int = 0) -> list[list[Step]]:
        """All steps by rank; ranks are threads."""
        size = dp * stage.sp_size
        agreement = Agreement(size)

        def run(rank: int) -> list[Step]:
            loader = self.loader(
                stage, rank, size, agree=agreement.of_rank(rank), consumed_steps=consumed_steps
            )
            return [Step(step.info, list(step.batches)) for step in loader]

        self.loader(stage, 0, size)  # lengths are measured once
        with ThreadPoolExecutor(size) as pool:
            steps = list(pool.map(run, range(size)))
        assert agreement.calls == len(steps[0])
        return steps


@pytest.fixture
def world(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> World:
    return World(tmp_path, tokenizer, model)


def last_frame_of(row: IndexRow) -> tuple[int, int]:
    return row.frames_offset + row.frames_size - 300, 250


@pytest.mark.parametrize(("dp", "ulysses", "ring"), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_all_ranks_skip_the_same_in_the_same_step(
    world: World, make_stage: MakeStage, dp: int, ulysses: int, ring: int
) -> None:
    stage = make_stage(steps=10, on_broken_sample="skip", ulysses_degree=ulysses, ring_degree=ring)
    whole = world.take(stage, dp=dp)
    six, five = world.rows()[6], world.rows()[5]
    world.damage(*last_frame_of(six))  # only the rank that has its last frame finds it
    world.damage(five.json_offset, 10)  # found by all that were not told before
    ranks = world.take(stage, dp=dp)
    seen = 0
    for number, steps in enumerate(zip(*ranks, strict=True)):
        assert all(step.info == steps[0].info for step in steps)
        before = [rank[number] for rank in whole]
        keys = [key for step in steps for batch in step.batches for key in batch.keys]
        assert keys == [key for step in before for batch in step.batches for key in batch.keys]
        sp = stage.sp_size
        keys_once = [key for step in steps[::sp] for batch in step.batches for key in batch.keys]
        broken = [key for key in keys_once if key in (six.key, five.key)]
        assert steps[0].info.num_broken == len(broken)
        seen += len(broken)
        scored = sum(int((batch.labels_t != -100).sum()) for step in steps for batch in step.batches)
        assert scored == steps[0].info.total_scored
        assert steps[0].info.total_tokens == before[0].info.total_tokens
        assert (steps[0].info.total_scored < before[0].info.total_scored) == bool(broken)
        for step, step_before in zip(steps, before, strict=True):
            for batch, other in zip(step.batches, step_before.batches, strict=True):
                check_batch(batch, other, {six.key, five.key})
        for micro in range(len(steps[0].batches)):  # all ranks of a sequence obey one plan
            for replica in range(dp):
                plans = [step.batches[micro].plan for step in steps[replica * sp : (replica + 1) * sp]]
                assert len({(plan.num_frames, plan.layout.padded_length) for plan in plans}) == 1
                frames = [
                    len(step.batches[micro].frames_fHW3) for step in steps[replica * sp : (replica + 1) * sp]
                ]
                assert sum(frames) == plans[0].num_frames
    assert seen >= 2


def check_batch(batch: PackedBatch, before: PackedBatch, broken: set[str]) -> None:
    assert batch.num_tokens == before.num_tokens
    assert torch.equal(batch.position_ids_t, before.position_ids_t)
    if not broken & set(batch.keys):
        assert torch.equal(batch.frames_fHW3, before.frames_fHW3)
        assert torch.equal(batch.labels_t, before.labels_t)
    else:
        kept = batch.labels_t != -100  # what is still scored is what was scored
        assert torch.equal(batch.labels_t[kept], before.labels_t[kept])
        assert batch.plan.num_frames < before.plan.num_frames


def test_a_resume_goes_on_exactly_over_broken_samples(world: World, make_stage: MakeStage) -> None:
    stage = make_stage(steps=10, on_broken_sample="skip")
    world.take(stage)
    world.damage(*last_frame_of(world.rows()[6]))
    (whole,) = world.take(stage)
    for dp in (1, 2):
        rest = world.take(stage, dp=dp, consumed_steps=4)[0]
        assert [step.info for step in rest] == [step.info for step in whole[4:]]
    world.loader(stage).check_state(world.loader(stage, 1, 2).state(4))


def test_a_record_that_is_broken_from_the_start_is_left_out(
    world: World, make_stage: MakeStage, caplog: pytest.LogCaptureFixture
) -> None:
    row = world.rows()[5]
    world.damage(row.json_offset, 10)
    with pytest.raises(InputError, match=f"'{row.key}' of shard a-train-000000"):
        world.loader(make_stage(steps=4))
    (steps,) = world.take(make_stage(steps=10, on_broken_sample="skip"))
    assert row.key not in {key for step in steps for batch in step.batches for key in batch.keys}
    assert f"1 of 40 samples are left out: {{'broken': 1}}. The first: Sample '{row.key}'" in caplog.text


def test_too_much_that_is_broken_ends_the_run(world: World, make_stage: MakeStage) -> None:
    stage = make_stage(steps=10, on_broken_sample="skip")
    world.take(stage)
    for row in world.rows():
        if row.num_frames:
            world.damage(row.frames_offset, 100)
    with pytest.raises(InputError, match=r"samples could not be read, too many to be skipped .* data verify"):
        world.take(stage)


def test_frames_of_another_size_are_never_skipped(
    world: World, make_stage: MakeStage, tokenizer: PreTrainedTokenizerFast, model: ModelConfig
) -> None:
    vision = model.vision.model_copy(update={"image_size": 24, "patch_size": 6})
    world.given = (world.given[0], tokenizer, model.model_copy(update={"vision": vision}))
    with pytest.raises(InputError, match="16×16 pixels, but the model takes 24×24"):
        world.take(make_stage(steps=4, on_broken_sample="skip"))
