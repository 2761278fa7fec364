"""Champ and Animate Anyone in a real ComfyUI: small random models of the official layout, through the API."""

import copy
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from champ.server import Failure

from .small_models import FRAMES, HEIGHT, WIDTH, install, small

EXAMPLES = ["champ_video", "ksampler", "custom_sampling", "calibrated_reference", "magic_animate"]


@pytest.fixture(scope="module")
def models(server):
    """Small models in the server's folders; returns its models folder."""
    install(server.base)
    return server.base / "models"


def pictures(server, entry: dict) -> np.ndarray:
    """The animation that a workflow saved, (F, H, W, 3)."""
    items = [item for node in entry["outputs"].values() for item in node.get("images", ())]
    saved = [item for item in items if item["type"] == "output" and item["filename"].endswith(".webp")]
    [item] = [item for item in saved if "comparison" not in item["filename"]]
    animation = Image.open(io.BytesIO(server.view(item)))
    frames = []
    for i in range(animation.n_frames):
        animation.seek(i)
        frames.append(np.asarray(animation.convert("RGB")))
    return np.stack(frames)


@pytest.fixture(scope="module")
def plain(server, models) -> np.ndarray:
    """What the example ksampler gives."""
    return pictures(server, server.run(small("ksampler")))


@pytest.fixture(scope="module")
def calibrated(server, models) -> dict:
    """The entry of the example calibrated_reference."""
    return server.run(small("calibrated_reference"))


