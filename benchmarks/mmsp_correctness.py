"""Gradients of LLM, projector and vision tower over ranks against one process, ours and our peers'.

A tiny SigLIP, projector and Qwen2 in float64. Errors are relative to the largest element of a gradient; a
gradient that never comes counts as zero, so its error is 1.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Report, Row, arguments, finish
from benchmarks.mmsp import systems
from benchmarks.mmsp.tinyvlm import (
    Document,
    Gradients,
    errors_by_part,
    make_document,
    on_one_process,
    sum_over_ranks,
)
from benchmarks.nodes import Node, Nodes
from benchmarks.peers import alst, autosp, vila_indices
from benchmarks.ranks import run_ranks
from longvila.model import part_of

HERE = Nodes((Node(None, "lo"), Node(None, "lo")), rate_mbit=0.0, problem="not needed")
SHORT = {"llm": "llm", "projector": "projector", "vision_tower": "tower"}
log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark; it is always quick."""
    options = arguments(__doc__).parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)  # ranks are forked from this process
    report = Report("mmsp_correctness")
    with tempfile.TemporaryDirectory() as folder:
        alst.prepare(Path(folder))
        _whole_models(report)
        _texts(report)
        _alst_on_a_vlm(report)
        _published_indices(report)
    report.notes += _notes()
    finish(report, options.json)


def _whole_models(report: Report) -> None:
    """Tower, projector and LLM together."""
    video = make_document(num_frames=4, text_per_frame=16)
    wanted = on_one_process(video)
    _compare(report, "ours", "ours", wanted, 4, systems.ours, video, (2, 2), degrees=(2, 2))
    for degrees in [(4, 1), (1, 4), (2, 2)]:
        name = "published MM-SP, whole model"
        key = "published_whole_u{}r{}".format(*degrees)
        _compare(report, name, key, wanted, 4, systems.published_whole, video, degrees, degrees=degrees)
    image = make_document(num_frames=1, text_per_frame=16)
    wanted = on_one_process(image)
    _compare(report, "DeepSpeed AutoSP + ALST", "autosp", wanted, 2, autosp.on_rank, image, True)
    _compare(report, "DeepSpeed AutoSP alone", "autosp_alone", wanted, 2, autosp.on_rank, image, False)


def _texts(report: Report) -> None:
    """The LLM alone."""
    text = make_document(num_frames=0, text_per_frame=112)
    wanted = on_one_process(text)
    _compare(report, "ours, text", "ours_text", wanted, 4, systems.ours, text, (2, 2), degrees=(2, 2))
    _compare(report, "relay, text", "relay", wanted, 4, systems.relay, text, (2, 2), degrees=(2, 2))
    for ranks in (2, 4):
        name, key = "DeepSpeed ALST, text", f"alst_{ranks}"
        _compare(report, name, key, wanted, ranks, systems.alst_text, text, degrees=(ranks, 1))
    report.summary["alst_llm_error"] = max(report.summary.pop(f"alst_{n}_llm_error") for n in (2, 4))
    for degrees in [(1, 4), (2, 2), (4, 1), (2, 4)]:
        name, key = "published MM-SP, text", "published_text_u{}r{}".format(*degrees)
        ranks = degrees[0] * degrees[1]
        _compare(report, name, key, wanted, ranks, systems.published_text, text, degrees, degrees=degrees)
        errors = report.summary.pop(f"{key}_llm_error")
        report.summary["published_llm_error_u{}r{}".format(*degrees)] = errors


def _compare(
    report: Report,
    name: str,
    key: str,
    wanted: Gradients,
    ranks: int,
    function: Callable[..., Gradients],
    document: Document,
    *args: Any,
    degrees: tuple[int, int] | None = None,
) -> None:
    """Run one system, and put its errors into rows and summary."""
    log.info("%s on %d ranks", name, ranks)
    found = sum_over_ranks(run_ranks(function, HERE, ranks, document, *args, timeout_s=120))
    errors = {SHORT[part]: error for part, error in errors_by_part(found, wanted).items()}
    reached = {SHORT[part_of(name)] for name in found}
    missing = [part for part in errors if part not in reached]
    remark = f"no gradient at all: {', '.join(missing)}" if missing else ""
    report.rows.append(_row(name, ranks, degrees, errors, remark))
    report.summary |= {f"{key}_{part}_error": error for part, error in errors.items()}


