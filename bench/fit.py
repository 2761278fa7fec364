"""Fitting motions to their own keypoints, on one CPU thread: once with 2 px of noise, once with a network's errors.

PA-MPJPE is the mean distance of the 24 joints after the best similarity of each frame, MPJPE after the pelvis alone;
reprojection the median distance of the 17 keypoints from where they really are; "standing" is the PA-MPJPE of what
the fit starts from, a person who stands and faces the right way. Legs are swapped where the ankle that is behind by
more than 15 cm comes out more than 5 cm in front. "Good" is what the report says, in % of the frames.

The network's errors are those between BlazePose and MediaPipe's heavy network in four clips of real people (`bench
footage --points` compares them). Each point is off by a constant part, and by one that wanders as an
Ornstein-Uhlenbeck process does: measured correlations are 0.65 after one frame and 0.1 after four, which is a tenth
of a second, with heavy tails. In % of the height these are 0.35, and 0.7 for head and shoulders, 1.0 for hips and
limbs, 2.0 for toes and heels. How far the depths of BlazePose's bones are from those that bones of a known length ask
for is 3 cm always and 6 cm that wander, with a correlation of 0.42 after a tenth of a second: 2 and 4 cm for each
end; here it is more, because what both get wrong is not seen in this. Its people bend their knees by 20 degrees where
they stand: 4 cm to the front, the ankles 8 cm to the back.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from champ.body.body import Body
from champ.body.free import free_body_betas, load_free_body
from champ.body.skeleton import JOINTS
from champ.estimate.fit import fit_motion
from champ.estimate.observed import standing
from champ.keypoints.layouts import KEYPOINTS
from champ.keypoints.pose import Pose, body_from_coco
from champ.motion.camera import View, frame_person
from champ.motion.motion import Motion
from champ.motion.presets import make_motion
from champ.motion.report import look_over
from champ.motion.rotation import from_axis_angle

FRAMES, SIZE, FPS, NOISE = 64, 512, 24.0, 2.0
CASES = (("walk", 0), ("walk", 40), ("walk", 90), ("walk", 180), ("wave", 0), ("dance", 0), ("dance", -40),
         ("jumping jacks", 0), ("turntable", 0))  # fmt: skip
SEEN_BY_NETWORK = (*CASES, ("idle", 20), ("salsa", 0), ("disco", 30), ("boxing", -40), ("squats", 30), ("shuffle", 60),
                   ("jog", 45), ("cheer", 0), ("bow", 60), ("sit and talk", 20))  # fmt: skip
SHAPES = {
    "average": None,
    "woman": {"gender": 1.0, "age": 40.0, "muscle": 0.3, "weight": 0.7, "height": 1.6},
    "man": {"gender": 0.0, "muscle": 0.9, "height": 1.95, "proportions": 0.3},
}
COCO = len(KEYPOINTS[:17])
PERSON = 1.7  # metres
CONSTANT = 0.0035 * PERSON  # metres, of each point in a clip
HEAD_WANDERS, LIMB_WANDERS, FOOT_WANDERS = 0.007 * PERSON, 0.010 * PERSON, 0.020 * PERSON
DEPTH_CONSTANT, DEPTH_WANDERS = 0.04, 0.07
TOGETHER = 0.1  # seconds: the correlation time
TAILS = 4.0  # degrees of freedom of Student's t
KNEES_TO_FRONT, ANKLES_TO_BACK = 0.04, 0.08
BEHIND, IN_FRONT = 0.15, 0.05  # metres, of swapped legs


def pa_mpjpe(a: Tensor, b: Tensor) -> float:
    """Millimetres, for joints (F, 24, 3)."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(a.mT @ b)
    flip = torch.ones_like(s)
    flip[:, 2] = torch.det(u @ v).sign()
    scale = (s * flip).sum(1) / a.square().sum((1, 2))
    moved = scale[:, None, None] * (a @ u @ torch.diag_embed(flip) @ v)
    return 1000 * float((moved - b).norm(dim=-1).mean())


