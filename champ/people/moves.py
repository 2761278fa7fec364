"""Motions of synthetic people: the built-in motions at other sizes and speeds, and paths between random poses."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..body.skeleton import JOINTS
from ..motion.limbs import SIDES, Joints, arms, smoothstep, spread
from ..motion.presets import PRESETS, Preset, rotations_at
from ..motion.rotation import from_axis_angle, rot_x, rot_y, rot_z, slerp
from .draw import Draw

Move = Callable[[Tensor], Tensor]  # seconds (N,) to world rotations (N, 24, 3, 3), y up and facing +z

# The dance is never seen in training.
FAMILIES = {
    "train": {"poses": 0.6, "walk": 0.12, "wave": 0.12, "jumping jacks": 0.08, "turntable": 0.08},
    "held_out": {"dance": 0.5, "poses": 0.2, "walk": 0.1, "wave": 0.1, "jumping jacks": 0.05, "turntable": 0.05},
}
MIRRORED = [JOINTS.index(n.replace("left", "?").replace("right", "left").replace("?", "right")) for n in JOINTS]


def draw_move(draw: Draw) -> Move:
    families = FAMILIES[draw.split]
    name = draw.choice(list(families), list(families.values()))
    move = _poses(draw) if name == "poses" else _preset(draw, PRESETS[name], amplitude=name != "turntable")
    return _mirrored(move) if draw.chance(0.5) else move


def _preset(draw: Draw, preset: Preset, amplitude: bool) -> Move:
    """Draws a built-in motion from a random start: other speed and size, with an offset in every joint."""
    start, rate = draw.between(0, 1), draw.own(0.7, 1.3) / preset.seconds
    size = draw.own(0.65, 1.25)
    habit = from_axis_angle(torch.from_numpy(draw.rng.normal(0, 0.05, (24, 3))).float())
    habit[0] = torch.eye(3)
    rest = rotations_at(Preset(1.0, _stand), torch.zeros(1))

    def move(seconds: Tensor) -> Tensor:
        rotations = rotations_at(preset, start + rate * seconds)
        if amplitude:
            rotations = slerp(rest.expand_as(rotations), rotations, torch.full(rotations.shape[:2], size))
        return rotations @ habit

    return move


def _stand(x: Tensor) -> Joints:
    still = torch.zeros_like(x)
    left, right = (arms(side, sign, still + 68, still, still, still + 14) for side, sign in SIDES)
    return left | right


def _poses(draw: Draw) -> Move:
    """Draws a path from one random pose to the next, with angles along quintic steps."""
    pace = draw.own(0.45, 1.1)  # seconds from pose to pose
    start = draw.between(0, 1)
    poses: list[Tensor] = []

    def move(seconds: Tensor) -> Tensor:
        position = start + seconds / pace
        while len(poses) < int(position.max()) + 2:
            poses.append(_random_pose(draw))
        angles = torch.stack(poses)
        index = position.long()
        step = smoothstep(position - index, 0, 1)[:, None]
        angles = torch.lerp(angles[index], angles[index + 1], step)
        return rotations_at(Preset(1.0, lambda _: _joints(angles)), seconds)

    return move


def _random_pose(draw: Draw) -> Tensor:
    """Draws angles in degrees in the order of `_joints`: the trunk, then both arms, then both legs."""
    angles = [draw.between(-a, a) for a in (25, 7, 25, 12)] + [draw.between(-4, 22), draw.between(-35, 35)]
    angles += [draw.between(-10, 15)]
    for _ in SIDES:
        down, swing, forward, elbow, twist = draw.choice(
            (
                (72, 0, 0, 20, 0),  # hanging
                (20, 0, 10, 20, 0),  # to the side
                (-45, 0, 5, 35, -30),  # up
                (30, 0, 60, 45, 0),  # forward
                (50, -15, 5, 95, 40),  # hand on the hip
                (10, 0, 10, 95, -85),  # forearm up
                (40, 10, 35, 100, -40),  # hand at the chest
            ),
            (3, 1, 1, 1, 1, 1, 1),
        )
        angles += [
            down + draw.between(-14, 8),
            swing + draw.between(-25, 25),
            forward + draw.between(-12, 12),
            max(4.0, elbow + draw.between(-25, 25)),
            twist + draw.between(-20, 20),
        ]
    stance = draw.choice(("straight", "bent", "lifted"), (3, 2, 2))
    bend = draw.between(10, 55)
    lifted = draw.choice((0, 1))
    for i in range(2):
        if stance == "bent":
            hip, knee = bend, 1.9 * bend
        elif stance == "lifted" and i == lifted:
            hip, knee = draw.between(10, 80), draw.between(20, 100)
        else:
            hip, knee = draw.between(-8, 12), draw.between(4, 14)
        angles += [hip, draw.between(0, 16), knee]
    return torch.tensor(angles)


def _joints(angles: Tensor) -> Joints:
    column = angles.unbind(1)
    yaw, roll, twist, side, forward, look, nod = column[:7]
    joints = {
        "pelvis": rot_y(yaw) @ rot_z(roll),
        "neck": rot_y(0.4 * look),
        "head": rot_y(0.6 * look) @ rot_x(nod),
    }
    shares = (0.3, 0.35, 0.35)
    turns = [spread(rot_y, twist, shares), spread(rot_z, side, shares), spread(rot_x, forward, shares)]
    joints |= {name: turns[0][name] @ turns[1][name] @ turns[2][name] for name in turns[0]}
    for i, (name, sign) in enumerate(SIDES):
        down, swing, reach, elbow, turn = column[7 + 5 * i : 12 + 5 * i]
        joints |= arms(name, sign, down, swing, reach, elbow, turn)
        hip, apart, knee = column[17 + 3 * i : 20 + 3 * i]
        joints |= {
            f"{name}_hip": rot_z(sign * apart - roll) @ rot_x(-hip),
            f"{name}_knee": rot_x(knee),
            f"{name}_ankle": rot_x((hip - knee).clamp(-35, 20)) @ rot_z(-sign * apart),
        }
    return joints


def _mirrored(move: Move) -> Move:
    """Mirrors left and right: S R S with S = diag(-1, 1, 1)."""
    sign = torch.tensor([-1.0, 1.0, 1.0])
    return lambda seconds: move(seconds)[:, MIRRORED] * (sign[:, None] * sign)
