"""Small random models and what the official implementations compute with them (tests/data/champ, animate_anyone,
magic_animate).

checkpoints.json lists each file's tensors; their values are a fixed function of seed, family, file, name and shape.
The other files hold inputs and outputs of the official code in float32 (diffusers 0.24, CPU): guidance features,
ReferenceNet's tokens ("bank"), single forward passes, 20-step clips, and pictures after the official resizing."""

import functools
import hashlib
import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

import dev

DATA = Path(__file__).parents[1] / "data"
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or dev.HOST / "ComfyUI").resolve()
WIDTH, HEIGHT = 96, 64  # of the golden clips, in pixels


if (COMFYUI / "comfy").is_dir():
    sys.path.append(str(COMFYUI))  # behind the checkout: both have a `nodes`
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def pytest_pycollect_makemodule(module_path, parent):
    if not (COMFYUI / "comfy").is_dir():
        pytest.skip("no ComfyUI: run the tests with `python dev.py test`, or set COMFYUI_PATH", allow_module_level=True)


# --- weights ------------------------------------------------------------------------------------------------------

GAMMA = 0x9E3779B97F4A7C15
U64 = (1 << 64) - 1


def splitmix(z: np.ndarray) -> np.ndarray:
    """splitmix64: counters (as uint64 arrays) to random bits."""
    z = z + np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(seed: int, name: str, count: int) -> np.ndarray:
    """`count` numbers in (-1, 1) from a stream that the name (FNV-1a) and the seed select; 24 bits each."""
    digest = functools.reduce(lambda h, byte: (h ^ byte) * 0x100000001B3 & U64, name.encode(), 0xCBF29CE484222325)
    start = splitmix(np.array([digest], np.uint64) ^ splitmix(np.array([seed], np.uint64)))
    bits = splitmix(start + np.arange(count, dtype=np.uint64) * np.uint64(GAMMA)) >> np.uint64(40)
    return (bits.astype(np.float64) + 0.5) / 2**23 - 1


# Standard deviation times sqrt(fan in), for "<file>/<tensor>"; the first that matches counts.
GAINS = {
    r"densepose_controlnet/controlnet_cond_embedding\.conv_in\.": 2.5,
    r"densepose_controlnet/controlnet_cond_embedding\.blocks\.": 1.9,
    r"densepose_controlnet/controlnet_cond_embedding\.conv_out\.": 0.7,
    r"densepose_controlnet/controlnet_(down_blocks|mid_block)\b": 0.6,
    r"motion(_module)?/.*\.to_[qk]\.": 1.4,
    r".*attn[12]\.to_[qk]\.": 1.5,
    r".*\.to_out\.0\.": 1.2,
    r".*\.ff\.net\.[02]\.": 1.2,
    r"(guidance_encoder_.*|pose_guider)/conv_in\.": 2.5,
    r"(guidance_encoder_.*|pose_guider)/blocks\.": 1.9,
    r"(guidance_encoder_.*|pose_guider)/conv_out\.": 0.35,
    r".*/time_embedding\.": 1.5,
    r".*\.time_emb_proj\.": 1.5,
    r".*/conv_out\.": 0.5,
    r"": 1.0,
}


def weight(seed: int, family: str, file: str, name: str, shape: list[int]) -> np.ndarray:
    if name.endswith("pos_encoder.pe"):
        positions, channels = np.arange(shape[1]), np.arange(0, shape[2], 2)
        angle = positions[:, None] * np.exp(channels * (-math.log(10000.0) / shape[2]))
        return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(shape).astype(np.float32)
    values = uniform(seed, f"{family}/{file}/{name}", math.prod(shape))
    layer, kind = name.rsplit(".", 1)
    if len(shape) > 1:
        gain = next(g for pattern, g in GAINS.items() if re.match(pattern, f"{file}/{name}"))
        values = values * (gain * math.sqrt(3) / math.sqrt(math.prod(shape[1:])))
    elif kind == "weight":
        values = 1 + 0.4 * values
    else:
        values = (0.25 if "norm" in layer else 0.15) * values
    return values.astype(np.float16).reshape(shape)


def digest(tensors: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name}{value.dtype}{tuple(value.shape)}".encode() + value.tobytes())
    return total.hexdigest()


# --- models -------------------------------------------------------------------------------------------------------


class Golden:
    """One family: its checkpoint files, written to a temporary folder, its models, and the official results.

    The models compute in float32 everywhere, as the official results do. A card would choose float16 for these files.
    """

    def __init__(self, name: str):
        self.name = name
        self.spec = json.loads((DATA / name / "checkpoints.json").read_text())
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{name}_", ignore_cleanup_errors=True)

    def weights(self, file: str) -> dict[str, np.ndarray]:
        keys = self.spec["files"][file]["keys"]
        return {key: weight(self.spec["seed"], self.spec["family"], file, key, shape) for key, shape in keys.items()}

    @functools.cached_property
    def folder(self) -> Path:
        folder = Path(self._temporary.name)
        for file in self.spec["files"]:
            save_file(self.weights(file), folder / f"{file}.safetensors")
        return folder

    @functools.cache  # noqa: B019
    def data(self, file: str) -> dict[str, torch.Tensor]:
        return load_file(DATA / self.name / f"{file}.safetensors")

    @functools.cached_property
    def files(self):
        from champ.model.checkpoint import find_set

        return find_set(self.folder)

    @functools.cached_property
    def encoders(self):
        from champ.model.loading import load_encoders

        return load_encoders(self.files)

    @functools.cached_property
    def net(self):
        from champ.model.loading import load_reference_net

        return load_reference_net(self.files, torch.float32)

    @functools.cached_property
    def model(self):
        from champ.model.loading import load_denoiser

        return load_denoiser(self.files, weight_dtype=torch.float32)

    @functools.cached_property
    def still_model(self):
        """The denoiser without motion modules."""
        from champ.model.loading import load_denoiser

        return load_denoiser(self.files, motion="none", weight_dtype=torch.float32)

    @property
    def clip_embeds(self) -> torch.Tensor:
        return self.data("reference")["clip_image_embeds"]

    @functools.cached_property
    def references(self):
        from champ.model.reference import encode_reference

        latents = self.data("reference")["ref_latents"] / 0.18215
        return encode_reference(self.net, latents, self.clip_embeds)

    def guidance(self, frames: int):
        """The official features of the first frames."""
        from champ.model.guidance import Guidance, Layer

        features = self.data("guidance")["feature_sum"][0].movedim(1, 0)[:frames]
        return Guidance((Layer(features),), frames, WIDTH, HEIGHT, self.files.family)

    def conditioning(self, frames: int):
        from champ.model.conditioning import conditioning

        return conditioning(self.net.context_dim, self.guidance(frames), self.references, self.clip_embeds)