def mpjpe(a: Tensor, b: Tensor) -> float:
    """Millimetres, for joints (F, 24, 3)."""
    return 1000 * float((a - a[:, :1] - b + b[:, :1]).norm(dim=-1).mean())


def swapped(a: Tensor, b: Tensor) -> float:
    """Part of the frames of joints (F, 24, 3) in which the ankle that is behind in b is in front in a."""
    left, right = JOINTS.index("left_ankle"), JOINTS.index("right_ankle")
    ours, theirs = (x[:, left, 2] - x[:, right, 2] for x in (a, b))
    return float(((theirs.abs() > BEHIND) & (ours * theirs < 0) & (ours.abs() > IN_FRONT)).float().mean())


def film(name: str, azimuth: float, person: Body, frames: int = FRAMES) -> Motion:
    motion = make_motion(name, person, frames, FPS, SIZE, SIZE, loop=False, travel=True)
    return frame_person(motion, person, SIZE, SIZE, View(azimuth))


def keypoints(motion: Motion, noise: float) -> list[Pose]:
    """As a pose node would give them, the face missing from behind."""
    points = load_free_body().keypoints(motion.posed(load_free_body()))[:, :COCO]
    pixels = motion.project(points)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    found = torch.cat([pixels, face_hides(points)[..., None]], 2)
    return [Pose(person) for person in body_from_coco(found.numpy())]


def face_hides(points: Tensor) -> Tensor:
    """(F, P) scores of points (F, P, 3): 0 of the face where that is turned away."""
    score = torch.ones(points.shape[:2])
    score[(points[:, 0] - points[:, 3:5].mean(1))[:, 2] > 0.03, :3] = 0
    return score


def seen_by_network(motion: Motion, seed: int = 0, depth: bool = True) -> list[Pose]:
    """Keypoints as BlazePose gives them, with its errors; without its `depth` as others do."""
    body = load_free_body()
    posed = motion.posed(body)
    points = body.keypoints(posed)
    random = np.random.default_rng(seed)
    wanders = torch.full((points.shape[1],), FOOT_WANDERS)
    wanders[:COCO] = LIMB_WANDERS
    wanders[: KEYPOINTS.index("left_elbow")] = HEAD_WANDERS
    away = _wandering(random, motion.fps, points.shape[:2], 2, wanders, CONSTANT)
    middle = posed.joints[:, 0, 2]
    pixels = motion.project(points) + motion.focal / middle[:, None, None] * away
    flat = torch.cat([pixels, face_hides(points)[..., None]], 2).numpy()
    feet = flat[:, COCO:].astype(np.float32)
    feet[:, [1, 4], 2] = 0
    space: Sequence[None] | np.ndarray = [None] * len(motion)
    if depth:
        own = points - points[:, 11:13].mean(1, keepdim=True)
        own = own + _wandering(random, motion.fps, points.shape[:2], 3, DEPTH_WANDERS, DEPTH_CONSTANT)
        front = posed.joints[:, :1] * 0 + (motion.rotations[:, 0] @ torch.tensor([0.0, 0, 1]))[:, None]
        knees, ankles = (
            [KEYPOINTS.index(f"{side}_{part}") for side in ("left", "right")] for part in ("knee", "ankle")
        )
        own[:, knees] += KNEES_TO_FRONT * front
        own[:, ankles] -= ANKLES_TO_BACK * front
        whole = torch.cat([own, torch.ones(*own.shape[:2], 1)], 2).numpy()
        space = np.concatenate([body_from_coco(whole[:, :COCO]), whole[:, COCO:]], 1).astype(np.float32)
    return [
        Pose(person, feet=foot, world=own)
        for person, foot, own in zip(body_from_coco(flat[:, :COCO]).astype(np.float32), feet, space)
    ]


