"""Films the quick start with the weights that are there, for the README: python -m tools.film_quick_start

Runs Champ 01 for both people of PEOPLE. Writes docs/images/quick_start.webp, in which they dance side by side, and the
thumbnail of the template; prints how long each took, and the most memory that the server has held."""

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
SHOWN = 29  # the frame of the thumbnail
COMPARISON = "Picture, result, normal and skeleton maps"


def pictures(server: Server, person: int) -> tuple[np.ndarray, float]:
    """The four columns of the comparison (4, F, H, W, 3) for a person, and frames per second."""
    prompt = json.loads(dev.QUICK_START.read_text(encoding="utf-8"))
    dev.only("ChampExamplePerson", prompt)["inputs"]["person"] = person
    comparison = dev.titled(COMPARISON, prompt)
    started = time.monotonic()
    results = server.run(prompt, dev.progress_line(prompt))["outputs"]
    print(f"person {person}: {time.monotonic() - started:.0f} s{most_memory(server)}", flush=True)
    film = Image.open(io.BytesIO(server.view(results[comparison]["images"][0])))
    frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    return np.stack(np.split(frames, 4, axis=2)), prompt[comparison]["inputs"]["fps"]


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
        (first, fps), (second, _) = (pictures(server, person) for person in PEOPLE)
    picture, dance, normal, _ = first
    film = [row(list(frames), SIZE) for frames in zip(picture, dance, normal, second[1], second[0])]
    save_animation("quick_start.webp", torch.stack(film), fps)
    save_thumbnail("quick_start", row([picture[SHOWN], dance[SHOWN]], (200, 267)))


if __name__ == "__main__":
    main()
