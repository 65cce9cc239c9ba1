"""Run a function on several ranks: forked processes, one thread each, gloo through a file.

Forking after the imports makes a start take milliseconds, where spawning takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


class RankFailed(AssertionError):
    """A rank raised, died or did not end in time; the message holds what each of them said."""


def run_ranks(fn: Callable[..., Any], world_size: int, *args: Any, timeout_s: float = 60.0) -> list[Any]:
    """Call ``fn(rank, *args)`` on every rank of a fresh world and return the results in the order of ranks.

    Inside, torch.distributed is initialised with gloo. Results may hold tensors. One call costs about 0.1 s,
    so put many cases into one.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(
                target=_rank_main, args=(fn, rank, world_size, args, Path(folder), timeout_s), daemon=True
            )
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        problems = _wait(processes, Path(folder), timeout_s)
        if problems:
            raise RankFailed("\n".join(problems))
        return [torch.load(Path(folder) / f"{rank}.result", weights_only=False) for rank in range(world_size)]


def _wait(processes: Sequence[ForkProcess], folder: Path, timeout_s: float) -> list[str]:
    """Wait for all; at the first failure or at the end of time kill the rest. Return what went wrong."""
    stop = time.monotonic() + timeout_s
    while any(process.is_alive() for process in processes):
        if time.monotonic() > stop or any(process.exitcode for process in processes):
            time.sleep(0.3)  # let the others write what they have to say
            break
        time.sleep(0.005)
    died, said, late = [], [], []
    for rank, process in enumerate(processes):
        error = folder / f"{rank}.error"
        if process.is_alive():
            late.append(f"rank {rank} was still running and was killed (timeout_s={timeout_s})")
            process.kill()
        elif error.exists():
            said.append(error.read_text())
        elif process.exitcode:
            died.append(f"rank {rank} ended with exit code {process.exitcode}")
        process.join()
    return died + said + late


def _rank_main(
    fn: Callable[..., Any], rank: int, world_size: int, args: tuple[Any, ...], folder: Path, timeout_s: float
) -> None:
    torch.set_num_threads(1)  # a forked OpenMP pool of more threads would hang
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
        )
        torch.save(fn(rank, *args), folder / f"{rank}.result")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        (folder / f"{rank}.error").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        os._exit(1)
    os._exit(0)
