"""The calibration branch: encodes the reference, warped onto the person of every frame, with ReferenceNet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.reference import Reference, ReferenceNet, encode_reference
from ..progress import advance, portion
from .attention import COVERED, USUAL, CalibratedReference, Calibration, Reading, Warp, groups_of
from .correspondences import People, covered
from .procrustes import Alignment, align_clip
from .warp import Warped, after, distinct, fit_matrix, warp

CHUNK = 4  # pictures that go through the VAE at once


class Plan(NamedTuple):
    """The warps to make, in the pixels of the clip."""

    reference: np.ndarray  # (17, 3) points of the reference, fitted into the clip's size
    people: np.ndarray  # (F, 17, 3) points of every frame
    alignments: list[Alignment]  # of every frame
    matrices: list[np.ndarray]  # the transforms that are used; the first is the identity
    warp_of: np.ndarray  # (F,) index into them
    off: float  # largest distance in pixels between a frame's own transform and the one it uses
    crowded: tuple[bool, tuple[int, ...]]  # whether the reference shows several people, and which frames do
    bare: tuple[bool, tuple[int, ...]]  # whether the silhouette in the reference is empty, and in which frames it is
    shares: Tensor | None = None  # (F, h, w) share of each latent pixel that the person covers

    @property
    def passes(self) -> int:
        """The number of passes through ReferenceNet."""
        return len(self.matrices) - 1


@dataclass(frozen=True, eq=False)
class Picture:
    """The reference image, and how it was fitted into the size of the clip."""

    pixels: np.ndarray  # (H, W, 3) uint8
    width: int  # pixels of the clip
    height: int
    fit: str
    person: np.ndarray | None = None  # (H, W) uint8, 255 where the person is

    def to_clip(self) -> np.ndarray:
        rows, columns = self.pixels.shape[:2]
        return fit_matrix(columns, rows, self.width, self.height, self.fit)

    def warped(self, matrix: np.ndarray) -> Warped:
        """Warps the image by a transform in the clip's pixels, at the image's own resolution."""
        return warp(self.pixels, after(matrix, self.to_clip()), self.width, self.height, self.person)


def plan_warps(
    picture: Picture,
    reference: People,
    people: People,
    points: str = "auto",
    most: int = 32,
    shot: Sequence[int] | None = None,
) -> Plan:
    """Aligns the person of the image (frame 0 of `reference`) with that of every frame, by `points`, with at most
    `most` different warps."""
    rows, columns = picture.pixels.shape[:2]
    ours = reference.stretched(columns, rows).points[0].copy()
    matrix = picture.to_clip()
    ours[:, :2] = ours[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    theirs = people.stretched(picture.width, picture.height).points
    alignments = align_clip(ours, theirs, points, shot)
    seen = ours[ours[:, 2] > 0, :2] if (ours[:, 2] > 0).any() else np.zeros((1, 2))
    crowded = 0 in reference.crowded, people.crowded
    empty = [] if people.shares is None else (people.shares.flatten(1).amax(1) <= COVERED).nonzero().flatten().tolist()
    bare = picture.person is not None and not picture.person.any(), tuple(empty)
    warps = distinct([a.matrix for a in alignments], seen, most)
    return Plan(ours, theirs, alignments, *warps, crowded, bare, people.shares)


def calibrate(
    reference: Reference,
    net: ReferenceNet,
    encode: Callable[[Tensor], Tensor],
    picture: Picture,
    plan: Plan,
    clip_embeds: Tensor | None = None,
    reading: Reading = USUAL,
) -> CalibratedReference:
    """Encodes the warps of the plan and returns a reference that every frame also reads warped.

    `encode` is the VAE's, from pictures (N, H, W, 3) in 0..1 to latents. With the plan's shares and a person in the
    image, person and background are kept apart. The tokens of the warps are rounded to float16, as the official
    pipelines round those of the reference.
    """
    reading.span.check("The calibrated reference")
    if net.family != reference.family:
        raise ValueError(
            f"The reference was encoded by the ReferenceNet of {reference.family}, but the connected one is of "
            f"{net.family}; use the same ReferenceNet for both."
        )
    apart = plan.shares is not None and picture.person is not None and bool(picture.person.any())
    masks, latents = _warped(picture, plan, encode, apart)
    tokens = [reference.tokens]
    if latents is not None:
        with portion(plan.passes, plan.passes, 2 * plan.passes):
            seen = encode_reference(net, latents, clip_embeds, dtype=torch.float16)
        tokens += [other.tokens for other in seen]
    warps = tuple(Warp(own, *shares) for own, shares in zip(tokens, masks))
    calibration = Calibration(
        warps,
        tuple(plan.warp_of.tolist()),
        groups_of([0] * len(plan.warp_of) if reading.shot is None else reading.shot, reading.group),
        reading.seed,
        reading.strength,
        reading.span,
        plan.shares if apart else None,
        masks[0][1],
    )
    own = {field.name: getattr(reference, field.name) for field in fields(Reference)}
    return CalibratedReference(**own, calibration=calibration, width=picture.width, height=picture.height)


def _warped(
    picture: Picture, plan: Plan, encode: Callable[[Tensor], Tensor], apart: bool
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | None]:
    """Returns the shares of the cells of each warp, and the latents of all but the first, which is the reference as it
    is. Few pictures are in memory at once; this is the first half of the work of a calibration."""
    cells = (picture.height // 8, picture.width // 8)
    pixels: list[Tensor] = []
    latents: list[Tensor] = []
    masks: list[tuple[Tensor, Tensor | None]] = []
    for i, matrix in enumerate(plan.matrices):
        warped = picture.warped(matrix)
        person = _share(warped.person, cells) if apart and warped.person is not None else None
        masks.append((_share(warped.valid, cells), person))
        if i == 0:
            continue
        pixels.append(torch.from_numpy(warped.picture).float() / 255)
        if len(pixels) == CHUNK or i == plan.passes:
            latents.append(encode(torch.stack(pixels)).cpu())
            pixels = []
            advance(i, 2 * plan.passes)
    return masks, torch.cat(latents) if latents else None


def _share(mask: np.ndarray, cells: tuple[int, int]) -> Tensor:
    return covered(torch.from_numpy(mask)[None] / 255, *cells)[0]
