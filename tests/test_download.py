"""Downloads over real HTTP on loopback: cut, resumed, cancelled, wrong, redirected elsewhere."""

import hashlib
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from champ import download as module
from champ.download import address, download
from champ.progress import listening
from champ.weights import FILES

from .hub import Hub

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "BLOCK", 4096)
    hub = Hub()
    hub.files["/a/b.pth"] = CONTENT
    yield hub
    hub.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "b.pth"


def left(target) -> list[str]:
    return sorted(file.name for file in target.parent.iterdir())


def test_a_file_arrives_whole_and_alone(hub, target):
    seen = []
    with listening(lambda *far: seen.append(far)):
        how = download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT and left(target) == ["b.pth"]
    assert how == "the checksum that the server announced"
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and sorted(seen) == seen
    assert download(f"{hub.address}/a/b.pth", target, SHA256) == "the checksum in this pack's list"


def test_a_cut_connection_goes_on_where_it_stopped(hub, target):
    hub.cut = 100_000
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in hub.asked] == [None, "bytes=100000-"]


def test_a_later_call_goes_on_from_the_part(hub, target):
    def stop(done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with listening(stop):
            download(f"{hub.address}/a/b.pth", target)
    assert left(target) == ["b.pth.part", "b.pth.part.etag"]
    have = (target.parent / "b.pth.part").stat().st_size
    assert 100_000 < have < len(CONTENT)
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT and hub.asked[-1][1] == f"bytes={have}-"


def test_a_file_that_changed_in_between_begins_anew(hub, target):
    target.parent.mkdir()
    (target.parent / "b.pth.part").write_bytes(b"of another version")
    (target.parent / "b.pth.part.etag").write_text('"old"')
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT and hub.asked[0][1] == "bytes=18-"


def test_a_server_that_ignores_ranges(hub, target):
    hub.cut, hub.ranges = 100_000, False
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT and len(hub.asked) == 2


def test_a_part_that_is_complete_is_not_fetched_again(hub, target):
    target.parent.mkdir()
    (target.parent / "b.pth.part").write_bytes(CONTENT)
    (target.parent / "b.pth.part.etag").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT and [asked for _, asked in hub.asked] == ["bytes=300000-"]


def test_a_part_longer_than_the_file_begins_anew(hub, target):
    target.parent.mkdir()
    (target.parent / "b.pth.part").write_bytes(CONTENT + b"!")
    (target.parent / "b.pth.part.etag").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(hub, target):
    hub.announced = "0" * 64
    with pytest.raises(ValueError, match="b.pth came with a wrong checksum and was removed"):
        download(f"{hub.address}/a/b.pth", target)
    assert left(target) == []


def test_another_file_than_the_known_one_is_not_even_fetched(hub, target):
    with pytest.raises(ValueError, match="b.pth is not the one that this pack knows"):
        download(f"{hub.address}/a/b.pth", target, "0" * 64)
    assert left(target) == []


def test_without_any_checksum_nothing_is_fetched(hub, target):
    hub.announces = False
    with pytest.raises(ValueError, match="names no checksum for b.pth"):
        download(f"{hub.address}/a/b.pth", target)
    assert left(target) == []
    download(f"{hub.address}/a/b.pth", target, SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("elsewhere", ["http://example.com/b.pth", "ftp://example.com/b.pth", "file:///etc/passwd"])
def test_a_redirect_to_what_is_not_https_is_refused(hub, target, elsewhere):
    hub.redirect = elsewhere
    with pytest.raises(ValueError, match="which is not https|is not allowed"):
        download(f"{hub.address}/a/b.pth", target)
    assert left(target) == []


@pytest.mark.parametrize(
    ("url", "before", "allowed"),
    [
        ("https://example.com/b", None, True),
        ("https://example.com/b", "https://huggingface.co/a", True),
        ("http://127.0.0.1:1/b", None, True),
        ("http://[::1]:1/b", "http://localhost/a", True),
        ("http://127.0.0.1:1/b", "https://huggingface.co/a", False),
        ("http://127.0.0.1.example.com/b", None, False),
        ("http://localhost@example.com/b", None, False),
        ("file:///etc/passwd", None, False),
    ],
)
def test_which_addresses_are_allowed(url, before, allowed):
    if allowed:
        module._check_address(url, before)
    else:
        with pytest.raises(ValueError, match="is not https"):
            module._check_address(url, before)


def test_a_missing_file_is_not_asked_for_again(hub, target):
    with pytest.raises(ValueError, match="server answered 404"):
        download(f"{hub.address}/a/c.pth", target)
    hub.answer = 503
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT


def test_a_dead_server_is_given_up_and_the_part_kept(hub, target):
    hub.cut = 100_000

    def dies(done, total):
        if done >= 100_000:
            hub.server.socket.close()

    with pytest.raises(ValueError, match="The download of b.pth stopped after 0 MB .* which continues from there"):
        with listening(dies):
            download(f"{hub.address}/a/b.pth", target)
    assert (target.parent / "b.pth.part").stat().st_size == 100_000


def test_a_full_disk_is_noticed_before(hub, target, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="b.pth needs 0.00 GB more, but .* free some space"):
        download(f"{hub.address}/a/b.pth", target)
    assert left(target) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for files")
def test_a_disk_that_fills_up_keeps_what_has_arrived(hub, target):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ValueError, match="b.pth cannot be saved in .* What has arrived is kept; press Download to"):
            download(f"{hub.address}/a/b.pth", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    have = (target.parent / "b.pth.part").stat().st_size
    assert 90_000 < have <= 100_000
    download(f"{hub.address}/a/b.pth", target)
    assert target.read_bytes() == CONTENT and hub.asked[-1][1] == f"bytes={have}-" and left(target) == ["b.pth"]


@pytest.mark.parametrize("end", ["", ".part", ".part.etag"])
def test_a_folder_in_the_place_of_a_file_is_noticed_before(hub, target, end):
    target.with_name(target.name + end).mkdir(parents=True)
    with pytest.raises(ValueError, match="b.pth cannot be saved in .*: a folder of that name is already there"):
        download(f"{hub.address}/a/b.pth", target)
    assert not hub.asked


def test_a_file_in_the_place_of_the_folder(hub, target):
    target.parent.touch()
    with pytest.raises(ValueError, match="b.pth cannot be saved in .*: a part of its path is a file, not a folder"):
        download(f"{hub.address}/a/b.pth", target)


def test_the_list(monkeypatch):
    assert len({file.name for file in FILES}) == len(FILES)
    assert not any("smpl" in f"{file.name}{file.place}".lower() for file in FILES)
    assert all(file.sha256 is None or len(file.sha256) == 64 for file in FILES)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    first = FILES[0]
    assert address(first) == "https://huggingface.co/yzd-v/DWPose/resolve/main/yolox_l.onnx"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert address(first) == "https://mirror.example/hub/yzd-v/DWPose/resolve/main/yolox_l.onnx"
