from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.errors import ConfigError, InputError, NetworkError
from longvila.records import Rejection, Source
from tasks.fetch import fetch_batch, list_sources
from tasks.refs import ManifestRef, WorkspaceRef, read_records, read_rejections
from tasks.servers import serve_sources
from tests.curation.faulty import FaultyServer, answer

CONFIG = FetchConfig(
    attempts=2, backoff_s=0.01, requests_per_host_s=1000.0, allow_private_hosts=("127.0.0.1",)
)
CANARY = "CANARY0secret"


def write(folder: Path, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sources.yaml").write_text(text)
    return str(folder / "sources.yaml")


def expand(
    tmp_path: Path, text: str, *, size: int = 16
) -> tuple[list[ManifestRef], list[Source], list[Rejection]]:
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    refs = list_sources.fn(reference, write(tmp_path / "list", text), size, CONFIG)
    opened = reference.open()
    return refs, read_records(opened, refs, Source), read_rejections(opened, refs)


def test_folders_and_tables_become_batches_and_every_row_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp4", "b.mp4", "c.webm"):
        (tmp_path / "list" / "videos").mkdir(parents=True, exist_ok=True)
        (tmp_path / "list" / "videos" / name).write_bytes(name.encode())
    (tmp_path / "list" / "videos" / "broken.mp4").symlink_to("nowhere")
    (tmp_path / "list" / "t.csv").write_text("url\nhttps://x.org/1.mp4\n\nfish://x\nhttps://x.org/2.mp4\n")
    caplog.set_level(logging.INFO)
    refs, sources, rejections = expand(
        tmp_path,
        "defaults: {license: CC0}\n"
        "sources: [{url: s3://bucket/one.mp4}]\n"
        "folders: [{url: videos, split: heldout}]\n"
        "tables: [{url: t.csv, license: CC BY}]\n",
        size=4,
    )
    assert [source.source_id.partition("-")[0] for source in sources] == ["one", "a", "b", "c", "1", "2"]
    assert [source.split for source in sources].count("heldout") == 3
    assert {rejection.reason for rejection in rejections} == {"missing", "bad-row"}
    assert sum(ref.num_items for ref in refs) == len(sources) + len(rejections) == 8
    assert all(ref.num_items == ref.num_results + ref.num_rejections for ref in refs)
    said = caplog.text
    assert "4 CC0, 2 CC BY" in said
    assert "1 s3" in said
    assert "3 file" in said


def test_what_cannot_be_listed_at_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "t.csv").write_text("link\nhttps://x.org/1.mp4\n")
    with pytest.raises(ConfigError, match="no column 'url'; it has 'link'"):
        expand(tmp_path, "tables: [{url: t.csv}]")
    with pytest.raises(InputError, match="There is no table"):
        expand(tmp_path, "tables: [{url: none.csv}]")
    (tmp_path / "list" / "empty").mkdir()
    with pytest.raises(InputError, match="comes to no source: 0 rejected"):
        expand(tmp_path, "folders: [{url: empty}]")
    with pytest.raises(ConfigError, match="it lists nothing"):
        expand(tmp_path, "name: x")
    with FaultyServer({"/gone.csv": [answer(404)], "/busy.csv": [answer(503)]}) as server:
        with pytest.raises(InputError, match=r"cannot be fetched: .*nothing at this address"):
            expand(tmp_path, f"tables: [{{url: '{server.url}/gone.csv'}}]")
        with pytest.raises(NetworkError, match=r"cannot be fetched: .*answered 503"):
            expand(tmp_path, f"tables: [{{url: '{server.url}/busy.csv'}}]")


def test_a_table_on_a_server_is_read_anew_each_time(tmp_path: Path) -> None:
    first, second = b"url\nclips/1.mp4\n", b"url\nclips/1.mp4\nclips/2.mp4\n"
    with FaultyServer({"/t.csv": [answer(200, first), answer(200, second)]}) as server:
        text = f"tables: [{{url: '{server.url}/t.csv'}}]"
        _, few, _ = expand(tmp_path, text)
        _, more, _ = expand(tmp_path, text)
    assert [source.url for source in more] == [f"{server.url}/clips/{i}.mp4" for i in (1, 2)]
    assert more[0] == few[0]


