"""One attention layer with all ranks of a layout on one device, and with one flash call."""

# B = 1 row, T tokens of it, t of a rank; H query heads, h KV heads, D head size.

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.parallel import Groups, Layout
from longvila.parallel.attention import make_parts
from longvila.parallel.function import Heads, attend, gradients
from longvila.parallel.heads import HeadPlan
from longvila.parallel.in_process import run_in_process
from longvila.parallel.kernels import Mask, pick_kernel
from longvila.parallel.regions import Kind


class Layer(NamedTuple):
    """Inputs of a layer and the gradient of its output, all tokens: [T, H, D], KV [T, h, D]."""

    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return self.q.shape[2] ** -0.5


class Results(NamedTuple):
    """The output and the gradients, all tokens."""

    out: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor


def make_layer(tokens: int, heads: int, kv_heads: int, head_size: int, device: torch.device) -> Layer:
    """Draw the inputs in bfloat16."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(tokens, count, head_size) for count in (heads, kv_heads, kv_heads, heads)]
    drawn = (torch.randn(shape, device=device, generator=generator) for shape in shapes)
    return Layer(*(x.bfloat16() for x in drawn))


def single_call(layer: Layer, kernel_name: str = "auto") -> Results:
    """Attend with one causal kernel call, and one backward."""
    heads = HeadPlan(layer.q.shape[1], layer.k.shape[1], 1)
    kernel = pick_kernel(layer.q, heads.uniform(0), name=kernel_name)
    q, k, v, dout = (x[None] for x in layer)
    causal = Mask(Kind.CAUSAL)
    out, lse = kernel.forward(q, k, v, mask=causal, scale=layer.scale)
    grads = kernel.backward(dout, q, k, v, out, lse, mask=causal, scale=layer.scale)
    return Results(out[0], *(grad[0] for grad in grads))


def all_ranks(layer: Layer, degrees: tuple[int, int], kernel_name: str = "auto") -> Results:
    """Attend as all ranks of a layout do, each in a thread of this process, messages as copies."""
    layout = Layout((len(layer.q),), *degrees)
    assert layout.padded_length == layout.num_tokens, "padding would make it different work"

    def on_rank(groups: Groups) -> Results:
        mine = torch.from_numpy(layout.positions_of(groups.sp_rank)).to(layer.q.device)
        q, k, v, dout = (x.index_select(0, mine) for x in layer)
        parts = make_parts(layout, groups, q, k.shape[1], scale=layer.scale, kernel=kernel_name)
        out, saved = attend(Heads(q, k, v), None, parts)
        grads, _ = gradients(dout, None, parts, saved)
        return Results(out, *grads)

    results = run_in_process(on_rank, ulysses_degree=degrees[0], ring_degree=degrees[1])
    positions = [torch.from_numpy(layout.positions_of(rank)) for rank in range(layout.sp_size)]
    order = torch.cat(positions).argsort().to(layer.q.device)
    return Results(*(torch.cat(parts).index_select(0, order) for parts in zip(*results, strict=True)))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long ``work`` keeps the device busy; of a CPU, on which threads run at once, CPU seconds."""
    if device.type == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
