"""Tiny models in float64, in which nothing rounds to float32 on the way."""

from __future__ import annotations

from torch import Tensor, nn

from longvila.parallel import HostMemory
from longvila.parallel.memory.host import Waiting


class ExactNorm(nn.Module):
    """RMSNorm in the precision of its input; ``offset`` is added to the weight, as Gemma does."""

    def __init__(self, weight: Tensor, eps: float, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self._eps, self._offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], self.weight + self._offset, self._eps)


def with_exact_norms(model: nn.Module) -> nn.Module:
    """Put exact norms in the place of transformers' own, which round to float32."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm") and not isinstance(child, nn.RMSNorm):
                eps: float = getattr(child, "variance_epsilon", None) or child.eps  # pyright: ignore
                offset = 1.0 if type(child).__name__.startswith("Gemma") else 0.0
                setattr(module, name, ExactNorm(child.get_parameter("weight"), eps, offset))
    return model


class CloningHost(HostMemory):
    """A host apart from the device, which the CPU is not: what waits is a copy, and comes back as one."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def put(self, tensor: Tensor) -> Waiting:
        self.shapes.append(tuple(tensor.shape))
        return Waiting(tensor.clone(), tensor.device)

    def get(self, waiting: Waiting) -> Tensor:
        return waiting.copy.clone()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of every parameter that has one."""
    return {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def largest_error(
    found: dict[str, Tensor], wanted: dict[str, Tensor], *, floor_share: float = 1e-6
) -> tuple[float, str]:
    """Return the largest error of any parameter's gradient, and its name.

    Errors are relative to the gradient's own largest element. Gradients that are zero but for rounding (of
    attention's key biases, to which a softmax is blind) are measured by a share of the whole model's largest.
    """
    assert found.keys() == wanted.keys()
    floor = floor_share * max(float(gradient.abs().max()) for gradient in wanted.values())
    return max(
        (float((found[name] - gradient).abs().max()) / max(float(gradient.abs().max()), floor), name)
        for name, gradient in wanted.items()
    )
