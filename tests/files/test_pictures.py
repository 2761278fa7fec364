"""Pictures: three kinds, each as Pillow reads it, and nothing that is none of them or too large."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from champ.files.pictures import read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_good_pictures(tmp_path, kind, mode):
    if kind == "jpg" and mode in ("RGBA", "P") or kind != "jpg" and mode == "CMYK":
        pytest.skip("there is no such file")
    path = tmp_path / f"0.{kind}"
    Image.fromarray(PIXELS).convert(mode).save(path)
    with Image.open(path) as picture:
        for wanted in ("RGB", "L"):
            assert np.array_equal(read_picture(path, wanted), np.array(picture.convert(wanted)))


def test_what_starts_a_program_is_not_opened(tmp_path, monkeypatch):
    """An .eps, for which Pillow runs Ghostscript, under the name of a map."""
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n%%EOF\n"
    for kind, content in (("eps", eps), ("bmp", b"BM" + bytes(60)), ("gif", b"GIF89a" + bytes(60))):
        (tmp_path / "depth").mkdir(exist_ok=True)
        path = tmp_path / "depth" / "0.png"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="^depth/0.png cannot be read as a picture: it is .*PNG, JPEG, WEBP; rend"):
            read_picture(path)
        assert kind


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))

    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def webp(kind: bytes, content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<L", 100) + b"WEBP" + kind + struct.pack("<L", 80) + content + bytes(60)


@pytest.mark.parametrize("content", [
    png(5000, 5000), png(60_000, 60_000), png(1 << 30, 1 << 30),
    webp(b"VP8X", bytes(4) + (9999).to_bytes(3, "little") * 2),
    webp(b"VP8L", b"\x2f" + struct.pack("<L", 9999 | 9999 << 14)),
    webp(b"VP8 ", bytes(6) + struct.pack("<HH", 9999, 9999)),
])  # fmt: skip
def test_a_bomb_is_told_by_its_header(tmp_path, content):
    (tmp_path / "0.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.png cannot be read as a picture: it has [\w ]+ pixels"):
        read_picture(tmp_path / "0.png")


def test_damaged_pictures(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for content, reason in ((b"", "it is empty"), (b"<html>", "a web page"), (whole[:-40], "it is damaged")):
        (tmp_path / "0.png").write_bytes(content)
        with pytest.raises(ValueError, match=rf"0\.png cannot be read as a picture: .*{reason}"):
            read_picture(tmp_path / "0.png")
