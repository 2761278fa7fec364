"""How much of a synthetic person a moved reference already shows, and how exactly known moves are found again.

The reference shows the same person in another pose, up to twice as large or small and up to 45 degrees turned against
the frames. It is moved onto each frame by nothing, by a linear and an affine map and by Procrustes' similarity (the
paper's ablation), and compared with the true frame inside the person's silhouette."""

# ruff: noqa: E402 - ComfyUI must be found, and be told to use the CPU, before it is imported.
import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = True

from champ.body.body import Body
from champ.calibrate.branch import Picture, Plan, plan_warps
from champ.calibrate.correspondences import people_of_motion
from champ.calibrate.procrustes import IDENTITY, Alignment, align, similarity
from champ.metrics.images import iou, psnr, ssim
from champ.motion.camera import transform
from champ.motion.motion import Motion
from champ.motion.rotation import rot_z
from champ.people.draw import Draw
from champ.people.looks import draw_look
from champ.people.moves import draw_move
from champ.people.samples import draw_pictures, make_actor, place_actor

SIZE, FRAMES = 256, 4
SCALES, TURNS = (0.5, 0.7, 1.0, 1.4, 2.0), (-45.0, -22.5, 0.0, 22.5, 45.0)
# A standing person of height 1: COCO's 17 points.
STANDING = np.array([
    (0, 0.07), (0.02, 0.06), (-0.02, 0.06), (0.045, 0.07), (-0.045, 0.07), (0.11, 0.18), (-0.11, 0.18), (0.14, 0.34),
    (-0.14, 0.34), (0.15, 0.48), (-0.15, 0.48), (0.07, 0.5), (-0.07, 0.5), (0.08, 0.74), (-0.08, 0.74), (0.09, 0.96),
    (-0.09, 0.96),
])  # fmt: skip


@dataclass
class Case:
    """A clip, and a reference that does not fit it."""

    pictures: Tensor  # (F, H, W, 3) uint8, what should come out
    masks: Tensor  # (F, H, W) bool
    body: Body
    motion: Motion
    reference_motion: Motion
    picture: Picture
    plan: Plan
    scale: float
    turn: float


def cases(people: int, split: str, size: int = SIZE, frames: int = FRAMES) -> Iterator[Case]:
    """Each person with one reference of every scale, turned by different angles."""
    for index in range(people):
        look, scene, motion_draw, reference_draw = (Draw(split, 0, index, stream) for stream in range(4))
        actor = make_actor(draw_look(look), scene, size, size)
        motion, up = place_actor(actor, draw_move(motion_draw), motion_draw, frames, (size, size), turned=0.0)
        reference, reference_up = place_actor(
            actor, draw_move(reference_draw), reference_draw, 1, (size, size), turned=0.0
        )
        pictures, masks = draw_pictures(actor, motion, up)
        theirs = people_of_motion(actor.body, motion)
        for i, scale in enumerate(SCALES):
            turn = TURNS[(i + index) % len(TURNS)]
            # About the middle of the picture, where the pelvis comes to lie.
            rotation = rot_z(torch.tensor(turn))
            pelvis = actor.body.with_betas(reference.betas).rest().joints[0, 0] + reference.cam_t[0]
            middle = torch.stack([torch.zeros(()), torch.zeros(()), pelvis[2] / scale])
            moved = transform(reference, actor.body, rotation, middle - rotation @ pelvis)
            drawn, person = draw_pictures(actor, moved, rotation @ reference_up)
            picture = Picture(drawn[0].numpy(), size, size, "crop", person[0].numpy())
            plan = plan_warps(picture, people_of_motion(actor.body, moved), theirs)
            yield Case(pictures, masks > 0, actor.body, motion, moved, picture, plan, scale, turn)


def linear(p: np.ndarray, q: np.ndarray, middle: float = SIZE / 2) -> np.ndarray:
    """Least squares q = A p from the middle of the picture, without translation."""
    p, q = p - middle, q - middle
    a = np.linalg.lstsq(p, q, rcond=None)[0].T
    return np.column_stack([a, middle - a @ (middle, middle)])


