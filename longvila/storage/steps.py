"""How every data step resumes: its output is named by the hash of all that it depends on.

A step whose output exists is not run again. A step that was killed goes on with the items that the ledger
does not know. A changed setting, version or input has another hash, so only what it touches is redone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from longvila.errors import ItemError
from longvila.records import Record, Rejection, content_id
from longvila.storage.base import Storage, check_key
from longvila.storage.manifests import read_manifest, write_manifest
from longvila.storage.stats import StepStats, Stopwatch, add_up
from longvila.storage.workspace import Workspace

ItemT = TypeVar("ItemT", bound=Record)
ResultT = TypeVar("ResultT", bound=Record)
Settings = BaseModel | dict[str, Any] | None
_COST = "cost"  # of an item, in the ledger: seconds by the clock and of the processor


@dataclass(frozen=True)
class StepResult(Generic[ResultT]):
    """What left a step. Every item that entered is in ``results``, perhaps as several, or ``rejections``.

    An item whose parts are judged one by one (the clips of a video) may be in both.
    """

    results: list[ResultT]
    rejections: list[Rejection]
    manifest_key: str
    key: str
    reused: bool


def run_step(
    workspace: Workspace,
    *,
    name: str,
    version: int,
    settings: Settings,
    items: Sequence[ItemT],
    process: Callable[[ItemT], ResultT | Sequence[ResultT | Rejection] | Rejection],
    result_cls: type[ResultT],
    progress: Callable[[int, int], None] | None = None,
    still_valid: Callable[[ResultT], bool] | None = None,
    retried_reasons: Collection[str] = (),
    workers: int = 1,
) -> StepResult[ResultT]:
    """Run ``process`` on each item that has no result yet and write ``manifests/{name}/{key}.parquet``.

    ``process`` returns one result, a ``Rejection``, or a list of results, among which may be rejections of
    parts of the item; an ``ItemError`` that it raises becomes a rejection, and so does an empty list. Other
    errors end the step; what is done stays done. ``still_valid`` says of an earlier result whether the files
    it names are still there; where they are not, the item is processed again; so is one that was rejected,
    in whole or in part, for one of ``retried_reasons``, which may pass with time.
    ``workers`` threads share the items; results keep the items' order.
    ``progress`` gets (done, all).
    """
    settings_json = _as_json(settings)
    item_keys = [content_id(item.model_dump(mode="json")) for item in items]
    key = content_id(name, version, settings_json, item_keys)
    earlier = _read_output(workspace, name, key, result_cls, still_valid, retried_reasons)
    if earlier is not None:
        if progress:
            progress(len(items), len(items))
        return earlier

    ledger_step = f"{name}/{content_id(version, settings_json)}"
    known = workspace.ledger.results(ledger_step, item_keys)
    outcomes: dict[str, tuple[list[ResultT], list[Rejection]]] = {}
    costs: dict[str, Any] = {}
    for item_key in item_keys:
        if item_key in known:
            results, rejected = _parse(known[item_key], result_cls)
            passing = any(rejection.reason in retried_reasons for rejection in rejected)
            if not passing and (still_valid is None or all(still_valid(result) for result in results)):
                outcomes[item_key] = results, rejected
                costs[item_key] = json.loads(known[item_key]).get(_COST)
    missing = {key: item for key, item in zip(item_keys, items, strict=True) if key not in outcomes}
    num_done = len(items) - len(missing)
    if progress:
        progress(num_done, len(items))
    for item_key, text in _process_all(name, missing, process, workers):
        workspace.ledger.record(ledger_step, item_key, text)
        outcomes[item_key] = _parse(text, result_cls)  # as a later run will read it
        costs[item_key] = json.loads(text)[_COST]
        num_done += 1
        if progress:
            progress(num_done, len(items))

    results = [result for item_key in item_keys for result in outcomes[item_key][0]]
    rejections = [rejection for item_key in item_keys for rejection in outcomes[item_key][1]]
    stats = add_up(name, key, costs.values(), num_items=len(items), num_processed=len(missing))
    return _write_output(workspace, stats, results, rejections, result_cls)


def run_whole(
    workspace: Workspace,
    *,
    name: str,
    version: int,
    settings: Settings,
    inputs: Sequence[Record],
    compute: Callable[[], tuple[list[ResultT], list[Rejection]]],
    result_cls: type[ResultT],
    still_valid: Callable[[ResultT], bool] | None = None,
) -> StepResult[ResultT]:
    """Run a step that needs all its inputs together, unless its output exists.

    ``compute`` returns results and rejections; the output is named as in ``run_step``.
    """
    key = content_id(name, version, _as_json(settings), [item.model_dump(mode="json") for item in inputs])
    earlier = _read_output(workspace, name, key, result_cls, still_valid)
    if earlier is not None:
        return earlier
    with Stopwatch() as watch:
        results, rejections = compute()
    stats = add_up(name, key, [watch.cost], num_items=len(inputs), num_processed=len(inputs))
    return _write_output(workspace, stats, results, rejections, result_cls)


def stats_key(manifest_key: str) -> str:
    """Return where the cost of the step lies whose manifest (or done-marker) this is."""
    return f"{manifest_key.rpartition('.')[0]}.stats.json"


def write_stats(storage: Storage, manifest_key: str, stats: StepStats) -> None:
    """Write what a step cost beside its manifest."""
    storage.put_bytes(stats_key(manifest_key), stats.model_dump_json(indent=1).encode())


def read_stats(storage: Storage, manifest_key: str) -> StepStats | None:
    """Return what a step cost; None when that is not known (a step of an older version)."""
    key = stats_key(manifest_key)
    return StepStats.model_validate_json(storage.get_bytes(key)) if storage.exists(key) else None


def item_id(record: Record) -> str:
    """Return a record's own id: by custom its first field."""
    return str(getattr(record, next(iter(type(record).model_fields))))


