"""Champ-Tiny, the model that comes with the pack, on people whom it has never seen."""

import dev
from champ.train.evaluate import Sampling, copied, held_out, measure, rooms_of, sampled
from champ.train.latents import ImageCodec
from champ.train.start import load_networks

SHIPPED = dev.ROOT / "champ" / "assets" / "models"
SET, VAE = SHIPPED / "champ" / "champ_tiny", SHIPPED / "vae" / "champ_tiny_vae.safetensors"
SIZE = 256


def test_all_parts_together_are_small():
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 25_000_000


def test_it_animates_people_whom_it_has_never_seen():
    codec = ImageCodec(VAE)
    method = sampled(load_networks(SET, "set"), codec, Sampling(steps=4, cfg=1.0))  # as the quick start does
    seen, off_the_room, gain = [], [], []
    for clip in held_out(SIZE, 4, 3):
        rooms = rooms_of(clip, codec)
        made, still = (measure(pictures, clip, rooms) for pictures in (method(clip), copied(clip)))
        seen.append(made["IoU"])
        off_the_room.append(made["IoU off the room"])
        gain.append(made["person PSNR"] - still["person PSNR"])
    assert sum(seen) / 3 >= 0.85 and sum(off_the_room) / 3 >= 0.75
    assert sum(gain) / 3 >= 3  # dB
