from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.config.stage import MixtureEntry, StageConfig
from longvila.data import PackedBatch, PackedLoader, ShardReader, open_reader, write_dataset
from longvila.data.lengths import Encoder
from longvila.errors import ConfigError, InputError
from longvila.storage import Storage, open_storage
from tests.data.conftest import killed, make_item, make_items

MakeStage = Callable[..., StageConfig]
Load = Callable[..., PackedLoader]


@pytest.fixture
def load(datasets: dict[str, str], tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> Load:
    def make(stage: StageConfig, **ranks: int) -> PackedLoader:
        return PackedLoader(datasets, stage, tokenizer, model, **ranks)

    return make


def keys_by_step(loader: PackedLoader) -> list[tuple[int, list[str]]]:
    return [(step.info.step, [key for batch in step.batches for key in batch.keys]) for step in loader]


def all_ranks(
    load: Load, stage: StageConfig, *, dp: int, ulysses: int, ring: int
) -> list[list[PackedLoader]]:
    """Loaders by (dp rank, sp rank)."""
    stage = stage.model_copy(update={"ulysses_degree": ulysses, "ring_degree": ring})
    sp, world_size = ulysses * ring, dp * ulysses * ring
    return [[load(stage, rank=d * sp + s, world_size=world_size) for s in range(sp)] for d in range(dp)]


def test_an_epoch_has_every_training_sample_and_no_other(load: Load, make_stage: MakeStage) -> None:
    loader = load(make_stage())
    steps = keys_by_step(loader)
    keys = [key for _, step in steps for key in step]
    assert {f"a-train-{i:04d}" for i in range(40)} == set(keys)
    assert [step for step, _ in steps] == list(range(loader.num_steps))
    assert len(loader) == len(steps)
    extra = len(keys) - 40  # the last step is filled up from the next epoch
    assert len(set(keys[: len(keys) - extra])) <= 40


def test_micro_batches_are_what_the_encoder_gives(
    load: Load, make_stage: MakeStage, datasets, tokenizer, model
) -> None:
    reader = open_reader(datasets["a"], split="train")
    by_key = {str(key): i for i, key in enumerate(reader.index.columns["key"])}
    encoder = Encoder.of(tokenizer, model, max_frames=6, max_tokens=64)
    for step in load(make_stage()):
        total_scored = 0
        for batch in step.batches:
            documents = [encoder(reader.sample(by_key[key])) for key in batch.keys]
            ids = np.concatenate([one.input_ids for one in documents])
            assert batch.num_tokens == len(ids) <= 64
            assert batch.input_ids_t[: len(ids)].tolist() == ids.tolist()
            positions = np.concatenate([np.arange(one.num_tokens) for one in documents])
            assert batch.position_ids_t[: len(ids)].tolist() == positions.tolist()
            labels = np.concatenate([np.append(one.labels[1:], -100) for one in documents])
            assert batch.labels_t[: len(ids)].tolist() == labels.tolist()
            assert (batch.labels_t[len(ids) :] == -100).all()
            assert batch.num_scored == (labels != -100).sum()
            frames = [
                reader.frames(by_key[key], range(reader.sample(by_key[key]).num_frames)) for key in batch.keys
            ]
            frames = [one for one in frames if len(one)]
            assert len(batch.frames_fHW3) == sum(map(len, frames))
            if frames:
                np.testing.assert_array_equal(batch.frames_fHW3.numpy(), np.concatenate(frames))
            image_id = tokenizer.get_vocab()["<image>"]
            assert batch.local_seats_n.tolist() == torch.where(batch.input_ids_t == image_id)[0].tolist()
            total_scored += batch.num_scored
        assert step.info.total_scored == total_scored


@pytest.mark.parametrize(("dp", "ulysses", "ring"), [(2, 1, 1), (4, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2)])
def test_every_layout_sees_the_same_samples_in_the_same_steps(
    load: Load, make_stage: MakeStage, dp: int, ulysses: int, ring: int
) -> None:
    stage = make_stage(steps=6, mixture=(MixtureEntry(dataset="a"), MixtureEntry(dataset="b")))
    whole = list(load(stage))
    reference = [list(step.batches) for step in load(stage)]
    ranks = all_ranks(load, stage, dp=dp, ulysses=ulysses, ring=ring)
    steps = [[list(loader) for loader in replica] for replica in ranks]
    for number, info in enumerate(step.info for step in whole):
        assert all(rank[number].info == info for replica in steps for rank in replica)
    batches = [[[list(step.batches) for step in loader] for loader in replica] for replica in ranks]
    for number, rows in enumerate(reference):
        for row_number, row in enumerate(rows):
            micro, replica = divmod(row_number, dp)
            parts = [rank[number][micro] for rank in batches[replica]]
            assert all(part.keys == row.keys for part in parts)
            check_parts(parts, row)


def check_parts(parts: list[PackedBatch], row: PackedBatch) -> None:
    """The ranks' parts put together are the row of one process."""
    layout = parts[0].plan.layout
    assert all((part.num_tokens, part.num_scored) == (row.num_tokens, row.num_scored) for part in parts)
    for name in ("input_ids_t", "labels_t", "position_ids_t"):
        joined = torch.zeros(layout.padded_length, dtype=torch.int64)
        for sp_rank, part in enumerate(parts):
            joined[torch.from_numpy(layout.positions_of(sp_rank))] = getattr(part, name)
        assert torch.equal(joined[: row.num_tokens], getattr(row, name)[: row.num_tokens])
    frames = torch.cat([part.frames_fHW3 for part in parts])
    assert torch.equal(frames, row.frames_fHW3)  # each frame on one rank only, in the order of the row
    sizes = [len(part.frames_fHW3) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sum(len(part.local_seats_n) for part in parts) == len(row.local_seats_n)


def test_a_resume_goes_on_exactly_also_with_other_ranks(load: Load, make_stage: MakeStage) -> None:
    stage = make_stage(steps=12, order="short_first")
    whole = keys_by_step(load(stage))
    assert keys_by_step(load(stage, consumed_steps=5)) == whole[5:]
    halves = [keys_by_step(load(stage, rank=d, world_size=2, consumed_steps=5)) for d in range(2)]
    for (step, keys), first, second in zip(whole[5:], *halves, strict=True):
        assert first[0] == second[0] == step
        assert sorted(first[1] + second[1]) == sorted(keys)
    assert keys_by_step(load(stage, consumed_steps=12)) == []


def test_a_killed_run_loses_and_repeats_nothing(load: Load, make_stage: MakeStage, tmp_path: Path) -> None:
    stage = make_stage(steps=10)

    def train() -> None:
        for step in load(stage):
            keys = [key for batch in step.batches for key in batch.keys]
            with (tmp_path / "log").open("a") as log:
                log.write(f"{step.info.step} {' '.join(keys)}\n")
            if step.info.step == 6:
                os.kill(os.getpid(), signal.SIGKILL)

    assert killed(train)
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    before = [(int(step), keys) for step, *keys in lines]
    after = keys_by_step(load(stage, consumed_steps=len(before)))
    assert before + after == keys_by_step(load(stage))


def test_a_changed_run_cannot_be_resumed(
    load: Load, make_stage: MakeStage, tokenizer: PreTrainedTokenizerFast, model: ModelConfig, tmp_path: Path
) -> None:
    stage = make_stage(steps=6)
    loader = load(stage)
    state = loader.state(4)
    assert state.steps_consumed == 4
    assert state.epoch > 0
    loader.check_state(state)
    load(stage, rank=1, world_size=2).check_state(state)
    with pytest.raises(InputError, match=r"The order of samples differs.*Set them back"):
        load(make_stage(steps=6, seed=1)).check_state(state)
    write_dataset(open_storage(tmp_path), "a", "train", make_items(39))
    other = PackedLoader({"a": f"{tmp_path}/shards/a"}, stage, tokenizer, model)
    with pytest.raises(InputError, match="data sets a changed since the checkpoint"):
        other.check_state(state)


def test_weights_are_shares(load: Load, make_stage: MakeStage) -> None:
    mixture = (MixtureEntry(dataset="a", weight=1), MixtureEntry(dataset="b", weight=3))
    keys = [key for _, step in keys_by_step(load(make_stage(mixture=mixture))) for key in step]
    assert abs(sum(key.startswith("b") for key in keys) / len(keys) - 0.75) < 0.05


def test_frames_are_thinned_to_the_stage(load: Load, make_stage: MakeStage) -> None:
    for step in load(make_stage(max_frames=2)):
        for batch in step.batches:
            assert batch.plan.num_frames == sum(min(int(key[-4:]) % 7, 2) for key in batch.keys)


def test_rows_must_divide_over_replicas(load: Load, make_stage: MakeStage) -> None:
    with pytest.raises(ConfigError, match=r"rows_per_step=4 .* multiple of the 3 replicas"):
        load(make_stage(), world_size=3)
    with pytest.raises(
        ConfigError, match=r"world_size=3 is not a multiple of sp_size=2 .* lower the degrees"
    ):
        load(make_stage(ulysses_degree=2), world_size=3)


def test_a_data_set_that_is_not_given_is_told(load: Load, make_stage: MakeStage) -> None:
    with pytest.raises(ConfigError, match=r"trains on 'c', but only \['a', 'b'\] are given"):
        load(make_stage(mixture=(MixtureEntry(dataset="c"),)))


def test_frames_of_another_size_are_told(
    load: Load, make_stage: MakeStage, datasets, tokenizer, model
) -> None:
    vision = model.vision.model_copy(update={"image_size": 24, "patch_size": 6})
    loader = PackedLoader(datasets, make_stage(), tokenizer, model.model_copy(update={"vision": vision}))
    with pytest.raises(InputError, match=r"16×16 pixels, but the model takes 24×24. Build .* frames.size=24"):
        keys_by_step(loader)


def test_a_broken_sample_names_its_shard_and_key(
    storage: Storage, make_stage: MakeStage, tokenizer: PreTrainedTokenizerFast, model: ModelConfig
) -> None:
    write_dataset(storage, "demo", "train", [make_item(6, 6)])
    given = ({"a": f"{storage.url}/shards/demo"}, make_stage(steps=2, rows_per_step=1), tokenizer, model)
    assert [keys for _, keys in keys_by_step(PackedLoader(*given))] == [["a-train-0006"]] * 2
    key = "shards/demo/demo-train-000000.tar"
    data = bytearray(storage.get_bytes(key))
    row = open_reader(f"{storage.url}/shards/demo").index.row(0)
    data[row.frames_offset : row.frames_offset + 50] = bytes(50)
    storage.put_bytes(key, bytes(data))
    with pytest.raises(InputError, match=r"'a-train-0006' of shard demo-train-000000\.tar"):
        keys_by_step(PackedLoader(*given))


def test_a_far_data_set_gives_the_same_batches(
    s3_url: str, make_stage: MakeStage, load: Load, tokenizer: PreTrainedTokenizerFast, model: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ShardReader.__init__, "__kwdefaults__", {"keep_bytes": 0})
    write_dataset(open_storage(s3_url), "a", "train", make_items(40), target_bytes=100_000)
    stage = make_stage(steps=4)
    far = PackedLoader({"a": f"{s3_url}/shards/a"}, stage, tokenizer, model)
    for mine, step in zip(far, load(stage), strict=True):
        for batch, expected in zip(mine.batches, step.batches, strict=True):
            assert batch.keys == expected.keys
            assert torch.equal(batch.input_ids_t, expected.input_ids_t)
            assert torch.equal(batch.frames_fHW3, expected.frames_fHW3)


def test_leaving_early_ends_the_thread(load: Load, make_stage: MakeStage) -> None:
    steps: Iterator = iter(load(make_stage(steps=20)))
    next(steps)
    next(steps)  # without taking the micro-batches of the first
    assert "prefetch" in [thread.name for thread in threading.enumerate()]
    steps.close()
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_micro_batches_that_are_left_are_skipped(load: Load, make_stage: MakeStage) -> None:
    stage = make_stage(steps=4)
    whole = keys_by_step(load(stage))
    for step in load(stage):
        first = next(iter(step.batches))
        assert list(first.keys) == whole[step.info.step][1][: len(first.keys)]
        assert len(step.batches) == 4
