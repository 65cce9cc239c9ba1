from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import ClassVar

import pytest

from longvila.errors import ConfigError, ItemError, NetworkError, TransientError
from longvila.records import Usage
from tests.curation.language.making import SCHEMA, asking, endpoint
from tests.curation.language.serving import ChatServer, Fault, completion, text_of

JPEG = b"\xff\xd8 not really \xff\xd9"


def ask(model, text="What is there?", **more):
    return model.complete(asking(text), max_tokens=20, **more)


def test_it_sends_what_was_asked_and_counts_what_came_back(tmp_path):
    with ChatServer() as server:
        model = endpoint(server, tmp_path, usd_per_million_tokens_in=2.0, usd_per_million_tokens_out=10.0)
        done = model.complete(asking("What?", JPEG, JPEG), max_tokens=20, seed=7)
    body = server.got[0].body
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 20, 0.0, 7)
    pictures = [part["image_url"]["url"] for part in body["messages"][1]["content"][:2]]
    assert pictures == ["data:image/jpeg;base64," + base64.b64encode(JPEG).decode()] * 2
    assert body["messages"][1]["content"][2] == {"type": "text", "text": "What?"}
    assert (done.text, done.finish, done.model) == ("A calm scene with 2 turns.", "stop", "tiny")
    assert not done.cached
    assert done.usage == Usage(tokens_in=10, tokens_out=5, cost_usd=70e-6)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, body=b"<html>bad gateway</html>"),
        Fault(status=429),
        Fault(status=408),
        Fault(drop=True),
        Fault(cut=True),
        Fault(status=200, body=b"<html>welcome</html>"),
        Fault(status=200, body={"choices": []}),
        Fault(status=200, body={"choices": [{"message": None}]}),
        Fault(status=200, body=[1, 2]),
        Fault(status=200, body={"error": {"message": "overloaded", "code": 502}}),
        Fault(status=200, body=b"[" * 100_000),
    ],
    ids=[
        "500",
        "503-html",
        "429",
        "408",
        "reset",
        "cut",
        "html",
        "no-choice",
        "no-message",
        "list",
        "error",
        "deep",
    ],
)
def test_what_may_pass_is_tried_again(tmp_path, fault):
    with ChatServer(faults=[fault, fault]) as server:
        assert ask(endpoint(server, tmp_path)).text.startswith("A calm scene")
    assert len(server.got) == 3


def test_retry_after_is_obeyed_and_holds_everybody_back(tmp_path):
    limited = Fault(status=429, headers={"Retry-After": "1"})
    with ChatServer(faults=[limited]) as server, ThreadPoolExecutor(3) as pool:
        model = endpoint(server, tmp_path)
        begun = time.monotonic()
        first = pool.submit(ask, model, "one")
        while not server.got:
            time.sleep(0.01)
        time.sleep(0.1)
        others = [pool.submit(ask, model, text) for text in ("two", "three")]
        assert not wait(others, timeout=0.5).done
        for future in (first, *others):
            future.result()
        assert time.monotonic() - begun > 0.95
    assert len(server.got) == 4


def test_a_pause_that_is_too_long_ends_the_run_as_transient(tmp_path):
    with (
        ChatServer(faults=[Fault(status=429, headers={"Retry-After": "3600"})]) as server,
        pytest.raises(NetworkError, match=r"asks to wait 3600 s .* Run it again later"),
    ):
        ask(endpoint(server, tmp_path))
    assert len(server.got) == 1


