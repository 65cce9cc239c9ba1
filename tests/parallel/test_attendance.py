"""A rank that dies or stops makes the others end with an error that names it: real processes and signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from longvila.errors import PeerLost
from longvila.parallel import Layout, make_attend, make_exchange, make_groups, make_plan

TIMEOUT_S = 3.0
LAYOUT = Layout((64,), 2, 2)


def attend() -> None:
    """One attention on a 2D layout after another: ranks 0 and 3 never talk to each other."""
    groups = make_groups(ulysses_degree=2, ring_degree=2)
    q = torch.randn(1, 4, LAYOUT.local_length, 8, requires_grad=True)
    for step in range(1000):
        _end(groups.rank, step)
        make_attend(LAYOUT, groups)(q, q, q, scale=0.3).sum().backward()


def exchange() -> None:
    """Visual tokens on a zigzag layout: not every rank hears from rank 2, but from one that does."""
    groups = make_groups(ring_degree=4)
    plan = make_plan((64,), range(0, 64, 4), tokens_per_frame=3, ring_degree=4)
    features = torch.randn(len(plan.frames_of(groups.rank)), 3, 5)
    for step in range(1000):
        _end(groups.rank, step)
        make_exchange(plan, groups)(features)


def other_peoples_messages() -> None:
    """What an engine sends by itself, watched by the groups."""
    groups = make_groups(ulysses_degree=4)
    with groups.naming_the_lost():
        for step in range(1000):
            _end(groups.rank, step)
            dist.all_reduce(torch.zeros(8))


def _end(rank: int, step: int) -> None:
    if (rank, step) == (2, 3):
        os.kill(os.getpid(), int(os.environ["END_BY"]))


def _rank_main(work: Callable[[], None], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init = f"file://{folder}/rendezvous"
    dist.init_process_group(
        "gloo", init_method=init, rank=rank, world_size=4, timeout=timedelta(seconds=TIMEOUT_S)
    )
    try:
        work()
    except PeerLost as error:
        (folder / f"{rank}.error").write_text(str(error))
    os._exit(0)


def errors_of(work: Callable[[], None], end_by: signal.Signals, folder: Path) -> list[str]:
    """Run four ranks, one of which ends itself, and return what the others said."""
    os.environ["END_BY"] = str(int(end_by))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank_main, args=(work, rank, folder)) for rank in range(4)]
    for process in processes:
        process.start()
    stop = time.monotonic() + TIMEOUT_S + 15
    for rank in (0, 1, 3):
        processes[rank].join(max(0.0, stop - time.monotonic()))
    late = [rank for rank in (0, 1, 3) if processes[rank].is_alive()]
    for process in processes:
        process.kill()
        process.join()
    assert not late, f"ranks {late} hang"
    return [(folder / f"{rank}.error").read_text() for rank in (0, 1, 3)]


@pytest.mark.parametrize(
    ("work", "end_by"),
    [
        (attend, signal.SIGKILL),
        (attend, signal.SIGSTOP),
        (exchange, signal.SIGKILL),
        (other_peoples_messages, signal.SIGKILL),
    ],
)
def test_the_others_name_the_lost_rank(
    work: Callable[[], None], end_by: signal.Signals, tmp_path: Path
) -> None:
    for error in errors_of(work, end_by, tmp_path):
        assert error.startswith("rank 2 of 4 died, or cannot be reached any more: ")
        assert "start again to go on from the last checkpoint" in error


def test_our_own_mistakes_are_not_blamed_on_a_peer() -> None:
    groups = make_groups()
    with pytest.raises(RuntimeError, match="must match the size"), groups.naming_the_lost():
        torch.zeros(3) + torch.zeros(4)
