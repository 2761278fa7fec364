"""Draws the icon and the banner for ComfyUI's registry: python -m tools.make_logo

Everything in them is the free body in built-in motions.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from champ.body.body import Body
from champ.body.free import free_body_betas, load_free_body
from champ.motion.camera import View, frame_person
from champ.motion.motion import Motion
from champ.motion.presets import perform
from champ.render.guidance import render_guidance
from champ.render.preview import preview

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
ICON = 400  # the registry's limit
BANNER = 1680, 720  # 21:9
NIGHT, DAWN = (24, 26, 38), (58, 44, 84)  # the backdrop's colours, above and below
FIGURES = 5  # on the banner


def backdrop(width: int, height: int) -> np.ndarray:
    down = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to((1 - down) * NIGHT + down * DAWN, (height, width, 3))


def put(picture: np.ndarray, drawn: torch.Tensor, mask: torch.Tensor, left: int) -> None:
    """Blends a drawn figure over a picture, its left edge in column `left`."""
    inside = slice(max(-left, 0), min(drawn.shape[1], picture.shape[1] - left))
    area = picture[:, left + inside.start : left + inside.stop]
    cover = mask.numpy()[:, inside, None] / 255
    area[:] = (1 - cover) * area + cover * drawn.numpy()[:, inside]


def halved(picture: torch.Tensor) -> torch.Tensor:
    """Averages squares of 2x2 pixels, which makes the maps' hard edges smooth."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    return picture.float().reshape(height, 2, width, 2, -1).mean(dim=(1, 3))


def looks(body: Body, motion: Motion) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draws the five looks of the first five frames: shaded, depth, normal, semantic, skeleton; each with its mask."""
    maps = render_guidance(body, motion)
    shaded = preview(body, motion)
    pictures = [shaded[0], maps.depth[1], maps.normal[2], maps.semantic_map[3], maps.dwpose[4]]
    masks = [*maps.mask[:4], (maps.dwpose[4].amax(dim=-1) > 0).to(torch.uint8) * 255]
    return [(halved(picture), halved(mask)[..., 0]) for picture, mask in zip(pictures, masks)]


def icon(body: Body) -> Image.Image:
    jump = perform("jumping jacks", body, 12, 12 / 1.1)[5:6]
    filmed = frame_person(jump, body, 2 * ICON, 2 * ICON, View(azimuth=-12, elevation=4, fill=0.9))
    maps = render_guidance(body, filmed)
    picture = backdrop(ICON, ICON).copy()
    put(picture, halved(maps.normal[0]), halved(maps.mask[0])[..., 0], 0)
    bones = (maps.dwpose[0].amax(dim=-1) > 0).to(torch.uint8) * 255
    put(picture, halved(maps.dwpose[0]), halved(bones)[..., 0] * 0.9, 0)
    made = Image.fromarray(picture.round().astype(np.uint8))
    corners = Image.new("L", (4 * ICON, 4 * ICON))
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, 4 * ICON - 1, 4 * ICON - 1), radius=4 * ICON // 6, fill=255)
    made.putalpha(corners.resize(made.size, Image.Resampling.LANCZOS))
    return made


def banner(body: Body) -> Image.Image:
    width, height = BANNER
    picture = backdrop(width, height).copy()
    moments = perform("disco", body, 40, 40 / 4.3)[:: 40 // 8][:FIGURES]
    filmed = frame_person(moments, body, 2 * height, 2 * height, View(azimuth=-20, elevation=4, fill=0.74))
    for i, (drawn, mask) in enumerate(looks(body, filmed)):
        put(picture, drawn, mask, round((i + 0.5) * width / FIGURES - height / 2))
    made = Image.fromarray(picture.round().astype(np.uint8))
    draw = ImageDraw.Draw(made)
    draw.text((width / 2, 664), "ComfyUI-Champ", font=ImageFont.load_default(60), fill=(236, 236, 244), anchor="mm")
    return made


def main() -> None:
    body = load_free_body().with_betas(free_body_betas(0.7, 27, 0.6, 0.42, 1.74))
    for name, made in (("icon.png", icon(body)), ("banner.png", banner(body))):
        path = FOLDER / name
        made.save(path, optimize=True)
        print(f"wrote {path} ({path.stat().st_size // 1024} kB)")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
