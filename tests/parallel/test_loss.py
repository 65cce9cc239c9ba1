"""The loss: summed, chunked, recomputed, and scaled for plain data parallelism."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longvila.errors import ConfigError
from longvila.parallel import IGNORE_INDEX, chunked_cross_entropy, for_data_parallel, shift_labels


class CountingHead(nn.Linear):
    """A head that notes the rows of every call, as a hook of an engine would see them."""

    def __init__(self) -> None:
        super().__init__(6, 11, dtype=torch.float64)
        self.calls: list[int] = []

    def forward(self, input: Tensor) -> Tensor:
        self.calls.append(len(input))
        return super().forward(input)


@pytest.fixture
def head() -> CountingHead:
    torch.manual_seed(0)
    return CountingHead()


def tokens(num_tokens: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(num_tokens, 6, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.randint(11, (num_tokens,), generator=generator)
    return hidden, labels.masked_fill(torch.arange(num_tokens) % 3 == 0, IGNORE_INDEX)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("factor", [1.0, 0.125])
def test_loss_and_gradients_equal_whole_logits_for_any_factor(
    head: CountingHead, chunk: int, factor: float
) -> None:
    hidden, labels = tokens()
    whole = F.cross_entropy(head(hidden), labels, ignore_index=IGNORE_INDEX, reduction="sum") * factor
    wanted = torch.autograd.grad(whole, [hidden, head.weight, head.bias])
    out = chunked_cross_entropy(hidden, labels, head, chunk=chunk)
    found = torch.autograd.grad(out.loss_sum * factor, [hidden, head.weight, head.bias])
    assert int(out.num_scored) == int((labels != IGNORE_INDEX).sum())
    torch.testing.assert_close(out.loss_sum * factor, whole)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_logits_are_made_for_scored_tokens_only_and_again_in_the_backward(head: CountingHead) -> None:
    hidden, labels = tokens()
    loss = chunked_cross_entropy(hidden, labels, head, chunk=5).loss_sum
    scored = int((labels != IGNORE_INDEX).sum())
    assert sum(head.calls) == scored
    assert max(head.calls) <= 5
    loss.backward()
    assert sum(head.calls) == 2 * scored


def test_nothing_scored_is_zero_with_zero_gradients(head: CountingHead) -> None:
    hidden, labels = tokens()
    out = chunked_cross_entropy(hidden, torch.full_like(labels, IGNORE_INDEX), head)
    out.loss_sum.backward()
    assert (out.loss_sum.item(), int(out.num_scored)) == (0.0, 0)
    assert head.calls == [1, 1], "hooks fire on this rank too"
    assert hidden.grad is not None
    assert head.weight.grad is not None
    assert not hidden.grad.any()
    assert not head.weight.grad.any()


def test_the_number_of_calls_can_be_fixed(head: CountingHead) -> None:
    hidden, labels = tokens()
    wanted = chunked_cross_entropy(hidden, labels, head).loss_sum
    head.calls.clear()
    found = chunked_cross_entropy(hidden, labels, head, chunk=5, num_chunks=17)
    torch.testing.assert_close(found.loss_sum, wanted)
    assert len(head.calls) == 17


def test_too_few_calls_are_refused(head: CountingHead) -> None:
    with pytest.raises(ConfigError, match="Give at least 3, the same on all ranks"):
        chunked_cross_entropy(*tokens(), head, chunk=5, num_chunks=2)


@pytest.mark.parametrize(
    ("hidden", "labels", "chunk"),
    [((1, 6, 4), (6,), 8), ((6, 4), (1, 6), 8), ((6, 4), (5,), 8), ((6, 4), (6,), 0)],
)
def test_shapes_that_do_not_belong_together_are_refused(
    head: CountingHead, hidden: tuple[int, ...], labels: tuple[int, ...], chunk: int
) -> None:
    with pytest.raises(ConfigError, match=r"of a model's output, hidden\[0\]"):
        chunked_cross_entropy(torch.zeros(hidden), torch.zeros(labels, dtype=torch.int64), head, chunk=chunk)


def test_half_precision_logits_are_summed_in_float32() -> None:
    hidden, labels = tokens()
    head = nn.Linear(6, 11, dtype=torch.bfloat16)
    assert chunked_cross_entropy(hidden.bfloat16(), labels, head).loss_sum.dtype == torch.float32


def test_the_average_over_ranks_is_the_mean_over_tokens() -> None:
    sums, counts = torch.tensor([6.0, 0.0, 3.0]), (5, 0, 1)
    scaled = [for_data_parallel(loss, total_scored=sum(counts), world_size=3) for loss in sums]
    torch.testing.assert_close(torch.stack(scaled).mean(), sums.sum() / sum(counts))
    assert for_data_parallel(sums[1], total_scored=torch.tensor(0), world_size=3).item() == 0.0
    assert for_data_parallel(sums[1], total_scored=0, world_size=3).item() == 0.0


def test_labels_of_tensors_shift_as_those_of_arrays() -> None:
    labels = torch.tensor([1, 2, 3, 4, 5])
    shifted = shift_labels(labels, torch.tensor([0, 3, 5], dtype=torch.int32))
    assert shifted.tolist() == [2, 3, IGNORE_INDEX, 5, IGNORE_INDEX]
    assert shift_labels(labels.numpy(), [0, 3, 5]).tolist() == shifted.tolist()
    assert labels.tolist() == [1, 2, 3, 4, 5]
