"""From drafts to questions, and what can be said of them without a model.

A question that fails is not thrown away here: its ``checks`` hold the reason under ``rejected``, and the
filter over the whole set turns that into a rejection, so that every written question is accounted for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from longvila.config.language import QuestionCheckConfig, QuestionConfig
from longvila.curation.asking.compose import CANNOT_TELL
from longvila.curation.asking.options import form_of, options_of, options_problem
from longvila.curation.asking.outline import Line
from longvila.curation.asking.sheet import Draft, Sheet, share_usage, total_usage
from longvila.curation.asking.wording import (
    contains,
    markup,
    meaning,
    share_found,
    speaks_of_source,
    words,
)
from longvila.records import Evidence, Question, Usage, VideoRecord, content_id

VERSION = 1
REJECTED = "rejected"
LITERAL_KINDS = frozenset(("spatial", "attribute", "action", "object", "ocr", "needle"))
COMPUTED_KINDS = frozenset(("order", "localisation", "counting", "unanswerable"))
_MANY_CLIPS = {"order": 3, "cross_clip": 2, "synopsis": 2}
_PROBLEMS = {
    "evidence-clips": "a clip is named that was not shown",
    "no-evidence": "no clip is named",
    "evidence-apart": "the clips named are not one stretch of time",
    "events": "the events are not three to eight different ones in clips of their own",
    "count": "the number is not between 0 and 1000",
}


def questions_of(
    sheet: Sheet, video: VideoRecord, lines: Sequence[Line], config: QuestionConfig, *, writer: str
) -> list[Question]:
    """Make a question of every draft, with its share of what the requests cost, and check its words.

    Of those without a fault, ``max_per_video`` pass: the first of a random order that is always the same.
    """
    numbered = {line.number: line for line in lines}
    costs = _costs(sheet)
    seen: Counter[str] = Counter()
    made = []
    for number, asked in enumerate(sheet.asked):
        span = (0.0, video.duration_s) if config.shown == "video" else (asked.start_s, asked.stop_s)
        for place, draft in enumerate(asked.drafts):
            said = (writer, video.video_id, draft.kind, draft.question, draft.answer, span)
            seen[str(said)] += 1
            question = _question(
                draft, video, span, numbered, config, content_id("question", *said, seen[str(said)])
            )
            facts = {"writer": writer, "model": asked.model, "prompt_id": asked.prompt_id}
            question = question.model_copy(update={**facts, "usage": costs[number][place]})
            problem = draft_problem(draft) or text_problem(question, numbered, config.checks)
            made.append(
                reject(question, *problem) if problem else _grounded(question, numbered, config.checks)
            )
    return _at_most(without_similar(made, config.checks), config.max_per_video)


def reject(question: Question, reason: str, detail: str) -> Question:
    """Note why a question is not to be kept."""
    return question.model_copy(
        update={"checks": {**question.checks, REJECTED: {"reason": reason, "detail": detail}}}
    )


def rejection_of(question: Question) -> tuple[str, str] | None:
    """Return (reason, detail) if a check has rejected the question."""
    found = question.checks.get(REJECTED)
    return (str(found["reason"]), str(found["detail"])) if isinstance(found, Mapping) else None


def draft_problem(draft: Draft) -> tuple[str, str] | None:
    """Return (reason, detail) of what was wrong when the draft was made."""
    return (draft.problem, _PROBLEMS.get(draft.problem, draft.problem)) if draft.problem else None


def text_problem(
    question: Question, lines: Mapping[int, Line], config: QuestionCheckConfig
) -> tuple[str, str] | None:
    """Return (reason, detail) of the first fault in the words of a question, its answer and options."""
    asked, answer = question.question, question.answer
    if not words(asked) or not words(answer):
        return "no-text", "the question or its answer is empty"
    if len(words(asked)) > config.max_question_words:
        return (
            "question-long",
            f"the question has {len(words(asked))} words, more than {config.max_question_words}",
        )
    if len(words(answer)) > config.max_answer_words and question.kind != "summary":
        return (
            "answer-long",
            f"the answer has {len(words(answer))} words, more than {config.max_answer_words}",
        )
    for text in (asked, answer, *question.options):
        if found := markup(text):
            return "markup", f"{found!r} means something to a tokenizer"
    said = [asked] if question.kind == "ocr" else [asked, answer, *question.options]
    for text in said:
        if found := speaks_of_source(text):
            return "speaks-of-captions", f"{found!r} betrays that no video was watched: {text!r}"
    if question.kind != "order" and contains(asked, answer):
        return "answer-leaks", f"the answer {answer!r} stands in {asked!r}"
    if len(question.evidence) < _MANY_CLIPS.get(question.kind, 1) and len(lines) > 2:
        return (
            "evidence-few",
            f"a question of kind {question.kind} rests on {len(question.evidence)} clip alone",
        )
    return options_problem(answer, question.options) if question.form == "choice" else None


def grounded_share(question: Question, lines: Mapping[int, Line]) -> float:
    """Return the share of the answer's words that the captions of its evidence hold."""
    ids = {evidence.clip_id for evidence in question.evidence}
    return share_found(question.answer, " ".join(line.text for line in lines.values() if line.clip_id in ids))