def test_secrets_of_addresses_are_used_and_never_written_or_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scripts = {
        f"/t.csv?token={CANARY}": [answer(200, f"url\nb.mp4?session={CANARY}\nc.mp4?k={CANARY}\n".encode())],
        f"/a.mp4?key={CANARY}": [answer(200, b"video a")],
        f"/b.mp4?session={CANARY}": [answer(200, b"video b")],
        f"/c.mp4?k={CANARY}": [answer(404)],
        f"/d.mp4?k={CANARY}": [answer(302, Location=f"/d.mp4?k={CANARY}")],
        "/e.mp4": [answer(503)],
    }
    with FaultyServer(scripts) as server:
        own = server.url.replace("://", f"://me:{CANARY}@")
        refs, sources, _ = expand(
            tmp_path,
            f"sources:\n  - url: '{own}/a.mp4?key={CANARY}'\n  - url: '{server.url}/d.mp4?k={CANARY}'\n"
            f"  - url: '{own}/e.mp4'\n  - url: 'http://me:{CANARY}@[bad/x?{CANARY}'\n"
            f"tables:\n  - url: '{server.url}/t.csv?token={CANARY}'\n",
        )
        reference = WorkspaceRef(root=str(tmp_path / "ws"))
        fetched = fetch_batch.fn(reference, refs[0], CONFIG)
    reasons = {
        item.item_id.partition("-")[0]: item.reason for item in read_rejections(reference.open(), [fetched])
    }
    assert (fetched.num_results, len(sources)) == (2, 6)
    assert sorted(reasons.values()) == ["bad-url", "gone", "too-many-redirects", "unreachable"]
    kept = list((tmp_path / "ws" / "scratch" / "addresses").iterdir())
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]
    assert CANARY in kept[0].read_text()
    written = [path for path in (tmp_path / "ws").rglob("*") if path.is_file() and path not in kept]
    assert written
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in caplog.text
    assert CANARY not in "".join(str(ref) for ref in refs)


def test_without_the_private_file_a_secret_address_is_told(tmp_path: Path) -> None:
    refs, _, _ = expand(tmp_path, "sources: [{url: 'https://x.org/a.mp4?key=1'}]")
    shutil.rmtree(tmp_path / "ws" / "scratch" / "addresses")
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    fetched = fetch_batch.fn(reference, refs[0], CONFIG)
    (rejection,) = read_rejections(reference.open(), [fetched])
    assert rejection.reason == "address-unknown"
    assert "List them on this machine" in rejection.detail


def test_a_relative_folder_is_served_and_fetched(tmp_path: Path) -> None:
    videos = tmp_path / "list" / "videos" / "x y"
    videos.mkdir(parents=True)
    for name in ("a?b#c%20.mp4", "Ünïcödé.mp4", "plain.mp4"):
        (videos / name).write_bytes(name.encode())
    refs, sources, _ = expand(tmp_path, "folders: [{url: videos}]")
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    listed = str(tmp_path / "list" / "sources.yaml")
    with serve_sources(listed) as address:
        over_http = fetch_batch.fn(reference, refs[0], CONFIG, address)
    other = WorkspaceRef(root=str(tmp_path / "other"))
    from_disk = fetch_batch.fn(
        other, list_sources.fn(other, listed, 16, CONFIG)[0], CONFIG, str(tmp_path / "list")
    )
    assert over_http.num_results == from_disk.num_results == len(sources) == 3
    assert reference.open().storage.list("videos/") == other.open().storage.list("videos/")


def test_marks_do_not_change_unless_something_does(tmp_path: Path) -> None:
    from flows.state import list_marks
    from longvila.config.data import DataConfig

    videos = tmp_path / "list" / "videos"
    videos.mkdir(parents=True)
    (videos / "a.mp4").write_bytes(b"a")
    listed = write(
        tmp_path / "list", "sources: [{url: 'https://x.org/s.mp4?Signature=1'}]\nfolders: [{url: videos}]"
    )
    reference, data = WorkspaceRef(root=str(tmp_path / "ws")), DataConfig(sources=listed)
    before = list_marks(reference, data)
    write(tmp_path / "list", "sources: [{url: 'https://x.org/s.mp4?Signature=2'}]\nfolders: [{url: videos}]")
    assert list_marks(reference, data) == before
    (videos / "b.mp4").write_bytes(b"b")
    after = list_marks(reference, data)
    assert before.items() < after.items()
    assert len(after) == 3
    (videos / "a.mp4").write_bytes(b"another")
    changed = list_marks(reference, data)
    assert [name for name in after if changed[name] != after[name]] == [
        name for name in after if name.startswith("a-")
    ]
