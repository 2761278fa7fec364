"""Priors about people: how joints bend, how bodies stand, how fast they move.

Every term is a squared error over its usual size, so terms can be added.
"""

import math

import torch
from torch import Tensor

from ..body.skeleton import JOINTS
from .least_squares import Quadratic
from .observed import ANKLES, ELBOWS, HANDS, HIPS, KNEES, SHOULDERS, SIDES, WRISTS, rows, standing
from .points import MOVING, POINTS, PointBody, PosedPoints

# Usual deviation from standing in degrees, about x, y and z of the rest pose.
SPREAD = {
    "spine1": (7, 6, 5), "spine2": (7, 6, 5), "spine3": (7, 6, 5), "neck": (9, 12, 9), "head": (11, 16, 11),
    "hip": (45, 17, 24), "knee": (80, 6, 6), "ankle": (16, 9, 9),
    "collar": (6, 8, 8), "shoulder": (70, 70, 80), "elbow": (25, 100, 6), "wrist": (12, 12, 12),
}  # fmt: skip
FREE = (1e4, 1e4, 1e4)  # the root
HANGING = math.radians(6)  # of a leg that is not seen
HYPEREXTENSION = math.radians(4)  # of an elbow or knee bent the wrong way
STRAIGHT = math.radians(10)  # of the knee of a leg that looks straight
BENT = 6.0  # squared error from which it bends after all
TILT = math.radians(40), math.radians(10)  # of the trunk in the picture and in depth
BALANCE = {"pelvis": 0.12, "left_ear": 0.15, "right_ear": 0.15}  # metres in depth from the lower foot
FLAT = 0.03  # metres of the toes of the lower foot above or below a flat sole
LOWER = 0.05  # metres: a foot that is higher than the other by this counts a third
SHAPE = 0.25  # weight of each frame for the betas; not 1, because all frames share them
# Accelerations in m/s^2 and rad/s^2.
ACCELERATION = {"elbow": 24.0, "knee": 24.0, "wrist": 40.0, "hand": 40.0, "ankle": 40.0, "foot": 40.0}
TRUNK_ACCELERATION = 12.0
DEPTH_ACCELERATION = 2.0  # of the pelvis
TURN_ACCELERATION = 300.0
RARE = 20.0  # squared error above which a stance is rare (sitting, lying) rather than wrong
NEVER = math.inf

PELVIS, ABOVE = rows("pelvis", "above")
FEET = rows("left_foot", "right_foot")
# Points whose acceleration is usual: not all of a head or a foot, which move together.
MOVED = rows("nose", "left_ear", "right_ear") + SHOULDERS + ELBOWS + WRISTS + HANDS + HIPS + KNEES + ANKLES + FEET
MOVED.append(PELVIS)


def add_pose(energy: Quadratic, pose: Tensor, hidden: Tensor, straight: Tensor, exact: float) -> None:
    """Adds the priors of axis-angles (F, 24, 3); legs that are `hidden` (F, 2) hang, those that look `straight` are,
    the more so the more `exact` (0..1) points are."""
    angles, usual = pose[:, list(MOVING)].flatten(1), standing()[list(MOVING)].flatten()
    spread = torch.tensor([SPREAD.get(JOINTS[j].rpartition("_")[2], FREE) for j in MOVING], dtype=torch.float64)
    spread = torch.deg2rad(spread).flatten().repeat(len(angles), 1)
    for side, out_of_sight in zip(("left", "right"), hidden.double().T):
        for name in (f"{side}_hip", f"{side}_knee"):
            first = 3 * MOVING.index(JOINTS.index(name))
            part = spread[:, first : first + 3]
            part += (torch.minimum(part, part.new_tensor(HANGING)) - part) * out_of_sight[:, None]
    energy.add_own((angles - usual) / spread, 1 / spread, slice(0, angles.shape[1]))
    knees = [3 * MOVING.index(JOINTS.index(f"{side}_knee")) for side, _ in SIDES]
    bent = (angles[:, knees] - usual[knees]) * (exact / STRAIGHT)
    robust = 1 + bent.square() / BENT
    energy.value += (straight * bent.square() / robust).sum()
    straight = straight / robust**2
    energy.add_weighted(straight * bent * (exact / STRAIGHT), straight * (exact / STRAIGHT) ** 2, knees)
    hinges = [(f"{side}_knee", 0, 1) for side, _ in SIDES] + [(f"{side}_elbow", 1, -sign) for side, sign in SIDES]
    index = [3 * MOVING.index(JOINTS.index(name)) + axis for name, axis, _ in hinges]
    sign = angles.new_tensor([sign for _, _, sign in hinges])
    wrong = (-sign * angles[:, index]).clamp(min=0)
    energy.add_own(wrong / HYPEREXTENSION, -sign * (wrong > 0) / HYPEREXTENSION, index)


