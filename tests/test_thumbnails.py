"""Every built-in motion has a moving thumbnail, and all of them together are small."""

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
