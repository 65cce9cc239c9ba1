"""Tiny models in float64, in which nothing rounds to float32 on the way."""

from __future__ import annotations

from torch import Tensor, nn


def with_exact_norms(model: nn.Module) -> nn.Module:
    """Put torch's RMSNorm in the place of transformers' own, which rounds to float32."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "Qwen2RMSNorm":
                weight, eps = child.get_parameter("weight"), float(child.variance_epsilon)  # pyright: ignore[reportArgumentType]
                norm = nn.RMSNorm(len(weight), eps=eps, dtype=weight.dtype)
                norm.weight = nn.Parameter(weight.detach().clone())
                setattr(module, name, norm)
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of every parameter that has one."""
    return {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def largest_error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> tuple[float, str]:
    """Return the largest error of any parameter's gradient, and its name.

    Errors are relative to the gradient's own largest element. Gradients that are zero but for rounding (of
    attention's key biases, to which a softmax is blind) are measured by the largest of the whole model.
    """
    assert found.keys() == wanted.keys()
    floor = 1e-6 * max(float(gradient.abs().max()) for gradient in wanted.values())
    return max(
        (float((found[name] - gradient).abs().max()) / max(float(gradient.abs().max()), floor), name)
        for name, gradient in wanted.items()
    )
