"""Gauss-Newton over a clip: a frame is coupled to the two before and the two after it, and all frames to one shape."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import cholesky_ex


@dataclass
class Quadratic:
    """A sum of squared errors around a state: its value, gradient and Gauss-Newton matrix. The matrix has blocks (F, N,
    N) of a frame with itself, the next and the one after, the border (F, N, B) with the betas, and their own block (B,
    B)."""

    value: Tensor
    gradient: Tensor  # (F, N)
    near: Tensor
    next: Tensor
    after: Tensor
    border: Tensor
    betas_gradient: Tensor  # (B,)
    betas: Tensor

    @classmethod
    def zeros(cls, frames: int, size: int, count: int) -> "Quadratic":
        shapes = (), (frames, size), *[(frames, size, size)] * 3, (frames, size, count), (count,), (count, count)
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, error: Tensor, rows: Tensor, over_betas: Tensor, weight: Tensor | float, cut: float) -> None:
        """Adds errors (F, M, D) with derivatives (F, M, D, N) and (F, M, D, B): the sum of weight (F, M) times e / (1 +
        e / cut), where e is the squared length. Gauss-Newton treats a robust error as a square of less weight."""
        squared = error.square().sum(-1)
        robust = 1 + squared / cut
        self.value += (weight * squared / robust).sum()
        weight = (weight / robust**2)[..., None].expand_as(error).flatten(1)
        error, rows, over_betas = error.flatten(1), rows.flatten(1, 2), over_betas.flatten(1, 2)
        weighted = rows * weight[..., None]
        self.near += weighted.mT @ rows
        self.border += weighted.mT @ over_betas
        self.gradient += (weighted * error[..., None]).sum(1)
        self.betas += (over_betas * weight[..., None]).flatten(0, 1).T @ over_betas.flatten(0, 1)
        self.betas_gradient += (weight * error).flatten() @ over_betas.flatten(0, 1)

    def add_own(self, error: Tensor, slope: Tensor | float, index: list[int] | slice) -> None:
        """Adds squared errors (F, M) of components of the state, on which they depend with a slope (F, M)."""
        self.value += error.square().sum()
        self.gradient[:, index] += slope * error
        self.near.diagonal(dim1=1, dim2=2)[:, index] += slope * slope

    def add_weighted(self, gradient: Tensor, curvature: Tensor, index: list[int]) -> None:
        """Adds a gradient and a curvature (F, M) by components of the state."""
        self.gradient[:, index] += gradient
        self.near.diagonal(dim1=1, dim2=2)[:, index] += curvature

    def add_steps(self, error: Tensor, rows: Tensor, over_betas: Tensor, weight: Tensor) -> None:
        """Adds squared steps in time of values with derivatives (F, M, N) and (F, M, B): errors (F - 1, M), each with a
        weight."""
        steps = over_betas.diff(dim=0)
        self.value += (weight * error.square()).sum()
        pull, weight = weight * error, weight[..., None]
        for part, sign in ((slice(1, None), 1), (slice(-1), -1)):
            own = rows[part].mT
            self.near[part] += own @ (weight * rows[part])
            self.gradient[part] += sign * (own @ pull[..., None])[..., 0]
            self.border[part] += sign * (own @ (weight * steps))
        self.next[:-1] -= rows[:-1].mT @ (weight * rows[1:])
        self.betas += (weight * steps).flatten(0, 1).T @ steps.flatten(0, 1)
        self.betas_gradient += pull.flatten() @ steps.flatten(0, 1)

    def add_change(self, values: Tensor, rows: Tensor, over_betas: Tensor, joined: Tensor) -> None:
        """Adds squared second differences in time of values (F, M), for the triples of frames that are `joined`."""
        links = _links(joined)
        pulled, pulled_betas = links @ values, (links @ over_betas.flatten(1)).view_as(over_betas)
        self.value += (values * pulled).sum()
        self.gradient += (rows.mT @ pulled[..., None])[..., 0]
        for k, block in enumerate((self.near, self.next, self.after)):
            link = links.diagonal(k)[:, None, None]
            block[: len(link)] += link * (rows[: len(link)].mT @ rows[k:])
        self.border += rows.mT @ pulled_betas
        self.betas += over_betas.flatten(0, 1).T @ pulled_betas.flatten(0, 1)
        self.betas_gradient += pulled.flatten() @ over_betas.flatten(0, 1)

    def add_own_change(self, values: Tensor, slope: float, joined: Tensor) -> None:
        """Adds the same for the first components of the state, times a slope."""
        links = slope**2 * _links(joined)
        pulled = links @ values
        self.value += (values * pulled).sum()
        self.gradient[:, : values.shape[1]] += pulled
        for k, block in enumerate((self.near, self.next, self.after)):
            link = links.diagonal(k)[:, None]
            block.diagonal(dim1=1, dim2=2)[: len(link), : values.shape[1]] += link

    def step(self, damping: float, held: Tensor) -> tuple[Tensor, Tensor] | None:
        """Minimises the quadratic, with its diagonal increased by the damping (Levenberg-Marquardt). Returns changes of
        the state (F, N), zero for the frames that are `held` (F,), and of the betas; None if there is no minimum."""
        near = self.near.clone()
        diagonal = near.diagonal(dim1=1, dim2=2)
        diagonal *= 1 + damping
        diagonal[held] += 1e12
        out = solve_clip(near, self.next, self.after, torch.cat([-self.gradient[..., None], self.border], dim=2))
        if out is None:
            return None
        step, through = out[..., 0], out[..., 1:]
        border = self.border.flatten(0, 1)
        own = self.betas + torch.diag(damping * self.betas.diagonal()) - border.T @ through.flatten(0, 1)
        betas = torch.linalg.solve(own, -self.betas_gradient - border.T @ step.flatten())
        return step - through @ betas, betas


def _links(joined: Tensor) -> Tensor:
    """Returns D^T D (F, F) of the second differences D, without the rows that are not joined."""
    frames = len(joined) + 2
    each = torch.eye(frames, dtype=torch.float64)
    second = (each[:-2] - 2 * each[1:-1] + each[2:]) * joined[:, None]
    return second.T @ second


def solve_clip(near: Tensor, next: Tensor, after: Tensor, right: Tensor) -> Tensor | None:
    """Solves sum_s H_ts x_s = right_t (F, N, R) for x, with a symmetric H given by its blocks (F, N, N): `near` H_tt,
    `next` H_t,t+1 and `after` H_t,t+2; the last of `next` and the last two of `after` are not used.

    In pairs of frames H is block tridiagonal, and one pass of Cholesky solves it. Returns None if H is not positive
    definite.
    """
    frames, size, _ = near.shape
    if frames % 2:  # one empty frame more, coupled to nothing
        near, next, after, right = (torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 1)) for x in (near, next, after, right))
        near[-1] = torch.eye(size).to(near)
        next[-2], after[-3:] = 0, 0
    even, odd = slice(0, None, 2), slice(1, None, 2)
    first, second = slice(size), slice(size, None)
    diagonal = near.new_empty(len(near) // 2, 2 * size, 2 * size)
    diagonal[:, first, first], diagonal[:, first, second] = near[even], next[even]
    diagonal[:, second, first], diagonal[:, second, second] = next[even].mT, near[odd]
    upper = torch.zeros_like(diagonal)
    upper[:, first, first], upper[:, second, first], upper[:, second, second] = after[even], next[odd], after[odd]
    values = right.reshape(len(diagonal), 2 * size, -1)
    reduced: list[Tensor] = []
    carried: list[Tensor] = []
    for i, (block, value) in enumerate(zip(diagonal, values)):
        if i:
            block = block - upper[i - 1].T @ carried[-1]
            value = value - upper[i - 1].T @ reduced[-1]
        factor, failed = cholesky_ex(block)
        if failed:
            return None
        solved = torch.cholesky_solve(torch.cat([value, upper[i]], 1), factor)
        reduced.append(solved[:, : value.shape[1]])
        carried.append(solved[:, value.shape[1] :])
    out = [reduced[-1]]
    for value, link in zip(reversed(reduced[:-1]), reversed(carried[:-1])):
        out.append(value - link @ out[-1])
    return torch.stack(out[::-1]).reshape(-1, size, right.shape[2])[:frames]
