"""Built-in motions beside those of presets.py, from formulas too: dances, sports, gestures, sitting, standing."""

import math

import torch
from torch import Tensor

from .limbs import SIDES, Joints, arms, between, legs, spread
from .rotation import rot_x, rot_y, rot_z

TAU = 2 * math.pi


def idle(x: Tensor) -> Joints:
    """Standing: breath, weight from one leg to the other, a look to the side."""
    breath, sway = torch.sin(TAU * 2 * x), torch.sin(TAU * x)
    look = between(x, (0.1, 0.25), (0.45, 0.6)) - 0.7 * between(x, (0.6, 0.72), (0.85, 0.97))
    joints = {
        "pelvis": rot_z(2.5 * sway) @ rot_y(2 * sway),
        **spread(rot_x, 1.2 * breath, (0.2, 0.4, 0.6)),
        "spine2": rot_z(-2 * sway) @ rot_x(0.5 * breath),
        "neck": rot_y(12 * look),
        "head": rot_y(16 * look) @ rot_x(-breath),
    }
    for side, sign in SIDES:
        free = (sign * sway).clamp(min=0) ** 2
        joints |= legs(side, sign, 7 * free, 13 * free, 4 - 2.5 * sign * sway)
        joints |= arms(side, sign, 73 + breath, 2 * sway, 4 + 0 * x, 15 + 3 * breath)
    return joints


def sit(x: Tensor) -> Joints:
    """Sitting as on a chair, hands on the lap; nods and tells something with the right hand."""
    breath = torch.sin(TAU * 2 * x)
    tell = between(x, (0.15, 0.3), (0.7, 0.9))
    beat = torch.sin(TAU * 5 * x) * tell
    joints = {
        "pelvis": rot_x(4 + 0 * x),
        **spread(rot_x, -3 + 1.5 * breath, (0.3, 0.4, 0.3)),
        "head": rot_x(4 * torch.sin(TAU * 4 * x) * tell) @ rot_z(5 * tell),
        "right_wrist": rot_z(14 * beat),
    }
    for side, sign in SIDES:
        joints |= legs(side, sign, 86 + 0 * x, 84 + 0 * x, 7 + 0 * x)
        joints |= arms(side, sign, 66 + 0 * x, 18 + breath, 24 + 0 * x, 52 + 0 * x)
    joints |= arms("right", -1.0, 66 - 6 * tell, 18 + 14 * tell, 24 + 8 * tell, 52 + 34 * tell + 14 * beat)
    return joints


def bow(x: Tensor) -> Joints:
    """Bows, stays a moment, and rises."""
    down = between(x, (0.12, 0.4), (0.58, 0.9))
    joints = {
        "pelvis": rot_x(26 * down),
        **spread(rot_x, 34 * down, (0.4, 0.35, 0.25)),
        "neck": rot_x(8 * down),
        "head": rot_x(10 * down),
    }
    for side, sign in SIDES:
        joints |= legs(side, sign, 24 * down, 2 * down, 3 + 0 * x)
        joints[f"{side}_ankle"] = rot_x(-4 * down) @ rot_z(-sign * 3 + 0 * x)
        joints |= arms(side, sign, 74 + 0 * x, 34 * down, 6 + 0 * x, 12 + 6 * down)
    return joints


def cheer(x: Tensor) -> Joints:
    """Both arms thrown up, twice, with bent knees between."""
    up = (1 - torch.cos(TAU * 2 * x)) / 2
    bend = (1 - up) ** 2
    joints = {**spread(rot_x, 10 * bend - 8 * up, (0.4, 0.3, 0.3)), "head": rot_x(-14 * up + 6 * bend)}
    for side, sign in SIDES:
        joints |= legs(side, sign, 26 * bend, 48 * bend, 6 + 0 * x)
        joints |= arms(side, sign, 62 - 112 * up, 24 * bend, 14 * up + 16 * bend, 60 * bend + 14)
    return joints


def squat(x: Tensor) -> Joints:
    """A knee bend with the arms stretched out in front."""
    down = (1 - torch.cos(TAU * x)) / 2
    joints = {"pelvis": rot_x(32 * down), **spread(rot_x, 8 * down, (0.3, 0.3, 0.4)), "head": rot_x(-26 * down)}
    for side, sign in SIDES:
        hip, knee = 104 * down, 96 * down
        joints |= legs(side, sign, hip, knee, 9 + 4 * down)
        joints[f"{side}_ankle"] = rot_x(hip - 32 * down - knee) @ rot_z(-sign * (9 + 4 * down))
        joints |= arms(side, sign, 74 - 62 * down, 0 * x, 78 * down, 10 + 0 * x)
    return joints


def boxing(x: Tensor) -> Joints:
    """A stance with the left foot in front; jab with the left, cross with the right."""
    jab = between(x, (0.08, 0.2), (0.24, 0.4))
    punch = between(x, (0.42, 0.56), (0.6, 0.8))
    bounce = torch.sin(TAU * 4 * x)
    turn = -24 - 8 * jab + 34 * punch
    joints = {
        "pelvis": rot_y(turn * 0.6),
        **spread(rot_y, turn * 0.5, (0.3, 0.35, 0.35)),
        "neck": rot_y(-0.5 * turn),
        "head": rot_y(-0.6 * turn) @ rot_x(8 + bounce),
    }
    joints |= legs("left", 1.0, 30 + 2 * bounce, 26 + 4 * bounce, 6 + 0 * x)
    joints |= legs("right", -1.0, -10 + 2 * bounce, 28 + 4 * bounce, 10 + 0 * x, -14 - 8 * punch)
    joints |= arms("left", 1.0, 58 - 52 * jab, 30 * (1 - jab), 40 + 44 * jab, 122 - 112 * jab)
    joints |= arms("right", -1.0, 62 - 56 * punch, 26 * (1 - punch), 36 + 52 * punch, 128 - 118 * punch)
    return joints


