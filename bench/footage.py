"""The built-in pose network on real clips: python dev.py bench footage FOLDER

For every video and picture of the folder: in how many frames somebody was found, processor time on one thread with and
without hands and face, how much the points tremble, and where `NAME_blazepose_heavy.npz` is beside it how far they are
from those of MediaPipe's heavy network in it: `landmarks` (F, 33, 4) x, y, z in pixels of a `width` x `height` picture,
and visibility. All in % of the height of that person, who is the one compared; the points are those that both see.

Tremble is the median length of the second difference of shoulders, elbows, wrists, hips, knees and ankles.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import torch

from champ.estimate.blazepose.body import LIMBS, SEEN, SeenPerson
from champ.estimate.blazepose.follow import follow
from champ.estimate.blazepose.networks import BlazePoseNetworks, read_networks
from champ.estimate.blazepose.poses import find_poses
from champ.keypoints.pose import THRESHOLD

VIDEOS, PICTURES = {".mp4", ".webm", ".mov", ".mkv"}, {".jpg", ".jpeg", ".png", ".webp"}
NOSE, SHOULDERS, HIPS, LEGS = 0, [11, 12], [23, 24], ((23, 25, 27), (24, 26, 28))
ABOVE_NOSE = 1.13  # height to the length from the nose to an ankle
VISIBLE = 0.5


class Theirs(NamedTuple):
    points: np.ndarray  # (F, 33, 2) pixels
    seen: np.ndarray  # (F, 33)


def frames_of(file: Path) -> Iterator[np.ndarray]:
    if file.suffix.lower() in PICTURES:
        yield np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        return
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def read_theirs(file: Path, width: int, height: int) -> Theirs | None:
    beside = file.with_name(f"{file.stem}_blazepose_heavy.npz")
    if not beside.exists():
        return None
    data = np.load(beside)
    landmarks = data["landmarks"].reshape(-1, SEEN, 4)
    points = landmarks[..., :2] * (width / float(data["width"]), height / float(data["height"]))
    inside = ((points >= 0) & (points < (width, height))).all(-1)
    return Theirs(points, (landmarks[..., 3] >= VISIBLE) & inside)


def height_of(points: np.ndarray) -> float:
    """Of a person whose points (F, 33, 2) these are, as if standing: the median over the clip."""
    shoulders, hips = points[:, SHOULDERS].mean(1), points[:, HIPS].mean(1)
    legs = [points[:, chain] for chain in map(list, LEGS)]
    leg = np.max([np.linalg.norm(np.diff(leg, axis=1), axis=-1).sum(1) for leg in legs], axis=0)
    upper = np.linalg.norm(points[:, NOSE] - shoulders, axis=1) + np.linalg.norm(shoulders - hips, axis=1)
    return float(np.median(upper + leg)) * ABOVE_NOSE


def tremble(points: np.ndarray, seen: np.ndarray) -> float:
    """Pixels; NaN where nothing is seen in three frames after each other."""
    points, seen = points[:, LIMBS, :], seen[:, LIMBS]
    jumps = np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)
    always = seen[2:] & seen[1:-1] & seen[:-2]
    return float(np.median(jumps[always])) if always.any() else np.nan


def one_of(people: list[SeenPerson], points: np.ndarray | None) -> SeenPerson | None:
    """Who is nearest to given points, or the largest."""
    if points is None:
        return max(people, key=lambda person: person.square.size, default=None)
    return min(people, key=lambda who: np.median(np.linalg.norm(who.points[:SEEN] - points, axis=1)), default=None)


def compare(networks: BlazePoseNetworks, file: Path) -> str:
    first = next(frames_of(file))
    theirs = read_theirs(file, first.shape[1], first.shape[0])
    points, seen, count = [], [], []
    spent, start = 0.0, time.process_time()
    for number, (_, people) in enumerate(follow(networks, frames_of(file))):
        spent += time.process_time() - start
        who = one_of(people, None if theirs is None else theirs.points[number])
        points.append(np.full((SEEN, 2), np.nan) if who is None else who.points[:SEEN])
        seen.append(np.zeros(SEEN, bool) if who is None else who.score >= THRESHOLD)
        count.append(len(people))
        start = time.process_time()
    places, clear = np.stack(points), np.stack(seen)
    decoding = seconds(frames_of(file))
    whole = seconds(find_poses(networks, frames_of(file)))
    height = height_of(places[clear.any(1)] if theirs is None else theirs.points)
    ms = [1000 * (each - decoding) / len(count) for each in (spent, whole)]
    row = f"| {file.name} | {len(count)} | {sum(map(bool, count))} | {max(count)} | {ms[0]:.0f} | {ms[1]:.0f} "
    row += f"| {100 * tremble(places, clear) / height:.2f} "
    if theirs is None:
        return row + "| | | | |"
    both = clear & theirs.seen
    away = 100 * np.linalg.norm(places - theirs.points, axis=-1) / height
    worst = np.array([np.median(a[b]) if b.any() else 0 for a, b in zip(away, both)])
    return (
        row + f"| {100 * tremble(theirs.points, theirs.seen) / height:.2f} | {np.median(away[both]):.2f} "
        f"| {np.quantile(away[both], 0.9):.2f} | {worst.max():.1f} in {worst.argmax()} |"
    )


def seconds(frames: Iterator) -> float:
    start = time.process_time()
    for _ in frames:
        pass
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python dev.py bench footage", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="with videos and pictures of people")
    parser.add_argument("--only", help="part of a file's name")
    options = parser.parse_args()
    if options.folder is None:
        print("nothing to look at: python dev.py bench footage FOLDER")
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    networks = read_networks()
    files = sorted(file for file in options.folder.iterdir() if file.suffix.lower() in VIDEOS | PICTURES)
    print(f"one thread, torch {torch.__version__}; lengths in % of the person's height")
    print("| clip | frames | with people | most | ms body | ms all | tremble | theirs | median | 90 % | worst frame |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for file in files:
        if not options.only or options.only in file.name:
            print(compare(networks, file), flush=True)


if __name__ == "__main__":
    main()
