"""Reads pictures: only the formats listed here, and none larger than 4K."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DamagedError, reading

FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow knows 40 more, and one of them starts a program
PIXELS = 9_000_000  # 4K has 8.8 million


def read_picture(path: Path, mode: str = "RGB") -> np.ndarray:
    """Reads the uint8 pixels of a picture with 8 bits per channel: (H, W, 3) for RGB, (H, W) for L."""
    with _opened(path) as picture:
        return np.array(picture if picture.mode == mode else picture.convert(mode))


def read_animation(path: Path) -> Iterator[np.ndarray]:
    """Yields the uint8 pictures (H, W, 3) of an animation; for any other picture, that one."""
    with _opened(path) as picture:
        for frame in range(getattr(picture, "n_frames", 1)):
            picture.seek(frame)
            yield np.array(picture.convert("RGB"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with reading(path, "a picture", "render or copy that frame again", f"{path.parent.name}/{path.name}"):
        with path.open("rb") as file:
            _check_size(*_webp_size(file.read(30)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
                opened = Image.open(path, formats=FORMATS)
            with opened as picture:
                _check_size(*picture.size)
                if picture.mode.startswith("I"):  # PIL would clip 16-bit values to white
                    raise DamagedError("it has 16 bits per channel, and 8 are expected")
                yield picture
        except Image.DecompressionBombError:
            raise DamagedError(f"it has more than {PIXELS} pixels") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise DamagedError(f"it is damaged, or not one of {', '.join(FORMATS)}") from None


def _check_size(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise DamagedError(f"it has {width}x{height} pixels, and {PIXELS} are the limit")


def _webp_size(head: bytes) -> tuple[int, int]:
    """Returns the size that a WebP claims, because its decoder allocates it when the file is opened; 0 for other
    formats."""
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<L", head, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF
