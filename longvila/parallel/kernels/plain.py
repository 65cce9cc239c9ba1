"""Attention written out, for what no other kernel takes."""

# B regions of one shape, t queries, s keys, h query heads, g KV heads, D head size.

from __future__ import annotations

import torch
from torch import Tensor

from longvila.parallel.kernels.interface import Gradients, Inputs, Kernel


class Plain(Kernel):
    """Any device and float dtype. Memory grows with queries × keys of a region."""

    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        scores = _scores(x)
        lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - lse[..., None])
        out = torch.einsum("bgrts,bsgd->btgrd", weights.to(x.v.dtype), x.v)
        return out.reshape(x.q.shape), lse.flatten(1, 2)

    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        groups = (x.k.shape[2], -1)
        dout_g, out_g, q_g = (tensor.unflatten(2, groups) for tensor in (dout, out, x.q))
        weights = torch.exp(_scores(x) - lse.unflatten(1, groups)[..., None])
        dweights = torch.einsum("btgrd,bsgd->bgrts", dout_g, x.v).to(weights.dtype)
        delta = (dout_g * out_g).sum(-1, dtype=weights.dtype).permute(0, 2, 3, 1)
        dscores = (weights * (dweights - delta[..., None]) * x.scale).to(x.q.dtype)
        return Gradients(
            dq=torch.einsum("bgrts,bsgd->btgrd", dscores, x.k).reshape(x.q.shape),
            dk=torch.einsum("bgrts,btgrd->bsgd", dscores, q_g),
            dv=torch.einsum("bgrts,btgrd->bsgd", weights.to(dout.dtype), dout_g),
        )


def _scores(x: Inputs) -> Tensor:
    """Return the masked scores [B, g, h / g, t, s], in float32 at least."""
    scores = torch.einsum("btgrd,bsgd->bgrts", x.q.unflatten(2, (x.k.shape[2], -1)), x.k)
    scores = scores.to(torch.promote_types(x.q.dtype, torch.float32)) * x.scale
    if not (x.is_causal or x.is_band):
        return scores
    return scores.masked_fill(~x.mask.visible(x.q.shape[1], x.k.shape[1], x.q.device), float("-inf"))
