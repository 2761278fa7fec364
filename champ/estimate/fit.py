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
from .doubt import doubt_of, misfit_of, open_limbs
from .floor import Rest, add_floor, add_rest, floor_under, resting, seen_from_above, slope_under
from .least_squares import Quadratic
from .mirror import mirrored, stretches_around
from .observed import (
    ANKLES,
    ELBOWS,
    HIPS,
    KNEES,
    SHOULDERS,
    TRUNK,
    WRISTS,
    Observed,
    at_rest,
    bridged,
    facing,
    hidden_legs,
    lower_knees,
    observe,
    pixels_per_metre,
    reach_of,
    standing,
    steady_size,
    straight_legs,
)
from .points import DIMENSIONS, MOVING, SEEN, PointBody, PosedPoints
from .priors import add_change, add_pose, add_shape, add_stance

EXACT = 0.016  # metres at the person: the usual error of a keypoint
COARSE = (0.25, 0.17, 0.12, 0.08, 0.055, 0.037, 0.025)  # the same in the first steps
STEPS = 8  # of that size at most
ENOUGH = 1e-3  # of the energy: the gain of a step after which there is no other
DAMPING = 1e-3
BIASED = 0.1  # metres by which a network's own depth may be wrong for nothing: its people stand with bent knees
DEEP = 0.1  # metres: its usual error beyond that
WRONG_DEPTH = 4.0  # squared error above which that is wrong rather than inexact
TOGETHER = ((0, 1), (2,), (3,))  # limbs that are tried the other way round together: the legs, and each arm
TRIED = 3  # steps
FIXED = 2  # frames at the ends of the stretch, where it comes from and goes
OPEN = 1.0  # squared error a frame by which that must be worse, not to be as good
BRIDGED = 1.0  # seconds, the longest gap that is bridged
OUTLIER = 25.0  # squared error above which a keypoint is wrong rather than inexact
FOR_SHAPE, RUN = 32, 8  # frames to which the shape of a long clip is fitted, and how many of them follow each other
CHUNK = 128  # frames that are solved at once
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
    straight: Tensor  # (F, 2) legs that look so
    rest: Rest
    soles: Tensor  # (F,) slope of the floor that they show
    steps: Tensor  # (F - 1,) whether two frames follow each other
    body: PointBody
    betas: Tensor  # the usual ones
    focal: float
    fps: float

    def part(self, index: Tensor, steps: Tensor) -> "Problem":
        chosen = {name: getattr(self, name)[index] for name in ("seen", "size", "hidden", "straight", "rest", "soles")}
        return replace(self, **chosen, steps=steps)

    def shaped(self, betas: Tensor) -> "Problem":
        """Returns the problem for a body whose shape is known."""
        return replace(self, body=self.body.shaped(betas), betas=betas[:0])

    def posed(self, state: State) -> PosedPoints:
        return self.body.pose(state.pose, state.facing, state.pelvis, state.betas)

    def floor(self, posed: PosedPoints) -> Tensor:
        return floor_under(posed, self.rest, joined_runs(self.steps), self.fps, self.soles)

    def around(self, state: State, size: float, floor: Tensor) -> Quadratic:
        """Returns the energy of keypoints and priors around a state, when points are exact to `size` metres."""
        posed = self.posed(state)
        energy = Quadratic.zeros(len(self.seen), DIMENSIONS, len(self.betas))
        points, by_motion, by_betas = (seen_from_above(x[:, : len(SEEN)], self.soles) for x in posed)
        scale = 1 / (size * self.size)[:, None, None]
        flat = self.focal * points[..., :2] / points[..., 2:]

        def projected(x: Tensor) -> Tensor:
            across, along = x[..., :2, :], x[..., 2:, :]
            return (self.focal * across - flat[..., None] * along) / points[..., 2:, None] * scale[..., None]

        error = (flat - self.seen.points) * scale
        energy.add(error, projected(by_motion), projected(by_betas), self.seen.weight, OUTLIER)
        self.add_depth(energy, posed)
        add_pose(energy, state.pose, self.hidden, self.straight, EXACT / size)
        add_stance(energy, posed, self.body, state.betas, size)
        add_shape(energy, state.betas, self.betas, len(self.seen))
        add_change(energy, posed, state.pose, self.steps[1:] & self.steps[:-1], self.fps)
        add_rest(energy, posed, self.rest, self.steps, self.fps)
        add_floor(energy, posed, self.rest, floor, size)
        return energy

    def add_depth(self, energy: Quadratic, posed: PosedPoints) -> None:
        """Adds how far points are from where a network for points in space says, in depth behind the hips."""
        if not self.seen.depth_weight.any():
            return
        depth, by_motion, by_betas = (
            ((x[:, : len(SEEN), 2] - x[:, HIPS, 2].mean(1, keepdim=True)) / DEEP)[:, :, None] for x in posed
        )
        away = depth - self.seen.depth[..., None] / DEEP
        error = away - away.clamp(-BIASED / DEEP, BIASED / DEEP)
        energy.add(error, by_motion, by_betas, self.seen.depth_weight * (error[..., 0] != 0), WRONG_DEPTH)

    def solve(
        self, state: State, held: Tensor | None = None, coarse: Sequence[float] = COARSE, steps: int = STEPS
    ) -> State:
        """Solves by Levenberg-Marquardt, one step for each `coarse` size, then until the gain is small for EXACT;
        frames that are `held` (F,) stay fixed."""
        held = torch.zeros(len(self.seen), dtype=torch.bool) if held is None else held
        sizes, damping, last = [*coarse, *[EXACT] * steps], DAMPING, 0.0
        for i, size in enumerate(sizes):
            advance(i, len(sizes))
            if size != last:
                floor = self.floor(self.posed(state))
                here, last = self.around(state, size, floor), size
            step = here.step(damping, held)
            trial = state.moved(*step) if step else state
            there = self.around(trial, size, floor) if step else here
            gain = float(1 - there.value / here.value)
            if gain > 0:
                state, here, damping = trial, there, max(1e-6, damping / 5)
                if size == EXACT and gain < ENOUGH:
                    break
            else:
                damping *= 10
        return state

    def other_way(self, state: State) -> Tensor:
        """Tries limbs the other way round where that is open, a stretch of frames at a time, and keeps in the state
        what explains the stretch better. Returns in which frames (F,) both do so as well, and no network says more."""
        points, undecided = points_of(self, state), torch.zeros(len(self.seen), dtype=torch.bool)
        untold = ~(self.seen.depth_weight > 0).any(1)
        for group, limbs in enumerate(TOGETHER):
            advance(group, len(TOGETHER))
            open_ = open_limbs(points, self.seen)
            open_ &= torch.isin(torch.arange(open_.shape[1]), torch.tensor(limbs))
            for stretch in stretches_around(open_.any(1), joined_runs(self.steps), CHUNK):
                index = torch.arange(stretch.start, stretch.stop)
                piece, before, turned = self.part(index, self.steps[index[:-1]]), state[index], open_[index]
                pose = mirrored(before.pose, before.facing, piece.posed(before).points, turned)
                held = torch.zeros(len(index), dtype=torch.bool)
                held[:FIXED], held[-FIXED:] = stretch.start > 0, stretch.stop < len(self.seen)
                trial = replace(before, pose=torch.where(held[:, None, None], before.pose, pose))
                with portion(group, 0, len(TOGETHER)):
                    after = piece.solve(trial, held, (), TRIED)
                floor = piece.floor(piece.posed(before))
                worse = piece.around(after, EXACT, floor).value - piece.around(before, EXACT, floor).value
                open_there = turned.any(1)
                least = OPEN * open_there.sum()
                undecided[index] |= open_there & untold[index] & (worse.abs() < least)
                if worse < -least:
                    state.pose[index], state.pelvis[index] = after.pose, after.pelvis
                    points[index] = piece.posed(after).points
        return undecided


