"""Procrustes alignment: the similarity that carries the points of one person onto those of the same person elsewhere.

Points are (17, 3) rows x, y, score in COCO's order, score 0 where a point is missing. A transform is the matrix (2, 3)
of q = s R p + t in pixels. Reflection is refused: R is a rotation.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..progress import advance

# Rows of COCO's 17 points. "auto" is the largest set that agrees on one similarity, the others are fixed.
SUBSETS = {"auto": tuple(range(17)), "face": tuple(range(5)), "torso": (5, 6, 11, 12), "all": tuple(range(17))}
PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))  # left and right
AGREE = 0.08  # of the person's size: how far off a point may be that agrees, in poses that are never quite the same
SPREAD = 0.01  # of the person's size and of 512 pixels: root mean square distance of points that are well separated
SCALES = (0.2, 5.0)  # a reference that is warped further shows nothing, or is a mistake
LINE = 0.05  # narrowest to widest extent of points that lie on a line

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the reference is moved onto the person of one frame."""

    matrix: np.ndarray  # (2, 3)
    used: np.ndarray  # (17,) bool, the points that decided
    points: str  # the subset they are of; "frame 7" if the transform is that frame's, "none" if it is the identity
    residual: float = 0.0  # root mean square distance of those points after the transform, pixels
    mirrored: bool = False  # seen from the other side: left and right were not told apart
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
        """Clockwise, as the picture is seen."""
        return float(np.degrees(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))


def similarity(p: np.ndarray, q: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """argmin over s, R, t of sum w |s R p + t - q|^2 for points (N, 2), by the SVD of their covariance.

    Of the two orthogonal solutions the rotation is taken, also where a reflection would fit better."""
    w = weights / weights.sum()
    p_mean, q_mean = w @ p, w @ q
    u, d, vt = np.linalg.svd((q - q_mean).T * w @ (p - p_mean))
    sign = np.array([1.0, np.linalg.det(u @ vt)])
    linear = (u * sign) @ vt * (d @ sign) / (w @ np.square(p - p_mean).sum(1))
    return np.column_stack([linear, q_mean - linear @ p_mean])


def transformed(matrix: np.ndarray, p: np.ndarray) -> np.ndarray:
    return p @ matrix[:, :2].T + matrix[:, 2]


def agreeing(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The largest set of points (N,) bool that one similarity carries to within AGREE of the person's size, of equally
    large ones that with the least error.

    The similarities are those of all pairs of points, then the best fit to each set until it stays; at last what is
    more than three robust standard deviations off is left out."""
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
    """Errors (N,) of the chosen points' best fit, as parts of the smaller of the two sizes that the person has in the
    frame: that of the moved points and that of the frame's own."""
    matrix = similarity(p[chosen], q[chosen], np.ones(chosen.sum()))
    scale = max(np.hypot(*matrix[:, 0]), SCALES[0])
    return np.linalg.norm(transformed(matrix, p) - q, axis=1) / min(scale * sizes[0], sizes[1])


def align(reference: np.ndarray, person: np.ndarray, points: str = "auto") -> Alignment | None:
    """The similarity from one person's points to another's by one subset, None if it cannot be told.

    It takes two points that both show, well apart; for "auto" four that agree (all, if there are fewer) and a third of
    them. If more points agree after a reflection, the person shows the other side: then the middles of left and right
    decide, three of which have to agree."""

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
    """The middle of each pair in the place of the left point: what front and back of a person have in common."""
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
    """The alignment of the reference (17, 3) with every frame's person (F, 17, 3).

    What cannot be aligned by `points` is aligned by the torso; else it has the transform of the last frame of its shot
    that could be, or of the next one if it is before the first; else the identity."""
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
