"""Draws the loss of runs of `python -m champ.train`, one after the other, from their logs:

python -m tools.plot_training docs/images/tiny_training.png run1 run2 ...
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 900, 340, 60, 40, 16
COLOURS = ((200, 90, 30), (40, 130, 30), (30, 30, 190), (150, 40, 140))  # BGR
MEAN = 50  # steps
GREY = (170, 170, 170)


def losses(run: Path) -> np.ndarray:
    """The loss of each step, as the mean of the steps around it."""
    values = np.array([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()])
    around = np.ones(min(MEAN, len(values)))
    return np.convolve(values, around, "same") / np.convolve(np.ones(len(values)), around, "same")


def plot(runs: list[Path]) -> np.ndarray:
    curves = [losses(run) for run in runs]
    steps = sum(map(len, curves))
    low, high = (f(np.log10([f(curve) for curve in curves])) for f in (np.min, np.max))
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)

    def place(step: np.ndarray, loss: np.ndarray) -> np.ndarray:
        x = LEFT + (WIDTH - LEFT - 10) * step / steps
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - np.log10(loss)) / (high - low)
        return np.stack([x, y], 1)

    def write(text: str, x: float, y: float, colour=(60, 60, 60)) -> None:
        cv2.putText(picture, text, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)

    for mark in (0.1, 0.2, 0.3, 0.5, 1.0):
        if low <= np.log10(mark) <= high:
            y = int(place(np.zeros(1), np.array([mark]))[0, 1])
            cv2.line(picture, (LEFT, y), (WIDTH - 10, y), GREY, 1)
            write(f"{mark:g}", 18, y + 4)
    begin = 0
    for i, (run, curve, colour) in enumerate(zip(runs, curves, COLOURS)):
        points = place(begin + np.arange(len(curve)), curve)
        cv2.polylines(picture, [np.round(points * 16).astype(np.int32)], False, colour, 2, cv2.LINE_AA, 4)
        write(f"{run.name}: {len(curve)} steps", min(points[0, 0] + 4, WIDTH - 110), HEIGHT - 22 + 15 * (i % 2), colour)
        begin += len(curve)
    return picture


if __name__ == "__main__":
    out, *runs = map(Path, sys.argv[1:])
    cv2.imwrite(str(out), plot(runs))
