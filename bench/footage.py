"""The chain from a video to a motion on real clips: python dev.py bench footage FOLDER

For every video and picture of the folder: in how many frames BlazePose finds anybody and Follow Person the largest one,
what the report says of the fit: frames that are good, doubtful or off; mean distance of body and keypoints in % of the
height; how much it trembles, before and after Smooth Motion; and for each stage processor time a frame, on one thread.
Below the table the report's list of frames. A contact sheet of each goes to output/footage: some frames, the body over
them, and the body from its left side; what the report says of a frame stands beside its number.

With --points there is a second table, where `NAME_blazepose_heavy.npz` is beside a clip: how far the keypoints are from
those of MediaPipe's heavy network in it, `landmarks` (F, 33, 4) x, y, z in pixels of a `width` x `height` picture, and
visibility. In % of the height of that person, who is the one compared; the points are those that both see. Tremble is
the median length of the second difference of shoulders, elbows, wrists, hips, knees and ankles.
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

from champ.body.body import Body
from champ.body.free import load_free_body
from champ.estimate.blazepose.body import LIMBS, SEEN, SeenPerson
from champ.estimate.blazepose.follow import follow
from champ.estimate.blazepose.networks import BlazePoseNetworks, read_networks
from champ.estimate.blazepose.poses import find_poses
from champ.estimate.fit import fit_motion
from champ.estimate.shots import find_shots
from champ.estimate.track import one_person
from champ.keypoints.pose import THRESHOLD, Pose
from champ.motion.motion import Motion
from champ.motion.report import frames_of, jitter, look_over, verdict
from champ.motion.smooth import smooth
from champ.render.sheet import figure_sheet

OUTPUT = Path(__file__).resolve().parents[1] / "output" / "footage"
SHOWN = 10  # frames on a sheet
FPS = 24.0  # of pictures

VIDEOS, PICTURES = {".mp4", ".webm", ".mov", ".mkv"}, {".jpg", ".jpeg", ".png", ".webp"}
NOSE, SHOULDERS, HIPS, LEGS = 0, [11, 12], [23, 24], ((23, 25, 27), (24, 26, 28))
ABOVE_NOSE = 1.13  # height to the length from the nose to an ankle
VISIBLE = 0.5


class Theirs(NamedTuple):
    points: np.ndarray  # (F, 33, 2) pixels
    seen: np.ndarray  # (F, 33)


def pictures_of(file: Path) -> Iterator[np.ndarray]:
    if file.suffix.lower() in PICTURES:
        picture = cv2.imread(str(file))
        assert picture is not None, file
        yield np.ascontiguousarray(picture[..., ::-1])
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


class Solved(NamedTuple):
    """What the chain makes of a clip."""

    fitted: Motion
    smoothed: Motion
    person: list[Pose | None]
    found: int  # frames in which there is anybody
    seconds: dict[str, float]


def rate_of(file: Path) -> float:
    if file.suffix.lower() in PICTURES:
        return FPS
    with av.open(str(file)) as container:
        return float(container.streams.video[0].average_rate or FPS)


def solve(networks: BlazePoseNetworks, file: Path, body: Body) -> Solved:
    people: list[list[Pose]] = []
    spent, start = {}, time.process_time()

    def done(stage: str) -> None:
        nonlocal start
        spent[stage], start = time.process_time() - start, time.process_time()

    def pictures() -> Iterator[np.ndarray]:
        for picture, poses in find_poses(networks, pictures_of(file)):
            people.append(poses)
            size[:] = picture.shape[1::-1]
            yield picture

    size = [0, 0]
    shots = find_shots(pictures())
    done("pose")
    person = one_person(people, shots)
    done("follow")
    fitted = fit_motion(person, body, size[0], size[1], rate_of(file), shots)
    done("fit")
    smoothed = smooth(fitted)
    done("smooth")
    return Solved(fitted, smoothed, person, sum(map(bool, people)), spent)


def sheet_of(file: Path, motion: Motion, body: Body) -> np.ndarray:
    """Frames from everywhere in the clip, in BGR."""
    chosen = np.unique(np.linspace(0, len(motion) - 1, SHOWN).round().astype(int)).tolist()
    pictures = [picture for i, picture in enumerate(pictures_of(file)) if i in set(chosen)]
    found = look_over(motion)._asdict()
    titles = [" ".join([str(i), *(kind for kind, frames in found.items() if frames[i])]) for i in chosen]
    return figure_sheet(motion[torch.tensor(chosen)], body, titles, pictures).numpy()[..., ::-1]


def judge(networks: BlazePoseNetworks, file: Path, body: Body, sheets: Path) -> tuple[str, str]:
    """Returns a row of the first table, and the report's list; writes the contact sheet."""
    solved = solve(networks, file, body)
    sheets.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(sheets / f"{file.stem}.png"), sheet_of(file, solved.smoothed, body))
    frames = len(solved.fitted)
    followed = sum(pose is not None for pose in solved.person)
    times = " | ".join(f"{1000 * solved.seconds[stage] / frames:.0f}" for stage in ("pose", "follow", "fit", "smooth"))
    shaking = " | ".join(f"{jitter(motion):.2f}" for motion in (solved.fitted, solved.smoothed))
    told = look_over(solved.fitted)
    counts = f"{100 * float(told.good.float().mean()):.0f} | {int(told.doubtful.sum())} | {int(told.off.sum())}"
    away = 100 * float(solved.fitted.misfit[solved.fitted.confidence > 0].mean())
    row = f"| {file.name} | {frames} | {solved.found} | {followed} | {counts} | {away:.2f} | {shaking} | {times} |"
    filled = f"{int(told.filled.sum())} filled: {frames_of(told.filled)}." if told.filled.any() else "None filled."
    return row, " ".join([f"{file.name}:", filled, *verdict(solved.fitted, body)])