def jog(x: Tensor) -> Joints:
    """Jogging: both feet leave the floor twice in a cycle."""
    joints = {
        "pelvis": rot_x(6 + 0 * x) @ rot_y(-6 * torch.cos(TAU * x)),
        **spread(rot_y, 9 * torch.cos(TAU * x), (0.3, 0.4, 0.5)),
    }
    for side, sign in SIDES:
        phase = TAU * (x + (0.0 if sign > 0 else 0.5))
        raised = (torch.sin(phase)).clamp(min=0) ** 1.3
        back = (torch.sin(phase - 1.1)).clamp(min=0) ** 1.3
        hip, knee = 12 + 42 * raised, 18 + 74 * back + 34 * raised
        joints |= legs(side, sign, hip, knee, 2 + 0 * x, -30 * back - 8 * raised)
        joints |= arms(
            side,
            sign,
            70 + 0 * x,
            -4 - sign * 34 * torch.cos(TAU * x - 1.2),
            6 + 0 * x,
            88 - sign * 12 * torch.cos(TAU * x),
        )
    return joints


def flight(x: Tensor) -> Tensor:
    """How far both feet are above the floor in jogging, in metres."""
    return 0.05 * torch.sin(TAU * (x - 0.12)).square()


def disco(x: Tensor) -> Joints:
    """Eight beats: the right arm points up and out, then down across, while the hips go from side to side."""
    beat = 8 * x
    side_way = torch.sin(math.pi * beat)
    up = (1 + torch.cos(math.pi * beat)) / 2
    joints = {
        "pelvis": rot_z(-7 * side_way) @ rot_y(10 * side_way),
        **spread(rot_z, 9 * side_way, (0.4, 0.3, 0.3)),
        "head": rot_y(-22 * (2 * up - 1)) @ rot_z(4 * side_way),
    }
    for side, sign in SIDES:
        free = (-sign * side_way).clamp(min=0)
        joints |= legs(side, sign, 8 + 20 * free, 16 + 34 * free, 8 + 7 * sign * side_way, -22 * free)
    joints |= arms("left", 1.0, 40 + 8 * side_way, -26 + 0 * x, -12 + 0 * x, 96 + 0 * x)
    joints |= arms("right", -1.0, 58 - 104 * up, 8 * (1 - up), 70 * (1 - up), 8 + 20 * (1 - up))
    return joints


def twist(x: Tensor) -> Joints:
    """The twist: hips and bent knees one way, shoulders and arms the other."""
    turn = torch.sin(TAU * 4 * x)
    sink = (1 - torch.cos(TAU * x)) / 2
    joints = {
        "pelvis": rot_y(24 * turn) @ rot_x(4 + 8 * sink),
        **spread(rot_y, -42 * turn, (0.3, 0.35, 0.35)),
        "head": rot_y(16 * turn) @ rot_x(-6 * sink),
    }
    for side, sign in SIDES:
        joints |= legs(side, sign, 22 + 30 * sink, 38 + 42 * sink, 6 + 0 * x, -12 - 6 * sink)
        joints |= arms(side, sign, 62 + 0 * x, 10 * sign * turn, 30 + 16 * sign * turn, 82 + 8 * sign * turn)
    return joints


def shuffle(x: Tensor) -> Joints:
    """The running man: knees up in turn, arms pumping against them, with a bounce on every beat."""
    joints = {"pelvis": rot_x(5 + 0 * x), "head": rot_x(4 * torch.cos(TAU * 4 * x))}
    joints |= spread(rot_y, 10 * torch.sin(TAU * 2 * x), (0.3, 0.3, 0.4))
    for side, sign in SIDES:
        phase = TAU * (2 * x + (0.0 if sign > 0 else 0.5))
        raised = torch.sin(phase).clamp(min=0)
        pump = torch.sin(phase)
        joints |= legs(side, sign, 10 + 62 * raised, 20 + 68 * raised, 4 + 0 * x, -18 * raised)
        joints |= arms(side, sign, 66 + 0 * x, -30 * pump, 8 + 0 * x, 84 - 20 * pump)
    return joints


def salsa(x: Tensor) -> Joints:
    """Forward on the left, back on the right; the hips roll, the forearms keep the time."""
    sway = torch.sin(TAU * 2 * x)
    joints = {
        "pelvis": rot_z(8 * sway) @ rot_y(12 * torch.cos(TAU * 2 * x)),
        **spread(rot_z, -10 * sway, (0.5, 0.3, 0.2)),
        "spine3": rot_y(-12 * torch.cos(TAU * 2 * x)),
        "head": rot_z(3 * sway),
    }
    left, right = torch.sin(TAU * x).clamp(min=0) ** 1.5, torch.sin(TAU * x + math.pi).clamp(min=0) ** 1.5
    joints |= legs("left", 1.0, 8 + 26 * left - 4 * sway, 14 + 12 * left, 4 + 0 * x, 8 * left)
    joints |= legs("right", -1.0, 8 - 26 * right + 4 * sway, 16 + 14 * right, 4 + 0 * x, -24 * right)
    for side, sign in SIDES:
        joints |= arms(
            side, sign, 64 + 0 * x, 10 + 12 * sign * sway, 16 + 0 * x, 78 + 14 * sign * torch.cos(TAU * 2 * x)
        )
    return joints