def affine(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Least squares q = A p + t."""
    return np.linalg.lstsq(np.column_stack([p, np.ones(len(p))]), q, rcond=None)[0].T


Method = Callable[[Case], tuple[Tensor, Tensor]]  # pictures (F, H, W, 3) uint8 and silhouettes (F, H, W) bool


def warped_by(matrix: Callable[[Plan, int], np.ndarray]) -> Method:
    """The reference, moved by a matrix for each frame."""

    def pictures(case: Case) -> tuple[Tensor, Tensor]:
        warps = [case.picture.warped(matrix(case.plan, frame)) for frame in range(FRAMES)]
        made = torch.stack([torch.from_numpy(warped.picture) for warped in warps])
        return made, torch.stack([torch.from_numpy(warped.person) > 127 for warped in warps])

    return pictures


def through_all(fit: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Method:
    """By a map fitted to all points that reference and frame both show."""

    def matrix(plan: Plan, frame: int) -> np.ndarray:
        both = (plan.reference[:, 2] > 0) & (plan.people[frame, :, 2] > 0)
        return fit(plan.reference[both, :2], plan.people[frame, both, :2]) if both.sum() > 2 else IDENTITY

    return warped_by(matrix)


METHODS: dict[str, Method] = {
    "off": warped_by(lambda plan, frame: IDENTITY),
    "Linear": through_all(linear),
    "Affine": through_all(affine),
    "Procrustes, all points": through_all(lambda p, q: similarity(p, q, np.ones(len(p)))),
    "Procrustes, auto": warped_by(lambda plan, frame: plan.alignments[frame].matrix),
}


def compare(case: Case, method: Method) -> Iterator[tuple[float, float, float]]:
    """PSNR and SSIM inside the person, and intersection over union of the silhouettes, of each frame."""
    made, people = method(case)
    # What the other side looks like is not in the reference.
    told = torch.tensor([not a.mirrored for a in case.plan.alignments]) & case.masks.flatten(1).any(1)
    made, people, true, masks = (x[told] for x in (made, people, case.pictures, case.masks))
    yield from zip(*(x.tolist() for x in (psnr(made, true, masks), ssim(made, true, masks), iou(people, masks))))


def quality(people: int, split: str) -> None:
    groups: dict[str, Callable[[Case], bool]] = {
        "size and turn as in the frames": lambda c: c.scale == 1 and c.turn == 0,
        "0.5x or 2x": lambda c: c.scale in (0.5, 2.0),
        "turned by 45 degrees": lambda c: abs(c.turn) == 45,
        "all": lambda c: True,
    }
    found = [
        (case, {name: list(compare(case, method)) for name, method in METHODS.items()}) for case in cases(people, split)
    ]
    print(f"\n{people} people of the {split} split, {len(found)} references, {FRAMES} frames of {SIZE}x{SIZE} each:")
    print("PSNR in dB / SSIM inside the person / intersection over union of the silhouettes")
    print(f"| reference | frames | {' | '.join(METHODS)} |")
    print("|---|---" + "|---" * len(METHODS) + "|")
    for name, holds in groups.items():
        rows = [scores for case, scores in found if holds(case)]
        cells = []
        for method in METHODS:
            values = np.array([value for scores in rows for value in scores[method]])
            cells.append("{:.1f} / {:.3f} / {:.2f}".format(*values.mean(0)))
        print(f"| {name} | {sum(len(scores['off']) for scores in rows)} | {' | '.join(cells)} |")


def recovery(draws: int = 400) -> None:
    """Known similarities through points that are off by 2 pixels (standard deviation of x and of y), some of them
    anywhere in the picture; beside it the error of who knows which points are good."""
    rng = np.random.default_rng(0)
    print(f"\n{draws} known moves, 0.5x to 2x and up to 45 degrees, root mean square (95th percentile) of the error:")
    print("| person | outliers | scale | turn | good points known: scale | turn |\n|---|---|---|---|---|---|")
    for height in (300, 450, 600):
        for share in (0.0, 0.2, 0.4):
            errors = []
            for _ in range(draws):
                scale, turn = 2 ** rng.uniform(-1, 1), np.radians(rng.uniform(-45, 45))
                rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
                q = STANDING * height
                p = (q - (rng.uniform(-50, 50), rng.uniform(-50, 50))) @ rotation / scale
                q = q + rng.normal(0, 2, q.shape)
                lost = rng.permutation(17)[: int(share * 17)]
                q[lost] = rng.uniform((-256, -84), (256, 684), (len(lost), 2))
                reference, person = (np.column_stack([points, np.ones(17)]) for points in (p, q))
                found = align(reference, person)
                assert found is not None
                good = np.setdiff1d(np.arange(17), lost)
                known = Alignment(similarity(p[good], q[good], np.ones(len(good))), good, "all")
                errors.append([(100 * (a.scale / scale - 1), a.degrees - np.degrees(turn)) for a in (found, known)])
            (scale, turn), (known_scale, known_turn) = np.sqrt(np.square(errors).mean(0))
            (far_scale, far_turn), _ = np.percentile(np.abs(errors), 95, axis=0)
            print(
                f"| {height} pixels | {share:.0%} | {scale:.2f} % ({far_scale:.2f}) | "
                f"{turn:.2f} degrees ({far_turn:.2f}) | {known_scale:.2f} % | {known_turn:.2f} degrees |"
            )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--split", default="held_out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recovery()
    quality(options.people, options.split)


if __name__ == "__main__":
    main()
