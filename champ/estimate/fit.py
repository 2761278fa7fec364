"""Fits a motion to 2D keypoints: the pose, place and shape that project onto them and are plausible for a person.

Everything is one least-squares problem over the frames, solved by Gauss-Newton from a standing person who faces as the
keypoints indicate. At first only large errors count, so the priors decide what a picture leaves open, such as whether a
foreshortened arm points forwards or backwards. In the end a point counts as exact to 16 mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..keypoints.pose import Pose
from ..motion.camera import FOCAL_PER_PIXEL
from ..motion.gaps import fill_gaps
from ..motion.motion import Motion
from ..motion.rotation import from_axis_angle
from ..progress import advance, portion
from .doubt import doubt_of, misfit_of
from .floor import Rest, add_floor, add_rest, floor_under, resting
from .least_squares import Quadratic
from .observed import (
    ANKLES,
    ELBOWS,
    HIPS,
    KNEES,
    SHOULDERS,
    TRUNK,
    WRISTS,
    Observed,
    bridged,
    facing,
    hidden_legs,
    observe,
    pixels_per_metre,
    reach_of,
    standing,
    steady_size,
)
from .points import DIMENSIONS, MOVING, SEEN, PointBody, PosedPoints
from .priors import add_change, add_pose, add_shape, add_stance

EXACT = 0.016  # metres at the person: the usual error of a keypoint
SIZES = (0.25, 0.2, 0.15, 0.12, 0.09, 0.07, 0.05, 0.04, 0.03, 0.022, *[EXACT] * 12)  # the same for each step
DEEP = 0.12  # metres: the usual error of a network's own depth
WRONG_DEPTH = 4.0  # squared error above which that is wrong rather than inexact
BRIDGED = 1.0  # seconds, the longest gap that is bridged
OUTLIER = 25.0  # squared error above which a keypoint is wrong rather than inexact
CHUNK = 96  # frames that are solved at once
OVERLAP, HELD = 12, 4  # frames shared with the next chunk, and how many of them stay fixed there
LIMBS = SHOULDERS + ELBOWS + WRISTS + HIPS + KNEES + ANKLES


@dataclass
class State:
    """The unknowns."""

    pose: Tensor  # (F, 24, 3) axis-angles; the root's comes before `facing`
    facing: Tensor  # (F, 3, 3)
    pelvis: Tensor  # (F, 3) in the camera frame
    betas: Tensor

    def __getitem__(self, index: slice | Tensor) -> "State":
        return State(self.pose[index], self.facing[index], self.pelvis[index], self.betas)

    def moved(self, step: Tensor, betas: Tensor) -> "State":
        pose = self.pose.clone()
        pose[:, list(MOVING)] += step[:, :-3].unflatten(1, (-1, 3))
        return State(pose, self.facing, self.pelvis + step[:, -3:], self.betas + betas)

    def rotations(self) -> Tensor:
        local = from_axis_angle(self.pose)
        return torch.cat([(self.facing @ local[:, 0])[:, None], local[:, 1:]], dim=1)


@dataclass(frozen=True)
class Problem:
    """The problem: the keypoints of some frames, and all constants."""

    seen: Observed
    size: Tensor  # (F,) pixels per metre, for the size of errors
    hidden: Tensor  # (F, 2) legs that are not seen
    rest: Rest
    steps: Tensor  # (F - 1,) whether two frames follow each other
    body: PointBody
    betas: Tensor  # the usual ones
    focal: float
    fps: float

    def part(self, index: Tensor, steps: Tensor) -> "Problem":
        chosen = {name: getattr(self, name)[index] for name in ("seen", "size", "hidden", "rest")}
        return replace(self, **chosen, steps=steps)

    def posed(self, state: State) -> PosedPoints:
        return self.body.pose(state.pose, state.facing, state.pelvis, state.betas)

    def floor(self, state: State) -> Tensor:
        return floor_under(self.posed(state), self.rest, joined_runs(self.steps), self.fps)

    def around(self, state: State, size: float, floor: Tensor) -> Quadratic:
        """Returns the energy of keypoints and priors around a state, when points are exact to `size` metres."""
        posed = self.posed(state)
        energy = Quadratic.zeros(len(self.seen), DIMENSIONS, len(self.betas))
        points, by_motion, by_betas = (x[:, : len(SEEN)] for x in posed)
        scale = 1 / (size * self.size)[:, None, None]
        flat = self.focal * points[..., :2] / points[..., 2:]

        def projected(x: Tensor) -> Tensor:
            across, along = x[..., :2, :], x[..., 2:, :]
            return (self.focal * across - flat[..., None] * along) / points[..., 2:, None] * scale[..., None]

        error = (flat - self.seen.points) * scale
        energy.add(error, projected(by_motion), projected(by_betas), self.seen.weight, OUTLIER)
        self.add_depth(energy, posed)
        add_pose(energy, state.pose, self.hidden)
        add_stance(energy, posed, self.body, state.betas, size)
        add_shape(energy, state.betas, self.betas, len(self.seen))
        add_change(energy, posed, state.pose, self.steps[1:] & self.steps[:-1], self.fps)
        add_rest(energy, posed, self.rest, self.steps, self.fps)
        add_floor(energy, posed, self.rest, floor, size)
        return energy

    def add_depth(self, energy: Quadratic, posed: PosedPoints) -> None:
        """Points are about as far behind the hips as the network for points in space says."""
        if not self.seen.depth_weight.any():
            return
        depth, by_motion, by_betas = (
            ((x[:, : len(SEEN), 2] - x[:, HIPS, 2].mean(1, keepdim=True)) / DEEP)[:, :, None] for x in posed
        )
        error = depth - self.seen.depth[..., None] / DEEP
        energy.add(error, by_motion, by_betas, self.seen.depth_weight, WRONG_DEPTH)

    def solve(self, state: State, held: int, shape: bool) -> State:
        """Solves by Levenberg-Marquardt, one step for each of SIZES; the first `held` frames stay fixed."""
        damping, last = 1e-3, None
        for i, size in enumerate(SIZES):
            advance(i, len(SIZES))
            if size != last:
                floor = self.floor(state)
                here, last = self.around(state, size, floor), size
            step = here.step(damping, held, shape)
            trial = state.moved(*step) if step else state
            there = self.around(trial, size, floor) if step else here
            gain = float(1 - there.value / here.value)
            if gain > 0:
                state, here, damping = trial, there, max(1e-6, damping / 5)
                if size == EXACT and gain < 1e-4:
                    break
            else:
                damping *= 10
        return state


def joined_runs(steps: Tensor) -> list[slice]:
    """Frames that follow each other, where `steps` (F - 1,) says which do so with the next."""
    ends = [0, *((~steps).nonzero().flatten() + 1).tolist(), len(steps) + 1]
    return [slice(a, b) for a, b in zip(ends, ends[1:])]


def start_state(
    seen: Observed, size: Tensor, shots: list[slice], body: PointBody, betas: Tensor, focal: float
) -> State:
    """Returns the initial state: standing, facing as the keypoints indicate, at the distance given by their size."""
    pose = standing().repeat(len(seen), 1, 1)
    turn = facing(seen, size, shots, body, betas)
    pelvis = torch.zeros(len(seen), 3).double()
    pelvis[:, 2] = focal / size
    weight = seen.weight.clone()
    weight[:, TRUNK] *= 10
    weight = (weight / weight.sum(1, keepdim=True))[..., None]
    for part in torch.arange(len(seen)).split(CHUNK):
        points = body.pose(pose[part], turn[part], torch.zeros(len(part), 3).double(), betas).points
        away = seen.points[part] / size[part, None, None] - points[:, : len(SEEN), :2]
        pelvis[part, :2] = (weight[part] * away).sum(1)
    return State(pose, turn, pelvis, betas)


def in_chunks(problem: Problem, state: State) -> State:
    """Solves long clips chunk by chunk. Each starts from the previous result in the shared frames; the shape is fitted
    to frames from everywhere."""
    count = len(problem.seen)
    if count <= CHUNK:
        return problem.solve(state, 0, True)
    work = count + CHUNK
    some = torch.linspace(0, count - 1, CHUNK).long()
    alone = problem.part(some, torch.zeros(CHUNK - 1, dtype=torch.bool))
    with portion(0, CHUNK, work):
        state.betas = alone.solve(state[some], 0, True).betas
    step = CHUNK - OVERLAP
    for first in range(0, count - OVERLAP, step):
        index = torch.arange(first, min(first + CHUNK, count))
        piece = problem.part(index, problem.steps[index[:-1]])
        with portion(CHUNK + first, step, work):
            found = piece.solve(state[index], HELD if first else 0, False)
        state.pose[index], state.pelvis[index] = found.pose, found.pelvis
    return state


def fit_motion(
    people: Sequence[Pose | None],
    body: Body,
    width: int,
    height: int,
    fps: float = 24.0,
    shot: np.ndarray | None = None,
    focal: float | None = None,
) -> Motion:
    """Fits the motion of one person, with one frame for each of `people` and one shape, near the body's own, for the
    clip. Gaps of up to a second are part of the fit, longer ones are filled afterwards; both have confidence 0."""
    focal = focal or FOCAL_PER_PIXEL * max(width, height)
    frames = len(people)
    shots = torch.zeros(frames, dtype=torch.int64) if shot is None else torch.as_tensor(shot)
    points, usual = PointBody.of(body), body.betas.double()
    seen = observe(people, width, height, reach_of(points, usual))
    known = pixels_per_metre(seen, points, usual).isfinite()
    if not known.any():
        raise ValueError(
            f"No shoulders, whole arm or whole leg of the person were found in any of the {frames} frames, so there is "
            "nothing to fit; check the keypoints with Draw Skeleton Map, and use a clip with a larger person."
        )
    seen, between = bridged(seen, known, shots, round(BRIDGED * fps))
    kept = (known | between).nonzero().flatten()
    seen, cuts = seen[kept], shots[kept]
    steps = (kept.diff() == 1) & (cuts.diff() == 0)
    runs = joined_runs(steps)
    size = steady_size(pixels_per_metre(seen, points, usual), runs)
    state = start_state(seen, size, runs, points, usual, focal)
    hidden = hidden_legs(seen, runs, max(1, round(fps / 2)))
    problem = Problem(seen, size, hidden, resting(seen, size, runs, fps), steps, points, usual, focal, fps)

    with portion(0, frames, frames):
        state = in_chunks(problem, state)
    advance(frames, frames)
    place = (state.pelvis - points.rest_joints(state.betas)[0]).float()
    motion = Motion(
        rotations=torch.eye(3).repeat(frames, 24, 1, 1).index_copy(0, kept, state.rotations().float()),
        betas=state.betas.float(),
        cam_t=torch.ones(frames, 3).index_copy(0, kept, place),
        focal=focal,
        width=width,
        height=height,
        fps=fps,
        confidence=torch.zeros(frames).index_copy(0, kept, seen.weight[:, LIMBS].mean(1).float()),
        source="keypoints",
        shot=shots,
    )
    motion = fill_gaps(motion)
    posed, there = problem.posed(state), known[kept]
    told = misfit_of(posed, seen, size, focal) * there, doubt_of(posed, seen, steps, fps) * there
    misfit, doubt = (torch.zeros(frames).index_copy(0, kept, part.float()) for part in told)
    return replace(motion, confidence=motion.confidence * known, misfit=misfit, doubt=doubt)
