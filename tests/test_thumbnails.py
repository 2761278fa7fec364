"""Every built-in motion has a moving thumbnail, the first people have one, and all of them together are small."""

import re

from PIL import Image, ImageSequence

import dev
from champ.motion.presets import PRESETS

FOLDER = dev.ROOT / "js" / "motions"


def test_every_motion_has_a_moving_thumbnail():
    files = {file.stem.replace("_", " "): file for file in FOLDER.iterdir()}
    assert files.keys() == PRESETS.keys()
    for name, file in files.items():
        with Image.open(file) as picture:
            assert picture.n_frames >= 10
            length = sum(frame.copy().info["duration"] for frame in ImageSequence.Iterator(picture)) / 1000
            assert abs(length - PRESETS[name].seconds) < 0.05 * PRESETS[name].seconds, name
    assert sum(file.stat().st_size for file in files.values()) < 1_500_000


def test_everybody_whom_the_page_offers_has_a_thumbnail():
    offered = re.search(r"PEOPLE = (\d+)", (dev.ROOT / "js" / "picker.js").read_text(encoding="utf-8"))
    files = {file.name: file for file in (dev.ROOT / "js" / "people").iterdir()}
    assert files.keys() == {f"{number}.webp" for number in range(int(offered[1]))}
    assert sum(file.stat().st_size for file in files.values()) < 100_000
