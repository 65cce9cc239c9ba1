"""What mmsp_gpu counts without a GPU is what a real run has alive; all ranks on one device equal one call."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.heads import attention_peak
from benchmarks.gpu.layer import all_ranks, make_layer, single_call
from benchmarks.gpu.longest import Budget, search, solve
from benchmarks.gpu.meter import FakeMeter, flash_workspace
from benchmarks.gpu.models import LLAMA_8B, TINY
from benchmarks.gpu.steps import Run, Switches, build, measure, step
from benchmarks.live_bytes import LiveBytes
from longvila.parallel import HostMemory

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
BASE = Switches(ours=True, chunked_loss=True)
SWITCHES = [
    Switches(),
    BASE,
    replace(BASE, checkpointing=False),
    replace(BASE, tiles=3),
    replace(BASE, keep=False, head_groups=2),
]
RUNS = [
    Run(TINY, 200, SWITCHES[0], 2),
    *(Run(TINY, 200, one, 2, degrees) for one in SWITCHES[1:] for degrees in ((1, 1), (2, 1), (1, 2))),
]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("number", range(len(RUNS)))
def test_fake_tensors_have_the_peak_of_real_ones(number: int, lora: bool) -> None:
    run = replace(RUNS[number], lora=lora)
    meter = LiveBytes(inside=flash_workspace)
    with meter:
        model = build(run, CPU)
        before = meter.now
        step(model, run, HostMemory())
    fake = measure(run, FakeMeter())
    assert fake is not None
    assert fake.before_bytes == before
    if run.switches.ours:
        assert fake.device_bytes == meter.peak
    else:  # torch's own attention is taken apart differently
        assert fake.device_bytes == pytest.approx(meter.peak, rel=0.06)


def test_attentions_backward_pass_counts_what_its_kernel_allocates() -> None:
    """FlashAttention-2: dq in float32, dk and dv of every query head."""
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    q, k = torch.empty(1, 8, 5, 16, dtype=torch.bfloat16), torch.empty(1, 2, 7, 16, dtype=torch.bfloat16)
    assert flash_workspace(backward, (q, q, k, k)) == 8 * 5 * 16 * 4 + 2 * 8 * 7 * 16 * 2
    assert flash_workspace(backward, (q, q, q, q)) == 8 * 5 * 16 * 4
    assert flash_workspace(torch.ops.aten.add.Tensor, (q, q)) == 0


def peak_of(switches: Switches, layers: int = 2) -> float:
    """GiB beside the weights of one rank's share of 256k tokens over 8 ranks, 8B-shaped."""
    fake = measure(Run(LLAMA_8B, 1 << 18, switches, layers, (8, 1)), FakeMeter())
    assert fake is not None
    return (fake.device_bytes - fake.before_bytes) / 2**30


@pytest.mark.parametrize("switches", [Switches(), Switches(chunked_loss=True, alst=True, offload=True)])
def test_peers_are_charged_no_mask(switches: Switches) -> None:
    """Of fake tensors transformers would make one of t x t, which no real run has: memory is linear in t."""
    short, long = (measure(Run(TINY, tokens, switches, 2), FakeMeter()) for tokens in (1 << 15, 1 << 16))
    assert short is not None
    assert long is not None
    assert long.device_bytes < 2.1 * short.device_bytes


def test_every_switch_lowers_the_peak() -> None:
    ladder = [
        replace(BASE, checkpointing=False),
        replace(BASE, keep=False),
        replace(BASE, keep=False, tiles=8),
        replace(BASE, keep=False, tiles=8, offload=True),
    ]
    peaks = [peak_of(switches, layers=3) for switches in ladder]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == len(peaks)


def test_head_groups_shrink_attentions_buffers() -> None:
    """Of attention alone: in a whole layer, where all else is tiled, other tensors are the peak."""
    whole, grouped = (attention_bytes(groups) for groups in (1, 4))
    assert grouped < 0.85 * whole


def attention_bytes(head_groups: int) -> int:
    found = attention_peak(FakeMeter(), LLAMA_8B, 1 << 16, (4, 2), head_groups=head_groups)
    assert found is not None
    return found.device_bytes - found.before_bytes


def test_layers_on_the_host_cost_nothing_more_on_the_device() -> None:
    switches = replace(BASE, tiles=8, offload=True)
    assert peak_of(switches, layers=2) == pytest.approx(peak_of(switches, layers=4), rel=1e-3)


def test_the_longest_row_is_found() -> None:
    budget = Budget(10_000, 64, 1 << 20, tolerance=0.0)
    assert search(lambda tokens: 100 + 7 * tokens <= 10_000, budget) == 1408
    assert solve(lambda tokens: 100 + 7 * tokens, budget) == 1408
    assert search(lambda tokens: False, budget) == 0


@pytest.mark.parametrize("degrees", [(2, 2), (1, 4), (4, 1)])
def test_all_ranks_on_one_device_equal_one_call(degrees: tuple[int, int]) -> None:
    layer = make_layer(64, 8, 2, 16, CPU)
    exact = layer._replace(**{name: x.double() for name, x in layer._asdict().items()})
    for found, wanted in zip(all_ranks(exact, degrees), single_call(exact), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_nothing_but_torch_and_transformers_is_needed() -> None:
    code = (
        "import sys, benchmarks.mmsp_gpu\n"
        "bad = {'prefect', 'deepspeed', 'webdataset', 'pyarrow', 'duckdb', 'av', 'peft'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(bad)}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
