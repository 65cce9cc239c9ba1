"""The page as HTML: pictures drawn, templates filled, everything put inside."""

from __future__ import annotations

from typing import NamedTuple

from longvila.evaluation import plots
from longvila.report.content import Evaluated, Picture, ReportData
from longvila.report.templating import template_environment
from longvila.report.verdicts import judge


class Panel(NamedTuple):
    """One evaluation's needle grid as it is shown."""

    evaluated: Evaluated
    heat_map: Picture


def render_report(data: ReportData) -> str:
    """Return the page as HTML. Every text is escaped, whatever it came from."""
    environment = template_environment("longvila.report")
    panels = _needle_panels(data)
    pair = [
        p for name in (data.before, data.after) for p in panels if name and p.evaluated.result.name == name
    ]
    after = data.evaluation(data.after)
    return environment.get_template("report.html").render(
        data=data,
        verdicts=judge(data),
        pair=pair,
        others=[panel for panel in panels if panel not in pair],
        loss_plot=_loss_plot(data),
        curve_plot=_curve_plot(data),
        qa=after.result.qa if after else None,
        qa_plot=_qa_plot(after),
        compared=[item for item in data.evaluations if item.result.qa or item.result.needle],
    )


def _needle_panels(data: ReportData) -> list[Panel]:
    panels = []
    for item in data.evaluations:
        if item.result.needle:
            image = plots.needle_heat_map(item.result.needle, trained_frames=item.trained_frames)
            panels.append(
                Panel(item, Picture(data=image, alt=f"needle grid of {item.title}: frames × depth"))
            )
    return panels


def _loss_plot(data: ReportData) -> Picture | None:
    curves = [stage.losses for stage in data.stages if stage.losses and stage.losses.steps]
    return Picture(data=plots.losses(curves), alt="loss of each stage by step") if curves else None


def _curve_plot(data: ReportData) -> Picture | None:
    curves = [(item.title, item.result.frames_curve) for item in _compared(data) if item.result.frames_curve]
    if not curves:
        return None
    return Picture(
        data=plots.frames_curve(curves), alt="accuracy against sampled frames, with the prediction"
    )


def _compared(data: ReportData) -> list[Evaluated]:
    """Before, the controls, after: few enough to tell the lines apart, and the final model last.

    All evaluations where before and after are not named.
    """
    before, after = data.evaluation(data.before), data.evaluation(data.after)
    if before is None or after is None:
        return list(data.evaluations)
    controls = [item for item in data.evaluations if item.role == "control" and item not in (before, after)]
    return [before, *controls, after]


def _qa_plot(after: Evaluated | None) -> Picture | None:
    if after is None or after.result.qa is None:
        return None
    image = plots.accuracy_by_kind(after.result.qa)
    return Picture(data=image, alt="held-out accuracy by kind of question, with the baselines")
