"""The motion of one person: joint rotations, one shape, and the place in front of a camera."""

import math
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..body.body import Body, Posed

AT_ONCE = 4096  # frames that are checked together
PER_FRAME = ("rotations", "cam_t", "confidence", "shot", "misfit", "doubt")


@dataclass(frozen=True)
class Motion:
    """Camera frame: x right, y down, z forward; u = focal * X / Z + width / 2, v likewise with height."""

    rotations: Tensor  # (F, 24, 3, 3); joint 0 turns the body into the camera frame
    betas: Tensor  # (B,) one shape for the clip
    cam_t: Tensor  # (F, 3) added to the posed body
    focal: float  # pixels
    width: int
    height: int
    fps: float
    confidence: Tensor  # (F,) 1 = seen, 0 = filled
    source: str
    shot: Tensor = None  # type: ignore[assignment]  # (F,) number of the shot of each frame; None is one shot
    # (F,) how far the body is from the keypoints that it was made of, in its height; None is nowhere.
    misfit: Tensor = None  # type: ignore[assignment]
    # (F,) 0..1, whether limbs may be in front that are behind, or the other way round; None is in no frame.
    doubt: Tensor = None  # type: ignore[assignment]

    def __post_init__(self):
        frames = self.rotations.shape[0]
        shot = torch.zeros(frames) if self.shot is None else self.shot
        object.__setattr__(self, "shot", shot.to(self.rotations.device, torch.int64))
        for name in ("misfit", "doubt"):
            value = torch.zeros(frames) if getattr(self, name) is None else getattr(self, name)
            object.__setattr__(self, name, value.to(self.rotations.device, torch.float32))
        for name, value, shape in (
            ("rotations", self.rotations, (frames, 24, 3, 3)),
            ("cam_t", self.cam_t, (frames, 3)),
            ("confidence", self.confidence, (frames,)),
            ("shot", self.shot, (frames,)),
            ("misfit", self.misfit, (frames,)),
            ("doubt", self.doubt, (frames,)),
            ("betas", self.betas, self.betas.shape[:1]),
        ):
            if tuple(value.shape) != tuple(shape):
                raise ValueError(
                    f"This motion's {name} have shape {tuple(value.shape)}, but {tuple(shape)} is needed; make the "
                    "motion again with a node of this pack."
                )
            if not all(torch.isfinite(part).all() for part in value.split(AT_ONCE)):
                bad = (~torch.isfinite(value)).reshape(len(value), -1).any(1).nonzero()[:5, 0].tolist()
                raise ValueError(
                    f"This motion's {name} are not numbers (NaN or infinite) at {bad}; "
                    "trim those frames away or make the motion again."
                )
        if frames == 0:
            raise ValueError("This motion has no frames; choose a longer part of it.")
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"A picture of {self.width}x{self.height} pixels is empty; set width and height to at least 1."
            )
        for name, number in (("focal length", self.focal), ("frame rate", self.fps)):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"This motion's {name} is {number}; it must be a number above 0.")

    def __len__(self) -> int:
        return self.rotations.shape[0]

    def __getitem__(self, index) -> "Motion":
        """Selects frames by a slice or a tensor of indices."""
        chosen = {name: getattr(self, name)[index] for name in PER_FRAME}
        if not isinstance(index, slice) or not len(chosen["rotations"]):
            return replace(self, **chosen)
        part = copy(self)  # without the checks, which the whole has passed
        for name, value in chosen.items():
            object.__setattr__(part, name, value)
        return part

    def to(self, device: torch.device | str) -> "Motion":
        return replace(
            self,
            rotations=self.rotations.to(device),
            betas=self.betas.to(device),
            cam_t=self.cam_t.to(device),
            confidence=self.confidence.to(device),
            shot=self.shot.to(device),
            misfit=self.misfit.to(device),
            doubt=self.doubt.to(device),
        )

    def shots(self) -> list[slice]:
        """Returns the shots: runs of frames without a cut."""
        cuts = (self.shot.diff() != 0).nonzero().flatten() + 1
        ends = [0, *cuts.tolist(), len(self)]
        return [slice(start, end) for start, end in zip(ends, ends[1:])]

    def posed(self, body: Body) -> Posed:
        """Poses the body with this motion's shape, in camera coordinates."""
        return body.with_betas(self.betas).pose(self.rotations, self.cam_t)

    def project(self, points: Tensor) -> Tensor:
        """Projects camera-frame points (..., 3) to pixels (..., 2)."""
        centre = points.new_tensor((self.width / 2, self.height / 2))
        return self.focal * points[..., :2] / points[..., 2:] + centre
