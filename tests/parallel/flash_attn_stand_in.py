"""What stands in for the packages of flash-attn on a machine without a GPU.

The functions have the packages' own signatures: names, order and defaults of all arguments. They compute with
attention written out, in whatever dtype they are given, and with windows as each version defines them. They
refuse what the CUDA code refuses.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor


def visible_in_2(queries: int, keys: int, causal: bool, left: int, right: int) -> Tensor:
    """Which keys version 2 shows to each query: -1 is no limit, and ``keys`` takes the place of it."""
    left = -1 if left >= keys else left
    right = -1 if right >= keys else right
    right = 0 if causal else right
    if left < 0 and right < 0:
        return torch.ones(queries, keys, dtype=torch.bool)
    return between(queries, keys, keys if left < 0 else left, keys if right < 0 else right)


def visible_in_3(queries: int, keys: int, causal: bool, left: int, right: int) -> Tensor:
    """Which keys version 3 shows to each query: -1 is no limit, and one that is enough takes its place."""
    left = -1 if left >= keys - 1 else left
    right = -1 if right >= queries - 1 else right
    right = 0 if causal else right
    return between(queries, keys, keys - 1 if left < 0 else left, queries - 1 if right < 0 else right)


def visible_in_4(queries: int, keys: int, causal: bool, left: int | None, right: int | None) -> Tensor:
    """Which keys version 4 shows to each query: None is no limit, and nor is a window of negative width."""
    right = 0 if causal else right
    if left is not None and right is not None and left + right < 0:
        left = right = None
    left, right = (queries + keys if side is None else side for side in (left, right))
    return between(queries, keys, left, right)


def between(queries: int, keys: int, left: int, right: int) -> Tensor:
    """The keys from ``left`` before to ``right`` after the diagonal that ends at the last query and key."""
    ahead = torch.arange(keys) - torch.arange(queries)[:, None] - (keys - queries)
    return (ahead >= -left) & (ahead <= right)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Sequence-major out and lse [B, h, t]."""
    scores, v = scores_and_values(q, k, v, visible, scale)
    lse = scores.logsumexp(-1)
    return ((scores - lse[..., None]).exp() @ v).transpose(1, 2).contiguous(), lse


