"""Worlds of real processes are killed, and go on in worlds of another shape: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import PreTrainedTokenizerFast

from longvila.config.model import ModelConfig
from longvila.config.stage import MixtureEntry, StageConfig
from longvila.data import PackedLoader

STEPS = 20
Load = Callable[..., PackedLoader]


class Shape(NamedTuple):
    """A world."""

    dp: int
    ulysses: int
    ring: int
    workers: int

    @property
    def sp_size(self) -> int:
        return self.ulysses * self.ring

    @property
    def size(self) -> int:
        return self.dp * self.sp_size


@pytest.fixture
def load(
    datasets: dict[str, str], tokenizer: PreTrainedTokenizerFast, model: ModelConfig,
    make_stage: Callable[..., StageConfig], tmp_path: Path,
) -> Load:  # fmt: skip
    mixture = (MixtureEntry(dataset="a", weight=2), MixtureEntry(dataset="b"))

    def make(shape: Shape, rank: int, consumed_steps: int) -> PackedLoader:
        stage = make_stage(
            steps=STEPS,
            mixture=mixture,
            order="short_first",
            ulysses_degree=shape.ulysses,
            ring_degree=shape.ring,
        )
        here = {"rank": rank, "world_size": shape.size, "workers": shape.workers}
        return PackedLoader(
            datasets,
            stage,
            tokenizer,
            model,
            consumed_steps=consumed_steps,
            cache_dir=tmp_path / "lengths",
            **here,
        )

    return make


def start(load: Load, shape: Shape, consumed_steps: int, folder: Path, *, slowly: bool) -> list[int]:
    """Start all ranks of a world as processes; each writes every micro-batch that it gets to its log."""
    folder.mkdir()
    children = []
    for rank in range(shape.size):
        child = os.fork()
        if child == 0:
            with (folder / str(rank)).open("a", buffering=1) as log:
                for step in load(shape, rank, consumed_steps):
                    for number, batch in enumerate(step.batches):
                        log.write(f"{step.info.step} {number} {','.join(batch.keys)}\n")
                        time.sleep(0.02 if slowly else 0)
                    log.write(f"{step.info.step} done\n")
            os._exit(0)
        children.append(child)
    return children


def kill(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
    ends = [os.WTERMSIG(os.waitpid(child, 0)[1]) for child in children]
    assert signal.SIGKILL in ends  # a rank that waits for nobody may have come to its end


def finish(children: list[int]) -> None:
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)


def steps_of(folder: Path, shape: Shape) -> dict[int, list[str]]:
    """The samples of each step that all ranks have done; the ranks of a sequence have the same ones."""
    by_rank = []
    for rank in range(shape.size):
        lines = [line.split() for line in (folder / str(rank)).read_text().splitlines()]
        done = {int(line[0]) for line in lines if line[1] == "done"}
        taken: dict[int, list[str]] = {step: [] for step in done}
        for line in lines:
            if line[1] != "done" and int(line[0]) in done:
                taken[int(line[0])] += line[2].split(",")
        by_rank.append(taken)
    whole = set.intersection(*(set(taken) for taken in by_rank))
    found = {}
    for step in sorted(whole):
        groups = [[taken[step] for taken in by_rank[first : first + shape.sp_size]]
                  for first in range(0, shape.size, shape.sp_size)]  # fmt: skip
        assert all(rank == group[0] for group in groups for rank in group)
        found[step] = sorted(key for group in groups for key in group[0])
    return found


@pytest.mark.parametrize(
    "shapes",
    [
        (Shape(2, 1, 1, 2), Shape(1, 2, 1, 1), Shape(1, 1, 1, 3)),
        (Shape(1, 2, 2, 1), Shape(4, 1, 1, 2), Shape(2, 1, 2, 3)),
    ],
)
def test_killed_worlds_lose_and_repeat_nothing(load: Load, tmp_path: Path, shapes: tuple[Shape, ...]) -> None:
    finish(start(load, Shape(1, 1, 1, 1), 0, tmp_path / "whole", slowly=False))
    wanted = steps_of(tmp_path / "whole", Shape(1, 1, 1, 1))
    assert list(wanted) == list(range(STEPS))
    trained: dict[int, list[str]] = {}
    for number, shape in enumerate(shapes):
        folder, last = tmp_path / str(number), number == len(shapes) - 1
        children = start(load, shape, len(trained), folder, slowly=not last)
        if last:
            finish(children)
        else:
            goal = len(trained) + 3
            while not all(f"{goal} done" in path.read_text() for path in folder.iterdir()):
                time.sleep(0.01)
            kill(children)  # in the middle of a step, and each at another place
        found = steps_of(folder, shape)
        assert min(found) == len(trained)
        trained |= found  # the checkpoint: the last step that all ranks have done
    assert trained == wanted
