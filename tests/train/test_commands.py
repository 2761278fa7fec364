"""The command line, from drawn people to a checkpoint set."""

import argparse
import json
import os
import subprocess
import sys

import cv2
import pytest
import torch


def run(*words) -> None:
    from champ.train import commands

    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers())
    options = parser.parse_args([str(word) for word in words])
    options.run(options)


@pytest.fixture()
def codec(tmp_path):
    from champ.train.codec import Codec

    torch.manual_seed(0)
    torch.save(Codec().state_dict(), tmp_path / "codec.pt")
    return tmp_path / "codec.pt"


def test_the_whole_way(tmp_path, codec):
    from champ.model.checkpoint import find_set
    from champ.model.loading import load_denoiser

    names = ("data", "plain", "still", "moving", "quick", "set")
    data, plain, still, moving, quick, out = (tmp_path / name for name in names)
    for split, frames, count in (("train", 1, 3), ("held_out", 1, 1), ("train", 2, 1), ("held_out", 2, 1)):
        run("prepare", "--data", data, "--split", split, "--frames", frames, "--count", count, "--size", 64)
    run("encode", "--data", data, "--vae", codec)
    common = ["--data", data, "--vae", codec, "--threads", 1, "--steps", 1, "--lr", 1e-3, "--preview-steps", 2]
    small = ["--channels", 32, 64, "--encoder", 4, 4, 8, 32, "--plain", 1]
    run("stage1", *common, *small, "--out", plain, "--draws", 2, "--mean", 0.9, "--person", 1)
    run("stage1", *common, "--init", plain / "model", "--transformers", "--matching", 0.1, "--out", still)
    run("stage2", *common, "--init", still / "model", "--out", moving, "--frames", 2, "--batch", 1, "--checkpointing")
    run("distill", *common, "--init", moving / "model", "--out", quick, "--frames", 2, "--batch", 1, "--few", 2)
    run("export", "--networks", quick / "model", "--out", out, "--about", "license=none")

    assert cv2.imread(str(still / "preview_000001.png")).shape == (4 * 64, 64, 3)
    assert cv2.imread(str(moving / "preview_000001.png")).shape == (4 * 64, 64, 3)
    model = load_denoiser(find_set(out))
    assert model.model.diffusion_model.max_frames == 32
    assert sum(file.stat().st_size for file in out.iterdir()) < 0.6 * sum(
        file.stat().st_size for file in (moving / "model").iterdir()
    )


@pytest.fixture()
def clips(tmp_path, codec):
    """Two encoded clips of two frames."""
    run("prepare", "--data", tmp_path / "clips", "--frames", 2, "--count", 2, "--size", 32)
    run("encode", "--data", tmp_path / "clips", "--vae", codec)
    return tmp_path / "clips"


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").open()]


def test_checkpointing_leaves_the_teacher_its_weights(tmp_path, codec, clips, sizes, random_networks):
    from champ.train.export import export

    export(random_networks(sizes), tmp_path / "set")
    words = ["--data", clips, "--vae", codec, "--init", tmp_path / "set", "--frames", 2, "--batch", 1, "--threads", 1]
    words += ["--steps", 4, "--lr", 1e-2, "--few", 2, "--drop", 0]
    run("distill", *words, "--out", tmp_path / "kept")
    run("distill", *words, "--out", tmp_path / "again", "--checkpointing")
    kept, again = ([line["loss"] for line in logged(tmp_path / name)] for name in ("kept", "again"))
    assert again == pytest.approx(kept, rel=1e-3)


def test_what_a_user_can_change_is_one_sentence(tmp_path):
    words = ("export", "--networks", str(tmp_path / "none"), "--out", str(tmp_path / "out"))
    command = [sys.executable, "-m", "champ.train", *words]
    result = subprocess.run(command, text=True, capture_output=True, timeout=100)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "none does not exist; put each checkpoint set" in result.stderr


@pytest.mark.parametrize("stage", ["stage2", "distill"])
def test_several_noises_of_a_clip_are_refused_before_anything_is_read(tmp_path, stage):
    missing = tmp_path / "missing"
    words = ["--data", missing, "--vae", missing, "--init", missing, "--out", tmp_path / "run", "--steps", 1]
    with pytest.raises(ValueError, match="--draws 2 is for single pictures, but .* clips of 24 frames"):
        run(stage, *words, "--draws", 2)