def gradients(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, visible: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sequence-major dq, dk, dv with an outside out and lse."""
    assert lse.shape == (q.shape[0], q.shape[2], q.shape[1])
    assert lse.is_contiguous()
    scores, values = scores_and_values(q, k, v, visible, scale)
    weights = (scores - lse[..., None]).exp()
    dout_bhtd = dout.transpose(1, 2)
    delta = (dout * out).sum(-1).transpose(1, 2)
    dscores = weights * (dout_bhtd @ values.mT - delta[..., None]) * scale
    served = q.shape[2] // k.shape[2]
    dq = dscores @ k.transpose(1, 2).repeat_interleave(served, 1)
    dk, dv = dscores.mT @ q.transpose(1, 2), weights.mT @ dout_bhtd
    dk, dv = (grad.unflatten(1, (k.shape[2], served)).sum(2).transpose(1, 2) for grad in (dk, dv))
    return dq.transpose(1, 2), dk, dv


def scores_and_values(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Masked scores [B, h, t, s] and values [B, h, s, D]."""
    assert q.shape[-1] % 8 == 0, "the head size must be a multiple of 8"
    assert q.shape[-1] <= 256
    assert all(tensor.stride(-1) == 1 for tensor in (q, k, v)), "the last dimension must be contiguous"
    assert k.shape == v.shape
    assert visible.any(1).all(), "a query without a key"
    k, v = (tensor.transpose(1, 2).repeat_interleave(q.shape[2] // k.shape[2], 1) for tensor in (k, v))
    scores = q.transpose(1, 2) @ k.mT * scale
    return scores.masked_fill(~visible, float("-inf")), v


def write(grads: tuple[Tensor, Tensor, Tensor], places: tuple[Tensor, Tensor, Tensor]) -> None:
    """Write gradients where the caller wants them."""
    for grad, place in zip(grads, places, strict=True):
        assert place.stride(-1) == 1
        assert place.shape == grad.shape
        place.copy_(grad)


def forward_2(
    q,
    k,
    v,
    dropout_p,
    softmax_scale,
    causal,
    window_size_left,
    window_size_right,
    softcap,
    alibi_slopes,
    return_softmax,
):
    assert (dropout_p, softcap, alibi_slopes, return_softmax) == (0.0, 0.0, None, False)
    visible = visible_in_2(q.shape[1], k.shape[1], causal, window_size_left, window_size_right)
    return *attend(q, k, v, visible, softmax_scale), torch.empty(0), torch.empty(2)


def backward_2(
    dout,
    q,
    k,
    v,
    out,
    softmax_lse,
    dq,
    dk,
    dv,
    dropout_p,
    softmax_scale,
    causal,
    window_size_left,
    window_size_right,
    softcap,
    alibi_slopes,
    deterministic,
    rng_state=None,
):
    assert (dropout_p, softcap, alibi_slopes, deterministic) == (0.0, 0.0, None, False)
    visible = visible_in_2(q.shape[1], k.shape[1], causal, window_size_left, window_size_right)
    write(gradients(dout, q, k, v, out, softmax_lse, visible, softmax_scale), (dq, dk, dv))
    return torch.empty(0)


def forward_3(
    q,
    k,
    v,
    k_new=None,
    v_new=None,
    qv=None,
    out_=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    cu_seqlens_k_new=None,
    seqused_q=None,
    seqused_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    page_table=None,
    kv_batch_idx=None,
    leftpad_k=None,
    rotary_cos=None,
    rotary_sin=None,
    seqlens_rotary=None,
    q_descale=None,
    k_descale=None,
    v_descale=None,
    softmax_scale=None,
    causal=False,
    window_size_left=-1,
    window_size_right=-1,
    attention_chunk=0,
    softcap=0.0,
    rotary_interleaved=True,
    scheduler_metadata=None,
    num_splits=1,
    pack_gqa=None,
    sm_margin=0,
):
    visible = visible_in_3(q.shape[1], k.shape[1], causal, window_size_left, window_size_right)
    return *attend(q, k, v, visible, softmax_scale), torch.empty(0), torch.empty(0)


def backward_3(
    dout,
    q,
    k,
    v,
    out,
    softmax_lse,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    sequed_q=None,
    sequed_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    dq=None,
    dk=None,
    dv=None,
    softmax_scale=None,
    is_causal=False,
    window_size_left=-1,
    window_size_right=-1,
    softcap=0.0,
    deterministic=False,
    sm_margin=0,
):
    visible = visible_in_3(q.shape[1], k.shape[1], is_causal, window_size_left, window_size_right)
    write(gradients(dout, q, k, v, out, softmax_lse, visible, softmax_scale), (dq, dk, dv))
    return torch.empty(0)


def forward_4(
    q,
    k,
    v,
    qv=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    seqused_q=None,
    seqused_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    min_seqlen_k=None,
    page_table=None,
    softmax_scale=None,
    causal=False,
    softcap=None,
    window_size_left=None,
    window_size_right=None,
    learnable_sink=None,
    tile_mn=None,
    mma_pv_is_rs=None,
    intra_wg_overlap=None,
    num_threads=384,
    num_splits=1,
    pack_gqa=None,
    _arch=None,
    score_mod=None,
    mask_mod=None,
    block_sparse_tensors=None,
    return_lse=False,
    out=None,
    lse=None,
    aux_tensors=None,
    aux_scalars=None,
    q_descale=None,
    k_descale=None,
    v_descale=None,
    gather_kv_indices=None,
    scheduler_metadata=None,
    seqlen_k_per_split=None,
    disable_scheduler_metadata=False,
):
    visible = visible_in_4(q.shape[1], k.shape[1], causal, window_size_left, window_size_right)
    found, found_lse = attend(q, k, v, visible, softmax_scale)
    return found, found_lse if return_lse else None, None, None


def backward_4(
    q,
    k,
    v,
    out,
    dout,
    lse,
    softmax_scale=None,
    causal=False,
    softcap=0.0,
    window_size_left=None,
    window_size_right=None,
    m_block_size=64,
    n_block_size=128,
    num_threads=256,
    pack_gqa=False,
    num_stages_Q=2,
    num_stages_dO=2,
    SdP_swapAB=False,
    dKV_swapAB=False,
    dQ_swapAB=False,
    AtomLayoutMSdP=2,
    AtomLayoutNdKV=2,
    AtomLayoutMdQ=2,
    V_in_regs=False,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    seqused_q=None,
    seqused_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    deterministic=False,
    dq=None,
    dk=None,
    dv=None,
    score_mod=None,
    score_mod_bwd=None,
    mask_mod=None,
    aux_tensors=None,
    aux_scalars=None,
    block_sparse_tensors=None,
    dlse=None,
    learnable_sink=None,
):
    visible = visible_in_4(q.shape[1], k.shape[1], causal, window_size_left, window_size_right)
    return gradients(dout, q, k, v, out, lse, visible, softmax_scale)


def module(name: str, **functions: object) -> ModuleType:
    """A module with these functions."""
    made = ModuleType(name)
    vars(made).update(functions)
    return made


PACKAGES = {
    "flash_attn_2": module(
        "flash_attn.flash_attn_interface", _flash_attn_forward=forward_2, _flash_attn_backward=backward_2
    ),
    "flash_attn_3": module(
        "flash_attn_interface", _flash_attn_forward=forward_3, _flash_attn_backward=backward_3
    ),
    "flash_attn_4": module(
        "flash_attn.cute.interface", _flash_attn_fwd=forward_4, _flash_attn_bwd=backward_4
    ),
}
"""By the name of the kernel. Put one into ``sys.modules`` under its own name to install it."""
