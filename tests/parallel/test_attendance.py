"""A rank that dies or stops makes the others end with an error that names it: real processes and signals."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from longvila.errors import PeerLost
from longvila.parallel import Layout, make_attend, make_exchange, make_groups, make_plan
from longvila.parallel.attendance import Attendance
from tests.distributed import run_ranks

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


def test_a_frozen_host_of_the_store_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Rank 0 answers neither messages nor the store, which it holds, and whose calls have no deadline."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_with_store_on_0, args=(rank, store, tmp_path)) for rank in range(3)]
    for process in processes:
        process.start()
    stop = time.monotonic() + TIMEOUT_S + 20
    for process in processes[1:]:
        process.join(max(0.0, stop - time.monotonic()))
    late = [rank for rank in (1, 2) if processes[rank].is_alive()]
    for process in processes:
        process.kill()
        process.join()
    assert not late, f"ranks {late} hang"
    for rank in (1, 2):
        assert "the process that holds the rendezvous store" in (tmp_path / f"{rank}.error").read_text()


def _with_store_on_0(rank: int, store: str, folder: Path) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=TIMEOUT_S)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=3, timeout=timeout)
    groups = make_groups(ring_degree=3)
    try:
        for step in range(1000):
            if (rank, step) == (0, 3):
                os.kill(os.getpid(), signal.SIGSTOP)
            groups.world.all_reduce(torch.zeros(8))
    except PeerLost as error:
        (folder / f"{rank}.error").write_text(str(error))
    os._exit(0)


def false_alarms(rank: int) -> tuple[list[str], int]:
    """What is said of failed messages while all are alive, and how many threads two sets of groups take."""
    before = threading.active_count()
    both = [make_groups(ulysses_degree=2), make_groups(ring_degree=2)]
    threads = threading.active_count() - before
    said = []
    if rank == 0:
        for groups in both:
            with pytest.raises(PeerLost) as caught, groups.naming_the_lost():
                raise RuntimeError("[c10d] a message failed")
            said.append(str(caught.value))
    both[0].world.barrier()
    return said, threads


def test_a_false_alarm_blames_nobody_and_is_no_verdict() -> None:
    (said, threads), (_, others) = run_ranks(false_alarms, 2)
    assert [text.partition(":")[0] for text in said] == ["messages failed, but all 2 ranks are alive"] * 2
    assert threads == others == 1


@pytest.mark.parametrize(
    "problem",
    [
        "The size of tensor a (3) must match the size of tensor b (4)",
        "no answer from the feature server: timeout after 3 s",
        "unknown peer review label",
        "read error in shard 7: bad magic",
        "SocketDataset is empty",
    ],
)
def test_our_own_mistakes_are_not_blamed_on_a_peer(problem: str) -> None:
    attendance = Attendance(dist.HashStore(), rank=0, world_size=2)
    with pytest.raises(RuntimeError, match=re.escape(problem)) as caught, attendance.naming_the_lost():
        raise RuntimeError(problem)
    assert not isinstance(caught.value, PeerLost)
