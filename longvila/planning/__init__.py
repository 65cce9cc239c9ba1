"""What a run needs before it starts: disk space and ports."""

from longvila.planning.disk import check_free_space, count_weights, estimate_bytes
from longvila.planning.ports import check_port, free_port, is_free

__all__ = ["check_free_space", "check_port", "count_weights", "estimate_bytes", "free_port", "is_free"]
