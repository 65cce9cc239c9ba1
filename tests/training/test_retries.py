from __future__ import annotations

from longvila.training.classify import Failure
from longvila.training.retries import RetryBudget

LOST = Failure("lost_peer", "gone", retryable=True)
PREEMPTED = Failure("preempted", "SIGTERM", retryable=True)


def test_failures_without_a_new_checkpoint_use_the_budget_up() -> None:
    budget = RetryBudget(allowed=2)
    assert [budget.spend(LOST, checkpoint_step=4) for _ in range(3)] == [True, True, False]


def test_a_new_checkpoint_makes_the_budget_whole() -> None:
    budget = RetryBudget(allowed=1)
    assert [budget.spend(LOST, checkpoint_step=step) for step in (2, 4, 6, 6)] == [True, True, True, False]


def test_what_a_retry_cannot_mend_is_not_retried() -> None:
    assert not RetryBudget(allowed=5).spend(Failure("bug", "KeyError", retryable=False), checkpoint_step=1)


def test_preemptions_do_not_count_while_the_run_gets_on() -> None:
    budget = RetryBudget(allowed=0)
    assert all(budget.spend(PREEMPTED, checkpoint_step=step) for step in range(1, 20))
    assert [budget.spend(PREEMPTED, checkpoint_step=19) for _ in range(3)] == [True, True, False]
