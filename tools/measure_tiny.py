"""Measures Champ-Tiny for docs/training.md: python -m tools.measure_tiny FOLDER [--steps 10] [--cfg 2]

Runs `python -m champ.train evaluate` on the held-out people with the weights that are there, with both kinds of noise.
The folder gets all contact sheets and table.md, the table of the page; docs/images gets the sheet of one clip."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

import dev

MODELS = dev.ROOT / "champ" / "assets" / "models"
NOISES = {"per_frame": "per frame", "same": "same in every frame"}
CLIP = 3  # the one that the page shows
WIDTH = 900  # of its contact sheet


def evaluate(out: Path, noise: str, options: argparse.Namespace) -> list[str]:
    """The lines of the table."""
    settings = {
        "networks": MODELS / "champ" / "champ_tiny", "vae": MODELS / "vae" / "champ_tiny_vae.safetensors",
        "out": out, "noise": noise, "clips": options.clips, "frames": 8, "size": 256, "steps": options.steps,
        "cfg": options.cfg,
    }  # fmt: skip
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    environment = {"COMFYUI_PATH": str(dev.HOST / "ComfyUI"), **os.environ}
    subprocess.run([sys.executable, "-m", "champ.train", "evaluate", *words], cwd=dev.ROOT, env=environment, check=True)
    return (out / "table.md").read_text(encoding="utf-8").splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cfg", type=float, default=2.0)
    options = parser.parse_args()
    lines, same = (evaluate(options.folder.resolve() / name, noise, options) for name, noise in NOISES.items())
    made = f", cfg {options.cfg:g} |"
    lines += [line.replace(made, ", the same noise |") for line in same if made in line]
    table = "\n".join(lines).replace(made, " |") + "\n"
    (options.folder / "table.md").write_text(table, encoding="utf-8")
    print(table)
    sheet = Image.open(options.folder / "same" / f"clip_{min(CLIP, options.clips - 1):03}.png").convert("RGB")
    path = dev.ROOT / "docs" / "images" / "tiny_sheet.jpg"
    sheet.resize((WIDTH, sheet.height * WIDTH // sheet.width), Image.Resampling.LANCZOS).save(path, quality=88)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
