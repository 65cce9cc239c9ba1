from __future__ import annotations

import socket

import pytest

from longvila.errors import MachineError
from longvila.planning import check_port, free_port, is_free


def test_port_in_use_names_the_process_and_the_mend() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(MachineError, match=rf"Port {port} for the test is in use by .* Give another\."):
            check_port(port, purpose="the test", mend="Give another.")
    assert is_free(free_port())


@pytest.mark.parametrize("port", [0, -1, 70_000])
def test_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(MachineError, match="is not a port"):
        check_port(port, purpose="the test", mend="")