def points_of(problem: Problem, state: State) -> Tensor:
    """(F, P, 3) of all frames."""
    parts = torch.arange(len(problem.seen)).split(CHUNK)
    return torch.cat([problem.posed(state[part]).points for part in parts])


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


def for_shape(count: int) -> Tensor:
    """Returns numbers of the frames that the shape of a long clip is fitted to: a few runs from everywhere."""
    runs = torch.linspace(0, count - RUN, FOR_SHAPE // RUN).long()
    return (runs[:, None] + torch.arange(RUN)).flatten().unique()


def at_once_or_in_chunks(problem: Problem, state: State) -> tuple[State, Tensor]:
    """Fits shape and motion of a clip, of a long one in chunks. Also returns in which frames (F,) a limb could as well
    be the other way round."""
    count = len(problem.seen)
    tries = max(count // 4, 1)
    with portion(0, count, count + tries):
        state = problem.solve(state) if count <= CHUNK else in_chunks(problem, state)
    betas, state = state.betas, replace(state, betas=state.betas[:0])
    with portion(count, tries, count + tries):
        undecided = problem.shaped(betas).other_way(state)
    return replace(state, betas=betas), undecided


def in_chunks(problem: Problem, state: State) -> State:
    """Fits the shape to frames from everywhere, and with that shape the motion chunk by chunk: each starts from the
    previous result in the shared frames."""
    count = len(problem.seen)
    some = for_shape(count)
    work = count + len(some)
    with portion(0, len(some), work):
        alone = problem.part(some, (some.diff() == 1) & problem.steps[some[:-1]])
        betas = alone.solve(state[some]).betas
    shaped, state = problem.shaped(betas), replace(state, betas=betas[:0])
    step = CHUNK - OVERLAP
    for first in range(0, max(count - OVERLAP, 1), step):
        index = torch.arange(first, min(first + CHUNK, count))
        piece = shaped.part(index, problem.steps[index[:-1]])
        with portion(len(some) + first, min(step, count - first), work):
            found = piece.solve(state[index], (torch.arange(len(index)) < HELD) & (first > 0))
        state.pose[index], state.pelvis[index] = found.pose, found.pelvis
    return replace(state, betas=betas)


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
    points = points.with_knees(lower_knees(seen, pixels_per_metre(seen, points, usual), at_rest(points, usual)))
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
    rest = at_rest(points, usual)
    straight, soles = straight_legs(seen, size, runs, rest), slope_under(seen, size, runs, state.facing, rest)
    rests = resting(seen, size, runs, fps)
    problem = Problem(seen, size, hidden, straight, rests, soles, steps, points, usual, focal, fps)

    with portion(0, frames, frames):
        state, undecided = at_once_or_in_chunks(problem, state)
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
    found, there = points_of(problem, state), known[kept]
    doubt = torch.maximum(doubt_of(found, seen, straight, steps, fps), undecided.double())
    told = misfit_of(seen_from_above(found[:, : len(SEEN)], soles), seen, size, focal) * there, doubt * there
    misfit, doubt = (torch.zeros(frames).index_copy(0, kept, part.float()) for part in told)
    return replace(motion, confidence=motion.confidence * known, misfit=misfit, doubt=doubt)
