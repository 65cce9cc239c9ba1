"""Where files lie and how steps resume: storage, workspace, manifests, ledger."""

from longvila.storage.base import Storage, check_key
from longvila.storage.files import atomic_path, write_bytes, write_text
from longvila.storage.ledger import Ledger
from longvila.storage.manifests import read_manifest, write_manifest
from longvila.storage.opening import open_storage
from longvila.storage.stats import StepStats, Stopwatch, add_up
from longvila.storage.steps import StepResult, item_id, read_stats, run_step, run_whole, write_stats
from longvila.storage.workspace import Workspace

__all__ = [
    "Ledger",
    "StepResult",
    "StepStats",
    "Stopwatch",
    "Storage",
    "Workspace",
    "add_up",
    "atomic_path",
    "check_key",
    "item_id",
    "open_storage",
    "read_manifest",
    "read_stats",
    "run_step",
    "run_whole",
    "write_bytes",
    "write_manifest",
    "write_stats",
    "write_text",
]
