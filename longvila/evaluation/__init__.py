"""What a checkpoint can do: the needle grid, accuracy against frames, held-out questions, with intervals.

``needle`` needs torch and transformers only; what reads shards or draws is imported where it is used:
``longvila.evaluation.runner.evaluate_checkpoint`` measures everything of one checkpoint.
"""

from longvila.evaluation.results import EvalResult, read_result, write_result
from longvila.evaluation.statistics import Interval, Share, mcnemar, paired_difference, wilson

__all__ = [
    "EvalResult",
    "Interval",
    "Share",
    "mcnemar",
    "paired_difference",
    "read_result",
    "wilson",
    "write_result",
]