class MagicAnimateGolden(Golden):
    """MagicAnimate's files, in its folders, and what its other inputs need."""

    def __init__(self, name: str = "magic_animate"):
        super().__init__(name)

    @functools.cached_property
    def folder(self) -> Path:
        """temporal_attention.ckpt has the names of a parallel trainer, and the whole UNet is in it."""
        folder = Path(self._temporary.name)
        for name in ("appearance_encoder", "densepose_controlnet", "temporal_attention"):
            (folder / name).mkdir()
        for name in ("appearance_encoder", "densepose_controlnet"):
            save_file(self.weights(name), folder / name / "diffusion_pytorch_model.safetensors")
        unet = {**self.weights("unet"), **self.weights("motion")}
        tensors = {f"module.{key}": torch.from_numpy(value) for key, value in unet.items()}
        file = folder / "temporal_attention" / "temporal_attention.ckpt"
        torch.save({"global_step": 0, "state_dict": tensors}, file)
        return folder

    @functools.cached_property
    def references(self):
        from champ.model.reference import encode_reference

        return encode_reference(self.net, self.data("reference")["ref_latents"] / 0.18215)

    @property
    def text(self) -> torch.Tensor:
        """What stands for the empty text."""
        return self.data("reference")["text_empty"]

    def pictures(self, name: str) -> torch.Tensor:
        """DensePose pictures, (F, H, W, 3) in 0..1."""
        with np.load(DATA / self.name / "pictures.npz") as file:
            return torch.from_numpy(file[name]).float() / 255

    def guidance(self, frames: int, name: str = "forward"):
        from champ.model.guidance import GuidanceMap, encode_guidance

        pictures = self.pictures(name)[:frames]
        return encode_guidance(self.encoders, {"densepose": GuidanceMap(pictures)}, WIDTH, HEIGHT)

    def conditioning(self, frames: int, name: str = "forward"):
        from champ.model.conditioning import conditioning

        guidance = self.guidance(frames, name)
        return conditioning(self.net.context_dim, guidance, self.references, text=self.text)


cached_golden = functools.cache(Golden)
cached_magic_animate = functools.cache(MagicAnimateGolden)


@pytest.fixture(scope="session")
def champ() -> Golden:
    return cached_golden("champ")


@pytest.fixture(scope="session")
def animate_anyone() -> Golden:
    return cached_golden("animate_anyone")


@pytest.fixture(scope="session")
def magic_animate() -> MagicAnimateGolden:
    return cached_magic_animate()


@pytest.fixture(scope="session", params=["champ", "animate_anyone"])
def family(request) -> Golden:
    return cached_golden(request.param)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|"""
    return float((a.double() - b.double()).norm() / b.double().norm())


def frames_first(x: torch.Tensor) -> torch.Tensor:
    """The official (1, C, F, h, w) as ComfyUI's (F, C, h, w)."""
    return x[0].movedim(1, 0)


def evaluate_noise(model, positive, negative, x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`evaluate` for a model that predicts the noise."""
    sampling = model.get_model_object("model_sampling")
    sigma = sampling.sigma(torch.tensor(float(t)))
    found = evaluate(model, positive, negative, x, t)
    # `evaluate` takes x / scale - v sigma / scale for the picture; here it is x - noise sigma.
    scale = (1 + sigma**2) ** 0.5
    return tuple((x * scale - (x / scale - v * sigma / scale)) / sigma for v in found)


def evaluate(model, positive, negative, x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The v predictions of both conditionings at timestep t for x_t (F, 4, h, w), evaluated as samplers do."""
    import comfy.model_management
    import comfy.sampler_helpers
    import comfy.samplers

    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    conds = {"positive": positive, "negative": negative}
    conds = {key: comfy.sampler_helpers.convert_cond(value) for key, value in conds.items()}
    conds = comfy.samplers.process_conds(model.model, x, conds, x.device)
    sigma = model.get_model_object("model_sampling").sigma(torch.tensor(float(t)))
    scale, sigmas = (1 + sigma**2) ** 0.5, sigma.expand(len(x)).to(x.device)
    with torch.no_grad():
        denoised = comfy.samplers.calc_cond_batch(
            model.model, [conds["positive"], conds["negative"]], x * scale, sigmas, model.model_options
        )
    return tuple((x / scale - d) * scale / sigma for d in denoised)
