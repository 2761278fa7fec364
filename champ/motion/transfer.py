"""Transfers the shape and the place of the person in the reference to the motion of another person."""

from dataclasses import replace

import torch
from torch import Tensor

from ..body.body import Body
from .motion import Motion

PLACEMENTS = ("follow", "pin", "keep")


def transfer(
    driving: Motion, reference: Motion, body: Body, placement: str = "follow", figure_scale: float = 0.0
) -> Motion:
    """Returns the driving poses with the reference's betas (Champ's equation 3), in front of the reference's camera.

    `reference` is the body in the picture; its first frame is used. Placement: "follow" begins at the reference's place
    and follows the driving path, in steps of the reference's size. "pin" stays at the reference's place, as the
    official tool does. "keep" keeps the driving camera and path. `figure_scale` is added to the second beta: larger is
    slimmer.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"There is no placement called {placement!r}; choose from {', '.join(PLACEMENTS)}.")
    betas = reference.betas.clone()
    betas[1] += figure_scale
    target = body.with_betas(betas)
    pelvis, driving_pelvis = (b.rest().joints[0, 0] for b in (target, body.with_betas(driving.betas)))
    # The root joint lies at rest pelvis + cam_t, whatever the pose.
    path = driving_pelvis + driving.cam_t
    if placement == "keep":
        return replace(driving, betas=betas, cam_t=path - pelvis)
    place = body.with_betas(reference.betas).rest().joints[0, 0] + reference.cam_t[0]
    way = torch.zeros_like(path)
    if placement == "follow":
        # Depth is only known up to the lens: a lens twice as long moves everything twice as far away.
        lens = relative_focal(reference) / relative_focal(driving)
        way = (path - path[0]) * path.new_tensor([1.0, 1.0, lens]) * stature(target) / stature(body, driving.betas)
    return replace(
        driving,
        betas=betas,
        cam_t=place + way - pelvis,
        focal=reference.focal,
        width=reference.width,
        height=reference.height,
        source=f"{driving.source}, as the person of {reference.source}",
    )


def relative_focal(motion: Motion) -> float:
    return motion.focal / max(motion.width, motion.height)


def stature(body: Body, betas: Tensor | None = None) -> Tensor:
    """Returns the height of the body at rest in metres."""
    shaped = body if betas is None else body.with_betas(betas)
    y = shaped.rest().vertices[0, :, 1]
    return y.max() - y.min()
