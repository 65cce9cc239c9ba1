from __future__ import annotations

import pytest
import yaml

from longvila.config.sources import dataset_roots
from longvila.curation.language.degenerate import what_is_wrong

PROSE = (
    "A woman in a red coat crosses a wet street from left to right while three cars wait at a light. "
    'Behind her, a shop sign reads "OPEN". The camera pans slowly to the right and follows her until she '
    "enters a café; the light inside is warm and the street outside grows dark."
)


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "A cat.",
        "A dog runs. A dog sits. A dog eats. A dog sleeps.",
        "Un chat noir dort sur un canapé.",
        "一只黑猫睡在沙发上，旁边有一个红色的球。窗外正在下雨，房间里很暗，灯光从左边照进来。",
        "Die Kamera schwenkt nach links, nach links, und dann nach rechts.",
        "The sign counts down: 10, 9, 8, 7, 6, 5, 4, 3, 2, 1.",
        "Unfortunately the bridge is closed; a man turns back. I'm not sure whose car it is.",
        'The sign reads "I can see you".',
        " ".join(
            f"At {n} s, person number {n} walks past the {n % 7 + 2} trees by the river." for n in range(20)
        ),
    ],
)
def test_descriptions_pass(text):
    assert what_is_wrong(text, prompt="Describe the clip in one paragraph.") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("!!!!", "no words"),
        ("!!!!!!!!!!", "mostly '!'"),
        ("aaaaaaaaaaaaaaaaaaaa", "mostly 'a'"),
        ("1 2 3 4", "no words"),
        ("\ufffd\ufffdthe c\ufffdt", "cannot be read"),
        ("The man walks and the man walks and the man walks and the man walks and the man walks", "repeats"),
        (PROSE + " He waves." * 12, "repeats"),
        ("word " * 30, "repeats"),
        ("\n".join(["- a red box on the left side"] * 5), "repeats"),
        ("一只黑猫睡在沙发上，一只黑猫睡在沙发上，" * 10, "repeats"),
        ("I'm sorry, but I can't assist with that.", "declined"),
        ("I cannot see any images in your message.", "declined"),
        ("I can’t view the video you mention.", "declined"),
        ("As an AI language model, I have no eyes.", "declined"),
        ("No images were provided, so there is nothing to say.", "declined"),
        ("Please upload the frames.", "declined"),
        ("I am unable to describe the video.", "declined"),
        ("A cat.<|im_end|>\n<|im_start|>user", "chat template"),
        ("[INST] Describe the clip [/INST]", "chat template"),
    ],
)
def test_what_is_none_is_told(text, why):
    assert why in (what_is_wrong(text) or "nothing")


def test_an_echo_of_the_prompt_is_told():
    asked = (
        "Describe the clip in one paragraph of three to six sentences, in English and in the present tense."
    )
    assert what_is_wrong(f"Sure. {asked}", prompt=asked) == "the answer repeats the prompt"
    assert what_is_wrong(PROSE, prompt=f"{asked} {PROSE[:40]}") is None


def test_no_prompt_of_ours_would_pass_as_a_caption_of_itself():
    for root in dataset_roots():
        for path in root.glob("prompts/caption-clip*.yaml"):
            user = yaml.safe_load(path.read_text())["user"]
            assert what_is_wrong(user, prompt=user) is not None
