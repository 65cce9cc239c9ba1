from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.batching import Batcher
from longvila.curation.language.cache import AnswerCache
from longvila.curation.language.local import LocalModel
from longvila.curation.language.protocol import Message
from longvila.errors import ConfigError, InputError, ItemError, MachineError
from longvila.storage import open_storage
from tests.curation.language.making import SCHEMA, asking
from tests.curation.language.tiny_models import MAX_CONTEXT, jpeg, make_llm, make_vlm


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory) -> Path:
    return make_llm(tmp_path_factory.mktemp("models") / "tiny-llm")


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory) -> Path:
    return make_vlm(tmp_path_factory.mktemp("models") / "tiny-vlm")


def load(folder: Path, cache: Path | None = None, **changed) -> LocalModel:
    config = LanguageModelConfig.model_validate({"kind": "local", "model": str(folder), **changed})
    model = LocalModel(config, cache=AnswerCache(open_storage(str(cache)) if cache else None))
    model.load()
    return model


@pytest.fixture(scope="session")
def vlm(vlm_folder) -> LocalModel:
    return load(vlm_folder)


@pytest.fixture(scope="session")
def llm(llm_folder) -> LocalModel:
    return load(llm_folder)


class TestAModelWithEyes:
    def test_it_says_other_things_of_other_pictures_and_the_same_of_the_same(self, vlm):
        def say(*colours):
            shown = [jpeg(colour) for colour in colours]
            return vlm.complete(asking("Which colour?", *shown), max_tokens=12)

        red, blue, again = say("red", "green"), say("blue", "green"), say("red", "green")
        assert red == again
        assert red.text != blue.text
        assert say("green", "red").text != red.text  # and their order tells
        assert say("red").usage.tokens_in == red.usage.tokens_in - 4  # visual tokens

    def test_many_threads_get_what_each_would_get_alone(self, vlm, vlm_folder):
        chats = [asking("?" * n, *[jpeg("red")] * (n % 3)) for n in range(1, 9)]
        alone = [vlm.complete(chat, max_tokens=8).text for chat in chats]
        together = load(vlm_folder, batch_size=4)
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda chat: together.complete(chat, max_tokens=8).text, chats))
        assert said == alone
        assert len(set(alone)) > 4

    def test_a_picture_that_is_none_is_that_items_fault(self, vlm):
        with pytest.raises(ItemError, match="no whole JPEG") as caught:
            vlm.complete(asking("?", b"\xff\xd8\xff not"), max_tokens=4)
        assert caught.value.reason == "refused"

    def test_what_does_not_fit_is_refused_and_its_neighbours_are_not(self, vlm_folder):
        model = load(vlm_folder, batch_size=4)
        with ThreadPoolExecutor(4) as pool:
            futures = [
                pool.submit(model.complete, asking("?" * length), max_tokens=4)
                for length in (5, MAX_CONTEXT, 6, 7)
            ]
        with pytest.raises(ItemError, match=f"more than the {MAX_CONTEXT} that tiny-vlm can hold"):
            futures[1].result()
        assert all(futures[n].result().usage.tokens_out for n in (0, 2, 3))


