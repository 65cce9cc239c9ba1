"""The tasks by name. Importing this loads neither Prefect nor the tasks; ``load`` does."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from longvila.errors import InputError


@dataclass(frozen=True)
class TaskEntry:
    """One task: where it is, and what it is for."""

    name: str
    module: str
    summary: str

    def load(self) -> Any:
        """Import the Prefect task."""
        return getattr(import_module(self.module), self.name)

    def parameters(self) -> type[BaseModel]:
        """A model of the task's parameters, made from its signature."""
        function = self.load().fn
        hints = get_type_hints(function)
        fields: dict[str, Any] = {
            name: (hints[name], ... if item.default is inspect.Parameter.empty else item.default)
            for name, item in inspect.signature(function).parameters.items()
        }
        return create_model(f"{self.name}_parameters", __config__=ConfigDict(extra="forbid"), **fields)

    def call(self, parameters: BaseModel) -> Any:
        """Run the task's function in this process."""
        given = {name: getattr(parameters, name) for name in type(parameters).model_fields}
        return self.load().fn(**given)

    def describe(self) -> dict[str, Any]:
        """What it takes and how it is retried, as plain data."""
        task = self.load()
        return {
            "name": self.name,
            "summary": self.summary,
            "retries": task.retries,
            "timeout_seconds": task.timeout_seconds,
            "tags": sorted(task.tags),
            "parameters": self.parameters().model_json_schema(),
        }


TASKS: dict[str, TaskEntry] = {
    name: TaskEntry(name, f"tasks.{module}", summary)
    for module, name, summary in (
        ("fetch", "list_sources", "Read the source list and cut it into batches."),
        ("fetch", "fetch_batch", "Fetch a batch of sources into the workspace."),
        ("fetch", "validate_batch", "Check a batch of fetched files and record what they are."),
        ("curation", "scan_batch", "Decode each video once: shots, measures, fingerprints, frames."),
        ("duplicates", "list_evaluation", "Read which videos an evaluation list names."),
        ("duplicates", "fingerprint_batch", "Fingerprint a batch of evaluation videos."),
        ("duplicates", "warn_of_unread", "Say which evaluation videos could not be read."),
        ("duplicates", "fingerprint_videos", "Write the fingerprints of a source list's videos to one file."),
        ("duplicates", "find_duplicates", "Find which videos are in others or in evaluation videos."),
        ("curation", "dedup_all", "Reject the videos that are in others or must not be trained on."),
        ("curation", "check_splits", "Prove that training and held-out videos share no passage."),
        ("curation", "make_clips", "Join shots into clips."),
        ("curation", "export_clips", "Write clips as MP4 files of their own."),
        ("curation", "caption_clips", "Describe clips: what is measured in them, or by a language model."),
        ("curation", "summarise_videos", "Tell chapters and whole videos from the captions of their clips."),
        ("curation", "write_questions", "Write questions with evidence from the captions."),
        ("curation", "filter_questions", "Keep the questions that cannot be answered without looking."),
        ("datasets", "question_shards", "Write shards of the questions, with their frames."),
        ("datasets", "frame_caption_shards", "Write shards of single frames with a caption."),
        ("datasets", "needle_shards", "Compose a set of needle videos and write its shards."),
        ("datasets", "recall_shards", "Write a set of text-only recall samples."),
        ("datasets", "verify_shards", "Read shards back and check them against their index."),
        ("dataset_report", "report_dataset", "Report on a data build, and write its data sets' cards."),
        ("views", "export_view", "Write a data set in another trainer's layout."),
        ("views", "index_tars", "Make foreign WebDataset tars a data set, where they lie."),
        ("model", "build_tokenizer", "Make a word-level tokenizer from the data sets' text."),
        ("model", "prepare_tower", "Prepare a tower that has no pre-trained weights."),
        ("model", "prepare_start", "Make the checkpoint that the first stage starts from."),
        ("model", "make_control", "Make a checkpoint that a stage is compared with."),
        ("training", "train_stage", "Train one stage; start its trainer or join the one that lives."),
        ("evaluation", "evaluate_checkpoint", "Measure one checkpoint."),
        ("report", "build_report", "Put everything into one HTML page."),
    )
}


def find_task(name: str) -> TaskEntry:
    """Return the task of that name, also written with dashes. Raises ``InputError`` with the known names."""
    wanted = name.replace("-", "_")
    if wanted in TASKS:
        return TASKS[wanted]
    close = difflib.get_close_matches(wanted, TASKS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"There is no task {name!r}.{hint} Known tasks: {', '.join(TASKS)}.")
