"""Fetching that is killed, shared, or meets a full disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longvila.curation.fetching.download import Downloader
from longvila.curation.fetching.fetch import fetch_source
from longvila.curation.fetching.fetch_many import fetch_batch
from longvila.curation.fetching.partial import Limits, Partial
from longvila.errors import ItemError, MachineError
from longvila.records import Source
from longvila.storage import Workspace
from tests.curation.faulty import FaultyServer, answer, break_off, rest, slowly
from tests.curation.fetching.test_fetch import CONFIG

BODY = hashlib.sha256(b"resume").digest() * 100_000  # 3.2 MB
SHA = hashlib.sha256(BODY).hexdigest()
CHILD = """
import sys
from longvila.curation.fetching.fetch import fetch_source
from longvila.records import Source
from longvila.storage import Workspace
from tests.curation.fetching.test_fetch import CONFIG
source = Source(source_id="a", url=sys.argv[2])
print(fetch_source(source, workspace=Workspace.open(sys.argv[1]), config=CONFIG).sha256)
"""


def child(workspace: Path, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(workspace), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})


def wait_for_part(workspace: Path, num_bytes: int) -> Path:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for part in (workspace / "scratch" / "fetch").glob("*.part"):
            if part.stat().st_size >= num_bytes:
                return part
        time.sleep(0.01)
    raise AssertionError("the download did not begin")


def test_a_killed_process_is_continued_and_only_the_missing_bytes_are_sent(tmp_path: Path) -> None:
    script = [slowly(BODY, piece=64_000, pause_s=0.02), rest(BODY)]
    with FaultyServer({"/v.mp4": script}) as server:
        process = child(tmp_path, f"{server.url}/v.mp4")
        part = wait_for_part(tmp_path, 500_000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        had = part.stat().st_size
        assert 0 < had < len(BODY)
        workspace = Workspace.open(tmp_path)
        assert workspace.storage.list("videos/") == []
        found = fetch_source(
            Source(source_id="a", url=f"{server.url}/v.mp4"), workspace=workspace, config=CONFIG
        )
    assert found.sha256 == SHA
    assert workspace.storage.get_bytes(found.key) == BODY
    assert [headers.get("range") for _, headers in server.requests] == [None, f"bytes={had}-"]
    assert server.requests[1][1]["if-range"] == '"1"'
    assert not list((tmp_path / "scratch" / "fetch").glob("*.part*[!k]"))


def test_two_processes_fetch_the_same_source_once(tmp_path: Path) -> None:
    with FaultyServer({"/v.mp4": [slowly(BODY, piece=200_000, pause_s=0.1)]}) as server:
        pair = [child(tmp_path, f"{server.url}/v.mp4") for _ in range(2)]
        said = [process.communicate(timeout=60)[0].strip() for process in pair]
    assert said == [SHA, SHA]
    assert len(server.requests) == 1
    assert len(Workspace.open(tmp_path).storage.list("videos/")) == 1


def test_the_same_content_from_two_addresses_is_stored_once(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with FaultyServer({"/a.mp4": [answer(200, BODY)], "/b.mp4": [answer(200, BODY)]}) as server:
        sources = [Source(source_id=name, url=f"{server.url}/{name}.mp4") for name in "ab"]
        result = fetch_batch(workspace, sources, CONFIG)
    assert [found.source_id for found in result.results] == ["a", "b"]
    assert len({found.key for found in result.results}) == 1
    assert len(workspace.storage.list("videos/")) == 1


def test_threads_that_fetch_one_address_do_not_disturb_each_other(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with (
        FaultyServer({"/v.mp4": [break_off(BODY, 700_000), rest(BODY)]}) as server,
        Downloader(CONFIG) as downloader,
        ThreadPoolExecutor(4) as pool,
    ):
        sources = [Source(source_id=f"s{i}", url=f"{server.url}/v.mp4") for i in range(8)]
        found = list(
            pool.map(
                lambda source: fetch_source(
                    source, workspace=workspace, config=CONFIG, downloader=downloader
                ),
                sources,
            )
        )
    assert {item.sha256 for item in found} == {SHA}
    assert [item.source_id for item in found] == [source.source_id for source in sources]


def test_a_full_disk_ends_the_step_and_says_so(tmp_path: Path) -> None:
    """/dev/full is the kernel's own full disk: what is written to it fails with ENOSPC."""
    part = tmp_path / "v.part"
    partial = Partial(part, "http://x.org/v.mp4")
    part.symlink_to("/dev/full")
    limits = Limits.starting_now(max_size_bytes=10**9, total_timeout_s=60.0)
    for piece in (BODY, b"a little"):
        with pytest.raises(MachineError, match=r"The disk is full: cannot write .* Free space"):
            partial.write(iter([piece]), url="http://x.org/v.mp4", limits=limits)


