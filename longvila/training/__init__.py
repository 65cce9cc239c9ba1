"""Training: the five stages, the engines that run them, and the launcher that keeps watch.

``RunSpec`` says what one run is; ``longvila.training.supervise.run_stage`` starts it, or joins it where it
already lives, and returns a ``StageOutcome``. The trainer itself is ``python -m longvila.training --spec
spec.json`` under torchrun. Importing this package loads neither torch nor deepspeed.
"""

from longvila.training.runfiles import FailureClass, Outcome, Progress, StageOutcome
from longvila.training.spec import RunPaths, RunSpec, fingerprint

__all__ = ["FailureClass", "Outcome", "Progress", "RunPaths", "RunSpec", "StageOutcome", "fingerprint"]
