"""The person to begin with, and the small model that comes with the pack, in a real ComfyUI."""

import io

import numpy as np
import pytest
from PIL import Image

from champ.server import Refused


def person(number: int, width: int = 96, height: int = 128) -> dict:
    inputs = {"person": number, "width": width, "height": height}
    return {
        "1": {"class_type": "ChampExamplePerson", "inputs": inputs},
        "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
        "3": {"class_type": "ChampRenderMaps", "inputs": {"motion": ["1", 2], "body": ["1", 3]}},
        "4": {"class_type": "MaskToImage", "inputs": {"mask": ["3", 4]}},
        "picture": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "mask": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        "body": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
    }


def shown(server, prompt: dict) -> dict[str, np.ndarray]:
    entry = server.run(prompt)

    def view(node: str) -> np.ndarray:
        content = server.view(entry["outputs"][node]["images"][0])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)

    return {name: view(name) for name in ("picture", "mask", "body")}


def test_mask_and_body_are_those_of_the_picture(server):
    found = shown(server, person(3))
    assert found["picture"].shape == (128, 96, 3)
    dressed, bare = (found[name][..., 0] > 127 for name in ("mask", "body"))
    assert 0.03 < bare.mean() < 0.5
    assert (dressed & bare).sum() > 0.9 * bare.sum()  # hair and clothes stand off the body, shoes cover it


def test_a_number_is_a_person(server):
    first, other, again = (shown(server, person(number))["picture"] for number in (4, 5, 4))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 10


def test_the_shipped_model_is_offered_beside_those_of_the_user(server):
    nodes = server.json("/object_info")
    sets = nodes["ChampLoadModel"]["input"]["required"]["checkpoint_set"]
    assert "champ_tiny" in sets[1]["options"]
    assert "champ_tiny_vae.safetensors" in nodes["VAELoader"]["input"]["required"]["vae_name"][0]


@pytest.mark.parametrize(
    "changes, message", [({"person": -1}, "smaller than min"), ({"width": 32}, "smaller than min")]
)
def test_what_is_no_person_is_refused(server, changes, message):
    prompt = person(1)
    prompt["1"]["inputs"] |= changes
    with pytest.raises(Refused, match=message):
        server.run(prompt)
