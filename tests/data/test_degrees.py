"""Several degrees in one run: every size of the world sees the same samples in the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.config.stage import MixtureEntry, StageConfig
from longvila.data import PackedBatch, PackedLoader, ShardReader, StepInfo, open_reader
from longvila.data.collate import Collator
from longvila.data.lengths import Encoder
from longvila.data.mixture import Draws
from longvila.errors import InputError
from tests.data.test_loader import check_parts

MakeStage = Callable[..., StageConfig]
NAMES = ("a", "b")
SEVERAL: dict[str, dict] = {
    "1 and 2": {"ulysses_degree": 2, "smaller_degrees": ((1, 1),)},
    "1 and 4": {"ring_degree": 4, "smaller_degrees": ((1, 1),)},
    "1, 2 and 4": {"ulysses_degree": 2, "ring_degree": 2, "smaller_degrees": ((2, 1), (1, 1))},
}


class Taken(NamedTuple):
    """One step as all ranks get it: for each micro-step the batches by rank."""

    info: StepInfo
    micro_steps: list[tuple[PackedBatch, ...]]


class Data(NamedTuple):
    """Two data sets, and all that loads them."""

    datasets: dict[str, str]
    tokenizer: PreTrainedTokenizerFast
    model: ModelConfig

    def load(self, stage: StageConfig, rank: int, world_size: int, **more: int) -> PackedLoader:
        return PackedLoader(
            self.datasets, stage, self.tokenizer, self.model, rank=rank, world_size=world_size, **more
        )

    def take(self, stage: StageConfig, world_size: int, **more: int) -> list[Taken]:
        """All steps, as all ranks of a world get them."""
        ranks = [
            [(step.info, list(step.batches)) for step in self.load(stage, rank, world_size, **more)]
            for rank in range(world_size)
        ]
        taken = []
        for step in zip(*ranks, strict=True):
            assert all(info == step[0][0] for info, _ in step)
            taken.append(Taken(step[0][0], list(zip(*(batches for _, batches in step), strict=True))))
        return taken

    def readers(self) -> list[ShardReader]:
        return [open_reader(self.datasets[name], split="train") for name in NAMES]

    def one_process(self, stage: StageConfig) -> Collator:
        """Makes whole rows of what it is given."""
        encoder = Encoder.of(
            self.tokenizer, self.model, max_frames=stage.max_frames, max_tokens=stage.max_tokens
        )
        return Collator(self.readers(), encoder, self.model, rank=0, degrees=[(1, 1)], pad_id=0)

    def keys(self, draws: Draws) -> list[str]:
        columns = [reader.index.columns["key"] for reader in self.readers()]
        return [str(columns[d][i]) for d, i in zip(draws.dataset, draws.sample, strict=True)]


@pytest.fixture
def data(datasets: dict[str, str], tokenizer: PreTrainedTokenizerFast, model: ModelConfig) -> Data:
    return Data(datasets, tokenizer, model)


def stage_of(make_stage: MakeStage, name: str, **changed: object) -> StageConfig:
    mixture = tuple(MixtureEntry(dataset=name) for name in NAMES)
    settings = {"steps": 5, "mixture": mixture, "rows_per_step": 8, "max_tokens": 72, **SEVERAL[name]}
    return make_stage(**{**settings, **changed})


@pytest.mark.parametrize(
    ("name", "world_size"), [("1 and 2", 2), *((name, size) for size in (4, 8) for name in SEVERAL)]
)
def test_every_world_sees_the_same_samples_in_the_same_steps(
    data: Data, make_stage: MakeStage, name: str, world_size: int
) -> None:
    stage = stage_of(make_stage, name)
    plan, whole = data.load(stage, 0, world_size).plan, data.one_process(stage)
    seen = set()
    for step, taken in enumerate(data.take(stage, world_size)):
        rows: list[PackedBatch] = []
        planned = plan.micro_steps(step, world_size // stage.sp_size)
        for parts, micro_step in zip(taken.micro_steps, planned, strict=True):
            assert {part.degree_index for part in parts} == {micro_step.degree_index}
            seen.add(micro_step.degree_index)
            sp_size = check_degrees(stage, parts)
            for group, joined in enumerate(micro_step.rows):
                rows.append(whole(plan.draws_of(joined)))
                mine = list(parts[group * sp_size : (group + 1) * sp_size])
                assert all(part.keys == rows[-1].keys for part in mine)
                check_parts(mine, rows[-1])
        assert sum(row.num_scored for row in rows) == taken.info.total_scored
        assert sum(row.num_tokens for row in rows) == taken.info.total_tokens
        every = data.keys(plan.draws_of(plan.rows_of(step)))  # what no size of the world enters
        assert sorted(key for row in rows for key in row.keys) == sorted(every)
        assert len(every) == taken.info.num_samples
    assert 0 in seen
    assert len(stage.degrees) - 1 in seen


def check_degrees(stage: StageConfig, parts: tuple[PackedBatch, ...]) -> int:
    """All ranks have the degree that is planned, and none has more than its share of tokens."""
    layouts = [part.plan.layout for part in parts]
    degrees = {(layout.ulysses_degree, layout.ring_degree) for layout in layouts}
    assert degrees == {stage.degrees[parts[0].degree_index]}
    assert max(len(part.input_ids_t) for part in parts) <= stage.max_tokens // stage.sp_size + 1
    return layouts[0].sp_size


def test_a_resume_goes_on_exactly_in_another_world(data: Data, make_stage: MakeStage) -> None:
    stage = stage_of(make_stage, "1, 2 and 4", order="short_first")
    state = data.load(stage, 0, 4).state(2)
    whole = data.take(stage, 4)
    for world_size in (4, 8):
        data.load(stage, 1, world_size).check_state(state)
        rest = data.take(stage, world_size, consumed_steps=state.steps_consumed)
        assert [step.info for step in rest] == [step.info for step in whole[2:]]
        for mine, before in zip(rest, whole[2:], strict=True):
            assert keys_of(mine) == keys_of(before)


def keys_of(step: Taken) -> list[str]:
    """The samples of a step over all ranks, each as often as sp groups have it."""
    groups = [parts[:: parts[0].plan.layout.sp_size] for parts in step.micro_steps]
    return sorted(key for parts in groups for part in parts for key in part.keys)


def test_a_run_with_other_shares_cannot_be_resumed(data: Data, make_stage: MakeStage) -> None:
    state = data.load(stage_of(make_stage, "1 and 4"), 0, 4).state(2)
    same_shares = stage_of(make_stage, "1 and 4", ring_degree=2, ulysses_degree=2)
    data.load(same_shares, 0, 4).check_state(state)
    with pytest.raises(
        InputError, match=r"the ratios of smaller_degrees to the largest changed. Set them back"
    ):
        data.load(stage_of(make_stage, "1, 2 and 4"), 0, 4).check_state(state)
