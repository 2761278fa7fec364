"""Procrustes alignment: the similarity transform from one person's points to those of the same person elsewhere.

Points are (17, 3) rows x, y, score in COCO's order, with score 0 for a missing point. A transform is the matrix (2, 3)
of q = s R p + t in pixels. R is a rotation, never a reflection.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..progress import advance

# Rows of COCO's 17 points. "auto" is the largest set that agrees on one similarity, the others are fixed.
SUBSETS = {"auto": tuple(range(17)), "face": tuple(range(5)), "torso": (5, 6, 11, 12), "all": tuple(range(17))}
PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))  # left and right
AGREE = 0.08  # of the person's size: largest distance of a point that agrees; two poses are never quite the same
SPREAD = 0.01  # of the person's size and of 512 pixels: least RMS distance of points that are well separated
SCALES = (0.2, 5.0)  # beyond these scales a reference shows nothing useful, or the points are wrong
LINE = 0.05  # ratio of smallest to largest extent, below which points lie on a line

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the reference is moved onto the person of one frame."""

    matrix: np.ndarray  # (2, 3)
    used: np.ndarray  # (17,) bool, the points that decided the transform
    points: str  # their subset; "frame 7" if the transform is that of frame 7, "none" if it is the identity
    residual: float = 0.0  # root mean square distance of those points after the transform, pixels
    mirrored: bool = False  # the person shows the other side: left and right were not distinguished
    line: bool = False  # the points lie on a line
    clamped: bool = False  # the scale was beyond SCALES

    @property
    def aligned(self) -> bool:
        return bool(self.used.any())

    @property
    def scale(self) -> float:
        return float(np.hypot(*self.matrix[:, 0]))

    @property
    def degrees(self) -> float:
        """The rotation in degrees, clockwise in the picture."""
        return float(np.degrees(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))


