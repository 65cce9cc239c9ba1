from __future__ import annotations

import os
from pathlib import Path

import pytest
from prefect import flow, task

from flows.params import BuildParams
from flows.runners import batch_runner, over_batches
from longvila.config.data import RunnerConfig
from longvila.errors import InputError, MachineError
from tasks.refs import ManifestRef, WorkspaceRef
from tests.flows.conftest import write_recipe, write_sources

pytestmark = pytest.mark.usefixtures("prefect_server")
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("processes", "ray")]
KINDS = ("threads", "dask", *SLOW)


@task
def where(workspace: WorkspaceRef, batch: ManifestRef, note: str) -> ManifestRef:
    """Name the process that this runs in."""
    if batch.key == "bad":
        raise InputError(f"{note}: this batch is bad. Mend it.")
    return batch.model_copy(update={"step": f"{note}-{os.getpid()}"})


@flow
def run_batches(kind: str, keys: list[str]) -> list[ManifestRef]:
    """Run one task over batches."""
    batches = [ManifestRef(step="b", key=key) for key in keys]
    with batch_runner(RunnerConfig(kind=kind, workers=2)) as runner:  # type: ignore[arg-type]
        return over_batches(runner, where, WorkspaceRef(root="/tmp/x"), {"batch": batches}, note="n")


@pytest.mark.parametrize("kind", KINDS)
def test_batches_keep_their_order_wherever_they_run(kind: str) -> None:
    if kind in ("dask", "ray"):
        pytest.importorskip(f"prefect_{kind}", reason=f"the extra {kind} is not installed")
    keys = [f"k{i}" for i in range(5)]
    result = run_batches(kind, keys)
    assert [ref.key for ref in result] == keys
    processes = {int(ref.step.removeprefix("n-")) for ref in result}
    assert (processes == {os.getpid()}) == (kind == "threads")
    with pytest.raises(InputError, match="n: this batch is bad"):
        run_batches(kind, ["k0", "bad", "k2"])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with (
        pytest.raises(MachineError, match=r"pip install 'longvila-pipeline\[ray\]'"),
        batch_runner(RunnerConfig(kind="ray")),
    ):
        pass


@pytest.mark.slow
def test_dask_workers_build_the_same_data_set_as_threads(tmp_path: Path) -> None:
    pytest.importorskip("prefect_dask", reason="the extra dask is not installed")
    from flows.build_dataset import build_dataset

    recipe = write_recipe(tmp_path, write_sources(tmp_path, ["09-lesson", "05-workshop"]))
    shards = {}
    for kind in ("threads", "dask"):
        overrides = (f"data.runner.kind={kind}", "data.batch_size=1")
        params = BuildParams(recipe=str(recipe), workspace=str(tmp_path / kind), overrides=overrides)
        build_dataset(params)
        folder = tmp_path / kind / "shards"
        shards[kind] = {p.relative_to(folder): p.read_bytes() for p in sorted(folder.glob("*/*.tar"))}
    assert shards["threads"] == shards["dask"]
    assert len(shards["dask"]) >= 2