def test_a_codec_learns_on(tmp_path):
    from champ.train.codec import Codec
    from champ.train.latents import ImageCodec

    run("prepare", "--data", tmp_path, "--count", 3, "--size", 64, "--close", 1)
    common = ["--data", tmp_path, "--batch", 2, "--threads", 1, "--crop", 32]
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    run("codec", *common, "--out", first, "--steps", 3)
    shipped = tmp_path / "first_vae.safetensors"
    run("codec", *common, "--out", second, "--steps", 2, "--init", shipped, "--keep", 1, "--rates", 1e-4, 1e-4)
    before, after = (ImageCodec(file).tiny() for file in (shipped, second))
    moved = [float((a - b).abs().max()) for a, b in zip(before.parameters(), after.parameters())]
    assert 0 < max(moved) < 1e-3 and isinstance(after, Codec)


# Trains, and tells that nothing of smplx was imported, which forbids to train networks for commercial use.
TRAIN = """
import runpy, sys
runpy.run_module("champ.train", run_name="__main__")
assert not [name for name in sys.modules if name.partition(".")[0] == "smplx"]
print("without smplx")
"""


def test_two_processes_take_the_steps_of_one_with_two_batches(tmp_path, codec):
    """And training on drawn people runs nothing of smplx, which these processes could import."""
    run("prepare", "--data", tmp_path, "--count", 4, "--size", 32)
    run("encode", "--data", tmp_path, "--vae", codec)
    words = ["--data", tmp_path, "--vae", codec, "--steps", 2, "--batch", 1, "--lr", 1e-3, "--preview-steps", 1]
    words += ["--drop", 0, "--threads", 1, "--channels", 32, 64, "--encoder", 4, 4, 8, 32]
    run("stage1", *words, "--out", tmp_path / "one", "--accumulate", 2)
    (tmp_path / "train.py").write_text(TRAIN)
    command = [
        sys.executable,
        *"-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2".split(),
    ]
    command += [tmp_path / "train.py", "stage1", *words, "--out", tmp_path / "two"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([str(x) for x in command], env=environment, text=True, capture_output=True, timeout=200)
    assert result.returncode == 0 and result.stdout.count("without smplx") == 2, result.stderr
    one, two = (logged(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in two] == [1, 2]
    for name in ("loss", "norm"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-3)


@pytest.mark.parametrize("times, said", [(9.0, True), (0.5, False)])
def test_slow_bfloat16_is_said_before_training(tmp_path, codec, monkeypatch, capsys, request, times, said):
    from accelerate.state import AcceleratorState

    from champ.train import commands

    AcceleratorState._reset_state(reset_partial_state=True)  # it allows one precision in a process
    request.addfinalizer(lambda: AcceleratorState._reset_state(reset_partial_state=True))
    monkeypatch.setattr(commands, "bf16_slowdown", lambda: times)
    run("prepare", "--data", tmp_path, "--count", 1, "--size", 32)
    run("encode", "--data", tmp_path, "--vae", codec)
    small = ["--channels", 32, 64, "--encoder", 4, 4, 8, 32, "--threads", 1]
    options = ["--data", tmp_path, "--vae", codec, "--out", tmp_path / "run", "--precision", "bf16"]
    run("stage1", *options, "--steps", 1, "--batch", 1, "--preview-steps", 1, *small)
    assert ("9 times as long in bf16" in capsys.readouterr().out) == said


def test_the_finder_of_silhouettes_is_made(tmp_path, codec, capsys):
    from safetensors.torch import load_file

    from champ.train.silhouettes import Silhouettes, find

    run("prepare", "--data", tmp_path, "--count", 8, "--size", 64)
    file = tmp_path / "new" / "silhouettes.safetensors"
    run("silhouettes", "--data", tmp_path, "--vae", codec, "--out", file, "--steps", 2, "--batch", 4, "--threads", 1)
    assert "step 2: IoU" in capsys.readouterr().out
    network = Silhouettes()
    network.load_state_dict(load_file(file))
    assert find(torch.zeros(2, 64, 48, 3, dtype=torch.uint8), network).shape == (2, 64, 48)


def test_samples_that_are_not_encoded_are_not_trained_on(tmp_path, codec):
    from champ.train.batches import PreparedSamples
    from champ.train.codec import Codec

    run("prepare", "--data", tmp_path, "--count", 1, "--size", 32)
    with pytest.raises(ValueError, match="encode"):
        PreparedSamples(tmp_path, "train", 1)
    run("encode", "--data", tmp_path, "--vae", codec)
    (latents,) = tmp_path.glob("*.latents")
    written = latents.stat().st_mtime_ns
    run("encode", "--data", tmp_path, "--vae", codec)
    assert latents.stat().st_mtime_ns == written
    samples = PreparedSamples(tmp_path, "train", 1)
    batch = samples.batch(samples.read([0, 0], torch.Generator()))
    assert batch.latents.shape == (2, 1, 4, 4, 4) and batch.reference.shape == (2, 4, 4, 4)
    assert batch.person.shape == (2, 1, 4, 4) and 0 < batch.person.mean() < 1
    assert all(x.shape == (2, 1, 32, 32, 3) and x.dtype == torch.uint8 for x in batch.maps.values())
    torch.save(Codec().state_dict(), codec)
    run("encode", "--data", tmp_path, "--vae", codec)
    assert latents.stat().st_mtime_ns != written  # the latents of one codec are noise to another


def test_latents_of_another_vae_are_said(tmp_path, clips, codec, capsys):
    from champ.train.codec import Codec
    from champ.train.commands import find_samples
    from champ.train.latents import ImageCodec

    options = argparse.Namespace(data=clips, vae=codec, frames=2, crop=0)
    find_samples(options, ImageCodec(codec))
    assert "are not those of" not in capsys.readouterr().out
    torch.save(Codec().state_dict(), codec)
    find_samples(options, ImageCodec(codec))
    assert f"{clips} are not those of {codec}" in capsys.readouterr().out


def test_crops_are_cut_alike_from_all_that_a_sample_has(tmp_path, codec):
    from champ.train.batches import PreparedSamples

    run("prepare", "--data", tmp_path, "--count", 2, "--size", 64)
    run("encode", "--data", tmp_path, "--vae", codec)
    indices = [0, 1] * 8
    whole = PreparedSamples(tmp_path, "train", 1).read(indices, torch.Generator())
    cut = PreparedSamples(tmp_path, "train", 1, crop=32).read(indices, torch.Generator().manual_seed(1))
    assert cut.person.sum() > whole.person.sum() / 4 * 1.2  # more of the person than crops at random places show
    assert torch.equal(cut.reference, whole.reference) and len(cut.corner.unique(dim=0)) > 2
    for i, (y, x) in enumerate(cut.corner.tolist()):
        part, pixels = (slice(y, y + 4), slice(x, x + 4)), (slice(8 * y, 8 * y + 32), slice(8 * x, 8 * x + 32))
        assert torch.equal(cut.latents[i], whole.latents[i, ..., part[0], part[1]])
        assert torch.equal(cut.person[i], whole.person[i, :, part[0], part[1]])
        assert torch.equal(cut.surface[i], whole.surface[i, :, part[0], part[1]])
        for name in whole.maps:
            assert torch.equal(cut.maps[name][i], whole.maps[name][i, :, pixels[0], pixels[1]])
    with pytest.raises(ValueError, match="multiple of 16 up to 64"):
        PreparedSamples(tmp_path, "train", 1, crop=40)
    options = ["--data", tmp_path, "--vae", codec, "--out", tmp_path / "run", "--matching", 0.1, "--crop", 32]
    small = ["--channels", 32, 64, "--encoder", 4, 4, 8, 32, "--threads", 1]
    run("stage1", *options, "--steps", 1, "--batch", 1, "--preview-steps", 1, *small)
    assert (tmp_path / "run" / "model" / "denoising_unet.safetensors").exists()
    with pytest.raises(ValueError, match="go on with crop 32 as it has"):
        run("stage1", *options, "--steps", 2, "--batch", 1, *small, "--crop", 48)
