from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from longvila.config.language import LanguageModelConfig
from longvila.curation.language import opening
from longvila.curation.language.transport import read_key
from longvila.errors import ConfigError, InputError, NetworkError
from longvila.storage import Workspace
from tests.curation.language.making import asking, config_for
from tests.curation.language.serving import ChatServer, Fault, completion

CANARY = "sk-canary-7f3a9c55e1"


class TestTheKey:
    def test_it_is_sent_and_stays_nowhere(self, tmp_path, monkeypatch, caplog):
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("TEST_KEY", f"{CANARY}\n")
        echo = Fault(status=401, body={"error": {"message": f"Incorrect API key provided: {CANARY}"}})
        again = Fault(status=500, body=f"header was Bearer {CANARY}".encode())
        told = completion(f"Your key is {CANARY}.")
        workspace = Workspace.open(tmp_path / "work")
        with ChatServer(lambda _: told, faults=[again, None, echo]) as server:
            model = opening.open_model(config_for(server, api_key_env="TEST_KEY"), workspace)
            said = model.complete(asking("one"), max_tokens=9)
            with pytest.raises(ConfigError) as caught:
                model.complete(asking("two"), max_tokens=9)
        assert server.got[0].headers["authorization"] == f"Bearer {CANARY}"
        assert "TEST_KEY" in str(caught.value)
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert CANARY.encode() not in kept
        assert CANARY not in f"{said} {caught.value} {model!r} {vars(model)} {caplog.text}"
        assert "[key]" in said.text

    @pytest.mark.parametrize("value", ["", "  ", "two words", "snow☃man", "line\nbreak"])
    def test_what_is_no_key_is_told_without_showing_it(self, monkeypatch, value):
        monkeypatch.setenv("TEST_KEY", value)
        with pytest.raises(ConfigError, match="TEST_KEY") as caught:
            read_key(config_for("http://127.0.0.1:9/v1", api_key_env="TEST_KEY"))
        assert not value.strip() or value not in str(caught.value)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"api_key_env": "sk-secret-1"},
            {"api_key_env": "abcdef0123456789secret"},
            {"base_url": "https://user:secret@host/v1"},
            {"base_url": "https://host/v1?key=secret"},
            {"api_key": "secret"},
        ],
    )
    def test_a_key_in_the_recipe_is_refused_and_not_repeated(self, wrong):
        with pytest.raises(ValueError, match=r"api_key_env|base_url|api_key") as caught:
            LanguageModelConfig.model_validate({"model": "m", "base_url": "http://h/v1", **wrong})
        assert "secret" not in str(caught.value)


class TestTheEarlyLook:
    def test_a_listed_model_costs_nothing(self):
        with ChatServer() as server:
            opening.check_model(config_for(server))
        assert not server.got

    def test_a_model_that_is_not_listed_is_asked_for_one_token(self):
        with ChatServer(models=["gateway/*"]) as server:
            opening.check_model(config_for(server))
        assert server.got[0].body["max_tokens"] == 1

    def test_a_name_that_is_wrong_is_told_with_the_right_ones(self):
        wrong = Fault(status=404, body={"error": {"message": "model not found"}})
        with (
            ChatServer(models=["big", "small"], fault_for=lambda got: wrong if got.body else None) as server,
            pytest.raises(ConfigError, match="The server knows: big, small"),
        ):
            opening.check_model(config_for(server))

    def test_a_server_without_a_list_is_asked(self):
        with ChatServer(fault_for=lambda got: None if got.body else Fault(status=404)) as server:
            opening.check_model(config_for(server))
        assert len(server.got) == 1

    def test_nobody_there(self):
        with pytest.raises(NetworkError, match="Start the server"):
            opening.check_model(config_for("http://127.0.0.1:9/v1"))

    def test_a_wrong_key(self):
        with (
            ChatServer(fault_for=lambda _: Fault(status=401)) as server,
            pytest.raises(ConfigError, match="wants a key"),
        ):
            opening.check_model(config_for(server))

    def test_a_local_model_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match="Nothing is fetched from a hub"):
            opening.check_model(LanguageModelConfig(kind="local", model=str(tmp_path)))


def test_one_model_for_all_callers_of_a_process(tmp_path):
    workspace = Workspace.open(tmp_path)
    with ChatServer() as server, ThreadPoolExecutor(4) as pool:
        config = config_for(server)
        opened = list(pool.map(lambda _: opening.open_model(config, workspace), range(4)))
    assert all(one is opened[0] for one in opened)
