from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flows.cli.own_server import SERVER, end_leftover_servers, own_server
from flows.cli.running import check_server
from flows.timing import Timer
from longvila.errors import ExitCode, NetworkError

WAITING = """
import sys, time
from flows.cli.running import stop_on_interrupt
from tasks.stopping import stop_requested
with stop_on_interrupt():
    print("ready", flush=True)
    while not (stop_requested() and sys.argv[1] == "once"):
        time.sleep(0.02)
print("came to a good end")
"""


def waiting(how: str) -> subprocess.Popen[str]:
    """A process that works until it is asked to stop, and with ``twice`` does not listen."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_ctrl_c_once_asks_for_a_good_end() -> None:
    process = waiting("once")
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "came to a good end\n")
    assert "Ctrl-C again ends at once" in said


def test_ctrl_c_twice_ends_at_once() -> None:
    process = waiting("twice")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED


def fake_server(home: Path) -> subprocess.Popen[bytes]:
    """A process that looks as Prefect's own server does."""
    code = "import time; time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", code, SERVER], env={"PREFECT_HOME": str(home)})


def test_the_server_of_a_killed_flow_is_ended_and_no_other(tmp_path: Path) -> None:
    ours, theirs = fake_server(tmp_path / "ours"), fake_server(tmp_path / "theirs")
    try:
        time.sleep(0.2)
        assert end_leftover_servers(tmp_path / "ours") == 1
        assert not psutil.pid_exists(ours.pid)
        assert theirs.poll() is None
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()


def test_a_second_flow_ends_nothing_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with own_server(tmp_path):
        running = fake_server(tmp_path)
        try:
            time.sleep(0.2)
            with own_server(tmp_path):
                assert running.poll() is None
        finally:
            running.kill()
            running.wait()


def test_a_server_of_its_own_hears_no_ctrl_c_and_ends_with_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with own_server(tmp_path):
        url = os.environ["PREFECT_API_URL"]
        (server,) = [p for p in psutil.process_iter() if _is_server(p, tmp_path)]
        assert os.getsid(server.pid) != os.getsid(0)
        assert httpx.get(f"{url}/health", timeout=10).json() is True
    assert "PREFECT_API_URL" not in os.environ
    assert not server.is_running()


def _is_server(process: psutil.Process, home: Path) -> bool:
    try:
        return SERVER in process.cmdline() and process.environ().get("PREFECT_HOME") == str(home)
    except psutil.Error:
        return False


def test_server_that_is_away_is_told_before_the_flow_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(NetworkError, match=r"PREFECT_API_URL=.* does not answer .*unset PREFECT_API_URL"):
        check_server()


def test_times_add_up_over_runs(tmp_path: Path) -> None:
    with Timer(tmp_path / "t.json")("part"):
        time.sleep(0.05)
    with pytest.raises(ValueError, match="oh"), Timer(tmp_path / "t.json")("part"):
        fail_after(0.05)
    assert Timer(tmp_path / "t.json").seconds["part"] >= 0.1


def fail_after(seconds: float) -> None:
    time.sleep(seconds)
    raise ValueError("oh")