def _wandering(
    random: np.random.Generator, fps: float, shape: tuple[int, int], axes: int, wanders: Tensor | float, constant: float
) -> Tensor:
    """(F, P, axes) metres: a constant part, and one that wanders."""
    keep = math.exp(-1 / (TOGETHER * fps))
    pushes = random.standard_normal((*shape, axes)) * math.sqrt(1 - keep**2)
    pushes *= np.sqrt((TAILS - 2) / random.chisquare(TAILS, (*shape, 1)))
    now, path = random.standard_normal((shape[1], axes)), []
    for push in pushes:
        now = keep * now + push
        path.append(now)
    still = constant * random.standard_normal((1, shape[1], axes))
    return torch.from_numpy(still + np.stack(path) * np.reshape(np.asarray(wanders), (-1, 1))).float()


class Result(NamedTuple):
    spent: float  # milliseconds a frame
    aligned: float  # millimetres
    placed: float
    swaps: float  # part of the frames
    off: float  # median pixels from where the points really are
    good: float  # part of the frames
    found: Motion


def measure(true: Motion, poses: list[Pose]) -> Result:
    body = load_free_body()
    begin = time.process_time()
    found = fit_motion(poses, body, SIZE, SIZE, FPS)
    spent = 1000 * (time.process_time() - begin) / len(true)
    joints, wanted = found.posed(body).joints, true.posed(body).joints
    pixels, real = (motion.project(body.keypoints(motion.posed(body))[:, :COCO]) for motion in (found, true))
    off = float((pixels - real).norm(dim=-1).median())
    good = float(look_over(found).good.float().mean())
    return Result(spent, pa_mpjpe(joints, wanted), mpjpe(joints, wanted), swapped(joints, wanted), off, good, found)


def people() -> Iterator[tuple[str, Body]]:
    body = load_free_body()
    for who, sliders in SHAPES.items():
        yield who, body if sliders is None else body.with_betas(free_body_betas(**sliders))


def from_standing(true: Motion) -> float:
    """PA-MPJPE of the same motion by somebody who only stands."""
    body = load_free_body()
    pose = from_axis_angle(standing().float()).repeat(len(true), 1, 1, 1)
    pose[:, 0] = true.rotations[:, 0]
    return pa_mpjpe(body.pose(pose).joints, true.posed(body).joints)


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    print(f"{FRAMES} frames of {SIZE}x{SIZE}, {NOISE:g} px noise, one thread, torch {torch.__version__}")
    print("| motion | from | body | CPU ms a frame | PA-MPJPE mm | standing mm | reprojection px |")
    print("|---|---|---|---|---|---|---|")
    for name, azimuth in CASES:
        for who, person in people():
            true = film(name, azimuth, person)
            got = measure(true, keypoints(true, NOISE))
            row = f"| {name} | {azimuth} | {who} | {got.spent:.0f} | {got.aligned:.0f} | {from_standing(true):.0f}"
            print(f"{row} | {got.off:.2f} |", flush=True)
    with_errors_of_a_network()


def with_errors_of_a_network() -> None:
    print("\nwith the errors of a network that guesses depth (BlazePose), and of one that does not")
    print("| motion | from | body | depth | CPU ms a frame | PA-MPJPE mm | MPJPE mm | legs swapped % | good % |")
    print("|---|---|---|---|---|---|---|---|---|")
    for depth in (True, False):
        rows = []
        for i, (name, azimuth) in enumerate(SEEN_BY_NETWORK):
            who, person = list(people())[i % len(SHAPES)]
            true = film(name, azimuth, person)
            got = measure(true, seen_by_network(true, i, depth))
            rows.append(got[:-1])
            row = f"| {name} | {azimuth} | {who} | {'yes' if depth else 'no'} | {got.spent:.0f} | {got.aligned:.0f}"
            print(f"{row} | {got.placed:.0f} | {100 * got.swaps:.1f} | {100 * got.good:.0f} |", flush=True)
        spent, aligned, placed, swaps, _, good = np.mean(rows, axis=0)
        row = f"| all | | | {'yes' if depth else 'no'} | {spent:.0f} | {aligned:.0f} | {placed:.0f}"
        print(f"{row} | {100 * swaps:.2f} | {100 * good:.0f} |", flush=True)


if __name__ == "__main__":
    main()
