"""Finding, reading and checking checkpoint files: what is wrong with a file or folder is said in one sentence."""

import pickle
import shutil

import pytest
import torch
from golden import relative
from safetensors.torch import save_file

from champ.model.checkpoint import CheckpointSet, check_tensors, find_set, kind_of, read, read_state
from champ.model.loading import load_denoiser, load_encoders, load_reference_net


@pytest.fixture
def folder(champ, tmp_path):
    """A copy of the set whose files may be changed."""
    copy = tmp_path / "set"
    shutil.copytree(champ.folder, copy)
    return copy


def change(folder, stem: str, edit) -> CheckpointSet:
    """The set with one file's tensors edited in place."""
    file = folder / f"{stem}.safetensors"
    state = read(file)
    save_file(edit({key: value.clone() for key, value in state.items()}), file)
    return find_set(folder)


def without(*keys: str):
    return lambda state: {key: value for key, value in state.items() if key not in keys}


def test_weights_are_those_of_the_official_runs(family):
    from golden import digest

    for file, entry in family.spec["files"].items():
        assert digest(family.weights(file)) == entry["sha256"], file


def test_finds_official_names(champ, animate_anyone):
    assert champ.files.family == "Champ"
    assert list(champ.files.encoders) == ["depth", "normal", "semantic_map", "dwpose"]
    assert animate_anyone.files.family == "Animate Anyone"
    assert list(animate_anyone.files.encoders) == ["pose"]


