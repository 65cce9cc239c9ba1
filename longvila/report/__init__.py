"""One self-contained HTML page about a run: data, training, evaluation, model, and how to ask it something.

``longvila.report.gather`` makes its parts from what a data build and an evaluation leave behind.
"""

from longvila.report.content import (
    ContactSheet,
    Evaluated,
    FunnelStep,
    Picture,
    QuestionExample,
    RejectionReason,
    ReportData,
    SheetEntry,
    StageSummary,
    Timing,
    Verdict,
)
from longvila.report.report import build_report
from longvila.report.verdicts import judge

__all__ = [
    "ContactSheet",
    "Evaluated",
    "FunnelStep",
    "Picture",
    "QuestionExample",
    "RejectionReason",
    "ReportData",
    "SheetEntry",
    "StageSummary",
    "Timing",
    "Verdict",
    "build_report",
    "judge",
]
