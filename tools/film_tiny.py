"""Films what Champ-Tiny makes, for the README and the thumbnails of templates: python -m tools.film_tiny

Runs Champ 01 for both people of PEOPLE, and Champ 08. Writes docs/images/quick_start.webp, in which they dance side by
side, and the thumbnails of the templates in which Champ-Tiny draws; prints how long each took, and the most memory that
the server has held."""

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
SHOWN = 29  # the frame of the thumbnails
LONG = 5, 17, 29  # those of the long video
WAVING = 12  # that of the video with its background kept
COMPARISON = "Picture, result, normal and skeleton maps"
KEPT = "Picture, as drawn, with its background kept"


def columns(server: Server, workflow: Path, comparison: str, person: int) -> tuple[np.ndarray, float]:
    """The columns of a comparison (columns, F, H, W, 3) for a person, and frames per second."""
    prompt = json.loads(workflow.read_text(encoding="utf-8"))
    dev.only("ChampExamplePerson", prompt)["inputs"]["person"] = person
    node = dev.titled(comparison, prompt)
    started = time.monotonic()
    results = server.run(prompt, dev.progress_line(prompt))["outputs"]
    print(f"{workflow.stem}, person {person}: {time.monotonic() - started:.0f} s{most_memory(server)}", flush=True)
    film = Image.open(io.BytesIO(server.view(results[node]["images"][0])))
    frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    shown = sum(key.startswith("image_") for key in dev.only("ChampCompareGrid", prompt)["inputs"])
    return np.stack(np.split(frames, shown, axis=2)), prompt[node]["inputs"]["fps"]


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
    with dev.temporary_server(dev.HOST / "ComfyUI") as server:
        quick_start = dev.QUICK_START
        (first, fps), (second, _) = (columns(server, quick_start, COMPARISON, person) for person in PEOPLE)
        kept, _ = columns(server, quick_start.with_name("keep_background.json"), KEPT, PEOPLE[1])
    picture, dance, normal, skeleton = first
    film = [row(list(frames), SIZE) for frames in zip(picture, dance, normal, second[1], second[0])]
    save_animation("quick_start.webp", torch.stack(film), fps)
    save_thumbnail("quick_start", row([picture[SHOWN], dance[SHOWN]], (200, 267)))
    save_thumbnail("your_video", row([skeleton[SHOWN], picture[SHOWN], dance[SHOWN]], (150, 200)))
    save_thumbnail("long_video", row([second[1][i] for i in LONG], (150, 200)))
    save_thumbnail("keep_background", row([kept[0][WAVING], kept[2][WAVING]], (200, 200)))


if __name__ == "__main__":
    main()
