"""Measures Champ-Tiny for docs/training.md: python -m tools.measure_tiny FOLDER

Runs `python -m champ.train evaluate` on the held-out people with the weights that are there and the same noise in every
frame, as the quick start has it, in each of SETTINGS. The folder gets all contact sheets and table.md, the table of the
page; docs/images gets the sheet of one clip."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

import dev

MODELS = dev.ROOT / "champ" / "assets" / "models"
SETTINGS = {"10 steps, cfg 2": (10, 2.0), "4 steps, cfg 1": (4, 1.0)}  # the second is that of the quick start
CLIP = 3  # the one that the page shows
WIDTH = 900  # of its contact sheet


def evaluate(out: Path, clips: int, steps: int, cfg: float) -> list[str]:
    """The lines of the table."""
    settings = {
        "networks": MODELS / "champ" / "champ_tiny", "vae": MODELS / "vae" / "champ_tiny_vae.safetensors", "out": out,
        "noise": "same in every frame", "clips": clips, "frames": 8, "size": 256, "steps": steps, "cfg": cfg,
    }  # fmt: skip
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    environment = {"COMFYUI_PATH": str(dev.HOST / "ComfyUI"), **os.environ}
    subprocess.run([sys.executable, "-m", "champ.train", "evaluate", *words], cwd=dev.ROOT, env=environment, check=True)
    return (out / "table.md").read_text(encoding="utf-8").splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=12)
    options = parser.parse_args()
    lines: list[str] = []
    for name, (steps, cfg) in SETTINGS.items():
        out = options.folder.resolve() / name.replace(", ", "_").replace(" ", "_")
        made = f", cfg {cfg:g} |"
        rows = evaluate(out, options.clips, steps, cfg)
        lines += [line.replace(made, f", {name} |") for line in rows if not lines or made in line]
    table = "\n".join(lines) + "\n"
    (options.folder / "table.md").write_text(table, encoding="utf-8")
    print(table)
    sheet = Image.open(out / f"clip_{min(CLIP, options.clips - 1):03}.png").convert("RGB")
    path = dev.ROOT / "docs" / "images" / "tiny_sheet.jpg"
    sheet.resize((WIDTH, sheet.height * WIDTH // sheet.width), Image.Resampling.LANCZOS).save(path, quality=88)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
