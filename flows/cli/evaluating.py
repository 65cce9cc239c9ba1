"""What the ``longvila eval`` commands do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flows.cli.display import progress_display
from flows.cli.running import print_result, stop_on_interrupt
from flows.cli.runtime import prepare_environment, set_up_logging
from flows.params import EvaluateParams
from longvila.evaluation.results import EvalResult, read_result
from longvila.evaluation.statistics import Share


def evaluate_here(params: EvaluateParams, *, debug: bool, json_lines: bool) -> None:
    """Measure checkpoints in this process, without a server."""
    set_up_logging(debug=debug, json_lines=json_lines)
    prepare_environment()
    from flows.evaluate import measure_all
    from flows.results import EvaluationResult
    from tasks.evaluation import evaluate_checkpoint
    from tasks.servers import open_workspace

    recipe = params.load_recipe()
    with (
        stop_on_interrupt(),
        progress_display(json_lines=json_lines),
        open_workspace(params.workspace, params.storage) as reference,
    ):
        results = measure_all(recipe, reference, params.checkpoints or ("",), measure=evaluate_checkpoint.fn)
    print_result(EvaluationResult(results=results), json_lines=json_lines)


def comparison(paths: Sequence[Path], *, as_json: bool) -> str:
    """Scores of several results side by side, each with its interval."""
    results = [read_result(path) for path in paths]
    tables = [scores(result) for result in results]
    titles = column_titles(results, paths)
    names = list(dict.fromkeys(name for table in tables for name in table))
    if as_json:
        plain = [
            {"name": title, "scores": {k: v.value for k, v in table.items()}}
            for title, table in zip(titles, tables, strict=True)
        ]
        return json.dumps(plain)
    width = max(26, *(len(title) + 2 for title in titles))
    lines = [f"{'':<28}" + "".join(f"{title:>{width}}" for title in titles)]
    lines += [
        f"{name:<28}" + "".join(f"{_cell(table.get(name)):>{width}}" for table in tables) for name in names
    ]
    return "\n".join(lines)


def column_titles(results: Sequence[EvalResult], paths: Sequence[Path]) -> list[str]:
    """What tells results apart: the checkpoint's name where that does, else the file's folder or its path."""
    for titles in (
        [result.name for result in results],
        [path.absolute().parent.name for path in paths],
    ):
        if len(set(titles)) == len(titles):
            return titles
    return [str(path) for path in paths]


def scores(result: EvalResult) -> dict[str, Share]:
    """Every share that a result holds, by a name that a person reads."""
    found: dict[str, Share] = {}
    if result.needle:
        found |= {f"needle, {row.frames} frames": row.generated for row in result.needle.rows}
    if result.frames_curve:
        found |= {f"sampled {point.sampled}": point.measured for point in result.frames_curve.points}
    if result.qa:
        found["questions"] = result.qa.overall.model
        found["questions, text only"] = result.qa.overall.text_only
        found |= {f"questions: {kind.kind}": kind.model for kind in result.qa.kinds}
    return found


def _cell(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{share.value:6.1%} [{share.interval.low:.0%}, {share.interval.high:.0%}]"
