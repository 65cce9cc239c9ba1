from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from prefect.client.schemas.objects import StateType

import tasks.training as training
from longvila.errors import ConfigError, NetworkError
from tasks.policy import is_transient
from tasks.stopping import clear_stop, request_stop


@pytest.fixture(autouse=True)
def no_stop() -> Iterator[None]:
    clear_stop()
    yield
    clear_stop()


class Server:
    """Stands for Prefect's API: says one state, or does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: StateType | None) -> None:
        self.asked = 0
        self.state = state
        context = SimpleNamespace(flow_run=SimpleNamespace(id="run"))
        monkeypatch.setattr(training.FlowRunContext, "get", classmethod(lambda _: context))
        monkeypatch.setattr(training, "get_client", lambda **_: self)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def read_flow_run(self, _: str) -> SimpleNamespace:
        self.asked += 1
        if self.state is None:
            raise httpx.ConnectError("away")
        return SimpleNamespace(state=SimpleNamespace(type=self.state))


def test_ctrl_c_is_a_wish_to_stop() -> None:
    wish = training.StopWish()
    assert not wish()
    request_stop()
    assert wish()


def test_cancelling_the_flow_run_is_a_wish_to_stop_and_is_asked_for_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    server = Server(monkeypatch, StateType.RUNNING)
    wish = training.StopWish(clock=lambda: now[0])
    for _ in range(100):
        now[0] += 0.5
        assert not wish()
    assert server.asked == pytest.approx(50 / training.ASK_SERVER_EVERY_S, abs=1)
    server.state = StateType.CANCELLING
    now[0] += training.ASK_SERVER_EVERY_S
    assert wish()


def test_server_that_is_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, None)
    wish = training.StopWish(clock=iter(range(0, 1000, 10)).__next__)
    assert not wish()
    assert not wish()


@pytest.mark.parametrize(("error", "again"), [(NetworkError("away"), True), (ConfigError("wrong"), False)])
def test_only_what_a_retry_can_mend_is_tried_again(error: Exception, again: bool) -> None:
    def result() -> None:
        raise error

    task, run, state = SimpleNamespace(name="t"), SimpleNamespace(name="r"), SimpleNamespace(result=result)
    assert is_transient(task, run, state) is again  # type: ignore[arg-type]