def test_a_rate_limit_that_never_ends_rejects_nothing(tmp_path):
    with (
        ChatServer(fault_for=lambda _: Fault(status=429)) as server,
        pytest.raises(NetworkError, match="requests_per_minute"),
    ):
        ask(endpoint(server, tmp_path, attempts=2))
    assert len(server.got) == 4  # more patience than for other faults


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        (Fault(status=401, body={"error": {"message": "bad key"}}), "wants a key"),
        (Fault(status=403), "wants a key"),
        (Fault(status=404, body={"detail": "no model"}), "Correct base_url or model"),
        (Fault(status=402), "no credit left"),
        (Fault(status=429, body={"error": {"code": "insufficient_quota"}}), "no credit left"),
        (Fault(status=302, headers={"Location": "http://127.0.0.1:1/"}), "Redirects are not followed"),
    ],
)
def test_what_a_user_has_to_mend_stops_at_once(tmp_path, fault, mend):
    with (
        ChatServer(fault_for=lambda _: fault) as server,
        pytest.raises(ConfigError, match=mend),
    ):
        ask(endpoint(server, tmp_path))
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=400, body={"error": {"message": "too many images"}}), "refused"),
        (Fault(status=413), "refused"),
        (Fault(status=400, body={"error": {"code": "content_filter", "message": "no"}}), "blocked"),
        (Fault(status=403, body={"error": {"message": "input was flagged by moderation"}}), "blocked"),
        (Fault(status=200, body=completion("", finish="content_filter")), "blocked"),
    ],
)
def test_what_one_item_is_refused_for_is_that_items(tmp_path, fault, reason):
    with ChatServer(faults=[fault]) as server:
        model = endpoint(server, tmp_path)
        with pytest.raises(ItemError) as caught:
            ask(model, "bad")
        assert caught.value.reason == reason
        assert ask(model, "good").finish == "stop"
    assert len(server.got) == 2


def test_requests_that_are_all_refused_are_a_wrong_setting(tmp_path):
    with ChatServer(fault_for=lambda _: Fault(status=400, body={"error": "no pictures, please"})) as server:
        model = endpoint(server, tmp_path)
        for number in range(9):
            with pytest.raises(ItemError):
                ask(model, f"{number}")
        with pytest.raises(ConfigError, match="refused the first 10 requests and answered none"):
            ask(model, "last")


def test_times_out_without_a_byte_and_with_too_few(tmp_path):
    with ChatServer(faults=[Fault(delay_s=0.6), Fault(trickle_s=0.05)]) as server:
        model = endpoint(server, tmp_path, read_timeout_s=0.2, total_timeout_s=0.4)
        begun = time.monotonic()
        assert ask(model).finish == "stop"
        assert time.monotonic() - begun < 3
    assert len(server.got) == 3


def test_one_item_that_never_passes_is_rejected_while_others_go_on(tmp_path):
    def poison(got):
        return Fault(status=500) if "poison" in got.text else None

    with ChatServer(fault_for=poison) as server:
        model = endpoint(server, tmp_path)
        with ThreadPoolExecutor(4) as pool:
            futures = {text: pool.submit(ask, model, text) for text in ("a", "poison", "b", "c")}
        assert all(futures[text].result().finish == "stop" for text in ("a", "b", "c"))
        with pytest.raises(ItemError, match="unreachable"):
            futures["poison"].result()
        assert ask(model, "d").finish == "stop"


def test_an_endpoint_that_is_down_for_all_is_transient_and_soon_known(tmp_path):
    with ChatServer() as server:
        url = server.url
    model = endpoint(url, tmp_path, attempts=2)
    with pytest.raises(TransientError, match="does not answer"):
        ask(model)
    begun = time.monotonic()
    for number in range(200):
        with pytest.raises(TransientError):
            ask(model, f"{number}")
    assert time.monotonic() - begun < 4


def test_an_endpoint_that_lists_models_but_answers_nothing_is_down_after_three(tmp_path):
    with ChatServer(fault_for=lambda got: Fault(status=500) if got.body else None) as server:
        model = endpoint(server, tmp_path, attempts=2)
        raised = []
        for number in range(3):
            with pytest.raises((ItemError, NetworkError)) as caught:
                ask(model, f"{number}")
            raised.append(type(caught.value))
    assert raised == [ItemError, ItemError, NetworkError]


def test_waiting_threads_hear_at_once_that_it_is_down(tmp_path):
    with ChatServer(faults=[Fault(status=500)]) as server:
        model = endpoint(server, tmp_path, backoff_s=20.0, requests_at_once=2)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, model, "slow")
            while not server.got:
                time.sleep(0.01)
            server.faults.append(Fault(status=429, headers={"Retry-After": "9999"}))
            with pytest.raises(NetworkError):
                ask(model, "other")
            begun = time.monotonic()
            with pytest.raises(NetworkError):
                waiting.result(timeout=10)
        assert time.monotonic() - begun < 5


