"""What the keypoints of a clip show before any fitting: the points, the person's size, and the facing direction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from ..body.skeleton import JOINTS
from ..keypoints.layouts import COCO_FROM_OPENPOSE
from ..keypoints.pose import THRESHOLD, Pose
from ..motion.camera import CAMERA_FROM_WORLD
from ..motion.presets import SIDES
from ..motion.rotation import rot_y, rot_z
from .points import POINTS, SEEN, PointBody

KNUCKLE = 9  # of a hand's 21 points
YAWS = 16
PART = 1000  # frames compared at once
ROUGH = 0.5  # weight of toes and heels, whose points differ between networks
WEIGHTLESS = 1e-3  # weight of interpolated points
DEEP = 0.15  # metres: usual error of a network's depth
LONG = 0.93, 1.1  # of the body's legs in the picture: from which they are nearly straight, and at most
KINKED = math.radians(12), math.radians(27)  # of a knee in the picture: no longer straight, and certainly bent
LONGEST = 0.8  # quantile of the lengths of legs in a shot
KNEE_OFF = 0.05  # metres at most by which networks differ about knees
WINDOW = 9  # frames; in some of them a limb shows its full length


def rows(*names: str) -> list[int]:
    return [POINTS.index(name) for name in names]


def pair(part: str) -> list[int]:
    return rows(f"left_{part}", f"right_{part}")


SHOULDERS, ELBOWS, WRISTS, HIPS, KNEES, ANKLES = map(pair, ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))
TRUNK = SHOULDERS + HIPS
FACE = rows("nose", "left_eye", "right_eye", "left_ear", "right_ear")
HANDS = pair("hand")
FEET = rows("left_big_toe", "left_heel", "right_big_toe", "right_heel")
POSE_FEET = [0, 2, 3, 5]  # those four among the six of a pose's feet


@dataclass(frozen=True)
class Observed:
    points: Tensor  # (F, SEEN, 2) pixels from the centre of the picture
    weight: Tensor  # (F, SEEN) scores, 0 = missing
    depth: Tensor  # (F, SEEN) metres behind the middle of the hips, as a network for points in space guesses them
    depth_weight: Tensor  # (F, SEEN) scores, 0 = not guessed

    def __getitem__(self, index: slice | Tensor) -> "Observed":
        return Observed(*(getattr(self, field.name)[index] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.points)


def observe(people: Sequence[Pose | None], width: int, height: int, reach: float = 1.0) -> Observed:
    """Collects keypoints in the order of SEEN; frames without a person have weight 0. `reach` is the length of
    trunk and leg in metres, to which a network's own metres are scaled."""
    points, spaces = (np.zeros((len(people), len(SEEN), numbers)) for numbers in (3, 4))
    for row, space, pose in zip(points, spaces, people):
        if pose is None:
            continue
        row[:17] = pose.body[COCO_FROM_OPENPOSE, :]
        if pose.feet is not None:
            row[FEET] = pose.feet[POSE_FEET, :]
        if pose.world is not None:
            space[:17] = pose.world[COCO_FROM_OPENPOSE, :]
            space[FEET] = pose.world[18:][POSE_FEET, :]
        for place, hand, wrist, elbow in zip(HANDS, (pose.left_hand, pose.right_hand), WRISTS, ELBOWS):
            # A hand far from its wrist is the other hand, or nobody's.
            if hand is not None and (row[[wrist, elbow], 2] >= THRESHOLD).all() and hand[0, 2] >= THRESHOLD:
                if math.dist(hand[0, :2], row[wrist, :2]) < math.dist(row[wrist, :2], row[elbow, :2]) / 2:
                    row[place] = hand[KNUCKLE]
    weight = np.where(points[..., 2] >= THRESHOLD, points[..., 2].clip(0, 1), 0)
    centred = np.where(weight[..., None] > 0, points[..., :2] - (width / 2, height / 2), 0)
    weight[:, FEET] *= ROUGH
    guessed = np.where(spaces[..., 3] >= THRESHOLD, spaces[..., 3].clip(0, 1), 0)
    guessed[:, FACE] = 0  # the network's faces are flat
    depth = spaces[..., 2] * reach / _reach(spaces)
    return Observed(*map(torch.from_numpy, (centred, weight, depth, guessed)))


