"""Tracks people through a clip, and chooses one of them."""

from dataclasses import dataclass, field

import numpy as np

from ..keypoints.pose import THRESHOLD, Pose

CHOICES = ("largest", "central", "number", "marked")
MARGIN = 0.08  # from the eyes to the top of the head and from the ankles to the soles, of the longer side
PATIENCE = 60  # frames after which the position of an unseen person is no longer predicted
SLOWING = 0.9  # of the speed that an unseen person keeps per frame


@dataclass(frozen=True)
class Track:
    """One person in a clip, or in one shot of it."""

    member: np.ndarray  # (F,) index among the people of the frame, -1 = absent
    boxes: np.ndarray  # (F, 5) x0, y0, x1, y1, score in pixels; zeros where absent
    shot: np.ndarray  # (F,) number of the shot

    @property
    def seen(self) -> np.ndarray:
        """The frames in which the person appears."""
        return np.flatnonzero(self.member >= 0)

    @property
    def weight(self) -> float:
        """Weight by duration and size: the sum of the sides of the boxes (roots of their areas)."""
        return float(_side(self.boxes).sum())


def person_box(pose: Pose) -> np.ndarray | None:
    """Returns (5,) x0, y0, x1, y1, score: the detector's box, else one around the seen keypoints; None if nothing is
    seen."""
    if pose.box is not None:
        return pose.box
    parts = [part for part in (pose.body, pose.left_hand, pose.right_hand, pose.face) if part is not None]
    points = np.concatenate(parts)
    points = points[points[:, 2] >= THRESHOLD]
    if len(points) == 0:
        return None
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    if not (high > low).any():
        return None
    margin = MARGIN * (high - low).max()
    return np.array([*(low - margin), *(high + margin), points[:, 2].mean()], dtype=np.float32)


def track(people: list[list[Pose]], shot: np.ndarray) -> list[Track]:
    """Tracks everybody through every shot, the longest and largest first; short gaps are bridged, cuts are not."""
    tracks: list[Track] = []
    for frames in np.split(np.arange(len(people)), np.flatnonzero(np.diff(shot)) + 1):
        tracks += [_as_track(way, shot) for way in _follow(people, frames)]
    return sorted(tracks, key=lambda t: -t.weight)


def link(tracks: list[Track]) -> list[Track]:
    """Links the tracks of shots to people of the whole clip, the longest and largest first: people 0, 1, 2...

    Appearance is not compared. After a cut or a long absence, a track continues the person who was nearest in place and
    size, among those not present meanwhile. In every shot, the longest and largest track chooses first.
    """
    people: list[list[Track]] = []
    for t in sorted(tracks, key=lambda t: (t.shot[t.seen[0]], -t.weight)):
        nearest = min(people, key=lambda pieces: _between(pieces, t), default=[])
        if nearest and _between(nearest, t) < np.inf:
            nearest.append(t)
        else:
            people.append([t])
    return sorted((_join(pieces) for pieces in people), key=lambda t: -t.weight)


def choose_person(
    tracks: list[Track],
    person: str = "largest",
    number: int = 0,
    mask: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
) -> Track:
    """Chooses one person for the whole clip.

    "largest" (largest sum of boxes) and "central" (nearest to the middle of a picture of `size`, among those seen at
    least half as long as the longest) choose again in every shot. "number" counts the people of `link`. "marked" is the
    first one in the `mask`, (H, W) for all frames or (M, H, W) for the first M.
    """
    if person not in CHOICES:
        raise ValueError(f"There is no choice of person called {person!r}; choose from {', '.join(CHOICES)}.")
    if not tracks:
        raise ValueError(
            "Nobody was found in any frame, so there is nobody to follow; use a clip in which a person is visible."
        )
    people = link(tracks)
    if person == "number":
        if not 0 <= number < len(people):
            raise ValueError(
                f"There is no number {number} among the people of this clip; the highest is {len(people) - 1}, and the "
                "overlay shows everybody's number."
            )
        return people[number]
    if person == "marked":
        return people[_marked(people, mask)]
    chosen = []
    for frames in np.split(np.arange(len(people[0].shot)), np.flatnonzero(np.diff(people[0].shot)) + 1):
        here = [t for t in (_within(t, frames) for t in people) if len(t.seen)]
        if person == "central" and size is not None:
            longest = max((len(t.seen) for t in here), default=0)
            here = sorted((t for t in here if 2 * len(t.seen) >= longest), key=lambda t: _off_centre(t, size))
        else:
            here.sort(key=lambda t: -t.weight)
        chosen += here[:1]
    return _join(chosen)


def one_person(people: list[list[Pose]], shot: np.ndarray) -> list[Pose | None]:
    """Follows the largest person of every shot; None in the frames without one."""
    tracks = track(people, shot)
    if not tracks:
        return [None] * len(people)
    member = choose_person(tracks).member
    return [frame[i] if i >= 0 else None for frame, i in zip(people, member)]