def refused(server, prompt: dict) -> str:
    with pytest.raises(Failure) as failure:
        server.run(prompt)
    return str(failure.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(server, models, name):
    video = pictures(server, server.run(small(name)))
    frames = 2 * FRAMES - 1 if name == "ksampler" else FRAMES
    assert video.shape[:2] == (frames, HEIGHT) and video.std() > 1


@pytest.mark.parametrize("name", ["your_video_champ", "video_to_video"])
def test_own_video_and_photo_with_the_weights_of_a_set(server, models, name):
    own = {"LoadVideo": {"file": "two_people.mp4"}, "LoadImage": {"image": "person.png"}}
    prompt = small(name, **own, ImageScaleToTotalPixels={"megapixels": 0.01})
    outputs = server.run(prompt)["outputs"].values()
    assert any(item["filename"].endswith(".mp4") for node in outputs for item in node.get("images", ()))


def test_sets_in_other_layouts_are_offered_and_run(server, models, plain):
    """All networks in one file give the same video; folders as diffusers saves them are in the list as well."""
    from safetensors.torch import load_file

    state = {}
    for file in (models / "champ" / "animate_anyone").iterdir():
        network = {"motion_module": "denoising_unet"}.get(file.stem, file.stem)
        state |= {f"{network}.{key}": value for key, value in load_file(file).items()}
    save_file(state, models / "champ" / "animate_anyone.fp16.safetensors")
    folder = models / "champ" / "folders" / "denoising_unet"
    folder.mkdir(parents=True)
    (folder / "diffusion_pytorch_model.fp16.safetensors").touch()
    info = server.json("/object_info/ChampLoadModel")["ChampLoadModel"]["input"]["required"]["checkpoint_set"]
    assert info[1]["options"] == [
        "animate_anyone", "animate_anyone.fp16.safetensors", "champ", "champ_tiny", "folders", "magic_animate",
    ]  # fmt: skip
    one_file = small("ksampler", ChampLoadModel={"checkpoint_set": "animate_anyone.fp16.safetensors"})
    assert np.array_equal(pictures(server, server.run(one_file)), plain)


def test_comfyui_lists_and_loads_the_clip_vision_file(server):
    """A pickle with the names and sizes of the official file, of which a few tensors are enough to see that."""
    import torch

    norms = {f"vision_model.encoder.layers.{i}.layer_norm1.weight": torch.ones(1024) for i in (0, 22, 23)}
    positions = {"vision_model.embeddings.position_embedding.weight": torch.zeros(257, 1024)}
    file = server.base / "models" / "clip_vision" / "champ_image_encoder.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"vision_model.embeddings.position_ids": torch.arange(257)[None], **norms, **positions}, file)
    prompt = {
        "1": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": file.name}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    assert "ClipVisionModel" in json.dumps(server.run(prompt)["outputs"])
    file.unlink()


def test_the_seed_decides_the_video_and_repeats_it(server, models):
    def video(seed):
        return pictures(server, server.run(small("champ_video", ChampSampler={"seed": seed})))

    first, other = video(1), video(2)
    server.request("/free", {"unload_models": True, "free_memory": True})
    assert np.array_equal(first, video(1)) and not np.array_equal(first, other)


def test_the_sampler_and_its_parts_give_the_same_video(server, models):
    """Champ Sampler is the parts of custom_sampling in one node."""
    windows = {"length": 4, "overlap": 1, "schedule": "looped", "weights": "flat"}
    parts = small("custom_sampling", ChampTemporalAggregation=windows)
    one = copy.deepcopy(parts)
    for key in ("11", "12", "13", "14", "15"):
        del one[key]
    sampler = {"seed": 42, "steps": 2, "cfg": 3.5, "denoise": 1.0, "noise": "official", **windows}
    links = {"model": ["10", 0], "positive": ["10", 1], "negative": ["10", 2], "latent": ["10", 3]}
    one["16"] = {"class_type": "ChampSampler", "inputs": {**sampler, **links}}
    assert np.array_equal(pictures(server, server.run(parts)), pictures(server, server.run(one)))


def test_sampling_in_two_parts_gives_what_one_gives(server, models):
    """6 steps, which do not divide 1000, with ComfyUI's Split Sigmas between them."""
    whole = small("custom_sampling", ChampSigmas={"steps": 6})
    parts = copy.deepcopy(whole)
    parts["20"] = {"class_type": "SplitSigmas", "inputs": {"sigmas": ["15", 0], "step": 4}}
    parts["21"] = copy.deepcopy(parts["16"])
    parts["21"]["inputs"]["sigmas"] = ["20", 0]
    parts["22"] = {"class_type": "DisableNoise", "inputs": {}}
    parts["16"]["inputs"] |= {"noise": ["22", 0], "sigmas": ["20", 1], "latent_image": ["21", 0]}
    one, two = (pictures(server, server.run(prompt)).astype(int) for prompt in (whole, parts))
    assert abs(one - two).max() <= 1 and one.std() > 1


def test_reference_and_guidance_matter(server, models, plain):
    no_reference = pictures(server, server.run(small("ksampler", ChampEncodeReference={"strength": 0.0})))
    no_guidance = pictures(server, server.run(small("ksampler", ChampEncodeGuidance={"dwpose_strength": 0.0})))
    assert not np.array_equal(plain, no_reference) and not np.array_equal(plain, no_guidance)


@pytest.mark.parametrize(("sampler", "scheduler"), [("euler", "normal"), ("dpmpp_2m", "karras"), ("uni_pc", "simple")])
def test_other_samplers_run(server, models, sampler, scheduler):
    settings = {"sampler_name": sampler, "scheduler": scheduler}
    assert pictures(server, server.run(small("ksampler", KSampler=settings))).std() > 1


def test_video_to_video(server, models):
    """With little denoising the given video stays nearly what it was."""
    prompt = small("champ_video", ChampSampler={"denoise": 0.5, "steps": 2})
    prompt["20"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["7", 1], "vae": ["2", 0]}}
    prompt["11"]["inputs"]["latent"] = ["20", 0]
    assert len(pictures(server, server.run(prompt))) == FRAMES


def test_a_lora_changes_the_video_and_freeu_runs(server, models, plain):
    """Kohya's names; ComfyUI maps them onto the denoiser's blocks as onto any SD1.5 UNet."""
    import torch

    down = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"{down}.lora_down.weight": torch.randn(4, 32), f"{down}.lora_up.weight": torch.randn(32, 4),
            f"{down}.alpha": torch.tensor(4.0)}  # fmt: skip
    (models / "loras").mkdir(parents=True, exist_ok=True)
    save_file(lora, models / "loras" / "small.safetensors")
    prompt = small("ksampler")
    loader = {"model": ["1", 0], "lora_name": "small.safetensors", "strength_model": 1.0}
    prompt["20"] = {"class_type": "LoraLoaderModelOnly", "inputs": loader}
    prompt["10"]["inputs"]["model"] = ["20", 0]
    assert not np.array_equal(plain, pictures(server, server.run(prompt)))
    warning = "[Champ] A LoRA on the model was loaded without its attention layers"
    assert warning not in server.log.read_text()
    ff = "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"
    half = {f"{ff}.lora_A.weight": torch.randn(4, 128), f"{ff}.lora_B.weight": torch.randn(32, 4)}
    save_file(half, models / "loras" / "half.safetensors")
    prompt["20"]["inputs"]["lora_name"] = "half.safetensors"
    server.run(prompt)
    assert warning in server.log.read_text()
    prompt["20"] = {"class_type": "FreeU_V2", "inputs": {"model": ["1", 0], "b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}}
    assert pictures(server, server.run(prompt)).std() > 1
    assert np.array_equal(plain, pictures(server, server.run(small("ksampler"))))


def test_a_controlnet_steers_every_window(server, models, plain):
    prompt = small("ksampler")
    prompt["20"] = {"class_type": "TestSmallControlNet", "inputs": {"model": ["1", 0]}}
    hints = {"positive": ["10", 1], "negative": ["10", 2], "control_net": ["20", 0], "image": ["7", 1],
             "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}  # fmt: skip
    prompt["21"] = {"class_type": "ControlNetApplyAdvanced", "inputs": hints}
    prompt["12"]["inputs"] |= {"positive": ["21", 0], "negative": ["21", 1]}
    steered = pictures(server, server.run(prompt))
    assert all(not np.array_equal(a, b) for a, b in zip(plain, steered, strict=True))


def test_conditioning_with_an_area_is_refused(server, models):
    prompt = small("ksampler")
    area = {"conditioning": ["10", 1], "width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0}
    prompt["20"] = {"class_type": "ConditioningSetArea", "inputs": area}
    prompt["12"]["inputs"]["positive"] = ["20", 0]
    assert "belong to the whole picture" in refused(server, prompt)


def test_magic_animate_with_other_samplers_calibration_and_without_text(server, models):
    """Its ReferenceNet runs beside the denoiser, once more for every warp."""
    plain = pictures(server, server.run(small("magic_animate")))
    prompt = small("magic_animate")
    camera = {"width": WIDTH, "height": HEIGHT, "azimuth": "15", "elevation": "0", "fill": 0.45, "fov": 2.93}
    motion = {"motion": ["7", 0], "body": ["6", 0]}
    prompt["20"] = {"class_type": "ChampCamera", "inputs": {**camera, **motion, "follow": False}}
    calibration = {
        "reference": ["10", 0], "reference_net": ["1", 1], "vae": ["2", 0], "reference_motion": ["20", 0], **motion,
        "points": "torso", "masking": "paper", "group_size": 2, "seed": 0, "max_warps": 3, "strength": 1.0,
        "start": 0.0, "end": 1.0,
    }  # fmt: skip
    prompt["21"] = {"class_type": "ChampCalibrateReference", "inputs": calibration}
    prompt["11"]["inputs"]["reference"] = ["21", 0]
    entry = server.run(prompt)
    assert entry["outputs"]["21"]["images"]
    assert not np.array_equal(plain, pictures(server, entry))

    prompt = small("magic_animate")
    settings = {"seed": 1, "steps": 2, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    links = {"model": ["11", 0], "positive": ["11", 1], "negative": ["11", 2], "latent_image": ["11", 3]}
    prompt["12"] = {"class_type": "KSampler", "inputs": {**settings, **links}}
    assert pictures(server, server.run(prompt)).std() > 1
    del prompt["11"]["inputs"]["text"]
    assert "MagicAnimate reads text, but none is connected" in refused(server, prompt)


def test_merged_models_run(server, models, plain):
    prompt = small("ksampler")
    prompt["20"] = copy.deepcopy(prompt["1"])
    prompt["20"]["inputs"]["checkpoint_set"] = "champ"
    merge = {"model1": ["1", 0], "model2": ["20", 0], "ratio": 0.5}
    prompt["21"] = {"class_type": "ModelMergeSimple", "inputs": merge}
    prompt["10"]["inputs"]["model"] = ["21", 0]
    assert not np.array_equal(plain, pictures(server, server.run(prompt)))


def test_a_failed_run_leaves_the_host_usable(server, models):
    refused(server, small("ksampler", ChampTemporalAggregation={"length": 40, "overlap": 4}))
    assert pictures(server, server.run(small("ksampler"))).std() > 1


def test_sampling_can_be_cancelled(server, models):
    interrupted = []

    def interrupt(nodes):
        if not interrupted and any(n["node_id"] == "11" and n["value"] > 1 for n in nodes.values()):
            server.request("/interrupt", {})
            interrupted.append(True)

    entry = server.run(small("champ_video", ChampSampler={"steps": 200}), interrupt)
    assert interrupted and "execution_interrupted" in [kind for kind, _ in entry["status"]["messages"]]
    assert len(pictures(server, server.run(small("champ_video")))) == FRAMES


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ksampler", {"ChampLoadModel": {"checkpoint_set": "../champ"}}, "no checkpoint set called '../champ'"),
        ("ksampler", {"ChampLoadModel": {"checkpoint_set": "/etc"}}, "no checkpoint set called '/etc'"),
        ("ksampler", {"ChampLoadModel": {"checkpoint_set": "lost"}}, "press Download files... in Load Champ Model, or"),
        ("ksampler", {"ChampLoadModel": {"checkpoint_set": "lost"}}, "or choose champ_tiny, which comes with the pack"),
        ("ksampler", {"ChampTemporalAggregation": {"length": 40, "overlap": 4}}, "windows of up to 32 frames"),
        ("ksampler", {"ChampTemporalAggregation": {"length": 4, "overlap": 4}}, "overlap of 4 frames does not fit"),
        ("ksampler", {"ChampEncodeGuidance": {"depth": ["7", 0]}}, "no encoder for depth"),
        ("ksampler", {"ChampEncodeGuidance": {"width": 60, "height": 96}}, "not multiples of 8"),
        (
            "champ_video",
            {"ChampSampler": {"model": ["1", 0], "length": 33, "overlap": 1}},
            "windows of up to 32 frames",
        ),
        ("champ_video", {"ChampEncodeGuidance": {"mask": ["4", 1]}}, "connect the mask of the same maps"),
        ("champ_video", {"ChampEncodeReference": {"width": 100}}, "100x96 pixels are not multiples of 8"),
        ("champ_video", {"ChampEncodeGuidance": {"start": 0.8, "end": 0.2}}, "start 0.8 and end 0.2"),
    ],
)
def test_bad_input_is_explained(server, models, name, changes, message):
    assert message in refused(server, small(name, **changes))


def test_no_maps_are_refused(server, models):
    prompt = small("ksampler")
    del prompt["8"]["inputs"]["dwpose"]
    assert "No maps are connected" in refused(server, prompt)


def test_maps_of_different_length_are_refused(server, models):
    prompt = small("custom_sampling")
    prompt["20"] = copy.deepcopy(prompt["5"])
    prompt["20"]["inputs"]["count"] = 3
    prompt["7"]["inputs"]["normal"] = ["20", 1]
    assert "differ in their number of frames" in refused(server, prompt)


def test_guidance_of_two_clips_cannot_be_added(server, models):
    prompt = small("custom_sampling")
    prompt["20"] = copy.deepcopy(prompt["5"])
    prompt["20"]["inputs"]["count"] = 3
    prompt["6"]["inputs"]["depth"] = ["20", 0]
    assert "The two guidances differ in frames (3 and 6)" in refused(server, prompt)


def test_another_model_is_refused(server, models):
    """Mixed families, and a set of which half is missing."""
    prompt = small("ksampler")
    prompt["20"] = copy.deepcopy(prompt["1"])
    prompt["20"]["inputs"]["checkpoint_set"] = "champ"
    prompt["10"]["inputs"]["model"] = ["20", 0]
    assert "comes from a checkpoint set of Animate Anyone" in refused(server, prompt)
    half = models / "champ" / "half"
    half.mkdir()
    shutil.copy(models / "champ" / "champ" / "denoising_unet.safetensors", half)
    changes = {"checkpoint_set": "half"}
    assert "lacks reference_unet" in refused(server, small("ksampler", ChampLoadModel=changes))


def test_calibration_changes_what_is_read_and_nothing_else(server, models, calibrated):
    """With no strength the video is the one without the node; the sheet of warps is offered for looking at."""
    report = calibrated["outputs"]["13"]["text"][0]
    assert f"{FRAMES} of {FRAMES} frames aligned: {FRAMES} by auto" in report
    assert Image.open(io.BytesIO(server.view(calibrated["outputs"]["12"]["images"][0]))).width > 64
    plain = small("calibrated_reference")
    plain["14"]["inputs"]["reference"] = ["8", 0]
    plain = pictures(server, server.run(plain))
    off = small("calibrated_reference", ChampCalibrateReference={"strength": 0.0})
    assert np.array_equal(pictures(server, server.run(off)), plain)
    assert not np.array_equal(pictures(server, calibrated), plain)


def test_where_the_person_is_from_motions_or_from_keypoints(server, models):
    """The same points give the same alignment. Also with masks, and with Animate Anyone."""
    prompt = small("calibrated_reference", ChampLoadModel={"checkpoint_set": "animate_anyone"})
    for name in ("depth", "normal", "semantic_map"):
        del prompt["11"]["inputs"][name]
    camera = {"width": WIDTH, "height": HEIGHT, "azimuth": "15", "elevation": "0", "fill": 0.45, "fov": 2.93}
    prompt["20"] = {"class_type": "ChampCamera", "inputs": {**camera, "motion": ["9", 0], "body": ["4", 0],
                                                            "follow": False}}  # fmt: skip
    prompt["21"] = {"class_type": "ChampRenderMaps", "inputs": {"motion": ["20", 0], "body": ["4", 0]}}
    prompt["8"]["inputs"]["image"] = ["21", 1]
    inputs = prompt["12"]["inputs"]
    inputs |= {"reference_motion": ["20", 0], "masking": "paper", "points": "torso"}
    del inputs["reference_keypoints"]
    by_motion = server.run(prompt)
    report = by_motion["outputs"]["13"]["text"][0].splitlines()
    assert report[0] == f"{FRAMES} of {FRAMES} frames aligned: {FRAMES} by torso."
    low, high = (float(word) for word in report[1].removeprefix("Scale ").removesuffix(".").split(" to "))
    assert 1.7 < low <= high < 2.1
    for name in ("reference_motion", "motion", "body"):
        del inputs[name]
    inputs |= {"reference_keypoints": ["21", 5], "pose_keypoints": ["10", 5]}
    assert "connect reference_mask, or the motion and body" in refused(server, prompt)
    inputs |= {"reference_mask": ["21", 4], "mask": ["10", 4]}
    by_keypoints = server.run(prompt)
    assert by_keypoints["outputs"]["13"]["text"][0].splitlines()[:2] == report[:2]
    assert np.array_equal(pictures(server, by_keypoints), pictures(server, by_motion))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"motion": None},
            "does not know where the person is in the frames; connect motion and body, or pose_keypoints",
        ),
        ({"reference_keypoints": None}, "in the reference image; connect reference_motion and body, or"),
        ({"body": None}, "A motion is connected but no body"),
        ({"start": 0.8, "end": 0.2}, "The calibrated reference has start 0.8 and end 0.2"),
        ({"masking": "paper", "reference_mask": ["6", 1], "mask": ["21", 4]}, "The mask has 4 frames but 6 are needed"),
        ({"motion": ["20", 0]}, "calibrated for 4 frames of 64x96 pixels, the latents have 6"),
    ],
)
def test_bad_input_of_a_calibration_is_explained(server, models, changes, message):
    prompt = small("calibrated_reference")
    prompt["20"] = {"class_type": "ChampRetimeMotion", "inputs": {
        "motion": ["9", 0], "start": 0, "count": 4, "fps": 0.0, "speed": 1.0, "repeat": "off", "total": 1}}  # fmt: skip
    prompt["21"] = {"class_type": "ChampRenderMaps", "inputs": {"motion": ["20", 0], "body": ["4", 0]}}
    inputs = prompt["12"]["inputs"]
    inputs |= changes
    for name in [name for name, value in inputs.items() if value is None]:
        del inputs[name]
    assert message in refused(server, prompt)


def test_an_empty_mask_masks_nothing(server, models, calibrated):
    """As Load Image gives it with a picture that has no transparency, 64x64 pixels."""
    prompt = small("calibrated_reference", ChampCalibrateReference={"masking": "paper", "reference_mask": ["6", 1]})
    entry = server.run(prompt)
    assert "in the reference image is empty, so nothing is masked" in entry["outputs"]["13"]["text"][0]
    assert np.array_equal(pictures(server, entry), pictures(server, calibrated))


def test_a_picture_without_a_person_stays_as_it_is(server, models):
    """A report, no error, and the video is that of the reference alone."""
    prompt = small("calibrated_reference", LoadImage={"image": "example.png"})  # noise
    entry = server.run(prompt)
    assert "Nobody was found in the reference image" in entry["outputs"]["13"]["text"][0]
    prompt["14"]["inputs"]["reference"] = ["8", 0]
    assert np.array_equal(pictures(server, entry), pictures(server, server.run(prompt)))
