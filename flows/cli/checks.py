"""What ``longvila doctor`` looks at."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet

from longvila.planning import is_free

PACKAGE = "longvila-pipeline"
MIN_FREE_BYTES = 2 * 2**30
UI_PORT = 4200
PINS = {
    "torch": ">=2.11,<2.14",
    "transformers": ">=5.17,<6",
    "deepspeed": ">=0.19.8,<0.20",
    "prefect": "==3.8.8",
    "fastapi": ">=0.139,<0.151",  # newer: Prefect's server dies at import
    "sqlalchemy": ">=2.0,<2.1",  # newer: schedules silently never fire
    "pydantic": ">=2.12",
    "av": ">=15",
}


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def all_checks(workspace: Path) -> list[Check]:
    """Look at everything; nothing is changed."""
    looks: list[Callable[[], Check]] = [
        python,
        ffmpeg,
        lambda: disk(workspace),
        port,
        datasets_shadow,
        devices,
    ]
    return [
        looks[0](),
        *(package(name, wanted) for name, wanted in PINS.items()),
        *(look() for look in looks[1:]),
    ]


def python() -> Check:
    """The interpreter."""
    version = sys.version.split()[0]
    return Check("python", (3, 11) <= sys.version_info < (3, 13), version, "Use Python 3.11 or 3.12.")


def package(name: str, wanted: str) -> Check:
    """One installed package against the range that works."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install '{name}{wanted}'")
    fits = SpecifierSet(wanted).contains(version.split("+")[0], prereleases=True)
    return Check(name, fits, version, f"pip install '{name}{wanted}'")


def ffmpeg() -> Check:
    """The ffmpeg program that comes with imageio-ffmpeg."""
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        return Check("ffmpeg", False, str(error), "pip install --force-reinstall imageio-ffmpeg")
    return Check("ffmpeg", os.access(program, os.X_OK), program, f"chmod +x {program}")


def disk(workspace: Path) -> Check:
    """Free space where the workspace is or would be."""
    folder = workspace.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    found = f"{free / 2**30:.1f} GiB free in {existing}{'' if writable else ', not writable'}"
    return Check(
        "disk", free >= MIN_FREE_BYTES and writable, found, "Choose another folder with --workspace."
    )


def port() -> Check:
    """The port that ``longvila up`` uses unless told otherwise. Only ``up`` needs it."""
    free = is_free(UI_PORT)
    found = f"{UI_PORT} is free" if free else f"{UI_PORT} is in use (give longvila up another with --port)"
    return Check("port", True, found)


def datasets_shadow() -> Check:
    """Whether ``import datasets`` would find our folder instead of the package of that name."""
    spec = importlib.util.find_spec("datasets")
    origin = spec.origin if spec else None
    hidden = origin is not None and "site-packages" not in origin and "dist-packages" not in origin
    found = f"import datasets gives {origin or 'no package'}"
    return Check(
        "datasets", not hidden, found, "Remove datasets/__init__.py: the folder holds declarations only."
    )


def devices() -> Check:
    """What there is to compute on."""
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        return Check("devices", True, f"{torch.cuda.device_count()} × {', '.join(sorted(names))}")
    return Check("devices", True, f"{os.cpu_count()} CPU cores, no GPU")