def _reach(spaces: np.ndarray) -> float:
    """Metres of trunk and leg in points in space (F, SEEN, 4), the median over a clip; 1 where there are none."""
    points = spaces[..., :3][(spaces[:, TRUNK + KNEES + ANKLES, 3] >= THRESHOLD).all(1)]
    if len(points) == 0:
        points = spaces[..., :3][(spaces[:, TRUNK, 3] > 0).all(1)]  # outside the picture it guesses, too
    middle = [points[:, rows].mean(1) for rows in (SHOULDERS, HIPS, KNEES, ANKLES)]
    whole = sum(np.linalg.norm(a - b, axis=1) for a, b in zip(middle, middle[1:]))
    return float(np.median(whole)) if len(points) else 1.0


def at_rest(body: PointBody, betas: Tensor) -> Tensor:
    """(P, 3) points of a body at rest."""
    origin = torch.zeros(1, 3).double()
    return body.pose(torch.zeros(1, 24, 3).double(), torch.eye(3)[None].double(), origin, betas).points[0]


def reach_of(body: PointBody, betas: Tensor) -> float:
    """Metres of trunk and leg of a body at rest."""
    points = at_rest(body, betas)
    middle = [points[rows].mean(0) for rows in (SHOULDERS, HIPS, KNEES, ANKLES)]
    return float(sum((a - b).norm() for a, b in zip(middle, middle[1:])))


def lower_knees(seen: Observed, size: Tensor, rest: Tensor) -> float:
    """Metres by which a network's knees are further down the leg than those of the body at rest (P, 3): the share of
    the thigh in legs that look long is another. Whoever stands would bend the knees for it."""
    thigh, shin = ((rest[a] - rest[b]).norm(dim=-1).mean() for a, b in ((HIPS, KNEES), (KNEES, ANKLES)))
    above, below = (_apart(seen, a, b) / size[:, None] for a, b in ((HIPS, KNEES), (KNEES, ANKLES)))
    long = _shown(seen) & (above + below > LONG[0] * (thigh + shin))
    if not long.any():
        return 0.0
    share = (above / (above + below))[long].median()
    return float(((thigh + shin) * share - thigh).clamp(-KNEE_OFF, KNEE_OFF))


def straight_legs(seen: Observed, size: Tensor, shots: list[slice], rest: Tensor) -> Tensor:
    """(F, 2) 0..1, which legs look straight: from hip to ankle nearly as long in the picture as any of the shot, or as
    those of the body at rest (P, 3), and without a bend at the knee."""
    thigh, shin = seen.points[:, KNEES] - seen.points[:, HIPS], seen.points[:, ANKLES] - seen.points[:, KNEES]
    bend = torch.nn.functional.cosine_similarity(thigh, shin, dim=-1).clamp(-1, 1).acos()
    even = ((KINKED[1] - bend) / (KINKED[1] - KINKED[0])).clamp(0, 1)
    whole = (rest[HIPS] - rest[ANKLES]).norm(dim=-1).mean()
    straight = torch.zeros(len(seen), 2).double()
    for shot in shots:
        length, there = _apart(seen, HIPS, ANKLES)[shot] / size[shot, None], _shown(seen)[shot]
        if there.any():
            longest = length[there].quantile(LONGEST).clamp(LONG[0] * whole, LONG[1] * whole)
            straight[shot] = there * even[shot] * ((length / longest - LONG[0]) / (1 - LONG[0])).clamp(0, 1)
    return straight


def _apart(seen: Observed, a: list[int], b: list[int]) -> Tensor:
    """(F, 2) pixels between two points of both legs."""
    return (seen.points[:, a] - seen.points[:, b]).norm(dim=-1)


