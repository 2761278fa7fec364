"""Shows what Champ-Tiny makes of photos: python -m tools.photo_sheet sheet.png VIDEO PHOTO [PHOTO ...] [--frames 24]

Runs Champ 02a for each photo with the first frames of the video. A row of the sheet is the photo and frames of the
result, spread over the clip."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import dev
from champ.server import Server

from .film_tiny import compared

SHOWN = 5  # frames of each result


def row(server: Server, video: Path, photo: Path, count: int, height: int) -> Image.Image:
    prompt = dev.own_prompt(video, photo, server.base / "input")
    dev.only("ChampRetimeMotion", prompt)["inputs"]["count"] = count
    result, picture, _ = compared(server, prompt, "The result, the photo and normal maps")
    shown = np.linspace(0, len(result) - 1, min(SHOWN, len(result))).round().astype(int)
    made = Image.fromarray(np.concatenate([picture[0], *result[shown]], axis=1))
    return made.resize((made.width * height // made.height, height), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=24, help="of the video that are made, at 12 a second")
    parser.add_argument("--height", type=int, default=384, help="of a row in pixels")
    options = parser.parse_args()
    with dev.temporary_server(dev.HOST / "ComfyUI") as server:
        rows = [row(server, options.video, photo, options.frames, options.height) for photo in options.photos]
    sheet = Image.new("RGB", (max(one.width for one in rows), options.height * len(rows)))
    for i, one in enumerate(rows):
        sheet.paste(one, (0, options.height * i))
    sheet.save(options.sheet)
    print(f"wrote {options.sheet}")


if __name__ == "__main__":
    main()
