from __future__ import annotations

import time
from pathlib import Path

import pytest

from longvila.errors import ItemError
from longvila.records import Usage
from tests.curation.language.footage import Footage, captions_config
from tests.curation.language.making import SCHEMA, asking, endpoint
from tests.curation.language.serving import ChatServer, Fault
from tests.curation.language.smollm2 import RealAnswers, smollm2

pytestmark = pytest.mark.slow  # loading the weights takes some 18 CPU seconds
PROMPT = """
name: short
version: 1
purpose: A prompt that a very small model answers in a few tokens.
user: >
  Write one short sentence about a rabbit that wakes up in a meadow,
  {{ "%.0f" | format(start_s) }} seconds into a film.
"""
FAULTS = [
    Fault(status=429, headers={"Retry-After": "0.2"}),
    Fault(status=500),
    Fault(drop=True),
    Fault(cut=True),
    Fault(status=200, body=b"<html>"),
]


@pytest.fixture(scope="module")
def answers() -> RealAnswers:
    return RealAnswers(smollm2())


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Footage:
    return Footage.make(tmp_path_factory.mktemp("real"), count=1)


@pytest.fixture
def prompt(tmp_path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(PROMPT)
    return str(path)


def caption(footage: Footage, server: ChatServer, prompt: str, **model):
    config = captions_config(server, prompt=prompt, attempts=8, **model)
    return footage.caption(config.model_copy(update={"max_tokens": 16}))


def test_a_real_model_behind_a_server_with_faults_captions_every_clip(footage, answers, prompt, tmp_path):
    with ChatServer(answers, faults=list(FAULTS)) as server:
        made = caption(footage.copy(tmp_path / "a"), server, prompt, read_timeout_s=120.0)
        assert len(server.got) == 4 + len(FAULTS)
    assert not made.rejections
    texts = [said.text for said in made.results]
    assert len(set(texts)) > 1
    assert all("rabbit" in text.lower() for text in texts)
    assert {said.model for said in made.results} == {"smollm2"}
    assert all(said.outcome == "truncated" or said.text.endswith(".") for said in made.results)
    total = sum((said.usage for said in made.results), Usage())
    assert 4 * 20 < total.tokens_in < 4 * 120
    assert 16 < total.tokens_out <= 4 * 16

    # The same answers, now that they are known, through time-outs.
    with ChatServer(answers, faults=[Fault(delay_s=1.0), Fault(trickle_s=0.1)]) as server:
        limits = {"read_timeout_s": 0.5, "total_timeout_s": 0.9}
        begun = time.monotonic()
        again = caption(footage.copy(tmp_path / "b"), server, prompt, **limits)
        assert time.monotonic() - begun < 30
    assert [said.text for said in again.results] == texts
    assert len(server.got) == 6


def test_a_real_model_that_cannot_write_json_is_asked_twice_and_then_rejected(answers, tmp_path: Path):
    with ChatServer(answers) as server:
        model = endpoint(server, tmp_path, read_timeout_s=120.0)
        with pytest.raises(ItemError, match="bad-json"):
            model.complete(asking("How many ears has a rabbit?"), max_tokens=12, schema=SCHEMA)
    assert len(server.got) in (1, 2)  # once where it was cut off
