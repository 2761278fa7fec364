"""Estimates a motion with HMR2 from the pictures of a clip and the boxes of its person."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..body.body import Body
from ..body.smpl import SmplBody
from ..motion.gaps import fill_gaps
from ..motion.motion import Motion
from ..progress import advance
from .crops import Square, cam_in_picture, crop_square
from .hmr2_model import HMR2, predict

SHARED_BETAS = 2  # size and girth, which have the same meaning for the free body and for SMPL
LEAST = 0.01  # least confidence of a frame in which the person was seen: 0 means a gap


def estimate_motion(
    hmr2: HMR2,
    pictures: Iterable[np.ndarray],
    boxes: Sequence[np.ndarray | None],
    size: tuple[int, int],
    body: Body,
    fps: float,
    shot: np.ndarray | None = None,
) -> Motion:
    """Estimates one frame for every picture (uint8 RGB, of `size` width x height), in the camera of 4D-Humans.

    `boxes` (x0, y0, x1, y1, score) are around the person, None where they are not; those frames are filled from their
    neighbours in the shot. The shape is the mean of all frames, weighted by their confidence. An SMPL body takes all
    ten betas, any other body size and girth. A `batch` of pictures is processed at once (None: as many as are fastest),
    and hardly more are in memory.
    """
    width, height = size
    squares = {i: Square.around(box) for i, box in enumerate(boxes) if box is not None}
    score = torch.tensor([float(box[4]) for box in boxes if box is not None]).clamp(LEAST, 1)
    if not squares:
        raise ValueError(
            f"The person was found in none of the {len(boxes)} frames, so there is nothing to estimate; use a clip in "
            "which a person is visible, and check the overlay of the pose node."
        )

    def crops() -> Iterator[Tensor]:
        for i, picture in enumerate(pictures):
            advance(i, len(boxes))
            if i in squares:
                yield crop_square(picture, squares[i])

    predictions = zip(*predict(hmr2, crops()))
    rotations, betas, camera = (torch.stack(values) for values in predictions)
    if len(rotations) < len(squares):
        raise ValueError(f"There are boxes for {len(boxes)} frames, but fewer pictures; take both from the same clip.")
    cam_t, focal = cam_in_picture(camera, list(squares.values()), width, height)
    seen = torch.tensor(list(squares))
    motion = Motion(
        rotations=torch.eye(3).repeat(len(boxes), 24, 1, 1).index_copy(0, seen, rotations),
        betas=shape_for(body, (score[:, None] * betas).sum(0) / score.sum()),
        cam_t=torch.ones(len(boxes), 3).index_copy(0, seen, cam_t),
        focal=focal,
        width=width,
        height=height,
        fps=fps,
        confidence=torch.zeros(len(boxes)).index_copy(0, seen, score),
        source="HMR2",
        shot=None if shot is None else torch.from_numpy(shot),  # type: ignore[arg-type]
    )
    advance(len(boxes), len(boxes))
    return fill_gaps(motion)


def shape_for(body: Body, betas: Tensor) -> Tensor:
    """Converts SMPL's betas for a body; a body other than SMPL keeps its own other components."""
    if isinstance(body, SmplBody):
        return betas
    return torch.cat([betas[:SHARED_BETAS], body.betas[SHARED_BETAS:].to(betas)])