def test_no_more_requests_at_once_than_allowed(tmp_path):
    def slow(_):
        time.sleep(0.05)
        return completion("A calm scene.")

    with ChatServer(slow) as server, ThreadPoolExecutor(12) as pool:
        model = endpoint(server, tmp_path, requests_at_once=3)
        list(pool.map(lambda number: ask(model, f"{number}"), range(12)))
    assert server.most_at_once == 3


def test_rates_are_kept(tmp_path):
    with ChatServer() as server, ThreadPoolExecutor(4) as pool:
        by_requests = endpoint(server, tmp_path, requests_per_minute=600)
        begun = time.monotonic()
        list(pool.map(lambda number: ask(by_requests, f"{number}"), range(6)))
        assert time.monotonic() - begun > 0.48
        by_tokens = endpoint(server, tmp_path, tokens_per_minute=6000)
        begun = time.monotonic()
        list(pool.map(lambda number: ask(by_tokens, f"t{number}"), range(3)))
        assert time.monotonic() - begun > 0.2


def test_length_and_thoughts_and_odd_shapes(tmp_path):
    parts = completion("")
    parts["choices"][0]["message"]["content"] = [
        {"type": "text", "text": "In "},
        {"type": "text", "text": "parts"},
    ]
    answers = [
        completion("Cut off at", finish="length"),
        completion("<think>hm, a cat?</think>\nA cat."),
        completion("<think>never ends", finish="length"),
        parts,
        completion("nul\x00 and \ud800 lone"),
    ]
    with ChatServer(lambda body: answers[int(text_of(body["messages"][-1]))]) as server:
        model = endpoint(server, tmp_path)
        got = [ask(model, f"{number}") for number in range(5)]
    assert [one.text for one in got] == ["Cut off at", "A cat.", "", "In parts", "nul and ? lone"]
    assert [one.finish for one in got] == ["length", "stop", "length", "stop", "stop"]


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": -5, "completion_tokens": "many"}, {"prompt_tokens": None}]
)
def test_usage_that_the_server_does_not_tell_is_estimated_and_marked(tmp_path, usage):
    with ChatServer(lambda _: completion("Eight letters and more.", usage=usage)) as server:
        done = ask(endpoint(server, tmp_path, usd_per_million_tokens_in=1.0))
    assert done.usage.estimated
    assert 5 < done.usage.tokens_in < 40
    assert done.usage.tokens_out == 6
    assert done.usage.cost_usd > 0


def test_fields_that_a_server_does_not_take_are_left_out(tmp_path):
    def fussy(got):
        for name in ("max_tokens", "temperature", "seed"):
            if name in got.body:
                said = f"Unsupported parameter: '{name}' is not supported with this model."
                return Fault(status=400, body={"error": {"message": said}})
        return None

    with ChatServer(fault_for=fussy) as server:
        model = endpoint(server, tmp_path)
        assert ask(model, "one").finish == "stop"
        assert ask(model, "two").finish == "stop"
    assert len(server.got) == 5
    assert server.got[-1].body["max_completion_tokens"] == 20


def test_extra_fields_are_sent_and_kept_apart_in_the_cache(tmp_path):
    with ChatServer() as server:
        ask(endpoint(server, tmp_path, extra_body={"chat_template_kwargs": {"enable_thinking": False}}))
        ask(endpoint(server, tmp_path))
    assert len(server.got) == 2
    assert server.got[0].body["chat_template_kwargs"] == {"enable_thinking": False}


