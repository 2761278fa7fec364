"""Where a retargeted body stands: hips on their scaled path, and soles on the floor when the other's are."""

import torch
from torch import Tensor
from torch.linalg import cross
from torch.nn.functional import normalize

from ..body.body import Body
from ..body.skeleton import JOINTS, PARENTS
from ..progress import advance
from .rotation import from_axis_angle

FEET = torch.tensor([JOINTS.index(f"{side}_{part}") for side in ("left", "right") for part in ("ankle", "foot")])
LOWEST = 0.02  # the share of the frames in which a part of the foot is taken to be on the floor
EXACT = 0.01  # metres that the height of the hips says more exactly than soles do
NEAR = 0.05  # metres above the floor within which the height follows the soles alone
TIME = 0.1  # seconds over which it follows in the air
STIFF = 0.02  # share of the knee's own axis in that about which it bends
AT_ONCE = 256  # frames


def above_floor(heights: Tensor) -> Tensor:
    """Returns how far a foot is above the floor (F,), from the heights (F, K) of its parts, each of which has its own
    height where it is on the floor."""
    # One by one, because sorting takes several times the memory of what is sorted.
    floor = torch.stack([part.float().quantile(LOWEST) for part in heights.unbind(1)])
    return (heights - floor).amin(1).clamp(min=0)


def to_local(turns: Tensor) -> Tensor:
    """Converts rotations of the joints (F, 24, 3, 3) in the world to those relative to their parents."""
    local = turns.clone()
    local[:, 1:] = turns[:, list(PARENTS[1:])].mT @ turns[:, 1:]
    return local


def reach(turns: Tensor, side: str, ankle: Tensor, ours: dict[str, Tensor]) -> None:
    """Bends and swings a leg, in rotations (F, 24, 3, 3) in the world, so that its ankle is where it should be (F, 3),
    relative to the middle of the hips. The sole keeps its direction."""
    hip, knee = (JOINTS.index(f"{side}_{part}") for part in ("hip", "knee"))
    start = ours[f"{side}_hip"] - (ours["left_hip"] + ours["right_hip"]) / 2
    bones = ours[f"{side}_knee"] - ours[f"{side}_hip"], ours[f"{side}_ankle"] - ours[f"{side}_knee"]
    upper, lower = (float(bone.norm()) for bone in bones)
    wanted = (ankle - turns[:, 0] @ start).double()
    thigh, shin = ((turns[:, joint] @ bone).double() for joint, bone in ((hip, bones[0]), (knee, bones[1])))
    far = wanted.norm(dim=1).clamp(abs(upper - lower) + 1e-3, upper + lower)
    bend = ((far**2 - upper**2 - lower**2) / (2 * upper * lower)).clamp(-1, 1).acos()
    across = cross(thigh, shin, dim=1) / (upper * lower)
    now = torch.atan2(across.norm(dim=1), (thigh * shin).sum(1) / (upper * lower))
    axis = normalize(across + STIFF * turns[:, hip, :, 0], dim=1)  # a straight knee has no plane of its own
    more = from_axis_angle(axis * (bend - now)[:, None])
    turn = swing(thigh + (more @ shin[..., None])[..., 0], wanted)
    turns[:, hip] = (turn @ turns[:, hip].double()).float()
    turns[:, knee] = (turn @ more @ turns[:, knee].double()).float()


def swing(start: Tensor, end: Tensor) -> Tensor:
    """Returns the smallest rotations that turn directions into others."""
    a, b = normalize(start, dim=-1), normalize(end, dim=-1)
    axis = cross(a, b, dim=-1)
    cosine = (a * b).sum(-1)[..., None, None]
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3).to(a) + k + k @ k / (1 + cosine).clamp(min=1e-6)


def put_on_floor(rotations: Tensor, pelvis: Tensor, above: Tensor, body: Body, fps: float) -> Tensor:
    """Returns the root translations (F, 3), y up, with which a body's pelvis is on a path (F, 3), but no sole in the
    floor, y = 0, or further above it than the other's (F,)."""
    root = pelvis - body.rest().joints[0, 0]
    feet = body.only(torch.isin(body.part_labels, FEET))
    count = len(feet.template) - len(JOINTS)
    lowest = []
    for start in range(0, len(rotations), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        lowest.append(feet.pose(rotations[part], root[part]).vertices[:, :count, 1].amin(1))
        advance(min(start + AT_ONCE, len(rotations)), len(rotations))
    sole = torch.cat(lowest)
    near = torch.exp(-((above / NEAR) ** 2)).clamp(min=1e-6)
    usual = (above - sole)[near >= near.quantile(0.5)].median()
    sole = sole + usual
    more = torch.minimum(above, sole.clamp(min=0)) - sole  # up out of the floor, or down to it
    more = more.sign() * (more.abs() - EXACT).clamp(min=0)
    smooth = _smooth(more * near, TIME * fps) / _smooth(near, TIME * fps)
    root[:, 1] += usual + torch.lerp(smooth, more, near)
    return root


def _smooth(values: Tensor, width: float) -> Tensor:
    """Averages (F,) under a Gaussian of so many frames."""
    reach = min(max(1, round(3 * width)), len(values) - 1)
    if reach < 1:
        return values
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(width, 1e-3)) ** 2)
    padded = torch.nn.functional.pad(values[None, None], (reach, reach), "replicate")
    return torch.nn.functional.conv1d(padded, (weight / weight.sum())[None, None])[0, 0]
