"""Start a trainer where it outlives its supervisor, find it again, watch it, stop it."""

from longvila.training.launch.local import attach, living, poll, ranks, stop, submit, tail
from longvila.training.launch.record import JobState, LaunchRecord

__all__ = ["JobState", "LaunchRecord", "attach", "living", "poll", "ranks", "stop", "submit", "tail"]
