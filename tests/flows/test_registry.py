from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.registry import FLOWS, find_flow
from longvila.errors import InputError
from tasks.registry import TASKS, find_task

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def test_every_deployment_names_a_flow_of_the_registry() -> None:
    assert {item["name"] for item in DEPLOYMENTS} == {flow.deployment for flow in FLOWS.values()}
    entrypoints = {flow.deployment: f"{flow.module}.{flow.function}" for flow in FLOWS.values()}
    assert {item["name"]: item["entrypoint"] for item in DEPLOYMENTS} == entrypoints


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda item: item["name"])
def test_deployment_has_parameters_that_its_flow_takes(deployment: dict[str, Any]) -> None:
    flow = next(flow for flow in FLOWS.values() if flow.deployment == deployment["name"])
    loaded = flow.load()
    assert list(loaded.parameters.properties) == ["params"]
    flow.params.model_validate(deployment["parameters"]["params"])


@pytest.mark.parametrize("name", FLOWS)
def test_forms_show_every_default_and_its_description(name: str) -> None:
    schema = FLOWS[name].params.model_json_schema()
    for field, about in schema["properties"].items():
        assert "default" in about, field
        assert about.get("description"), field
    assert schema["additionalProperties"] is False


def test_refresh_runs_on_a_schedule_one_at_a_time() -> None:
    refresh = next(item for item in DEPLOYMENTS if item["name"] == "refresh-dataset")
    assert refresh["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    (schedule,) = refresh["schedules"]
    assert {"slug", "cron", "timezone"} <= set(schedule)


def test_registry_names_every_task_there_is() -> None:
    from prefect import Task

    modules = {task.module for task in TASKS.values()}
    for path in (ROOT / "tasks").glob("*.py"):
        module = importlib.import_module(f"tasks.{path.stem}")
        for name, _ in inspect.getmembers(module, lambda item: isinstance(item, Task)):
            assert name in TASKS, f"tasks.{path.stem}.{name}"
        if any(
            value.__module__ == module.__name__
            for _, value in inspect.getmembers(module)
            if isinstance(value, Task)
        ):
            assert module.__name__ in modules


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_typed_parameters_and_a_time_limit(name: str) -> None:
    task = TASKS[name].load()
    assert task.fn.__doc__
    assert TASKS[name].parameters().model_json_schema()["properties"]
    if name not in ("train_stage", "list_sources"):
        assert task.timeout_seconds, name


def test_unknown_names_are_explained() -> None:
    assert find_flow("build-dataset").name == "build_dataset"
    with pytest.raises(InputError, match="Did you mean 'evaluate'"):
        find_flow("evalute")
    with pytest.raises(InputError, match="Known tasks: list_sources"):
        find_task("xyz")
