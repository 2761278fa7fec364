"""Films what Champ-Tiny makes, for the README and the thumbnails of templates: python -m tools.film_tiny

Runs Champ 01 for both people of PEOPLE, and Champ 05, shortened, and 08. Writes docs/images/quick_start.webp, in which
the two dance side by side, and the thumbnails of the templates in which Champ-Tiny draws; prints how long each took,
and the most memory that the server has held."""

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence

import dev
from champ.server import Server

from .make_pictures import save_animation, save_thumbnail

PEOPLE = 1, 6
SIZE = 216, 288  # of one person in the film
FPS = 12  # as in the templates
SHOWN = 29  # the frame of the thumbnails
WALK = 24  # frames of the long video, of which the thumbnail shows every sixth
WAVING = 12  # that of the video with its background kept


def compared(server: Server, prompt: dict, title: str) -> list[np.ndarray]:
    """Runs a workflow that compares side by side, and returns the columns, each (F, H, W, 3); one may be wider by a
    pixel. `title` is that of the node that saves them."""
    results = server.run(prompt, dev.progress_line(prompt))["outputs"]
    film = Image.open(io.BytesIO(server.view(results[dev.titled(title, prompt)]["images"][0])))
    frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    count = sum(name.startswith("image_") for name in dev.only("ChampCompareGrid", prompt)["inputs"])
    return np.array_split(frames, count, axis=2)


def filmed(server: Server, workflow: Path, title: str, person: int, **motion: int) -> list[np.ndarray]:
    """The columns of a workflow's comparison for a person; `motion` are inputs of Built-in Motion."""
    prompt = json.loads(workflow.read_text(encoding="utf-8"))
    dev.only("ChampExamplePerson", prompt)["inputs"]["person"] = person
    dev.only("ChampBuiltInMotion", prompt)["inputs"] |= motion
    started = time.monotonic()
    columns = compared(server, prompt, title)
    print(f"{workflow.stem}, person {person}: {time.monotonic() - started:.0f} s{most_memory(server)}", flush=True)
    return columns


def most_memory(server: Server) -> str:
    """In words; nothing where there is no /proc."""
    status = Path(f"/proc/{server.process.pid}/status")
    held = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return f", {int(held[1]) / 1e6:.2f} GB at most" if held else ""


def row(frames: list[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
    """Pictures side by side, (H, W, 3), each scaled to a size."""
    scaled = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
    return torch.from_numpy(np.concatenate(scaled, axis=1))


def main() -> None:
    quick_start, long_video, keep_background = (
        dev.WORKFLOWS / f"{name}.json" for name in ("quick_start", "long_video", "keep_background")
    )
    with dev.temporary_server(dev.HOST / "ComfyUI") as server:
        (picture, dance, normal, skeleton), (other, theirs, *_) = (
            filmed(server, quick_start, "Picture, result, normal and skeleton maps", person) for person in PEOPLE
        )
        _, walk, _ = filmed(server, long_video, "Picture, result and normal maps", PEOPLE[1], frames=WALK)
        still, _, kept = filmed(server, keep_background, "Picture, as drawn, with its background kept", PEOPLE[1])
    film = [row(list(frames), SIZE) for frames in zip(picture, dance, normal, theirs, other)]
    save_animation("quick_start.webp", torch.stack(film), FPS)
    save_thumbnail("quick_start", row([picture[SHOWN], dance[SHOWN]], (200, 267)))
    save_thumbnail("your_video", row([skeleton[SHOWN], picture[SHOWN], dance[SHOWN]], (150, 200)))
    save_thumbnail("long_video", row(list(walk[::6][:3]), (150, 150)))
    save_thumbnail("keep_background", row([still[WAVING], kept[WAVING]], (200, 200)))


if __name__ == "__main__":
    main()
