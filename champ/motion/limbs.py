"""Turns the angles of limbs and trunk, in degrees (N,), into the rotations of joints."""

from collections.abc import Callable

from torch import Tensor

from .rotation import rot_x, rot_y, rot_z

SIDES = (("left", 1.0), ("right", -1.0))

Joints = dict[str, Tensor]  # joint name to rotations (N, 3, 3)


def arms(
    side: str, sign: float, down: Tensor, swing: Tensor, forward: Tensor, elbow: Tensor, twist: Tensor | float = 0.0
) -> Joints:
    """Returns rotations of shoulder, elbow and collar from how far the arm hangs, swings and reaches forward, and how
    far the elbow bends."""
    return {
        f"{side}_collar": rot_z(-0.12 * sign * down) @ rot_y(-0.15 * sign * forward),
        f"{side}_shoulder": rot_x(-swing) @ rot_y(-sign * forward) @ rot_z(-sign * down) @ rot_x(twist),
        f"{side}_elbow": rot_y(-sign * elbow),
    }


def spread(rotation: Callable[[Tensor], Tensor], degrees: Tensor, shares: tuple[float, float, float]) -> Joints:
    """Spreads a turn of the trunk over the three spine joints."""
    return {f"spine{i + 1}": rotation(degrees * share) for i, share in enumerate(shares)}


def smoothstep(x: Tensor, start: float, end: float) -> Tensor:
    """Returns a quintic step from 0 at `start` to 1 at `end`."""
    t = ((x - start) / (end - start)).clamp(0, 1)
    return t**3 * (t * (6 * t - 15) + 10)


def legs(side: str, sign: float, hip: Tensor, knee: Tensor, apart: Tensor, sole: Tensor | float = 0.0) -> Joints:
    """Returns rotations of a leg that is raised to the front and bent, its sole tilted by `sole` degrees."""
    return {
        f"{side}_hip": rot_z(sign * apart) @ rot_x(-hip),
        f"{side}_knee": rot_x(knee),
        f"{side}_ankle": rot_x(hip - knee - sole) @ rot_z(-sign * apart),
    }


def between(x: Tensor, rise: tuple[float, float], fall: tuple[float, float]) -> Tensor:
    """Returns 0, then 1, then 0 again within one cycle."""
    return smoothstep(x, *rise) * (1 - smoothstep(x, *fall))
