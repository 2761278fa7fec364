"""Draws the thumbnails for the pickers, of motions and of people: python -m tools.make_thumbnails"""

from pathlib import Path

import torch
from PIL import Image

from champ.body.free import free_body_betas, load_free_body
from champ.motion.camera import View, frame_person
from champ.motion.presets import PRESETS, perform
from champ.people.portrait import portrait
from champ.render.preview import preview

FOLDER = Path(__file__).resolve().parents[1] / "js"
WIDTH, HEIGHT = 128, 160
FRAMES = 28  # at most, and at most FPS of them in a second
FPS = 14
PEOPLE = 30  # as many as js/picker.js shows


def draw_motions(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    body = load_free_body().with_betas(free_body_betas(0.6, 28, 0.55, 0.45, 1.72))
    total = 0
    for name, preset in PRESETS.items():
        frames = min(FRAMES, round(preset.seconds * FPS))
        motion = perform(name, body, frames, frames / preset.seconds)
        filmed = frame_person(motion, body, WIDTH, HEIGHT, View(azimuth=-25, elevation=6, fill=0.94))
        pictures = [Image.fromarray(picture.numpy()) for picture in preview(body, filmed)]
        path = folder / f"{name.replace(' ', '_')}.webp"
        about = {"duration": round(1000 * preset.seconds / frames), "loop": 0, "quality": 60, "method": 6}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], **about)
        total += path.stat().st_size
        print(f"wrote {path} ({len(pictures)} frames, {path.stat().st_size // 1024} kB)")
    print(f"{total // 1024} kB in total")


def draw_people(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(PEOPLE):
        picture = Image.fromarray(portrait(2 * WIDTH, 2 * HEIGHT, number).picture.numpy())
        picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(folder / f"{number}.webp", quality=80, method=6)
    print(f"wrote {PEOPLE} people into {folder}")


if __name__ == "__main__":
    with torch.inference_mode():
        draw_motions(FOLDER / "motions")
        draw_people(FOLDER / "people")