def _shown(seen: Observed) -> Tensor:
    """(F, 2) whether all of a leg is seen."""
    return (torch.stack([seen.weight[:, part] for part in (HIPS, KNEES, ANKLES)]) > 0).all(0)


def hidden_legs(seen: Observed, shots: list[slice], around: int) -> Tensor:
    """(F, 2) whose left and right leg has neither knee nor ankle in any of the frames `around`."""
    hidden = torch.ones(len(seen), 2, dtype=torch.bool)
    shown = (seen.weight[:, KNEES] + seen.weight[:, ANKLES]).T[None]
    for shot in shots:
        hidden[shot] = max_pool1d(shown[..., shot], 2 * around + 1, 1, around)[0].T < WEIGHTLESS
    return hidden


def bridged(seen: Observed, known: Tensor, shots: Tensor, gap: int) -> tuple[Observed, Tensor]:
    """Interpolates the points of frames that are not `known` (F,) in gaps of at most `gap` frames inside a shot, almost
    weightless. Also returns which frames those are (F,)."""
    frames = torch.arange(len(known))
    there = frames[known]
    before = there[(torch.searchsorted(there, frames, right=True) - 1).clamp(min=0)]
    after = there[torch.searchsorted(there, frames).clamp(max=len(there) - 1)]
    between = ~known & (before < frames) & (frames < after) & (after - before <= gap + 1)
    between &= shots[before] == shots[after]
    a, b, at = before[between], after[between], frames[between]
    part = ((at - a) / (b - a).double())[:, None]
    points, weight = seen.points.clone(), seen.weight.clone()
    points[between] = torch.lerp(points[a], points[b], part[..., None].expand_as(points[a]))
    weight[between] = WEIGHTLESS * torch.minimum(weight[a], weight[b])
    return replace(seen, points=points, weight=weight), between


def standing() -> Tensor:
    """Returns axis-angles (24, 3) of a person who stands with hanging arms."""
    pose = torch.zeros(24, 3, dtype=torch.float64)
    for side, sign in SIDES:
        for part, axis, degrees in (
            ("collar", 2, -8 * sign), ("shoulder", 2, -65 * sign), ("elbow", 1, -15 * sign),
            ("hip", 0, -3), ("knee", 0, 5),
        ):  # fmt: skip
            pose[JOINTS.index(f"{side}_{part}"), axis] = math.radians(degrees)
    return pose


def pixels_per_metre(seen: Observed, body: PointBody, betas: Tensor) -> Tensor:
    """Estimates pixels per metre (F,) from trunk and legs, or, if the hips are not seen, from the longest of shoulders
    and limbs; NaN if nothing has a length. A limb that points at the camera looks too short, never too long."""
    real = at_rest(body, betas)
    there = seen.weight > 0

    def length(*ends: list[int]) -> tuple[Tensor, Tensor]:
        """Returns pixels (0 if a point is missing) and metres along a chain of points or midpoints."""
        flat, solid = (
            sum((x[..., a, :].mean(-2) - x[..., b, :].mean(-2)).norm(dim=-1) for a, b in zip(ends, ends[1:]))
            for x in (seen.points, real)
        )
        return torch.where(there[:, sum(ends, [])].all(1), flat, 0), solid

    def each(*pairs: list[int]) -> list[tuple[Tensor, Tensor]]:
        return [length(*([point] for point in chain)) for chain in zip(*pairs)]

    trunk, trunk_metres = length(SHOULDERS, HIPS)
    (left, leg_metres), (right, _) = each(HIPS, KNEES, ANKLES)
    leg = torch.maximum(left, right)
    whole = (trunk + leg) / ((trunk > 0) * trunk_metres + (leg > 0) * leg_metres)
    bones = [length(SHOULDERS[:1], SHOULDERS[1:])]
    bones += each(SHOULDERS, ELBOWS) + each(ELBOWS, WRISTS) + each(HIPS, KNEES) + each(KNEES, ANKLES)
    longest = torch.stack([flat / metres for flat, metres in bones]).amax(0)
    size = torch.where(whole > 0, whole, longest)
    return torch.where(size > 0, size, torch.nan)


