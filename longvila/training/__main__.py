"""The trainer: ``torchrun … -m longvila.training --spec RUN_DIR/spec.json``, one process per device."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from longvila.errors import ExitCode
from longvila.training.spec import read_spec


@record
def main() -> ExitCode:
    """Train one stage and return the exit code: 0 when it is complete, 5 when it stopped with a checkpoint.

    ``record`` writes the error of this rank where torchrun looks for it.
    """
    parser = argparse.ArgumentParser(prog="python -m longvila.training", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the spec.json of a run folder")
    arguments = parser.parse_args()
    _set_up_logging()
    spec = read_spec(arguments.spec)
    from longvila.training.run import run

    return ExitCode.STOPPED if run(spec) == "stopped" else ExitCode.DONE


def _set_up_logging() -> None:
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(
        level=logging.WARNING,
        format=f"%(asctime)s.%(msecs)03d [{rank}] %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("longvila").setLevel(logging.INFO if rank == "0" else logging.WARNING)
    # torch 2.13 renamed collectives that DeepSpeed calls by their old names, in every step.
    warnings.filterwarnings(
        "ignore", message=r".*torch\.distributed\.\w+` is deprecated", category=FutureWarning
    )


if __name__ == "__main__":
    code = main() or ExitCode.DONE
    # All files are closed. Taking the interpreter down with all its libraries would cost another second.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
