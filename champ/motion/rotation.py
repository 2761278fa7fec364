"""Rotation matrices: about the axes, from axis-angle, and interpolated (slerp)."""

import torch
from torch import Tensor


def _about(axis: int, degrees: Tensor | float) -> Tensor:
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float32))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3).repeat(*angle.shape, 1, 1)
    matrix[..., i, i] = matrix[..., j, j] = angle.cos()
    matrix[..., j, i] = angle.sin()
    matrix[..., i, j] = -matrix[..., j, i]
    return matrix


def rot_x(degrees: Tensor | float) -> Tensor:
    """Turns y towards z; (...) degrees to (..., 3, 3)."""
    return _about(0, degrees)


def rot_y(degrees: Tensor | float) -> Tensor:
    """Turns z towards x."""
    return _about(1, degrees)


def rot_z(degrees: Tensor | float) -> Tensor:
    """Turns x towards y."""
    return _about(2, degrees)


def from_axis_angle(vector: Tensor) -> Tensor:
    """Applies Rodrigues' formula, cos(a) I + sin(a)/a K + (1 - cos(a))/a^2 v v^T; (..., 3) radians to (..., 3, 3).

    The derivative is exact everywhere, also at angle 0.
    """
    angle = (vector.square().sum(dim=-1) + 1e-24).sqrt()
    x, y, z = ((angle.sin() / angle)[..., None] * vector).unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    outer = (((1 - angle.cos()) / angle**2)[..., None] * vector)[..., None] * vector[..., None, :]
    return angle.cos()[..., None, None] * torch.eye(3).to(vector) + k + outer


def to_quaternion(matrix: Tensor) -> Tensor:
    """Converts rotation matrices to unit quaternions (w, x, y, z), from the largest of the components (Shepperd)."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix.flatten(-2).unbind(-1)
    columns = [
        torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], dim=-1),
        torch.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], dim=-1),
        torch.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], dim=-1),
        torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], dim=-1),
    ]
    candidates = torch.stack(columns, dim=-2)  # (..., 4, 4): row i is 4 q_i q
    largest = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    return torch.nn.functional.normalize(candidates.gather(-2, index)[..., 0, :], dim=-1)


def from_quaternion(q: Tensor) -> Tensor:
    """Converts quaternions (w, x, y, z) of any length to rotation matrices."""
    w, x, y, z = torch.nn.functional.normalize(q, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def to_axis_angle(matrix: Tensor) -> Tensor:
    """Converts rotation matrices to axis-angles of at most 180 degrees, 2 atan2(|v|, w) v / |v| of the quaternion (w,
    v)."""
    q = to_quaternion(matrix)
    q = torch.where(q[..., :1] < 0, -q, q)
    length = q[..., 1:].norm(dim=-1, keepdim=True)
    return 2 * torch.atan2(length, q[..., :1]) * q[..., 1:] / length.clamp(min=1e-12)


def slerp(start: Tensor, end: Tensor, fraction: Tensor) -> Tensor:
    """Interpolates rotations at constant angular speed along the shorter way; fraction (...) in 0..1."""
    a, b = to_quaternion(start), to_quaternion(end)
    cosine = (a * b).sum(-1)
    b = torch.where(cosine[..., None] < 0, -b, b)
    angle = cosine.abs().clamp(max=1).acos()
    near = angle < 1e-4  # sin(angle) vanishes; the straight line is exact to 1e-9 there
    sine = torch.where(near, 1.0, angle.sin())
    wa = torch.where(near, 1 - fraction, ((1 - fraction) * angle).sin() / sine)
    wb = torch.where(near, fraction, (fraction * angle).sin() / sine)
    return from_quaternion(wa[..., None] * a + wb[..., None] * b)


def continuous(q: Tensor) -> Tensor:
    """Flips signs of quaternions (F, ..., 4) so that they do not jump from frame to frame."""
    flip = torch.where((q[1:] * q[:-1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return torch.cat([q[:1], q[1:] * flip.cumprod(0)])