def add_stance(energy: Quadratic, posed: PosedPoints, body: PointBody, betas: Tensor, size: float) -> None:
    """Adds the priors of a person seen near eye level: trunk upright, pelvis and head above the lower foot, its sole
    flat.

    Soles are no flatter than the points are exact (`size`); otherwise they would decide the legs.
    """
    shares = torch.softmax(posed.points[:, ANKLES, 1] / LOWER, dim=1)
    one = torch.eye(len(POINTS), dtype=torch.float64)
    up, ground = one[ABOVE] - one[PELVIS], shares @ one[ANKLES]
    every = up.expand(len(shares), -1)

    def add(axis: int, sums: list[Tensor], usual: Tensor | float, wide: list[float], cut: list[float]) -> None:
        """Adds sums over points with shares (F, P): their usual values, errors, and errors from which they are rare."""
        share = torch.stack(sums, 1) / one.new_tensor(wide)[:, None]  # (F, T, P)
        error, by_motion, by_betas = (
            (share @ x[:, :, axis].flatten(2)).unflatten(2, (1, -1))
            for x in (posed.points[..., None], posed.by_motion, posed.by_betas)
        )
        error = error[..., 0] - usual / one.new_tensor(wide)[:, None]
        energy.add(error, by_motion, by_betas, 1.0, one.new_tensor(cut))

    add(0, [every], 0.0, [TILT[0]], [NEVER])
    balance = [one[POINTS.index(name)] - ground for name in BALANCE]
    add(2, [every, *balance], 0.0, [TILT[1], *BALANCE.values()], [NEVER, *[RARE] * len(balance)])
    rest = body.rest_joints(betas)
    share = shares / shares.amax(1, keepdim=True)
    drop = rest[[JOINTS.index(POINTS[p]) for p in ANKLES], 1] - rest[[JOINTS.index(POINTS[p]) for p in FEET], 1]
    soles = [own[:, None] * (one[foot] - one[ankle]) for own, foot, ankle in zip(share.T, FEET, ANKLES)]
    add(1, soles, (share * drop)[..., None], [max(FLAT, size)] * 2, [RARE] * 2)


def add_shape(energy: Quadratic, betas: Tensor, usual: Tensor, frames: int) -> None:
    weight = max(1.0, SHAPE * frames)
    energy.value += weight * (betas - usual).square().sum()
    energy.betas_gradient += weight * (betas - usual)
    energy.betas.diagonal().add_(weight)


def add_change(energy: Quadratic, posed: PosedPoints, pose: Tensor, joined: Tensor, fps: float) -> None:
    """Adds accelerations, second differences times fps^2, within the triples of frames that are `joined`."""
    if len(joined) == 0:
        return
    usual = [[ACCELERATION.get(POINTS[p].rpartition("_")[2], TRUNK_ACCELERATION)] * 3 for p in MOVED]
    usual[-1][2] = DEPTH_ACCELERATION  # of the pelvis
    scale = fps**2 / torch.tensor(usual, dtype=torch.float64)

    def scaled(x: Tensor) -> Tensor:
        """Measures depth from the pelvis: the distance of the person says little, its change says much."""
        out = x[:, MOVED]
        out[:, :-1, 2] -= x[:, PELVIS, None, 2]
        return out.mul_(scale.view(*scale.shape, *[1] * (x.ndim - 3))).flatten(1, 2)

    energy.add_change(scaled(posed.points), scaled(posed.by_motion), scaled(posed.by_betas), joined)
    energy.add_own_change(pose[:, list(MOVING)].flatten(1), fps**2 / TURN_ACCELERATION, joined)
