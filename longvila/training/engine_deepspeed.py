"""DeepSpeed's ZeRO 0–3, on CPU (gloo) and CUDA. The only module that imports deepspeed.

DeepSpeed is told nothing of sequence parallelism: it sees plain data parallelism over the whole world,
because the scale of its gradients would otherwise depend on the ZeRO stage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from longvila.errors import InputError
from longvila.training.precision import buffers_kept
from longvila.training.stages import ParameterGroup

logger = logging.getLogger(__name__)

_TAG = "deepspeed"
_LARGEST_BUCKET = 500_000_000  # numbers


class DeepSpeedEngine:
    """A ZeRO-sharded model. ``torch.distributed`` must be initialised."""

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[ParameterGroup],
        *,
        betas: tuple[float, float],
        grad_clip: float,
        dtype: torch.dtype,
        zero_stage: int,
    ) -> None:
        _prepare_deepspeed()
        optimizer = torch.optim.AdamW([dict(group) for group in groups], betas=betas, fused=True)
        # ZeRO 0 in float32 never tells the gradient norm; there we clip, between reduction and update.
        self._clips_here = zero_stage == 0
        self._grad_clip = grad_clip
        self._norm: Tensor | None = None
        self._trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if self._clips_here:
            optimizer.register_step_pre_hook(self._clip)
        config = deepspeed_config(
            zero_stage,
            dtype=dtype,
            grad_clip=0.0 if self._clips_here else grad_clip,
            num_trained=sum(parameter.numel() for parameter in self._trained),
        )
        with buffers_kept(module):
            self._engine: Any = deepspeed.initialize(model=module, optimizer=optimizer, config=config)[0]

    @property
    def module(self) -> nn.Module:
        """DeepSpeed's engine: calling it runs the module with all hooks in place."""
        return self._engine

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro-step; nothing is divided by the number of micro-steps."""
        del last  # step() is the boundary (managed_gradient_accumulation is off)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rates: Sequence[float]) -> float:
        """Reduce what is left to reduce, clip, update; returns the global norm before clipping."""
        for group, rate in zip(self._engine.optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = rate
        self._engine.step()
        norm = self._norm if self._clips_here else self._engine.get_global_grad_norm()
        assert norm is not None
        return float(norm)

    def save(self, folder: Path) -> None:
        """Write this run's shards of weights and optimizer state (collective)."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Read what ``save`` wrote, on as many processes as wrote it (collective)."""
        if not (folder / _TAG).is_dir():
            raise InputError(
                f"{folder} holds no DeepSpeed checkpoint. It was written by another engine: "
                "set engine to that one, or start in a new run folder"
            )
        with buffers_kept(self._engine.module):
            self._engine.load_checkpoint(
                str(folder), tag=_TAG, load_module_strict=False, load_lr_scheduler_states=False
            )

    def full_state(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole and on the CPU, on rank 0; empty elsewhere (collective)."""
        module: nn.Module = self._engine.module
        first = torch.distributed.get_rank() == 0
        state: dict[str, Tensor] = {}
        for prefix, owner in module.named_modules():
            parameters = list(owner.parameters(recurse=False))
            with deepspeed.zero.GatheredParameters(parameters, enabled=_is_partitioned(parameters)):
                if first:
                    dotted = f"{prefix}." if prefix else ""
                    own = {
                        **dict(owner.named_parameters(recurse=False)),
                        **dict(owner.named_buffers(recurse=False)),
                    }
                    persistent = own.keys() - owner._non_persistent_buffers_set
                    state.update({dotted + n: own[n].detach().cpu().clone() for n in sorted(persistent)})
        return state

    def _clip(self, *_: object) -> None:
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        self._norm = nn.utils.get_total_norm(gradients)
        if self._grad_clip > 0:
            nn.utils.clip_grads_with_norm_(self._trained, self._grad_clip, self._norm)


def deepspeed_config(
    zero_stage: int, *, dtype: torch.dtype, grad_clip: float, num_trained: int
) -> dict[str, Any]:
    """DeepSpeed's configuration for our way of using it: the loop owns micro-steps and schedule.

    Buckets are not larger than what trains; DeepSpeed would allocate all of their default size.
    """
    bucket = min(num_trained, _LARGEST_BUCKET)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": grad_clip,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": zero_stage,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "overlap_comm": torch.cuda.is_available(),
        },
    }
    if dtype == torch.bfloat16:
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def _prepare_deepspeed() -> None:
    """Keep DeepSpeed quiet, and on CPU keep it from compiling its shared-memory reduction.

    That compilation takes minutes and needs a compiler; gloo does the same work. Naming the table of usable
    operations before it is asked for also spares the probes that would fill it.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if not torch.cuda.is_available():
        deepspeed.ops.__dict__["__compatible_ops__"] = {"deepspeed_shm_comm": False}


def _is_partitioned(parameters: Sequence[nn.Parameter]) -> bool:
    return any(hasattr(parameter, "ds_id") for parameter in parameters)
