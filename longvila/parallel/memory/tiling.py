"""Per-token parts of a decoder, tile by tile.

An MLP makes several tensors four times as wide as its input, a norm makes some in float32. Both treat every
token alike, so their tokens go through in tiles, each checkpointed: the wide tensors exist for one tile at a
time. Values and gradients do not change; these parts run forward once more.

Tiles are views of the input, and results and gradients go straight to their place in one tensor each:
slicing and joining by autograd would hold several more of the full size.
"""

# B rows, t tokens held by this rank.

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from longvila.errors import ConfigError
from longvila.parallel.decoders import check_decoder

if TYPE_CHECKING:
    _Module = nn.Module
else:
    _Module = object

MLP_NAMES = ("mlp", "feed_forward", "ffn")


def tile_tokens(model: PreTrainedModel, tiles: int) -> None:
    """Let the MLPs and norms of a Hugging Face decoder work in ``tiles`` tiles of tokens.

    The number is the same on all ranks, however many tokens they hold, because sharded weights (ZeRO-3) are
    gathered once per tile. Names of parameters stay. A part whose tokens are not axis 1 of its one tensor
    stays whole. Raises ConfigError for a model without any, or whose parts mix tokens.
    """
    check_decoder(model)
    if tiles < 1:
        raise ConfigError(f"mlp_tiles={tiles} must be at least 1, or 0 to leave the MLPs whole.")
    parts = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in MLP_NAMES or type(module).__name__.endswith("Norm")
    ]
    for part in parts:
        _tile(part, tiles)
    if not parts:
        raise ConfigError(f"{type(model).__name__} has no MLP that can be tiled. Set mlp_tiles=0.")


_eager = torch.compiler.disable(reason="tiles are views and are written in place")
_eager_but_for_calls = torch.compiler.disable(recursive=False, reason="what a tile runs may be compiled")


class _Tiled(_Module):
    """Mixed into the class of a module: its forward in ``tiles`` pieces along axis 1, that of tokens."""

    tiles: int

    @_eager_but_for_calls
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the tokens of ``x`` [B, t, …] in tiles."""
        run = super().forward
        if x.dim() < 3 or any(isinstance(other, Tensor) for other in (*args, *kwargs.values())):
            return run(x, *args, **kwargs)  # tokens are not axis 1, or of more than one tensor
        if torch.is_grad_enabled() and self.training:
            run = partial(checkpoint, run, use_reentrant=False)
        size = x.shape[1]
        cuts = [size * i // self.tiles for i in range(self.tiles + 1)]
        room = _Room()
        pieces = _split(x, cuts, room)
        joined: Any = None
        for (start, stop), piece in zip(pairwise(cuts), pieces, strict=True):
            out = run(_into(piece, room, start, stop), *args, **kwargs)
            joined = _with(joined, out, start, stop, size)
        return _finished(joined)


class _Room:
    """One tensor for the gradient of the whole input, into which tiles write theirs."""

    def __init__(self) -> None:
        self.shape: torch.Size | None = None
        self._grad: Tensor | None = None

    def write(self, grad: Tensor, start: int, stop: int) -> Tensor:
        """Put a tile's gradient into its place, and return it there."""
        assert self.shape is not None
        if self._grad is None:
            self._grad = grad.new_zeros(self.shape)
        place = self._grad[:, start:stop]
        place.copy_(grad)
        return place

    def take(self) -> Tensor | None:
        """Return the whole gradient; the next backward pass gets a new one."""
        grad, self._grad = self._grad, None
        return grad


class _Split(torch.autograd.Function):
    """The whole input -> its tiles, as views."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cuts: Sequence[int], room: _Room) -> tuple[Tensor, ...]:
        ctx.room, room.shape = room, x.shape
        return tuple(x[:, start:stop] for start, stop in pairwise(cuts))

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None, None]:  # pyright: ignore
        return ctx.room.take(), None, None


class _Into(torch.autograd.Function):
    """A tile as it is; its gradient goes to its place in the room."""

    @staticmethod
    def forward(ctx: Any, piece: Tensor, room: _Room, start: int, stop: int) -> Tensor:
        ctx.room, ctx.span = room, (start, stop)
        return piece.view_as(piece)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore
        return ctx.room.write(grad, *ctx.span), None, None, None


class _Put(torch.autograd.Function):
    """A tile's result, copied to its place in the whole result."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, out: Tensor, start: int, stop: int) -> Tensor:
        ctx.span = (start, stop)
        whole[:, start:stop] = out
        ctx.mark_dirty(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore
        start, stop = ctx.span
        return grad, grad[:, start:stop], None, None


@_eager
def _split(x: Tensor, cuts: Sequence[int], room: _Room) -> Any:
    return _Split.apply(x, cuts, room)


@_eager
def _into(piece: Tensor, room: _Room, start: int, stop: int) -> Any:
    return _Into.apply(piece, room, start, stop)


@_eager
def _with(joined: Any, out: Any, start: int, stop: int, size: int) -> Any:
    """Add a tile's result to those before it: tensors [B, t, …] in place, others in a list."""
    if isinstance(out, tuple):
        before = joined or (None,) * len(out)
        return tuple(_with(one, part, start, stop, size) for one, part in zip(before, out, strict=True))
    if isinstance(out, Tensor) and out.dim() > 2 and out.shape[1] == stop - start:
        if joined is None:
            joined = out.new_empty(out.shape[0], size, *out.shape[2:])
        return _Put.apply(joined, out, start, stop)
    return [*(joined or []), out]


def _finished(joined: Any) -> Any:
    """Join what came in lists: a router's scores [t, …]; of anything else the first tile's."""
    if isinstance(joined, tuple):
        return tuple(_finished(part) for part in joined)
    if isinstance(joined, list):
        return torch.cat(joined) if isinstance(joined[0], Tensor) else joined[0]
    return joined


@lru_cache
def _tiled(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Tiled{kind.__name__}", (_Tiled, kind), {})


def _tile(module: nn.Module, tiles: int) -> None:
    """Put tiling in front of a module's own forward, without wrapping it: keys and hooks stay."""
    if not isinstance(module, _Tiled):
        module.__class__ = _tiled(type(module))
    vars(module)["tiles"] = tiles