def compare(networks: BlazePoseNetworks, file: Path) -> str:
    first = next(pictures_of(file))
    theirs = read_theirs(file, first.shape[1], first.shape[0])
    points, seen, count = [], [], []
    spent, start = 0.0, time.process_time()
    for number, (_, people) in enumerate(follow(networks, pictures_of(file))):
        spent += time.process_time() - start
        who = one_of(people, None if theirs is None else theirs.points[number])
        points.append(np.full((SEEN, 2), np.nan) if who is None else who.points[:SEEN])
        seen.append(np.zeros(SEEN, bool) if who is None else who.score >= THRESHOLD)
        count.append(len(people))
        start = time.process_time()
    places, clear = np.stack(points), np.stack(seen)
    decoding = seconds(pictures_of(file))
    whole = seconds(find_poses(networks, pictures_of(file)))
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
    parser.add_argument("--only", default="", help="part of a file's name")
    parser.add_argument("--points", action="store_true", help="compare the keypoints with MediaPipe's")
    options = parser.parse_args()
    if options.folder is None:
        print("nothing to look at: python dev.py bench footage FOLDER")
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    networks, body = read_networks(), load_free_body()
    kinds = VIDEOS | PICTURES
    files = [f for f in sorted(options.folder.iterdir()) if f.suffix.lower() in kinds and options.only in f.name]
    print(f"one thread, torch {torch.__version__}; sheets in {OUTPUT}")
    print("| clip | frames | found | followed | good % | doubtful | off | error % | trembling | smoothed ", end="")
    print("| ms pose | follow | fit | smooth |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    lists = []
    for file in files:
        try:
            row, told = judge(networks, file, body, OUTPUT)
            lists.append(told)
        except (ValueError, av.FFmpegError) as error:
            row = f"| {file.name} | {error} |"
        print(row, flush=True)
    print("", *lists, sep="\n")
    if options.points:
        print("\nlengths in % of the person's height")
        print(
            "| clip | frames | with people | most | ms body | ms all | tremble | theirs | median | 90 % | worst frame |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for file in files:
            print(compare(networks, file), flush=True)


if __name__ == "__main__":
    main()
