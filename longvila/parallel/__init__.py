"""MM-SP: Multi-Modal Sequence Parallelism. One sequence of frames and text over many ranks, exactly.

``make_groups`` says who talks to whom, ``make_plan`` who holds what; ``make_exchange`` moves visual tokens to
their seats, ``make_attend`` attends over the whole row, ``loss`` adds up what every rank scored.
"""

from longvila.parallel.attention import Attend, make_attend
from longvila.parallel.comm import Group
from longvila.parallel.degrees import DegreeChoice, choose_degrees
from longvila.parallel.exchange import Exchange, make_exchange
from longvila.parallel.groups import Groups, check_degrees, make_groups, make_groups_of
from longvila.parallel.kernels import KERNEL_NAMES
from longvila.parallel.layout import Layout
from longvila.parallel.loss import (
    IGNORE_INDEX,
    LossOut,
    chunked_cross_entropy,
    for_data_parallel,
    shift_labels,
)
from longvila.parallel.memory import HostMemory, enable_checkpointing, keep_attention, tile_tokens
from longvila.parallel.plan import Plan, make_plan
from longvila.parallel.registration import ATTENTION_NAME, register_attention
from longvila.parallel.rotary import follow_documents

__all__ = [
    "ATTENTION_NAME",
    "IGNORE_INDEX",
    "KERNEL_NAMES",
    "Attend",
    "DegreeChoice",
    "Exchange",
    "Group",
    "Groups",
    "HostMemory",
    "Layout",
    "LossOut",
    "Plan",
    "check_degrees",
    "choose_degrees",
    "chunked_cross_entropy",
    "enable_checkpointing",
    "follow_documents",
    "for_data_parallel",
    "keep_attention",
    "make_attend",
    "make_exchange",
    "make_groups",
    "make_groups_of",
    "make_plan",
    "register_attention",
    "shift_labels",
    "tile_tokens",
]
