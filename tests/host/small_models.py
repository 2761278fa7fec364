"""Small random models of the official layouts, and the example workflows in sizes that fit them."""

import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import dev

API = dev.ROOT / "example_workflows" / "api"
WIDTH, HEIGHT, FRAMES = 64, 96, 6


def install(base: Path) -> None:
    """Puts checkpoint sets, a VAE, a picture and maps into the folders of a server, where they are not there yet."""
    if (base / "models" / "champ" / "champ").exists():
        return
    sys.path.append(str(dev.ROOT / "tests" / "model"))
    golden = pytest.importorskip("golden")
    for name in ("champ", "animate_anyone"):
        shutil.copytree(golden.cached_golden(name).folder, base / "models" / "champ" / name)
    shutil.copytree(golden.cached_magic_animate().folder, base / "models" / "champ" / "magic_animate")

    from comfy.taesd.taesd import TAESD

    torch.manual_seed(0)
    vae = TAESD()
    with torch.no_grad():  # ComfyUI's layers begin with whatever lies in memory
        for parameter in vae.parameters():
            torch.nn.init.kaiming_normal_(parameter) if parameter.ndim > 1 else parameter.zero_()
        # Pictures that are neither black nor white.
        last = vae.taesd_decoder[-1]
        last.weight *= 0.2 / vae.taesd_decoder(torch.randn(1, 4, 8, 8)).std()
        last.bias.fill_(0.5)
    folder = base / "models" / "vae_approx"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(vae.taesd_encoder.state_dict(), folder / "taesd_encoder.safetensors")
    save_file(vae.taesd_decoder.state_dict(), folder / "taesd_decoder.safetensors")
    picture = np.random.default_rng(0).integers(0, 255, (150, 90, 3), dtype=np.uint8)
    Image.fromarray(picture).save(base / "input" / "example.png")
    for name in ("depth", "normal", "semantic_map", "dwpose", "mask"):
        maps = base / "output" / "champ" / "small_00001" / name
        maps.mkdir(parents=True, exist_ok=True)
        for i in range(FRAMES):
            Image.new("RGB", (WIDTH, HEIGHT), (68, 1, 84)).save(maps / f"{i:04}.png")


def small(name: str, **changes: dict) -> dict:
    """An example with small pictures, few frames and steps, and without the files that cannot be had here.

    `changes` are inputs for all nodes of a class."""
    prompt = copy.deepcopy(json.loads((API / f"{name}.json").read_text(encoding="utf-8")))
    missing = [key for key, node in prompt.items() if node["class_type"] in ("CLIPLoader", "CLIPVisionLoader")]
    sizes = {"width": WIDTH, "height": HEIGHT, "frames": FRAMES, "steps": 2, "count": FRAMES, "vae_name": "taesd",
             "length": 4, "overlap": 1, "lossless": True}  # fmt: skip
    changes = {"ChampLoadMaps": {"folder": "champ/small_00001 [output]"}, **changes}
    for node in prompt.values():
        if node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "TestSmallText", "inputs": {"model": ["1", 0]}}
        inputs = node["inputs"]
        for key in [key for key, value in inputs.items() if isinstance(value, list) and value[0] in missing]:
            del inputs[key]
        if node["class_type"] != "ChampFreeBody":  # its height is a person's
            inputs |= {key: value for key, value in sizes.items() if key in inputs}
        inputs |= changes.get(node["class_type"], {})
    return {key: node for key, node in prompt.items() if key not in missing}