class TestAModelWithout:
    def test_it_answers_greedily_and_says_when_it_was_cut_off(self, llm):
        said = llm.complete(asking("Hello"), max_tokens=6)
        assert said == llm.complete(asking("Hello"), max_tokens=6)
        assert said.model == "tiny-llm"
        assert (said.finish, said.usage.tokens_out) == ("length", 6)

    def test_pictures_are_refused_as_a_wrong_choice_of_model(self, llm):
        with pytest.raises(ConfigError, match="cannot see pictures"):
            llm.complete(asking("?", jpeg("red")), max_tokens=4)

    def test_drawn_answers_follow_the_seed(self, llm_folder):
        model = load(llm_folder, temperature=1.0)
        said = [model.complete(asking(), max_tokens=12, seed=seed).text for seed in (1, 2, 1)]
        assert said[0] == said[2] != said[1]

    def test_json_is_demanded_in_words_twice_and_then_given_up(self, llm_folder):
        with pytest.raises(ItemError, match="bad-json"):
            load(llm_folder).complete([Message(role="user", text="?")], max_tokens=4, schema={"type": "null"})

    def test_a_schema_counts_as_part_of_the_question(self, llm):
        with pytest.raises(ItemError):  # more letters than the context has
            llm.complete(asking("?"), max_tokens=4, schema={**SCHEMA, "description": "x" * MAX_CONTEXT})

    def test_weights_are_not_loaded_for_what_was_answered(self, tmp_path, llm_folder, monkeypatch):
        said = load(llm_folder, tmp_path).complete(asking(), max_tokens=6)
        config = LanguageModelConfig(kind="local", model=str(llm_folder))
        monkeypatch.setattr(LocalModel, "load", lambda _: pytest.fail("loaded for nothing"))
        again = LocalModel(config, cache=AnswerCache(open_storage(str(tmp_path))))
        assert again.complete(asking(), max_tokens=6).text == said.text

    def test_answers_are_kept_and_other_weights_at_the_same_place_are_asked_anew(self, tmp_path):
        folder = make_llm(tmp_path / "model", seed=1)
        first = load(folder, tmp_path / "kept").complete(asking(), max_tokens=6)
        again = load(folder, tmp_path / "kept").complete(asking(), max_tokens=6)
        assert (first.cached, again.cached, again.text) == (False, True, first.text)
        make_llm(folder, seed=2)
        assert not load(folder, tmp_path / "kept").complete(asking(), max_tokens=6).cached


class TestLoading:
    def test_a_base_model_has_no_chat_template(self, tmp_path):
        with pytest.raises(ConfigError, match="Name an instruct one"):
            load(make_llm(tmp_path, template=None))

    def test_nothing_there(self, tmp_path):
        for name in (tmp_path, tmp_path / "no.gguf", "HuggingFaceTB/SmolVLM"):
            with pytest.raises(InputError, match="Nothing is fetched from a hub"):
                load(name)

    @pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json"])
    def test_damaged(self, tmp_path, damaged):
        folder = make_llm(tmp_path / "model")
        (folder / damaged).write_bytes(b'{"model_type": "no such"}')
        with pytest.raises(InputError, match="whole checkpoint"):
            load(folder)

    def test_missing_weights_are_not_drawn(self, tmp_path):
        folder = make_llm(tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        weights.pop("model.norm.weight")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=r"1 of its weights are missing, for example model\.norm"):
            load(folder)

    def test_a_device_that_is_not_there(self, llm_folder):
        with pytest.raises(ConfigError, match="is no device"):
            load(llm_folder, device="gpu please")
        import torch

        if not torch.cuda.is_available():
            with pytest.raises(MachineError, match="no GPU"):
                load(llm_folder, device="cuda")


class TestTheBatcher:
    def test_those_who_wait_are_taken_along_by_kind_and_up_to_the_size(self):
        batches: list[list[int]] = []
        first, go = threading.Event(), threading.Event()

        def run(numbers: list[int]) -> list[int]:
            batches.append(numbers)
            first.set()
            go.wait(5)
            return [number * 10 for number in numbers]

        batcher = Batcher(run, kind=lambda number: number % 2, size=3)
        with ThreadPoolExecutor(9) as pool:
            futures = [pool.submit(batcher.submit, 0)]
            first.wait(5)
            futures += [pool.submit(batcher.submit, number) for number in range(1, 9)]
            while len(batcher._queue) < 8:
                pass
            go.set()
            assert [future.result() for future in futures] == [number * 10 for number in range(9)]
        assert batches[0] == [0]
        assert all(len({number % 2 for number in batch}) == 1 and len(batch) <= 3 for batch in batches)
        assert len(batches) == 5

    def test_an_error_reaches_all_of_its_batch_and_an_items_only_that_item(self):
        def run(numbers: list[int]) -> list[int | ItemError]:
            if 13 in numbers:
                raise RuntimeError("all")
            return [ItemError("odd", f"{number}") if number % 2 else number for number in numbers]

        batcher = Batcher(run, kind=lambda _: 0, size=2)
        assert batcher.submit(4) == 4
        with pytest.raises(ItemError, match="odd: 3"):
            batcher.submit(3)
        with pytest.raises(RuntimeError, match="all"):
            batcher.submit(13)
        assert batcher.submit(6) == 6
