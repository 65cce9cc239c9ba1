"""One self-contained HTML page per data build, its twin as JSON, and the card that lies beside the shards."""

from longvila.report.dataset.card import CARD_FILE, card_facts, render_card
from longvila.report.dataset.content import BuildReport
from longvila.report.dataset.gather import About, gather_build
from longvila.report.dataset.inputs import Batch, BuildOutputs, StepOutput
from longvila.report.dataset.page import render_build_report, report_json

__all__ = [
    "CARD_FILE",
    "About",
    "Batch",
    "BuildOutputs",
    "BuildReport",
    "StepOutput",
    "card_facts",
    "gather_build",
    "render_build_report",
    "render_card",
    "report_json",
]