def test_after_the_machine_went_down_only_what_was_synced_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, url = tmp_path / "v.part", "http://x.org/v.mp4"
    monkeypatch.setattr("longvila.curation.fetching.partial._SYNC_BYTES", 1_000_000)
    limits = Limits.starting_now(max_size_bytes=10**9, total_timeout_s=60.0)
    partial = Partial(part, url)
    partial.begin(validator='"1"', total=len(BODY))
    partial.write(
        iter([BODY[:600_000], BODY[600_000:1_200_000], BODY[1_200_000:1_500_000]]), url=url, limits=limits
    )
    assert Partial(part, url).size == 1_500_000
    monkeypatch.setattr("longvila.curation.fetching.partial._boot_id", lambda: "another")
    again = Partial(part, url)
    assert (again.size, again.validator, again.is_whole) == (1_200_000, '"1"', False)
    again.write(iter([BODY[1_200_000:1_300_000]]), url=url, limits=limits)
    assert Partial(part, url).size == 1_300_000
    assert part.read_bytes() == BODY[:1_300_000]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_file_without_permission_is_a_rejection(tmp_path: Path) -> None:
    path = tmp_path / "locked.mp4"
    path.write_bytes(BODY)
    path.chmod(0o000)
    code = (
        "import os; from pathlib import Path; from longvila.curation.fetching.fetch import _copy\n"
        "from longvila.errors import ItemError\n"
        "os.setuid(65534)\n"
        f"try: _copy(Path({str(path)!r}), Path('/tmp/nowhere.part'), 10**9)\n"
        "except ItemError as error: print(error.reason, error.detail)"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("unreadable"), ran.stderr
    assert "Permission denied" in ran.stdout


@pytest.mark.parametrize("path", ["/proc/self/mem", "/dev/zero", "/", "/etc/\0passwd", "x" * 5000])
def test_what_is_no_file_is_a_rejection(tmp_path: Path, path: str) -> None:
    with pytest.raises(ItemError) as caught:
        fetch_source(Source(source_id="a", url=path), workspace=Workspace.open(tmp_path), config=CONFIG)
    assert caught.value.reason in ("missing", "unreadable", "empty")


def test_a_file_that_vanishes_after_it_was_listed_is_a_rejection(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws")
    (tmp_path / "b.mp4").write_bytes(BODY)
    sources = [Source(source_id=name, url=f"{name}.mp4") for name in "ab"]
    result = fetch_batch(workspace, sources, CONFIG, base=tmp_path)
    assert [found.source_id for found in result.results] == ["b"]
    assert [(item.item_id, item.reason) for item in result.rejections] == [("a", "missing")]


def test_a_download_that_is_whole_but_not_stored_is_not_fetched_again(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with FaultyServer({"/v.mp4": [answer(200, BODY, ETag='"1"')]}) as server:
        source = Source(source_id="a", url=f"{server.url}/v.mp4")
        (tmp_path / "videos").write_text("a file where the folder should be")
        with pytest.raises(Exception, match="folder"):
            fetch_source(source, workspace=workspace, config=CONFIG)
        (tmp_path / "videos").unlink()
        assert fetch_source(source, workspace=workspace, config=CONFIG).sha256 == SHA
    assert len(server.requests) == 1


def test_a_rejection_is_looked_at_again_when_a_setting_or_a_file_may_have_mended_it(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws")
    with FaultyServer({"/v.mp4": [answer(200, BODY)], "/gone.mp4": [answer(404)]}) as server:
        sources = [
            Source(source_id="web", url=f"{server.url}/v.mp4"),
            Source(source_id="gone", url=f"{server.url}/gone.mp4"),
            Source(source_id="file", url="late.mp4"),
        ]
        strict = CONFIG.model_copy(update={"max_size_bytes": 1000})
        private = CONFIG.model_copy(update={"allow_private_hosts": ()})
        reasons = [
            {
                item.item_id: item.reason
                for item in fetch_batch(workspace, sources, how, base=tmp_path).rejections
            }
            for how in (private, strict)
        ]
        (tmp_path / "late.mp4").write_bytes(BODY[:10])
        result = fetch_batch(workspace, sources, CONFIG, base=tmp_path)
        asked = [path for path, _ in server.requests]
    assert reasons[0]["web"] == reasons[0]["gone"] == "private-address"
    assert reasons[1] == {"web": "too-large", "gone": "gone", "file": "missing"}
    assert [found.source_id for found in result.results] == ["web", "file"]
    assert asked.count("/gone.mp4") == 1
