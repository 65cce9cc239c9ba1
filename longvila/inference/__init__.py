"""Asking a model about videos, on one process."""

from longvila.inference.answer import Answer, Timing
from longvila.inference.session import LongVilaSession, load

__all__ = ["Answer", "LongVilaSession", "Timing", "load"]