def test_finds_suffixed_names_and_prefers_safetensors(folder):
    (folder / "denoising_unet.safetensors").rename(folder / "denoising_unet_fp16.safetensors")
    (folder / "motion_module.pth").write_bytes(b"")
    files = find_set(folder)
    assert files.denoising_unet.file == folder / "denoising_unet_fp16.safetensors"
    assert files.motion_module.file == folder / "motion_module.safetensors"
    (folder / "denoising_unet-50000.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"more than one denoising_unet \(denoising_unet-50000.pth, .*keep one"):
        find_set(folder)


def test_mixed_families(folder):
    (folder / "pose_guider.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="mixes two families: .* Champ, pose_guider belongs to Animate Anyone; put"):
        find_set(folder)


def test_half_a_set(folder):
    (folder / "reference_unet.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks reference_unet .*copy the whole set"):
        find_set(folder)
    for file in folder.glob("guidance_encoder_*"):
        file.unlink()
    with pytest.raises(ValueError, match="denoising_unet.safetensors.* lacks reference_unet; guidance_encoder_depth"):
        find_set(folder)


def test_no_set(tmp_path):
    with pytest.raises(ValueError, match="has no file of a checkpoint set, but lacks denoising_unet"):
        find_set(tmp_path)
    with pytest.raises(ValueError, match="nowhere does not exist; put each checkpoint set into a folder"):
        find_set(tmp_path / "nowhere")


def test_no_motion_module(folder):
    (folder / "motion_module.safetensors").unlink()
    with pytest.raises(ValueError, match="has no motion_module file.* choose a motion module of AnimateDiff"):
        load_denoiser(find_set(folder))


def test_kinds(champ):
    for file in champ.files.denoising_unet, champ.files.reference_unet, champ.files.motion_module:
        assert kind_of(read_state(file)) == f"a {file.network.replace('_', ' ')}".replace("unet", "UNet")
    assert kind_of(["model.diffusion_model.out.2.weight"]) == "a complete text-to-image checkpoint"
    assert kind_of(["lora_unet_mid_block.lora_down.weight"]) == "a LoRA"
    assert kind_of(["control_model.input_hint_block.0.weight"]) == "a ControlNet"
    assert kind_of(["encoder.conv_in.weight", "decoder.conv_in.weight"]) == "a VAE"
    assert kind_of(["down_blocks.0.motion_modules.0.proj_in.weight"]) == "a motion adapter with the names of diffusers"
    assert kind_of([]) == "a file that this pack does not know"


def test_text_to_image_checkpoint_in_the_wrong_slot(folder):
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(1)}, folder / "denoising_unet.safetensors")
    with pytest.raises(ValueError, match="is a complete text-to-image checkpoint, but a denoising UNet belongs here"):
        load_denoiser(find_set(folder))


def test_files_in_each_others_place(folder, animate_anyone, caplog):
    files = find_set(folder)
    denoising, reference = files.denoising_unet.file, files.reference_unet.file
    denoising.rename(folder / "x")
    reference.rename(denoising)
    (folder / "x").rename(reference)
    with pytest.raises(
        ValueError, match="denoising_unet.safetensors is a reference UNet, but a denoising UNet belongs"
    ):
        load_denoiser(files)
    load_reference_net(files)  # a reference UNet with output layers cannot be told from a denoising UNet
    assert "reference_unet.safetensors holds 4 tensors that are not used: conv_norm_out" in caplog.text
    shutil.copy(animate_anyone.files.denoising_unet.file, denoising)
    with pytest.raises(ValueError, match="is a reference UNet, but a motion module belongs here"):
        load_denoiser(files, motion=animate_anyone.files.reference_unet.file)
    shutil.copy(animate_anyone.files.encoders["pose"].file, files.encoders["depth"].file)
    with pytest.raises(
        ValueError, match="depth.safetensors is an Animate Anyone pose guider, but a Champ guidance enc"
    ):
        load_encoders(files)


def test_every_wrong_tensor_is_counted_and_the_first_are_named(folder):
    def edit(state):
        state["mid_block.attentions.0.proj_in.bias"] = torch.zeros(3)
        missing = [f"up_blocks.1.resnets.{i}.norm1.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
        return without(*missing)(state)

    message = (
        r"denoising_unet.safetensors has the wrong tensors \(4 missing: up_blocks.1.resnets.0.norm1.weight, .*\.\.\.; "
        r"1 of another shape: mid_block.attentions.0.proj_in.bias \(3,\) instead of \(128,\)\)"
    )
    with pytest.raises(ValueError, match=message):
        load_denoiser(change(folder, "denoising_unet", edit))


def test_missing_tensors_that_sizes_are_read_from(folder):
    with pytest.raises(
        ValueError, match="reference_unet.safetensors does not fit: it has no tensor called conv_in.weight"
    ):
        load_reference_net(change(folder, "reference_unet", without("conv_in.weight")))


def test_what_is_not_used_may_be_left_out(champ, folder):
    """The official encoders have more attentions than they use."""
    used = set(champ.encoders.patcher.model["depth"].state_dict())
    files = change(folder, "guidance_encoder_depth", lambda s: {key: s[key] for key in used})
    pruned = load_encoders(files).patcher.model["depth"]
    assert all(
        torch.equal(v, champ.encoders.patcher.model["depth"].state_dict()[k]) for k, v in pruned.state_dict().items()
    )


def test_too_many_tensors_are_a_warning(caplog):
    check_tensors("file", {"a": (1,)}, {"a": (1,), "unused.b": (2,)}, unused="unused")
    assert caplog.text == ""
    check_tensors("file", {"a": (1,)}, {"a": (1,), "unused.b": (2,), "c": (3,)}, unused="unused")
    assert "file holds 1 tensors that are not used: c." in caplog.text


def test_motion_module_of_another_base(folder):
    def widen(state):
        return {k: torch.zeros(*[2 * n if n in (32, 64, 128) else n for n in v.shape]) for k, v in state.items()}

    with pytest.raises(
        ValueError, match="motion_module.safetensors does not fit: its motion modules are made for another"
    ):
        load_denoiser(change(folder, "motion_module", widen))


def test_animatediff_motion_module_in_place_of_the_sets_own(champ, tmp_path):
    state = {f"module.{k}": v for k, v in read_state(champ.files.motion_module).items() if "mid_block" not in k}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "mm.ckpt")
    unet = load_denoiser(champ.files, motion=tmp_path / "mm.ckpt").model.diffusion_model
    assert not any(key.startswith("middle_block.motion") for key in unet.state_dict())
    own = champ.model.model.diffusion_model.state_dict()
    for key, value in unet.state_dict().items():
        assert torch.equal(value, own[key]), key


def test_combined_file_and_pth(champ, folder):
    state = {**read(folder / "denoising_unet.safetensors"), **read(folder / "motion_module.safetensors")}
    torch.save(state, folder / "denoising_unet.pth")
    for stem in "denoising_unet", "motion_module":
        (folder / f"{stem}.safetensors").unlink()
    found = load_denoiser(find_set(folder)).model.diffusion_model.state_dict()
    for key, value in champ.model.model.diffusion_model.state_dict().items():
        assert torch.equal(value, found[key]), key


def test_reading_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    (tmp_path / "x.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    with pytest.raises(ValueError, match=r"x.pth was refused and nothing in it was run: it calls \w+.open"):
        read(tmp_path / "x.pth")
    torch.save({"a": Evil()}, tmp_path / "y.pth")
    with pytest.raises(ValueError, match=r"y.pth was refused and nothing in it was run: it calls \w+.open"):
        read(tmp_path / "y.pth")
    (tmp_path / "z.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="z.safetensors cannot be read as a file of tensors"):
        read(tmp_path / "z.safetensors")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_fp8_storage(champ, weight_dtype):
    model = load_denoiser(champ.files, weight_dtype=weight_dtype)
    unet = model.model.diffusion_model
    dtype = torch.float8_e5m2 if weight_dtype.endswith("e5m2") else torch.float8_e4m3fn
    assert {p.dtype for p in unet.parameters()} == {dtype}
    pe = [buffer for name, buffer in unet.named_buffers() if name.endswith(".pe")]
    assert len(pe) == 42 and all(buffer.dtype == torch.float32 for buffer in pe)
    rounded = load_denoiser(champ.files).model.diffusion_model
    rounded.load_state_dict({key: value.float() for key, value in unet.state_dict().items()})
    x, t, context = torch.randn(2, 4, 8, 12), torch.tensor([499.0, 499.0]), torch.zeros(2, 1, 64)
    with torch.no_grad():
        assert relative(unet(x, t, context), rounded(x, t, context)) < 1e-6


@pytest.mark.parametrize("kind", ["scale_weight", "weight_scale", "int8"])
def test_weights_with_scales_are_refused(folder, kind):
    """Their numbers are not the weights."""

    def edit(state):
        if kind == "int8":
            return state | {"conv_in.weight": state["conv_in.weight"].to(torch.int8)}
        name = "mid_block.attentions.0.proj_in"
        return state | {
            f"{name}.weight": state[f"{name}.weight"].to(torch.float8_e4m3fn),
            f"{name}.{kind}": torch.ones(()),
        }

    with pytest.raises(
        ValueError, match="denoising_unet.safetensors has weights of 8 bits with a scale for each layer"
    ):
        load_denoiser(change(folder, "denoising_unet", edit))


def test_unknown_weight_dtype(champ):
    with pytest.raises(ValueError, match="no weight type 'int8'; choose from default, fp8"):
        load_denoiser(champ.files, weight_dtype="int8")
