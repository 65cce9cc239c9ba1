"""What no field can see alone: settings of a recipe that contradict each other.

Everything here follows from the recipe's own numbers. It is looked at when the recipe is read, because a
contradiction between two sections would otherwise show hours later, when the later one is reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from longvila.config.degrees import fewest_heads

if TYPE_CHECKING:
    from longvila.config.data import DataConfig
    from longvila.config.recipe import ControlConfig, Recipe
    from longvila.config.stage import StageConfig

QUESTIONS = "questions"  # the data set that every build writes
TOKENS_PER_CARD = 5  # of a question for a card or a pair, its answer and its end, at the least
TOKENS_PER_PAIR = 2
QWEN2_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Finding(NamedTuple):
    """One contradiction: the field to mend, what it says now, and what it contradicts."""

    location: tuple[int | str, ...]
    given: Any
    message: str


def check_consistency(recipe: Recipe) -> None:
    """Raise pydantic's ``ValidationError`` with every contradiction at its field."""
    findings = list(contradictions(recipe))
    if findings:
        raise ValidationError.from_exception_data("Recipe", [_details(finding) for finding in findings])


def contradictions(recipe: Recipe) -> Iterator[Finding]:
    """Yield every contradiction of a recipe whose fields are right one by one."""
    made = made_datasets(recipe.data) if recipe.data else None
    if recipe.data:
        yield from _data(recipe, recipe.data)
    context = recipe.model.llm.max_context
    for number, stage in enumerate(recipe.stages):
        yield from _mixture(stage, ("stages", number, "mixture"), made)
        yield from _lengths(recipe, stage, ("stages", number, "max_tokens"))
        yield from _heads(recipe, stage, ("stages", number))
        if stage.max_context is not None:
            if stage.max_context < context:
                yield Finding(
                    ("stages", number, "max_context"),
                    stage.max_context,
                    f"shorter than the {context} before this stage; a context only grows",
                )
            context = stage.max_context
    for number, control in enumerate(recipe.controls):
        yield from _control(recipe, control, ("controls", number))
    qa = recipe.evaluation.qa
    if qa is not None and made is not None and qa.dataset not in made:
        yield Finding(("evaluation", "qa", "dataset"), qa.dataset, _unknown(made))


def made_datasets(data: DataConfig) -> list[str]:
    """The names of the data sets that a build writes, in the order of the recipe."""
    sets = (*data.frame_captions, *data.needle_sets, *data.recall_texts)
    return [QUESTIONS, *(one.name for one in sets)]


def _details(finding: Finding) -> InitErrorDetails:
    error = PydanticCustomError("contradiction", "{message}", {"message": finding.message})
    return InitErrorDetails(type=error, loc=finding.location, input=finding.given)


def _unknown(made: list[str]) -> str:
    return f"the data section makes no such data set. It makes: {', '.join(made)}"


def _data(recipe: Recipe, data: DataConfig) -> Iterator[Finding]:
    side = recipe.model.vision.image_size
    if data.frames.size != side:
        yield Finding(
            ("data", "frames", "size"),
            data.frames.size,
            f"the model takes frames of model.vision.image_size={side} pixels. Make the two equal",
        )
    seen = {QUESTIONS}
    for section in ("frame_captions", "needle_sets", "recall_texts"):
        for number, one in enumerate(getattr(data, section)):
            if one.name in seen:
                yield Finding(("data", section, number, "name"), one.name, "two data sets have this name")
            seen.add(one.name)
    for number, texts in enumerate(data.recall_texts):
        shortest = TOKENS_PER_CARD + TOKENS_PER_PAIR
        if texts.min_tokens < shortest:
            yield Finding(
                ("data", "recall_texts", number, "min_tokens"),
                texts.min_tokens,
                f"no room for a pair and a question about it. Use at least {shortest}",
            )