class TestJson:
    def test_a_schema_is_sent_and_the_answer_is_plain_json(self, tmp_path):
        with ChatServer(lambda _: completion('```json\n{"answer": 4}\n```')) as server:
            done = ask(endpoint(server, tmp_path), schema=SCHEMA)
        sent = server.got[0].body["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
        assert done.text == '{"answer": 4}'

    @pytest.mark.parametrize("refused", [("json_schema",), ("json_schema", "json_object")])
    def test_a_server_that_refuses_a_format_is_asked_in_a_plainer_one_from_then_on(self, tmp_path, refused):
        def fussy(got):
            form = got.body.get("response_format", {}).get("type")
            said = f"response_format {form} is not known here"
            return Fault(status=400, body={"error": {"message": said}}) if form in refused else None

        with ChatServer(lambda _: completion('Sure: {"answer": 4}'), fault_for=fussy) as server:
            model = endpoint(server, tmp_path)
            assert ask(model, "one", schema=SCHEMA).text == '{"answer": 4}'
            assert ask(model, "two", schema=SCHEMA).text == '{"answer": 4}'
        assert len(server.got) == len(refused) + 2
        assert '"integer"' in server.got[-1].text  # the schema is told in words instead

    def test_a_server_that_ignores_the_format_is_told_the_schema_in_words(self, tmp_path):
        def says(body):
            return completion('{"answer": 4}' if "JSON schema" in text_of(body["messages"][-1]) else "Four!")

        with ChatServer(says) as server:
            model = endpoint(server, tmp_path)
            for text in ("one", "two", "three"):
                assert ask(model, text, schema=SCHEMA).text == '{"answer": 4}'
        assert len(server.got) == 4  # only the first was asked twice

    def test_a_bad_answer_is_asked_for_once_more_with_the_error_and_both_are_paid(self, tmp_path):
        answers = [completion('{"answer": "four"}'), completion('{"answer": 4}')]
        with ChatServer(lambda body: answers[len(body["messages"]) > 2]) as server:
            done = ask(endpoint(server, tmp_path), schema=SCHEMA)
        assert [turn["role"] for turn in server.got[1].body["messages"]] == [
            "system", "user", "assistant", "user",
        ]  # fmt: skip
        assert "'four' is not of type 'integer'" in server.got[1].text
        assert done.usage == Usage(tokens_in=20, tokens_out=10)

    def test_a_second_bad_answer_is_a_rejection(self, tmp_path):
        with (
            ChatServer(lambda _: completion("I would rather not.")) as server,
            pytest.raises(ItemError, match="bad-json: asked twice") as caught,
        ):
            ask(endpoint(server, tmp_path), schema=SCHEMA)
        assert caught.value.reason == "bad-json"
        assert len(server.got) == 2

    def test_json_that_was_cut_off_is_not_asked_again(self, tmp_path):
        with (
            ChatServer(lambda _: completion('{"answer":', finish="length")) as server,
            pytest.raises(ItemError, match="Raise max_tokens"),
        ):
            ask(endpoint(server, tmp_path), schema=SCHEMA)
        assert len(server.got) == 1

    def test_one_refused_item_does_not_cost_the_format(self, tmp_path):
        def fussy(got):
            return Fault(status=400, body={"error": "too long"}) if "bad" in got.text else None

        with ChatServer(lambda _: completion('{"answer": 4}'), fault_for=fussy) as server:
            model = endpoint(server, tmp_path)
            with pytest.raises(ItemError, match="refused"):
                ask(model, "bad", schema=SCHEMA)
            ask(model, "good", schema=SCHEMA)
        assert server.got[-1].body["response_format"]["type"] == "json_schema"

    def test_a_schema_that_is_none_is_the_prompts_fault(self, tmp_path):
        with ChatServer() as server, pytest.raises(ConfigError, match="not a JSON schema"):
            ask(endpoint(server, tmp_path), schema={"type": "number or so"})


class TestTheCostLimit:
    prices: ClassVar = {"usd_per_million_tokens_in": 100.0, "usd_per_million_tokens_out": 1000.0}

    def test_it_is_never_passed_and_a_higher_one_goes_on_without_asking_again(self, tmp_path):
        def says(_):
            time.sleep(0.02)
            return completion("A calm scene.", usage=(10, 20))  # 0.021 USD; may have cost 0.0214 or so

        with ChatServer(says) as server, ThreadPoolExecutor(8) as pool:
            model = endpoint(server, tmp_path, max_cost_usd=0.1, **self.prices)
            futures = [pool.submit(ask, model, f"number {n:02d}") for n in range(12)]
            errors = [error for future in futures if (error := future.exception())]
            assert all(isinstance(error, ConfigError) for error in errors)
            assert "max_cost_usd=0.1" in str(errors[0])
            assert len(server.answered) == 4  # 4 × 0.021 < 0.1 < 5 × 0.021
            raised = endpoint(server, tmp_path, max_cost_usd=1.0, **self.prices)
            cached = [ask(raised, f"number {n:02d}").cached for n in range(12)]
            assert sum(cached) == 4
        assert len(server.got) == 12

    def test_it_learns_how_many_tokens_a_picture_is(self, tmp_path):
        with ChatServer(lambda _: completion("A calm scene.", usage=(4000, 1))) as server:
            model = endpoint(server, tmp_path, max_cost_usd=1.0, **self.prices)
            for n in range(2):
                model.complete(asking(f"{n}", JPEG), max_tokens=5)
            with pytest.raises(ConfigError, match=r"0\.8020 USD spent, and the next request may cost 0\.4"):
                model.complete(asking("2", JPEG), max_tokens=5)

    def test_it_counts_what_earlier_runs_spent(self, tmp_path):
        with ChatServer(lambda _: completion("A calm scene.", usage=(10, 20))) as server:
            for n in range(3):
                ask(endpoint(server, tmp_path, max_cost_usd=0.075, **self.prices), f"{n}")
            with pytest.raises(ConfigError, match=r"0\.0630 USD spent"):
                ask(endpoint(server, tmp_path, max_cost_usd=0.075, **self.prices), "3")


class TestTheCache:
    def test_the_same_is_asked_once_also_by_many_threads_and_later_objects(self, tmp_path):
        def slow(_):
            time.sleep(0.1)
            return completion("A calm scene.")

        with ChatServer(slow) as server:
            model = endpoint(server, tmp_path)
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda _: ask(model), range(6)))
            answers.append(ask(endpoint(server, tmp_path)))
        assert len(server.got) == 1
        assert sum(not answer.cached for answer in answers) == 1
        assert {answer.text for answer in answers} == {"A calm scene."}

    def test_each_part_of_a_question_makes_it_another(self, tmp_path):
        with ChatServer(lambda _: completion('{"answer": 4}')) as server:
            model = endpoint(server, tmp_path)
            model.complete(asking("a"), max_tokens=9)
            model.complete(asking("b"), max_tokens=9)
            model.complete(asking("a", JPEG), max_tokens=9)
            model.complete(asking("a", JPEG + b"\0"), max_tokens=9)
            model.complete(asking("a"), max_tokens=10)
            model.complete(asking("a"), max_tokens=9, seed=1)
            model.complete(asking("a"), max_tokens=9, schema=SCHEMA)
            endpoint(server, tmp_path, temperature=0.5).complete(asking("a"), max_tokens=9)
            endpoint(server, tmp_path, revision="2").complete(asking("a"), max_tokens=9)
            endpoint(server, tmp_path, model="other").complete(asking("a"), max_tokens=9)
        assert len(server.got) == 10

    def test_another_address_and_other_limits_do_not(self, tmp_path):
        with ChatServer() as first, ChatServer() as second:
            ask(endpoint(first, tmp_path))
            assert ask(endpoint(second, tmp_path, requests_at_once=1, attempts=1)).cached
        assert not second.got

    @pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"key": 1}', "cut", "changed"])
    def test_a_damaged_entry_is_asked_anew(self, tmp_path, damage):
        with ChatServer() as server:
            ask(endpoint(server, tmp_path))
            (entry,) = tmp_path.glob("answers/*/*.json")
            data = entry.read_bytes()
            changed = {"cut": data[:-20], "changed": data.replace(b"calm", b"loud")}
            entry.write_bytes(changed[damage] if isinstance(damage, str) else damage)
            assert ask(endpoint(server, tmp_path)).text.startswith("A calm scene")
            assert ask(endpoint(server, tmp_path)).cached
        assert len(server.got) == 2

    def test_it_can_be_turned_off(self, tmp_path):
        with ChatServer() as server:
            model = endpoint(server, tmp_path, cache=False)
            assert not ask(model).cached
            assert not ask(model).cached
        assert not list(tmp_path.glob("answers/**/*.json"))


def test_threads_are_all_released_when_a_request_ends_the_run(tmp_path):
    with ChatServer(fault_for=lambda _: Fault(status=401)) as server, ThreadPoolExecutor(8) as pool:
        model = endpoint(server, tmp_path, requests_at_once=2)
        futures = [pool.submit(ask, model, f"{n}") for n in range(8)]
        assert all(isinstance(future.exception(timeout=10), ConfigError) for future in futures)
    assert len(server.got) <= 2  # the others heard of it
