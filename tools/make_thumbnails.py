"""Draws the moving thumbnails of the built-in motions for the picker: python -m tools.make_thumbnails"""

from pathlib import Path

import torch
from PIL import Image

from champ.body.free import free_body_betas, load_free_body
from champ.motion.camera import View, frame_person
from champ.motion.presets import PRESETS, perform
from champ.render.preview import preview

FOLDER = Path(__file__).resolve().parents[1] / "js" / "motions"
WIDTH, HEIGHT = 128, 160
FRAMES = 28  # at most, and at most FPS of them in a second
FPS = 14


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    body = load_free_body().with_betas(free_body_betas(0.6, 28, 0.55, 0.45, 1.72))
    total = 0
    for name, preset in PRESETS.items():
        frames = min(FRAMES, round(preset.seconds * FPS))
        motion = perform(name, body, frames, frames / preset.seconds)
        filmed = frame_person(motion, body, WIDTH, HEIGHT, View(azimuth=-25, elevation=6, fill=0.94))
        pictures = [Image.fromarray(picture.numpy()) for picture in preview(body, filmed)]
        path = FOLDER / f"{name.replace(' ', '_')}.webp"
        about = {"duration": round(1000 * preset.seconds / frames), "loop": 0, "quality": 60, "method": 6}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], **about)
        total += path.stat().st_size
        print(f"wrote {path} ({len(pictures)} frames, {path.stat().st_size // 1024} kB)")
    print(f"{total // 1024} kB in total")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