def _mixture(stage: StageConfig, at: tuple[int | str, ...], made: list[str] | None) -> Iterator[Finding]:
    seen: set[str] = set()
    for number, entry in enumerate(stage.mixture):
        where = (*at, number, "dataset")
        if entry.dataset in seen:
            yield Finding(where, entry.dataset, "named twice in this mixture. Add up the weights instead")
        elif made is not None and "/" not in entry.dataset and entry.dataset not in made:
            yield Finding(where, entry.dataset, _unknown(made))
        seen.add(entry.dataset)


def _lengths(recipe: Recipe, stage: StageConfig, at: tuple[int | str, ...]) -> Iterator[Finding]:
    """One frame must fit into a row, and so must the longest sample of every set that the recipe composes."""
    model = recipe.model
    per_frame = model.tokens_per_frame + (1 if model.frame_separator else 0)
    needs = {"one frame": per_frame + 1} | dict(_longest_samples(recipe, stage, per_frame))
    for what, tokens in needs.items():
        if tokens > stage.max_tokens:
            yield Finding(
                at,
                stage.max_tokens,
                f"{what} needs up to {tokens} tokens ({per_frame} a frame). Raise it to that, "
                "or show fewer frames with max_frames",
            )
            return


def _longest_samples(recipe: Recipe, stage: StageConfig, per_frame: int) -> Iterator[tuple[str, int]]:
    data, wanted = recipe.data, {entry.dataset for entry in stage.mixture}
    if data is None:
        return
    for needles in data.needle_sets:
        if needles.name in wanted:
            frames = min(needles.max_frames, stage.max_frames)
            cards = min(needles.needles, needles.max_frames)
            yield f"a sample of {needles.name!r}", frames * per_frame + cards * TOKENS_PER_CARD
    for texts in data.recall_texts:
        if texts.name in wanted:
            yield f"a sample of {texts.name!r}", texts.max_tokens


def _heads(recipe: Recipe, stage: StageConfig, at: tuple[int | str, ...]) -> Iterator[Finding]:
    """Degrees and groups against the LLM's heads, and adapters against its layers, where both are stated."""
    llm = recipe.model.llm
    if llm.pretrained is not None:
        return
    for field, ulysses_degree in _ulysses_degrees(stage):
        if ulysses_degree > llm.num_heads:
            yield Finding(
                (*at, *field),
                ulysses_degree,
                f"more than the {llm.num_heads} attention heads of model.llm.num_heads. "
                f"Use at most {llm.num_heads} and put the rest into ring_degree",
            )
            continue
        fewest = fewest_heads(llm.num_heads, llm.num_kv_heads, ulysses_degree)
        if stage.head_groups > fewest:
            yield Finding(
                (*at, "head_groups"),
                stage.head_groups,
                f"more than the {fewest} query heads that a rank holds at ulysses_degree={ulysses_degree} "
                f"(model.llm.num_heads={llm.num_heads}). Use at most {fewest}",
            )
    unknown = [target for target in stage.lora.targets if target not in QWEN2_LAYERS] if stage.lora else []
    if unknown:
        yield Finding(
            (*at, "lora", "targets"),
            ", ".join(unknown),
            f"the LLM has no such layers. Choose from {', '.join(QWEN2_LAYERS)}",
        )


def _ulysses_degrees(stage: StageConfig) -> Iterator[tuple[tuple[int | str, ...], int]]:
    yield ("ulysses_degree",), stage.ulysses_degree
    for number, (ulysses_degree, _) in enumerate(stage.smaller_degrees):
        yield ("smaller_degrees", number, 0), ulysses_degree


def _control(recipe: Recipe, control: ControlConfig, at: tuple[int | str, ...]) -> Iterator[Finding]:
    stages = [stage.name for stage in recipe.stages]
    if control.name in [*stages, "start"]:
        yield Finding((*at, "name"), control.name, "a stage's checkpoint has this name. Choose another")
    if [other.name for other in recipe.controls].index(control.name) != at[-1]:
        yield Finding((*at, "name"), control.name, "two controls have this name")
    if stages.index(control.start) >= stages.index(control.like):
        yield Finding(
            (*at, "like"),
            control.like,
            f"it must be a stage after start={control.start}, or there is nothing to compare",
        )
