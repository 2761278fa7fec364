"""Finds the files that belong to another one, which does not name them."""

from pathlib import Path

CAMERA = "camera.npy"


def tram_camera(motion: Path) -> Path | None:
    """Finds the lens and size of the video of a motion of TRAM: in the same folder, or in the one around hps/."""
    folder = motion.parent.parent if motion.parent.name == "hps" else motion.parent
    belongs = motion.suffix.lower() == ".npy" and motion.name != CAMERA and (folder / CAMERA).is_file()
    return folder / CAMERA if belongs else None