def without_similar(questions: Sequence[Question], config: QuestionCheckConfig) -> list[Question]:
    """Reject what asks nearly the same as one before it, of the same video and span."""
    kept: list[tuple[str, frozenset[str]]] = []
    holding: dict[tuple[object, ...], list[int]] = defaultdict(list)  # which of them hold a word
    found = []
    for question in questions:
        if rejection_of(question) is not None or question.kind == "summary":
            found.append(question)
            continue
        about = (question.start_s, question.stop_s, question.kind == "order")
        asked = meaning(question.question)
        shared = Counter(i for word in asked for i in holding[*about, word])
        twin = next(
            (i for i, n in sorted(shared.items()) if n >= config.max_similar * len(asked | kept[i][1])), None
        )
        if twin is None:
            for word in asked:
                holding[*about, word].append(len(kept))
            kept.append((question.question, asked))
            found.append(question)
        else:
            detail = f"{question.question!r} asks the same as {kept[twin][0]!r}"
            found.append(reject(question, "similar", detail))
    return found


def _question(
    draft: Draft,
    video: VideoRecord,
    span: tuple[float, float],
    lines: Mapping[int, Line],
    config: QuestionConfig,
    question_id: str,
) -> Question:
    form = form_of(question_id, config.forms) if draft.kind != "summary" else "open"
    options: tuple[str, ...] = ()
    if form == "choice":
        wrong = draft.distractors
        options = options_of(draft.answer, wrong, num_options=config.num_options, seed=question_id)
        if "open" in config.forms and options_problem(draft.answer, options):
            form, options = "open", ()
    shown = [lines[number] for number in sorted(draft.clips) if number in lines]
    return Question.model_validate(
        {
            "question_id": question_id,
            "video_id": video.video_id,
            "kind": draft.kind,
            "question": draft.question,
            "answer": draft.answer,
            "options": options,
            "form": form,
            "start_s": span[0],
            "stop_s": span[1],
            "evidence": tuple(
                Evidence(
                    start_s=line.start_s, stop_s=min(line.stop_s, video.duration_s), clip_id=line.clip_id
                )
                for line in shown
            ),
            "writer": "",
            "split": video.split,
        }
    )


def _grounded(question: Question, lines: Mapping[int, Line], config: QuestionCheckConfig) -> Question:
    """Note how much of the answer its captions hold, and reject a literal kind that they do not."""
    if question.kind in COMPUTED_KINDS:
        return question
    share = round(grounded_share(question, lines), 3)
    question = question.model_copy(update={"checks": {**question.checks, "grounded": share}})
    needed = 1.0 if question.kind == "ocr" and config.min_grounded else config.min_grounded
    if question.kind not in LITERAL_KINDS or share >= needed:
        return question
    return reject(
        question, "not-grounded", f"the captions named hold {share:.0%} of the words of {question.answer!r}"
    )


def _at_most(questions: Sequence[Question], number: int) -> list[Question]:
    """Leave ``number`` of the good ones; the others are rejected, so that they and their cost are counted."""
    good = sorted(q.question_id for q in questions if rejection_of(q) is None)
    over = set(good[number:])
    detail = f"the video has {len(good)} good questions, and max_per_video is {number}"
    return [reject(q, "limit", detail) if q.question_id in over else q for q in questions]


def _costs(sheet: Sheet) -> list[list[Usage]]:
    """Divide what requests cost over their drafts; what gave none is shared by all drafts of the video."""
    num_drafts = sum(len(asked.drafts) for asked in sheet.asked)
    spare = share_usage(total_usage([a.usage for a in sheet.asked if not a.drafts]), max(1, num_drafts))
    costs = []
    for asked in sheet.asked:
        own = share_usage(asked.usage, len(asked.drafts)) if asked.drafts else []
        costs.append([usage + spare.pop() for usage in own])
    return costs


def is_unanswerable(question: Question) -> bool:
    """Whether the right answer is that it cannot be told."""
    return question.answer == CANNOT_TELL
