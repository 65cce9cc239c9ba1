"""Two nodes are made of namespaces, and nothing is left of them, however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from benchmarks.nodes import PREFIX, Node, Nodes, left_behind, two_nodes
from benchmarks.ranks import RanksFailed, run_ranks

NAMESPACES = Path("/run/netns")
ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import signal, sys, time
from benchmarks.nodes import two_nodes
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started to ignore it
with two_nodes(100) as nodes:
    print(nodes.nodes[0].namespace, flush=True)
    time.sleep(60)
"""


def own_namespaces(pid: int | None = None) -> list[str]:
    names = [path.name for path in NAMESPACES.iterdir()] if NAMESPACES.is_dir() else []
    return [name for name in names if name.startswith(f"{PREFIX}-{pid or os.getpid()}-")]


@pytest.fixture
def can_make_nodes() -> None:
    with two_nodes(100) as nodes:
        if nodes.problem is not None:
            pytest.skip(f"no network namespaces here: {nodes.problem}")


def send_to(rank: int, nodes: Nodes) -> tuple[int, str]:
    """Send a megabyte to the other node; return what the link counted and its name."""
    node = nodes.nodes[nodes.node_of(rank, 4)]
    payload, before = torch.full((2**20,), rank, dtype=torch.uint8), node.sent_bytes()
    received = torch.empty_like(payload)
    dist.barrier()
    for work in [dist.irecv(received, (rank + 2) % 4), dist.isend(payload, (rank + 2) % 4)]:
        assert work is not None
        work.wait()
    dist.barrier()
    assert bool((received == (rank + 2) % 4).all())
    return node.sent_bytes() - before, node.interface


@pytest.mark.usefixtures("can_make_nodes")
def test_bytes_between_nodes_cross_the_link_and_are_counted() -> None:
    with two_nodes(1000) as nodes:
        assert len(own_namespaces()) == 2
        for sent_bytes, _ in run_ranks(send_to, nodes, 4, nodes, timeout_s=30):
            assert 2 * 2**20 < sent_bytes < 2.3 * 2**20  # two ranks of a node, and headers
    assert own_namespaces() == []


def fail_on_rank(rank: int) -> None:
    if rank == 3:
        raise ValueError("this rank gives up")
    dist.barrier()


@pytest.mark.usefixtures("can_make_nodes")
def test_nothing_is_left_after_a_failure() -> None:
    with pytest.raises(RanksFailed, match="this rank gives up"), two_nodes(100) as nodes:
        run_ranks(fail_on_rank, nodes, 4, timeout_s=30)
    with pytest.raises(KeyboardInterrupt), two_nodes(100):
        raise KeyboardInterrupt
    assert own_namespaces() == []


@pytest.mark.usefixtures("can_make_nodes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert name in own_namespaces(process.pid)
    process.send_signal(number)
    process.wait(timeout=20)
    if number == signal.SIGKILL:  # it had no chance; the next run cleans up
        assert name in left_behind()
        with two_nodes(100):
            pass
    assert own_namespaces(process.pid) == []


def where_on_rank(rank: int) -> str:
    return os.environ["GLOO_SOCKET_IFNAME"]


def test_without_namespaces_all_ranks_talk_over_loopback() -> None:
    own = Node(None, "lo")
    nodes = Nodes((own, own), 100, problem="not root")
    assert [nodes.node_of(rank, 4) for rank in range(4)] == [0, 0, 1, 1]
    assert not nodes.have_link
    assert run_ranks(where_on_rank, nodes, 4, timeout_s=30) == ["lo"] * 4
