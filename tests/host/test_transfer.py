"""The reference's shape and place in the driving motion, in the real host."""

import numpy as np
from PIL import Image


def test_the_reference_performs_the_motion_in_its_picture(server):
    def body(height):
        sliders = {"gender": 0.5, "age": 30, "height": height, "weight": 0.5, "muscle": 0.5, "proportions": 0.5}
        return {"class_type": "ChampFreeBody", "inputs": sliders}

    def clip(person, name, width, height, frames):
        options = {"motion": name, "frames": frames, "fps": 8.0, "loop": True, "travel": False}
        inputs = {"body": [person, 0], **options, "width": width, "height": height}
        return {"class_type": "ChampBuiltInMotion", "inputs": inputs}

    prompt = {
        "1": body(2.0),
        "2": body(1.5),
        "3": clip("1", "wave", 64, 64, 5),
        "4": clip("2", "turntable", 96, 128, 1),
        "5": {"class_type": "EmptyImage", "inputs": {"width": 48, "height": 64, "batch_size": 1, "color": 255}},
        "6": {"class_type": "ChampTransferMotion", "inputs": {
            "driving": ["3", 0], "reference": ["4", 0], "body": ["2", 0], "reference_image": ["5", 0],
            "placement": "follow", "figure_scale": 0.0}},
        "7": {"class_type": "ChampRenderMaps", "inputs": {"motion": ["6", 0], "body": ["2", 0]}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 1], "filename_prefix": "champ/transfer"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["6", 1], "filename_prefix": "champ/overlay"}},
    }  # fmt: skip
    entry = server.run(prompt)
    assert entry["outputs"]["6"]["animated"] == [True]

    def saved(name):
        items = entry["outputs"][name]["images"]
        files = [server.base / "output" / item["subfolder"] / item["filename"] for item in items]
        return [np.asarray(Image.open(file).convert("RGB")) for file in files]

    maps, [overlay] = saved("8"), saved("9")
    assert len(maps) == 5 and all(picture.shape == (128, 96, 3) and picture.any() for picture in maps)
    assert overlay.shape == (128, 96, 3) and overlay[0, 0].tolist() == [0, 0, 255]
    assert overlay[64, 48].min() > 40  # the figure in the middle of the blue picture