def similarity(p: np.ndarray, q: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Minimises sum w |s R p + t - q|^2 over s, R, t for points (N, 2), by the SVD of their covariance.

    Of the two orthogonal solutions, the rotation is taken, even if a reflection fits better.
    """
    w = weights / weights.sum()
    p_mean, q_mean = w @ p, w @ q
    u, d, vt = np.linalg.svd((q - q_mean).T * w @ (p - p_mean))
    sign = np.array([1.0, np.linalg.det(u @ vt)])
    linear = (u * sign) @ vt * (d @ sign) / (w @ np.square(p - p_mean).sum(1))
    return np.column_stack([linear, q_mean - linear @ p_mean])


def transformed(matrix: np.ndarray, p: np.ndarray) -> np.ndarray:
    return p @ matrix[:, :2].T + matrix[:, 2]


def agreeing(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Finds the largest set of points (N,) bool that one similarity transform brings to within AGREE of the person's
    size; of sets of equal size, the one with the least error.

    The candidates are the similarities of all pairs of points. Each is refitted to its set until the set does not
    change. Then points more than three robust standard deviations off are removed.
    """
    z, target = p @ (1, 1j), q @ (1, 1j)
    sizes = _size(p), _size(q)
    i, j = np.triu_indices(len(z), 1)
    apart = abs(z[i] - z[j]) > SPREAD * sizes[0]
    i, j = i[apart], j[apart]
    a = (target[i] - target[j]) / (z[i] - z[j])  # modulus is scale, argument is turn
    sane = (abs(a) > SCALES[0]) & (abs(a) < SCALES[1])
    i, a = i[sane, None], a[sane, None]
    if not len(a):
        return np.zeros(len(z), bool)
    off = abs(target[i] + a * (z - z[i]) - target) / np.minimum(abs(a) * sizes[0], sizes[1])
    sets = off < AGREE
    order = np.lexsort([np.where(sets, off, 0).sum(1), -sets.sum(1)])
    best = sets[order[0]]
    for _ in range(5):
        off = _errors(p, q, best, sizes)
        larger = off < AGREE
        if larger.sum() < best.sum() or (larger == best).all():
            break
        best = larger
    kept = best
    for _ in range(3):
        off = _errors(p, q, kept, sizes)
        # The median distance of points with the standard deviation 1 in x and in y is 1.1774.
        near = best & (off <= max(3 / 1.1774 * float(np.median(off[kept])), AGREE / 10))
        if near.sum() < 4:
            break
        kept = near
    return kept


def _size(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def _errors(p: np.ndarray, q: np.ndarray, chosen: np.ndarray, sizes: tuple[float, float]) -> np.ndarray:
    """Returns the errors (N,) of the best fit to the chosen points, relative to the person's size in the frame. Of the
    two sizes, of the moved points and of the frame's own, the smaller one counts."""
    matrix = similarity(p[chosen], q[chosen], np.ones(chosen.sum()))
    scale = max(np.hypot(*matrix[:, 0]), SCALES[0])
    return np.linalg.norm(transformed(matrix, p) - q, axis=1) / min(scale * sizes[0], sizes[1])


def align(reference: np.ndarray, person: np.ndarray, points: str = "auto") -> Alignment | None:
    """Aligns one person's points with another's by one subset of the points; None if they do not determine a transform.

    Two visible, well separated points are needed. For "auto", four points must agree (all, if there are fewer), and a
    third of them. If more points agree after a reflection, the person shows the other side. Then the midpoints of left
    and right decide, three of which must agree.
    """

    def agreed(first: np.ndarray, both: np.ndarray) -> np.ndarray:
        return agreeing(first[both, :2], person[both, :2])

    rows = np.isin(np.arange(17), SUBSETS[points])
    common = rows & (reference[:, 2] > 0) & (person[:, 2] > 0)
    if common.sum() < 2:
        return None
    chosen, flipped = agreed(reference, common), agreed(reference * (-1, 1, 1), common)
    mirrored = bool(flipped.sum() > chosen.sum())
    if points == "auto" and max(chosen.sum(), flipped.sum()) < max(min(common.sum(), 4), common.sum() / 3):
        return None
    if mirrored:
        reference, person = _middles(reference), _middles(person)
        common = rows & (reference[:, 2] > 0) & (person[:, 2] > 0)
        chosen = agreed(reference, common)
    if points == "auto":
        if mirrored and chosen.sum() < min(common.sum(), 3):
            return None
        common[common] = chosen
    if common.sum() < 2:
        return None
    p, q, weights = reference[common, :2], person[common, :2], np.minimum(reference[common, 2], person[common, 2])
    if not (_apart(p) and _apart(q)):
        return None
    matrix = similarity(p, q, weights)
    scale = np.hypot(*matrix[:, 0])
    clamped = not SCALES[0] <= scale <= SCALES[1]
    if clamped and scale > 0:
        linear = matrix[:, :2] * np.clip(scale, *SCALES) / scale
        matrix = np.column_stack([linear, np.average(q - p @ linear.T, axis=0, weights=weights)])
    elif clamped:
        return None
    residual = float(np.sqrt(np.square(transformed(matrix, p) - q).sum(1).mean()))
    line = not mirrored and len(p) > 2 and _narrowness(q) < LINE
    if mirrored:
        left, right = np.transpose(PAIRS)
        common[right] = common[left]
    return Alignment(matrix, common, points, residual, mirrored, bool(line), clamped)


def _middles(points: np.ndarray) -> np.ndarray:
    """Replaces the left point of each pair by the midpoint of the pair, which front and back views share."""
    middle = points.copy()
    left, right = np.transpose(PAIRS)
    middle[left, :2] = (points[left, :2] + points[right, :2]) / 2
    middle[left, 2] = np.minimum(points[left, 2], points[right, 2])
    middle[right, 2] = 0
    return middle


def _apart(points: np.ndarray) -> bool:
    return float(np.sqrt(np.square(points - points.mean(0)).sum(1).mean())) > SPREAD * 512


def _narrowness(points: np.ndarray) -> float:
    extents = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return float(extents[1] / extents[0])


def align_clip(
    reference: np.ndarray,
    people: np.ndarray,
    points: str = "auto",
    shot: Sequence[int] | None = None,
) -> list[Alignment]:
    """Aligns the reference (17, 3) with every frame's person (F, 17, 3).

    A frame that cannot be aligned by `points` is aligned by the torso. Otherwise it takes the transform of the last
    aligned frame of its shot, or of the next one if it is before the first. Otherwise it takes the identity.
    """
    if points not in SUBSETS:
        raise ValueError(f"There are no points called {points!r}; choose from {', '.join(SUBSETS)}.")
    shot = [0] * len(people) if shot is None else shot
    aligned: dict[int, Alignment] = {}
    for frame, person in enumerate(people):
        own = align(reference, person, points) or align(reference, person, "torso")
        if own is not None:
            aligned[frame] = own
        advance(frame + 1, len(people))
    frames, nothing = list(aligned), Alignment(IDENTITY, np.zeros(17, bool), "none")

    def beside(frame: int) -> Alignment:
        after = bisect(frames, frame)
        for source in (*frames[max(after - 1, 0) : after], *frames[after : after + 1]):
            if shot[source] == shot[frame]:
                return replace(nothing, matrix=aligned[source].matrix, points=f"frame {source}")
        return nothing

    return [aligned.get(frame) or beside(frame) for frame in range(len(people))]
