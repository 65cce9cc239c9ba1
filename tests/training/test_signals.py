from __future__ import annotations

import os
import signal
from pathlib import Path

from longvila.training.signals import listening


def test_signals_and_the_stop_file_ask_to_end(tmp_path: Path) -> None:
    stop_file = tmp_path / "STOP"
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        with listening(stop_file) as request:
            assert not request.asked
            os.kill(os.getpid(), number)
            assert request.asked
    with listening(stop_file) as request:
        stop_file.touch()
        assert request.asked
    assert signal.getsignal(signal.SIGTERM) is before
