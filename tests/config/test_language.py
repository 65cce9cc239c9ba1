from __future__ import annotations

import pytest

from longvila.config import load_recipe
from longvila.config.language import CaptionConfig, LanguageModelConfig
from longvila.errors import ConfigError

ENDPOINT = {"model": "m", "base_url": "http://127.0.0.1:8000/v1"}


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({"model": "m"}, "needs base_url"),
        ({"model": "m", "base_url": "127.0.0.1:8000/v1"}, "must be http"),
        ({"model": "m", "base_url": "ftp://h/v1"}, "must be http"),
        ({"model": "m", "base_url": "http://h:port/v1"}, "is not an address"),
        ({"model": "m", "base_url": "http://h/v1/chat/completions"}, "ends before /chat/completions"),
        ({**ENDPOINT, "kind": "local"}, "base_url is for kind: endpoint"),
        ({**ENDPOINT, "max_cost_usd": 3}, "needs the prices"),
        ({**ENDPOINT, "extra_body": {"messages": [], "seed": 1}}, "may not set messages, seed"),
        ({**ENDPOINT, "requests_at_once": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_told_with_their_mend(given, mend):
    with pytest.raises(ConfigError, match=mend):
        load_recipe("demo", overrides={"data.captions": {"captioner": "model", "model": given}})


def test_a_captioner_needs_its_model_and_only_then():
    with pytest.raises(ValueError, match="needs the section model"):
        CaptionConfig(captioner="model")
    with pytest.raises(ValueError, match="Set captioner: model, or remove it"):
        CaptionConfig(model=LanguageModelConfig.model_validate(ENDPOINT))


def test_only_what_decides_answers_makes_them_anew():
    plain = LanguageModelConfig.model_validate(ENDPOINT)
    same = {
        "base_url": "https://h/v1", "attempts": 1, "requests_at_once": 99, "api_key_env": "K",
        "usd_per_million_tokens_in": 3, "max_cost_usd": 4, "tokens_per_minute": 5, "read_timeout_s": 6,
    }  # fmt: skip
    other = {"model": "n", "revision": "2", "temperature": 1, "top_p": 0.5, "extra_body": {"top_k": 1}}
    assert (
        LanguageModelConfig.model_validate({**ENDPOINT, **same}).decides_answers() == plain.decides_answers()
    )
    for name, value in other.items():
        changed = LanguageModelConfig.model_validate({**ENDPOINT, name: value})
        assert changed.decides_answers() != plain.decides_answers()