@dataclass
class _Way:
    """A person who is being followed."""

    frames: list[int]
    members: list[int]
    boxes: list[np.ndarray]
    body: np.ndarray
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels per frame

    def cost(self, frame: int, body: np.ndarray, box: np.ndarray) -> float:
        """Returns the distance of a person from the expected position, relative to the size: root mean square over the
        keypoints that both show and the corners of the boxes; inf if the move or the change of size is too fast."""
        gap = frame - self.frames[-1]
        shift = self.speed * (1 - SLOWING**gap) / (1 - SLOWING)
        expected = self.boxes[-1][:4] + np.tile(shift, 2)
        side = np.sqrt(_side(expected) * _side(box))
        place = np.linalg.norm(_centre(expected) - _centre(box)) / side
        growth = abs(np.log(_side(box) / _side(expected)))
        if place > min(0.6 + 0.1 * gap, 2) or growth > 0.7 + 0.03 * gap:
            return np.inf
        both = _shared(self.body, body)
        away = np.concatenate([self.body[both, :2] + shift - body[both, :2], (expected - box[:4]).reshape(2, 2)])
        return float(np.sqrt((away**2).sum(1).mean()) / side)

    def add(self, frame: int, member: int, body: np.ndarray, box: np.ndarray) -> None:
        both = _shared(self.body, body)
        step = _centre(box) - _centre(self.boxes[-1])
        if both.sum() >= 3:
            step = np.median(body[both, :2] - self.body[both, :2], axis=0)  # a waving arm does not count
        self.speed = step / (frame - self.frames[-1])
        self.frames.append(frame)
        self.members.append(member)
        self.boxes.append(box)
        self.body = body


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns which keypoints are seen in both."""
    return (a[:, 2] >= THRESHOLD) & (b[:, 2] >= THRESHOLD)


def _follow(people: list[list[Pose]], frames: np.ndarray) -> list[_Way]:
    """Tracks people through the frames of one shot; in each frame, the best pairs of track and person are matched
    first."""
    ways: list[_Way] = []
    for frame in frames.tolist():
        boxes = {i: box for i, pose in enumerate(people[frame]) if (box := person_box(pose)) is not None}
        live = [way for way in ways if frame - way.frames[-1] <= PATIENCE]
        pairs = sorted(
            (way.cost(frame, people[frame][i].body, box), w, i)
            for w, way in enumerate(live)
            for i, box in boxes.items()
        )
        taken: set[int] = set()
        for cost, w, i in pairs:
            if np.isfinite(cost) and live[w].frames[-1] != frame and i not in taken:
                live[w].add(frame, i, people[frame][i].body, boxes[i])
                taken.add(i)
        for i in boxes.keys() - taken:
            ways.append(_Way([frame], [i], [boxes[i]], people[frame][i].body))
    return ways


def _as_track(way: _Way, shot: np.ndarray) -> Track:
    member, boxes = np.full(len(shot), -1), np.zeros((len(shot), 5), dtype=np.float32)
    member[way.frames], boxes[way.frames] = way.members, way.boxes
    return Track(member, boxes, shot)


def _join(tracks: list[Track]) -> Track:
    """Joins tracks that are never in the same frame."""
    member = np.max([t.member for t in tracks], axis=0)
    return Track(member, np.sum([t.boxes for t in tracks], axis=0), tracks[0].shot)


def _within(t: Track, frames: np.ndarray) -> Track:
    """Returns the part of a track in some frames."""
    inside = np.isin(np.arange(len(t.member)), frames)
    return Track(np.where(inside, t.member, -1), t.boxes * inside[:, None], t.shot)


def _between(pieces: list[Track], t: Track) -> float:
    """Returns the distance of a track from a person's pieces just before and after it; inf if they overlap."""
    start, end = t.seen[[0, -1]]
    before = [p for p in pieces if p.seen[-1] < start]
    after = [p for p in pieces if p.seen[0] > end]
    if len(before) + len(after) < len(pieces):
        return np.inf
    ends = [(p.boxes[p.seen[-1]], t.boxes[start]) for p in sorted(before, key=lambda p: p.seen[0])[-1:]]
    ends += [(t.boxes[end], p.boxes[p.seen[0]]) for p in sorted(after, key=lambda p: p.seen[0])[:1]]
    return min(_apart(a, b) for a, b in ends)


def _marked(people: list[Track], mask: np.ndarray | None) -> int:
    if mask is None or not mask.any():
        raise ValueError(
            "The mask is empty or not connected; paint it over the person to follow, or choose the person in another "
            "way."
        )
    frames = len(people[0].member)
    masks = np.broadcast_to(mask, (frames, *mask.shape)) if mask.ndim == 2 else mask[:frames]
    for frame, painted in enumerate(masks):
        overlaps = [_overlap(painted > 0, t.boxes[frame]) for t in people]
        if max(overlaps) > 0:
            return int(np.argmax(overlaps))
    raise ValueError("There is nobody under the mask; paint it over a person in the first frame of the clip.")


def _overlap(mask: np.ndarray, box: np.ndarray) -> float:
    """Returns the overlap ratio: the part of the mask inside the box times the part of the box inside the mask; 0 if
    neither is half."""
    x0, y0, x1, y1 = np.clip(np.round(box[:4]), 0, np.tile(mask.shape[::-1], 2)).astype(int)
    inside, whole, area = mask[y0:y1, x0:x1].sum(), mask.sum(), (x1 - x0) * (y1 - y0)
    if not inside or max(inside / whole, inside / area) < 0.5:
        return 0.0
    return float(inside / whole * inside / area)


def _off_centre(t: Track, size: tuple[int, int]) -> float:
    boxes = t.boxes[t.seen]
    return float(np.linalg.norm(_centre(boxes) - np.array(size) / 2, axis=1).mean())


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the distance of two boxes relative to their size, plus the log ratio of their sizes."""
    side = np.sqrt(_side(a) * _side(b))
    return float(np.linalg.norm(_centre(a) - _centre(b)) / side + abs(np.log(_side(b) / _side(a))))


def _side(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def _centre(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:4]) / 2
