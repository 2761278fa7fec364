"""Motions made from formulas: walk, wave, dance, jumping jacks and a turntable, for any body.

Limb angles are degrees over one cycle; the root path is not animated but follows from the feet: whatever
touches the floor stays where it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..body.body import Body
from ..body.skeleton import JOINTS
from ..progress import advance, portion
from . import repertoire
from .camera import CAMERA_FROM_WORLD, frame_person
from .limbs import SIDES, Joints, arms, smoothstep, spread
from .motion import Motion
from .rotation import rot_x, rot_y, rot_z

LONGEST = 3600  # seconds
POSES = 256  # of the feet that are made at once
STEP_RATE = 60  # Hz at which the path of the feet is followed, whatever the frame rate
FEET = torch.tensor([JOINTS.index(f"{side}_{part}") for side in ("left", "right") for part in ("ankle", "foot")])


@dataclass(frozen=True)
class Preset:
    seconds: float  # one cycle
    pose: Callable[[Tensor], Joints]  # joint rotations at cycle positions (N,), periodic with period 1
    lift: Callable[[Tensor], Tensor] = torch.zeros_like  # metres of the lowest point above the floor


def periodic(table: dict[float, float], harmonics: int) -> Callable[[Tensor], Tensor]:
    """Fits a smooth periodic curve to a table of cycle positions and degrees: its first Fourier components."""
    knots = torch.tensor(sorted(table), dtype=torch.float32)
    values = torch.tensor([table[k] for k in sorted(table)], dtype=torch.float32)
    knots = torch.cat([knots[-1:] - 1, knots, knots[:1] + 1])
    values = torch.cat([values[-1:], values, values[:1]])
    grid = torch.arange(128) / 128
    right = torch.searchsorted(knots, grid, right=True)
    part = (grid - knots[right - 1]) / (knots[right] - knots[right - 1])
    spectrum = torch.fft.rfft(torch.lerp(values[right - 1], values[right], part))[: harmonics + 1] / 64
    spectrum[0] /= 2
    order = torch.arange(harmonics + 1)

    def curve(x: Tensor) -> Tensor:
        phase = 2 * math.pi * x[:, None] * order
        return phase.cos() @ spectrum.real - phase.sin() @ spectrum.imag

    return curve


# Gait of one leg over a cycle that begins at heel strike, degrees: flexion of hip and knee, pitch of the sole.
HIP = periodic(
    {0: 27, 0.06: 26, 0.15: 20, 0.3: 5, 0.42: -5, 0.52: -10, 0.6: -5, 0.7: 12, 0.8: 25, 0.88: 30, 0.95: 28}, 5
)
KNEE = periodic(
    {0: 5, 0.07: 12, 0.14: 17, 0.25: 11, 0.38: 5, 0.48: 9, 0.56: 24, 0.64: 46, 0.72: 61, 0.8: 50, 0.88: 24, 0.95: 5}, 5
)
SOLE = periodic(
    {0: 18, 0.05: 5, 0.09: 0, 0.2: 0, 0.36: -1, 0.44: -9, 0.52: -26, 0.6: -52, 0.65: -60, 0.74: -42, 0.84: -4,
     0.92: 14, 0.97: 19}, 7
)  # fmt: skip


def walk(x: Tensor) -> Joints:
    c = torch.cos(2 * math.pi * x)
    joints = {
        "pelvis": rot_y(-5 * c) @ rot_z(3 * torch.sin(2 * math.pi * x + 0.4)) @ rot_x(torch.full_like(x, 2.0)),
        **spread(rot_y, 5 * c, (0.5, 0.6, 0.6)),
    }
    for side, sign in SIDES:
        phase = x + (0.0 if sign > 0 else 0.5)
        hip, knee, sole = HIP(phase), KNEE(phase), SOLE(phase)
        push = torch.exp(-(((phase - 0.55 + 0.5) % 1 - 0.5) ** 2) / 0.02)  # the toes bend around push-off
        joints |= {
            f"{side}_hip": rot_x(-hip),
            f"{side}_knee": rot_x(knee),
            f"{side}_ankle": rot_x(hip - knee - sole),
            f"{side}_foot": rot_x(-(-sole).clamp(0, 32) * push),
        }
        swing = -sign * 21 * torch.cos(2 * math.pi * x - 0.15) + 3
        elbow = 22 - sign * 12 * torch.cos(2 * math.pi * x - 0.5)
        joints |= arms(side, sign, torch.full_like(x, 74), swing, torch.zeros_like(x), elbow)
    return joints


def wave(x: Tensor) -> Joints:
    t = 3 * x
    up = smoothstep(x, 0.12, 0.32) * (1 - smoothstep(x, 0.78, 0.97))
    hand = torch.sin(2 * math.pi * 1.7 * (t - 0.66)) * up
    breath, sway = torch.sin(2 * math.pi * x), torch.sin(2 * math.pi * x + 1)
    still = torch.zeros_like(x)
    joints = {
        "pelvis": rot_z(3 * up + sway) @ rot_y(2 * sway),
        "left_hip": rot_z(-3 * up - sway),
        "right_hip": rot_z(-3 * up - sway) @ rot_x(-8 * up),
        "right_knee": rot_x(13 * up),
        "right_ankle": rot_x(-5 * up),
        **spread(rot_x, breath, (0.3, 0.5, 0.4)),
        "head": rot_z(6 * up) @ rot_x(breath),
        "right_wrist": rot_z(10 * hand),
    }
    joints |= arms("left", 1.0, 72 + breath, 3 * sway, still, 14 + 2 * breath)
    joints |= arms("right", -1.0, 72 - 70 * up, 3 * sway, 18 * up, 16 + 76 * up + 26 * hand, -88 * up)
    return joints


def dance(x: Tensor) -> Joints:
    """A step-touch of eight beats; the arms swing low for four beats and reach high for four."""
    beat = 8 * x
    side_step = torch.sin(math.pi * beat)  # to the left on even beats, to the right on odd ones
    bounce = (1 + torch.cos(2 * math.pi * beat)) / 2
    turn = torch.sin(math.pi / 2 * beat)
    high = smoothstep(beat, 3, 4.5) * (1 - smoothstep(beat, 7, 8))
    joints = {
        "pelvis": rot_y(14 * turn) @ rot_z(-5 * side_step),
        "spine1": rot_z(5 * side_step),
        "spine2": rot_y(-9 * turn),
        "spine3": rot_y(-9 * turn),
        "neck": rot_y(4 * turn),
        "head": rot_z(4 * side_step) @ rot_x(6 * bounce - 3),
    }
    for side, sign in SIDES:
        lift = (-sign * side_step).clamp(min=0) ** 1.5
        knee = 10 + 20 * bounce + 38 * lift
        hip = 0.52 * (10 + 20 * bounce) + 26 * lift
        joints |= {
            f"{side}_hip": rot_z(5 * side_step + sign * 5) @ rot_x(-hip),
            f"{side}_knee": rot_x(knee),
            f"{side}_ankle": rot_x(hip - knee + 8 * lift),
        }
        reach = high * (0.5 + 0.5 * sign * side_step)
        joints |= arms(
            side,
            sign,
            down=58 - 33 * high - 45 * reach,
            swing=sign * 28 * side_step * (1 - high),
            forward=18 * high,
            elbow=55 + sign * 18 * side_step * (1 - high) + 15 * high - 28 * reach,
            twist=-55 * high,
        )
    return joints


def jumping_jacks(x: Tensor) -> Joints:
    open_ = (1 - torch.cos(2 * math.pi * x)) / 2
    air = torch.sin(2 * math.pi * x) ** 2
    bend = 1 - air  # knees give way when the feet are on the floor
    joints = {**spread(rot_x, 4 * bend, (0.5, 0.3, 0.2)), "head": rot_x(-3 * bend)}
    still = torch.zeros_like(x)
    for side, sign in SIDES:
        joints |= {
            f"{side}_hip": rot_z(sign * 24 * open_) @ rot_x(-12 * bend),
            f"{side}_knee": rot_x(24 * bend),
            f"{side}_ankle": rot_x(-12 * bend + 20 * air) @ rot_z(-sign * 18 * open_),
        }
        joints |= arms(side, sign, 74 - 138 * open_, still, 8 * open_, 10 + 10 * air)
    return joints


def turntable(x: Tensor) -> Joints:
    still = torch.zeros_like(x)
    joints = {"pelvis": rot_y(360 * x)}
    for side, sign in SIDES:
        joints |= arms(side, sign, still + 48, still, still, still + 12)
        joints |= {f"{side}_hip": rot_z(sign * 5 + still), f"{side}_ankle": rot_z(-sign * 5 + still)}
    return joints


PRESETS = {
    "walk": Preset(1.0, walk),
    "wave": Preset(3.0, wave),
    "dance": Preset(8 * 60 / 104, dance),
    "jumping jacks": Preset(1.1, jumping_jacks, lambda x: 0.16 * torch.sin(2 * math.pi * x) ** 2),
    "turntable": Preset(4.0, turntable),
    "salsa": Preset(8 * 60 / 180, repertoire.salsa),
    "disco": Preset(8 * 60 / 112, repertoire.disco),
    "twist": Preset(8 * 60 / 160, repertoire.twist),
    "shuffle": Preset(4 * 60 / 130, repertoire.shuffle),
    "jog": Preset(0.72, repertoire.jog, repertoire.flight),
    "boxing": Preset(2.4, repertoire.boxing),
    "squats": Preset(2.6, repertoire.squat),
    "cheer": Preset(1.9, repertoire.cheer),
    "bow": Preset(3.4, repertoire.bow),
    "sit and talk": Preset(5.0, repertoire.sit),
    "idle": Preset(6.0, repertoire.idle),
}


def rotations_at(preset: Preset, cycles: Tensor) -> Tensor:
    """Returns world rotations (N, 24, 3, 3) at cycle positions (N,), y up and facing +z."""
    rotations = torch.eye(3).repeat(len(cycles), 24, 1, 1)
    for name, rotation in preset.pose(cycles % 1).items():
        rotations[:, JOINTS.index(name)] = rotation
    return rotations


def root_path(preset: Preset, body: Body, cycles: Tensor) -> Tensor:
    """Returns world root translations (N, 3) that keep the lowest point on the floor, and everything that touches the
    floor in place.

    Each step moves the root against the movement of the feet's skin, weighted by exp(-height / 5 mm).
    """
    feet = body.only(torch.isin(body.part_labels, FEET))  # nothing else touches the floor in these motions
    count = len(feet.template) - len(JOINTS)
    lowest, steps, last = [], [torch.zeros(1, 3)], None
    for i, part in enumerate(cycles.split(POSES)):
        skin = feet.pose(rotations_at(preset, part)).vertices[:, :count].contiguous()
        lowest.append(skin[..., 1].amin(1))
        if last is not None:
            skin = torch.cat([last, skin])
        above = skin[..., 1] - skin[..., 1].amin(1, keepdim=True)
        weight = torch.softmax(-(above[1:] + above[:-1]) / 2 / 0.005, dim=1)
        steps.append((weight[:, None] @ (skin[:-1] - skin[1:]))[:, 0])
        last = skin[-1:]
        advance(min((i + 1) * POSES, len(cycles)), len(cycles))
    path = torch.cat(steps).cumsum(0)
    path[:, 1] = preset.lift(cycles % 1) - torch.cat(lowest)
    return path


def make_motion(
    name: str, body: Body, frames: int, fps: float = 24.0, width: int = 512, height: int = 768, **how: bool
) -> Motion:
    """Makes a built-in motion as `perform` does, with `loop` and `travel`, seen from the front."""
    return frame_person(perform(name, body, frames, fps, **how), body, width, height)


def perform(
    name: str,
    body: Body,
    frames: int,
    fps: float = 24.0,
    loop: bool = True,
    travel: bool = False,
) -> Motion:
    """Makes a built-in motion without a camera.

    With `loop`, the speed is adjusted so that whole cycles fill the clip and the last frame leads to the first. Without
    `travel`, the person's drift over the floor is removed.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no built-in motion called {name!r}; choose one of {', '.join(PRESETS)}.")
    if frames < 1 or not fps > 0:
        raise ValueError(
            f"A motion of {frames} frames at {fps} frames per second is empty; set both to numbers above 0."
        )
    if frames / fps > LONGEST:
        raise ValueError(
            f"{frames} frames at {fps:g} frames per second last {frames / fps / 60:.0f} minutes, but a built-in motion "
            f"may last {LONGEST // 60}; make a short one that loops, and repeat it with Trim, Retime or Loop Motion."
        )
    preset = PRESETS[name]
    cycles = max(1.0, round(frames / fps / preset.seconds)) if loop else frames / fps / preset.seconds
    fine = max(1, math.ceil(STEP_RATE * cycles * preset.seconds / frames))
    positions = torch.arange(frames * fine + 1, dtype=torch.float64) * (cycles / (frames * fine))
    positions = (positions % 1).float()  # in float64: after an hour, float32 has a phase error of 2e-4
    path = root_path(preset, body, positions)
    if not travel:
        drift = path[-1] - path[0]
        if not loop:  # the clip may end within a cycle: the drift is computed from whole cycles
            with portion(len(positions), 0, len(positions)):
                per_cycle = root_path(preset, body, torch.arange(STEP_RATE + 1) / STEP_RATE)
            drift = (per_cycle[-1] - per_cycle[0]) * cycles
        path[:, [0, 2]] -= (torch.arange(len(path))[:, None] / (len(path) - 1) * drift)[:, [0, 2]]
    path = path[:-1:fine]
    rotations = rotations_at(preset, positions[:-1:fine])
    pelvis = body.rest().joints[0, 0]
    rotations[:, 0] = CAMERA_FROM_WORLD @ rotations[:, 0]
    return Motion(
        rotations=rotations,
        betas=body.betas,
        cam_t=(pelvis + path) @ CAMERA_FROM_WORLD.T - pelvis,
        focal=1.0,
        width=1,
        height=1,
        fps=fps,
        confidence=torch.ones(frames),
        source=f"built-in {name}",
    )