def steady_size(size: Tensor, shots: list[slice]) -> Tensor:
    """Takes the maximum over 9 frames, then the mean over 9, within each shot."""
    out = size.clone()
    for shot in shots:
        part = size[shot][None, None]
        width = min(WINDOW, 2 * ((part.shape[-1] - 1) // 2) + 1)
        part = max_pool1d(part, width, stride=1, padding=width // 2)
        out[shot] = pad(part, (width // 2, width // 2), mode="replicate").unfold(-1, width, 1).mean(-1)[0, 0]
    return out


def facing(seen: Observed, size: Tensor, shots: list[slice], body: PointBody, betas: Tensor) -> Tensor:
    """Estimates root rotations (F, 3, 3): the lean in the picture from the trunk, the turn about the vertical from the
    order of shoulders, hips and face, as the best path through 16 turns for each shot (Viterbi)."""
    trunk = seen.points[:, SHOULDERS].mean(1) - seen.points[:, HIPS].mean(1)
    clear = (seen.weight[:, TRUNK] > 0).all(1) & (trunk.norm(dim=1) > 0.25 * size)
    lean = torch.where(clear, torch.rad2deg(torch.atan2(trunk[:, 0], -trunk[:, 1])), 0)
    turns = (CAMERA_FROM_WORLD @ rot_y(torch.arange(YAWS) * (360 / YAWS))).double()
    models = body.pose(standing().expand(YAWS, -1, -1), turns, torch.zeros(YAWS, 3).double(), betas).points
    used = TRUNK + FACE
    cost = torch.empty(len(seen), YAWS, dtype=torch.float64)
    for part in torch.arange(len(seen)).split(PART):
        # The models stand upright. In the picture y points down, so a turn there has the opposite sign in the world.
        upright = rot_z(-lean[part])[:, None, :2, :2].double()
        apart = (upright @ (seen.points[part][:, used] / size[part, None, None])[..., None])[..., 0]
        cost[part] = _misfit(apart, seen.weight[part][:, used], models[:, used, :2], 0.06)
        depth, guessed = seen.depth[part][:, TRUNK, None], seen.depth_weight[part][:, TRUNK]
        cost[part] += _misfit(depth, guessed, models[:, TRUNK, 2:], DEEP)
    # A visible nose means a face towards the camera; a trunk without one is mostly seen from behind.
    towards, nose = -turns[:, 2, 2], seen.weight[:, FACE[:1]]
    cost += 4 * nose * (-towards - 0.2).clamp(min=0) + 4 * (nose == 0) * (towards - 0.5).clamp(min=0)
    steps = torch.arange(YAWS)
    change = (steps[:, None] - steps).abs()
    change = 1.5 * torch.minimum(change, YAWS - change)
    best = torch.cat([_cheapest(cost[shot], change) for shot in shots])
    return (CAMERA_FROM_WORLD @ rot_z(-lean) @ rot_y(best * (360 / YAWS))).double()


def _misfit(points: Tensor, weight: Tensor, models: Tensor, usual: float) -> Tensor:
    """Returns the misfit (F, M) of models (M, P, D) to points (F, P, D), both in metres, up to translation."""
    apart = points[:, None] - models
    share = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
    apart = apart - (apart * share[:, None, :, None]).sum(2, keepdim=True)
    error = apart.square().sum(-1) / usual**2
    return (weight[:, None] * error / (1 + error / 25)).sum(-1)


def _cheapest(cost: Tensor, change: Tensor) -> Tensor:
    """Returns the path (F,) through states with the least sum of costs (F, S) and transition costs (S, S)."""
    total, back = cost[0], []
    for step in cost[1:]:
        least, origin = (total + change).min(1)
        total = least + step
        back.append(origin)
    path = [int(total.argmin())]
    for origin in reversed(back):
        path.append(int(origin[path[-1]]))
    return torch.tensor(path[::-1])
