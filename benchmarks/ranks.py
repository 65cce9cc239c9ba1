"""Run a function on ranks on two nodes: one forked process and one thread each, gloo through a file."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.nodes import Nodes

_PR_SET_PDEATHSIG = 1


class RanksFailed(RuntimeError):
    """A rank raised, died or did not end in time."""


def run_ranks(
    function: Callable[..., Any], nodes: Nodes, num_ranks: int, *args: Any, timeout_s: float = 600.0
) -> list[Any]:
    """Call ``function(rank, *args)`` on every rank of a fresh world; return the results in order of ranks.

    The first half of the ranks is on the first node. Call it before torch has started threads in this
    process: ``torch.set_num_threads(1)`` at the start of a program sees to that.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder = Path(name)
        context = multiprocessing.get_context("fork")
        processes: list[BaseProcess] = [
            context.Process(target=_main, args=(function, rank, num_ranks, args, nodes, folder, timeout_s))
            for rank in range(num_ranks)
        ]
        try:
            for process in processes:
                process.start()
            _wait(processes, time.monotonic() + timeout_s)
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
        _raise_problems(processes, folder, timeout_s)
        return [torch.load(folder / f"{rank}.result", weights_only=False) for rank in range(num_ranks)]


def _wait(processes: Sequence[BaseProcess], end: float) -> None:
    """Return when all have ended, one has failed, or time is up."""
    while any(process.is_alive() for process in processes) and time.monotonic() < end:
        if any(process.exitcode for process in processes):
            time.sleep(0.5)  # the others may have something to say about it
            return
        time.sleep(0.01)


def _raise_problems(processes: Sequence[BaseProcess], folder: Path, timeout_s: float) -> None:
    said = [path.read_text() for path in sorted(folder.glob("*.error"))]
    silent = [
        f"rank {rank} ended with {process.exitcode}"
        if process.exitcode != -signal.SIGKILL
        else f"rank {rank} was killed"
        for rank, process in enumerate(processes)
        if process.exitcode and not (folder / f"{rank}.error").exists()
    ]
    if said or silent:
        raise RanksFailed("\n".join([*said, *silent, f"timeout_s={timeout_s}"]))


def _main(
    function: Callable[..., Any],
    rank: int,
    num_ranks: int,
    args: tuple[Any, ...],
    nodes: Nodes,
    folder: Path,
    timeout_s: float,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(1)
    try:
        nodes.nodes[nodes.node_of(rank, num_ranks)].enter()
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(seconds=timeout_s),
        )
        torch.save(function(rank, *args), folder / f"{rank}.result")
        dist.barrier()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        (folder / f"{rank}.error").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        os._exit(1)
    os._exit(0)
