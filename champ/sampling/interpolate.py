"""Frame interpolation in latent space."""

import torch
from torch import Tensor

PARALLEL = 0.9995  # cosine above which a straight line replaces the arc


def interpolate(latents: Tensor, factor: int, method: str = "slerp") -> Tensor:
    """Interpolates (F, ...) to ((F - 1) * factor + 1, ...): factor - 1 new frames between each two, on a line or an
    arc."""
    if method not in METHODS:
        raise ValueError(f"There is no interpolation called {method!r}; choose from {', '.join(METHODS)}.")
    if factor < 1:
        raise ValueError(
            f"A factor of {factor} is not possible; use 1 to keep the clip as it is, 2 to double the frame rate."
        )
    if not len(latents):
        raise ValueError("There are no frames to interpolate between; sample a video first.")
    latents = latents.float()  # ComfyUI may keep them in 16 bits, which overflow in sums of squares
    frames = [latents[0]]
    for a, b in zip(latents, latents[1:]):
        frames += [METHODS[method](a, b, k / factor) for k in range(1, factor)]
        frames.append(b)
    return torch.stack(frames)


def slerp_latents(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Returns sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, where w is the angle between a and b as vectors."""
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if not cosine.abs() <= PARALLEL:  # also when a frame is all zeros
        return torch.lerp(a, b, t)
    angle = cosine.arccos()
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()


METHODS = {"slerp": slerp_latents, "linear": torch.lerp}
