"""The flows by name, without importing Prefect."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flows import params
from longvila.errors import InputError


@dataclass(frozen=True)
class FlowEntry:
    """One entry flow: where its function is and what it takes."""

    name: str
    module: str
    function: str
    params: type[params.FlowParams]
    deployment: str

    @property
    def summary(self) -> str:
        """One line for lists."""
        return (self.params.__doc__ or "").splitlines()[0]

    def load(self) -> Any:
        """Import the flow; loads Prefect."""
        return getattr(import_module(self.module), self.function)


FLOWS: dict[str, FlowEntry] = {
    entry.name: entry
    for entry in (
        FlowEntry("lifecycle", "flows.lifecycle", "lifecycle", params.LifecycleParams, "lifecycle"),
        FlowEntry(
            "build_dataset", "flows.build_dataset", "build_dataset", params.BuildParams, "build-dataset"
        ),
        FlowEntry("refresh", "flows.refresh", "refresh", params.RefreshParams, "refresh-dataset"),
        FlowEntry("train_stage", "flows.train", "train_stage", params.TrainStageParams, "train-stage"),
        FlowEntry(
            "train_pipeline", "flows.train", "train_pipeline", params.TrainPipelineParams, "train-pipeline"
        ),
        FlowEntry("evaluate", "flows.evaluate", "evaluate", params.EvaluateParams, "evaluate-checkpoint"),
    )
}


def find_flow(name: str) -> FlowEntry:
    """Return the flow of that name, also written with dashes. Raises ``InputError`` with the known names."""
    wanted = name.replace("-", "_")
    if wanted in FLOWS:
        return FLOWS[wanted]
    close = difflib.get_close_matches(wanted, FLOWS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"There is no flow {name!r}.{hint} Known flows: {', '.join(FLOWS)}.")
