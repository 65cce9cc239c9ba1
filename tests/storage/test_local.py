from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longvila.errors import InputError, MachineError
from longvila.storage import atomic_path, open_storage
from longvila.storage.files import os_errors


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as part:
        part.write_text(f"half of the n{1 / 0}")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_killed_write_leaves_nothing_that_counts(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from longvila.storage import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); print('written', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    storage = open_storage(tmp_path)
    assert not storage.exists("x")
    assert storage.list() == []


def test_a_file_limit_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(MachineError, match="ulimit -f"):
            storage.put_bytes("x", b"0" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told() -> None:
    with (
        pytest.raises(MachineError, match=r"disk is full: cannot write shard 3\. Free space"),
        os_errors("write shard 3"),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_a_forbidden_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(MachineError, match=r"No permission to write .* use another one"):
            open_storage(tmp_path / "locked").put_bytes("x", b"1")
    finally:
        os.seteuid(user)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="A file stands where a folder is needed"):
        open_storage(tmp_path).put_bytes("x/y", b"1")


def test_putting_a_file_onto_itself_keeps_it(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put_bytes("x", b"1")
    before = storage.fingerprint("x")
    time.sleep(0.01)
    storage.put_file("x", tmp_path / "x")
    assert storage.fingerprint("x") == before