def _row(
    name: str, ranks: int, degrees: tuple[int, int] | None, errors: dict[str, float], remark: str = ""
) -> Row:
    return {
        "system": name,
        "ranks": ranks,
        "ulysses × ring": "" if degrees is None else "{} × {}".format(*degrees),
        **{f"{part} error": errors.get(part) for part in SHORT.values()},
        "remark": remark,
    }


def _alst_on_a_vlm(report: Report) -> None:
    """What ALST says to a model with a vision tower; the tower on sdpa as usual, then on eager."""
    image = make_document(num_frames=2, text_per_frame=16)
    ran, reached = [], set()
    for attention in ("sdpa", "eager"):
        log.info("DeepSpeed ALST on LLaVA, tower on %s", attention)
        said = run_ranks(systems.alst_vlm, HERE, 2, image, attention, timeout_s=120)[0]
        ran.append(not said.error)
        reached |= said.parts
        errors = {part: 1.0 for part in SHORT.values() if part not in said.parts}
        name = f"DeepSpeed ALST, LLaVA (tower on {attention})"
        report.rows.append(_row(name, 2, (2, 1), errors, said.error[:80]))
        if said.error:
            report.notes.append(f"{name}: {said.error[:400]}")
    report.summary["alst_vlm_runs"] = float(any(ran))
    report.summary |= {f"alst_{part}_error": 1.0 for part in ("projector", "tower") if part not in reached}


def _published_indices(report: Report) -> None:
    """Who holds what and who attends to what, and how many tokens send a gradient back to the encoder."""
    for degrees in [(1, 4), (2, 2), (2, 4), (4, 2), (8, 2)]:
        held, seen = vila_indices.partition(*degrees), vila_indices.pairs(*degrees)
        key = "u{}r{}".format(*degrees)
        remark = f"{held.unheld} of {held.num_chunks} chunks on no rank, {held.behind_the_end} behind the end"
        report.summary[f"published_unheld_chunks_{key}"] = held.unheld / held.num_chunks
        if not held.unheld:
            remark += f"; {seen.future} future pairs attended, {seen.missed} of {seen.causal} missed"
            report.summary[f"published_future_pairs_{key}"] = seen.future
            report.summary[f"published_missed_pairs_{key}"] = seen.missed
        report.rows.append(_row("published MM-SP, indices", degrees[0] * degrees[1], degrees, {}, remark))
    for ranks in (2, 4, 8):
        log.info("published MM-SP: gradients to the encoder on %d ranks", ranks)
        kept = run_ranks(systems.encoder_tokens_kept, HERE, ranks, (1, ranks), 16 * ranks, timeout_s=60)
        remark = f"{sum(kept)} of {16 * ranks} encoded tokens get a gradient"
        report.summary[f"published_encoder_gradient_kept_{ranks}"] = sum(kept) / (16 * ranks)
        report.rows.append(_row("published MM-SP, spreading", ranks, (1, ranks), {}, remark))


def _notes() -> list[str]:
    return [
        "one document, gradients summed over ranks, float64 (norms too); error: the largest of any parameter "
        "of a part, relative to the largest element of its gradient; no gradient counts as 1",
        f"DeepSpeed {alst.version()} as installed; AutoSP leaves the LLM's attention to the user: with ALST "
        "(the tower then on eager attention, which rounds to float32), or alone, where every rank sees only "
        "its own part of the sequence",
        "published MM-SP (NVlabs/VILA): its index arithmetic and its way of spreading embeddings, rewritten, "
        "under a relay that takes its order for granted; given the right labels, which it would shift in "
        "each shard by itself; the text rows spread embeddings rightly",
    ]


if __name__ == "__main__":
    main()