def _as_json(settings: Settings) -> Any:
    return settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings


def _process_all(
    name: str, items: dict[str, ItemT], process: Callable[[ItemT], Any], workers: int
) -> Iterator[tuple[str, str]]:
    """Yield (item key, outcome as JSON) as the items are done."""
    if workers <= 1:
        for item_key, item in items.items():
            yield item_key, _process_one(name, item, process)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
        futures = {
            pool.submit(_process_one, name, item, process): item_key for item_key, item in items.items()
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()


def _process_one(name: str, item: ItemT, process: Callable[[ItemT], Any]) -> str:
    with Stopwatch() as watch:
        try:
            outcome = process(item)
        except ItemError as error:
            outcome = Rejection(item_id=item_id(item), step=name, reason=error.reason, detail=error.detail)
    if isinstance(outcome, list | tuple) and not outcome:
        outcome = Rejection(
            item_id=item_id(item), step=name, reason="empty", detail="the step made nothing of it"
        )
    made = outcome if isinstance(outcome, list | tuple) else [outcome]
    rejected = [one for one in made if isinstance(one, Rejection)]
    results = [one for one in made if not isinstance(one, Rejection)]
    return json.dumps({"results": _dumped(results), "rejections": _dumped(rejected), _COST: watch.cost})


def _dumped(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [record.model_dump(mode="json") for record in records]


def _parse(text: str, result_cls: type[ResultT]) -> tuple[list[ResultT], list[Rejection]]:
    outcome = json.loads(text)
    whole = [outcome["rejection"]] if "rejection" in outcome else []  # as ledgers of 0.1 have it
    results = [result_cls.model_validate(result) for result in outcome.get("results", [])]
    return results, [Rejection.model_validate(found) for found in outcome.get("rejections", whole)]


def _keys(name: str, key: str) -> tuple[str, str]:
    check_key(name)
    return f"manifests/{name}/{key}.parquet", f"manifests/{name}/{key}.rejections.parquet"


def _read_output(
    workspace: Workspace,
    name: str,
    key: str,
    result_cls: type[ResultT],
    still_valid: Callable[[ResultT], bool] | None,
    retried_reasons: Collection[str] = (),
) -> StepResult[ResultT] | None:
    manifest_key, rejections_key = _keys(name, key)
    storage = workspace.storage
    if not (storage.exists(manifest_key) and storage.exists(rejections_key)):
        return None
    results = read_manifest(storage, manifest_key, result_cls)
    if still_valid is not None and not all(still_valid(result) for result in results):
        return None
    rejections = read_manifest(storage, rejections_key, Rejection)
    if any(rejection.reason in retried_reasons for rejection in rejections):
        return None
    return StepResult(results, rejections, manifest_key, key, reused=True)


def _write_output(
    workspace: Workspace,
    stats: StepStats,
    results: Sequence[ResultT],
    rejections: Sequence[Rejection],
    result_cls: type[ResultT],
) -> StepResult[ResultT]:
    """Write what it cost, the rejections, then the results, whose manifest says that the step is done."""
    manifest_key, rejections_key = _keys(stats.step, stats.key)
    write_stats(workspace.storage, manifest_key, stats)
    write_manifest(workspace.storage, rejections_key, rejections, cls=Rejection)
    write_manifest(workspace.storage, manifest_key, results, cls=result_cls)
    return StepResult(list(results), list(rejections), manifest_key, stats.key, reused=False)
