"""Draws drawn people as training sees them, on one contact sheet: python -m tools.people_sheet sheet.png

    --first 0 --count 48 --size 256 --close 0.4 --split train     # which samples
    --portraits                                                   # the people of Example Person instead

Each cell is a sample's reference and its picture, both with the sample's number."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from champ.people.draw import SPLITS
from champ.people.portrait import portrait
from champ.people.samples import SyntheticPeople

COLUMNS = 8


def cell(people: SyntheticPeople, index: int) -> np.ndarray:
    sample = people.sample(index)
    return torch.cat([sample.reference, sample.pictures[0]], dim=1).numpy()


def sheet(pictures: list[np.ndarray], first: int) -> Image.Image:
    height, width = pictures[0].shape[:2]
    drawn = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height))
    pen = ImageDraw.Draw(drawn)
    for i, picture in enumerate(pictures):
        place = i % COLUMNS * width, i // COLUMNS * height
        drawn.paste(Image.fromarray(picture), place)
        pen.text((place[0] + 3, place[1] + 2), str(first + i), fill="white", stroke_width=1, stroke_fill="black")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--size", type=int, default=128, help="width and height of a picture")
    parser.add_argument("--close", type=float, default=0.4, help="share of framings closer than the whole body")
    parser.add_argument("--photographic", type=float, default=0.0, help="share of samples more like photographs")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--portraits", action="store_true")
    options = parser.parse_args()
    people = SyntheticPeople(options.size, options.split, close=options.close, photographic=options.photographic)
    numbers = range(options.first, options.first + options.count)
    if options.portraits:
        pictures = [portrait(3 * options.size // 4, options.size, number).picture.numpy() for number in numbers]
    else:
        pictures = [cell(people, number) for number in numbers]
    sheet(pictures, options.first).save(options.sheet)
    print(f"wrote {options.sheet}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
