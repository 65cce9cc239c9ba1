"""The plain engine: one process, torch's own AdamW. The reference that the others are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from longvila.errors import InputError
from longvila.training.precision import cast_parameters
from longvila.training.stages import ParameterGroup

_FILE = "torch_engine.pt"


class TorchEngine:
    """One process. In bfloat16 the optimizer works on float32 copies, and gradients are added in float32."""

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[ParameterGroup],
        *,
        betas: tuple[float, float],
        grad_clip: float,
        dtype: torch.dtype,
    ) -> None:
        self._module = module
        self._grad_clip = grad_clip
        self._trained = [parameter for group in groups for parameter in group["params"]]
        self._masters = self._trained
        if dtype != torch.float32:
            self._masters = [nn.Parameter(p.detach().float().clone()) for p in self._trained]
            cast_parameters(module, dtype)
        self._optimizer = torch.optim.AdamW(self._master_groups(groups), betas=betas, fused=True)

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        return self._module

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro-step."""
        del last
        loss.backward()
        if self._masters is not self._trained:
            self._move_gradients()

    def step(self, learning_rates: Sequence[float]) -> float:
        """Clip, update, clear the gradients; returns the norm before clipping."""
        for group, rate in zip(self._optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = rate
        with_gradient = [p for p in self._masters if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
        if self._grad_clip > 0:
            nn.utils.clip_grads_with_norm_(with_gradient, self._grad_clip, norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._masters is not self._trained:
            with torch.no_grad():
                for parameter, master in zip(self._trained, self._masters, strict=True):
                    parameter.copy_(master)
        return float(norm)

    def save(self, folder: Path) -> None:
        """Write the trained weights (in float32) and the optimizer's state."""
        state = {"weights": [p.detach() for p in self._masters], "optimizer": self._optimizer.state_dict()}
        torch.save(state, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Read what ``save`` wrote."""
        path = folder / _FILE
        if not path.is_file():
            raise InputError(
                f"{folder} holds no checkpoint of the torch engine. It was written by another engine: "
                "set engine to that one, or start in a new run folder"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for master, value in zip(self._masters, state["weights"], strict=True):
                master.copy_(value)
            for parameter, master in zip(self._trained, self._masters, strict=True):
                parameter.copy_(master)
        self._optimizer.load_state_dict(state["optimizer"])

    def full_state(self) -> dict[str, Tensor]:
        """All parameters and buffers on the CPU."""
        return {name: value.detach().cpu() for name, value in self._module.state_dict().items()}

    def _master_groups(self, groups: Sequence[ParameterGroup]) -> list[dict[str, object]]:
        masters = iter(self._masters)
        return [{**group, "params": [next(masters) for _ in group["params"]]} for group in groups]

    def _move_gradients(self) -> None:
        for parameter, master in zip(self._trained, self._masters, strict=True):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None
