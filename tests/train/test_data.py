"""Own videos in the official layout: which frames are taken, and how they are cut."""

import numpy as np
import pytest
import torch
from PIL import Image

from champ.model.families import ENCODED_MAPS
from champ.output import whole
from champ.train.data import FolderSamples, choose_frames, find_videos, person_crop, random_crop

WIDTH, HEIGHT = 44, 42


class Colours:
    """A codec that keeps three colours and a zero of every 8x8 pixels."""

    def encode(self, pictures):
        colours = pictures.permute(0, 3, 1, 2).float()
        return torch.cat([torch.nn.functional.avg_pool2d(colours, 8), colours[:, :1, ::8, ::8] * 0], 1)


def write_video(folder, frames: int, kinds=("images", *ENCODED_MAPS, "mask"), start: int = 0):
    """Every picture has the number of its frame as red, across as green and down as blue; masks have a bar."""
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for i in range(frames):
            picture = np.stack([np.full_like(across, start + i), across * 4, down * 4], -1).astype(np.uint8)
            if kind == "mask":
                picture = np.where((across >= 10) & (across < 16) & (down >= 8) & (down < 28), 255, 0).astype(np.uint8)
            Image.fromarray(picture).save(folder / kind / f"{i}.png")  # 10.png comes after 9.png


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_reference_and_target_are_far_apart():
    for seed in range(300):
        reference, (target,) = choose_frames(100, 1, generator(seed))
        assert 0 <= reference < 100 and 0 <= target < 100
        assert target - reference >= 30 if reference < 70 else reference - target >= 30
    near = [choose_frames(20, 1, generator(seed)) for seed in range(200)]
    assert {target for _, (target,) in near} == set(range(20))


@pytest.mark.parametrize("count", [200, 93, 50, 10])
def test_clips_are_evenly_spread(count):
    starts = set()
    for seed in range(100):
        reference, frames = choose_frames(count, 24, generator(seed))
        starts.add(frames[0])
        span = min(count, 93)
        assert frames == np.linspace(frames[0], frames[0] + span - 1, 24).astype(int).tolist()
        assert frames[-1] < count and reference < count
    assert (len(starts) > 1) == (count > 93)
    assert count != 200 or frames[1] - frames[0] == 4


def test_crops_are_squares_of_nearly_the_whole_area():
    shares = []
    for seed in range(100):
        x, y, side = random_crop(100, 98, generator(seed))
        assert 0 <= x <= 100 - side and 0 <= y <= 98 - side
        shares.append(side * side / 9800)
    assert min(shares) < 0.92 and 0.95 < max(shares) <= 0.981
    assert random_crop(300, 100, generator(0)) == (100, 0, 100)  # no square of such an area fits


def test_a_crop_around_the_person_holds_the_person():
    shown = torch.zeros(100, 80, dtype=torch.bool)
    shown[30:70, 40:50] = True
    sides = set()
    for seed in range(50):
        x, y, side = person_crop(shown, generator(seed))
        sides.add(side)
        assert 36 <= side <= 60 and 0 <= x <= 80 - side and 0 <= y <= 100 - side
        assert x + side / 2 == pytest.approx(45, abs=1 + max(0, side / 2 - 35)) and abs(y + side / 2 - 50) <= 1
    assert len(sides) > 5


@pytest.mark.parametrize("around_person", [False, True])
def test_all_pictures_of_a_sample_have_one_crop(tmp_path, around_person):
    write_video(tmp_path / "a", 12)
    write_video(tmp_path / "more" / "b", 12, start=100)
    samples = FolderSamples(tmp_path, 4, 16, Colours(), around_person=around_person)
    assert len(samples) == 2
    for seed in range(5):
        read = samples.read([0, 1], generator(seed))
        images = read["images"]
        assert images.shape == (2, 4, 16, 16, 3) and images.dtype == torch.uint8
        for name in ENCODED_MAPS:
            assert torch.equal(read[name], images)
        assert torch.equal(images[..., 0], images[..., :1, :1, 0].expand(-1, -1, 16, 16))
        assert torch.equal(read["reference"][..., 1:], images[:, 0, ..., 1:])
        frames = images[:, :, 0, 0, 0].int()
        assert (frames.diff(dim=1) > 0).all() and (frames[1] >= 100).all()
        # Pixels are side / 16 columns apart; a column is 4 greener than the one before.
        side = (images[0, 0, 0, -1, 1].int() - images[0, 0, 0, 0, 1].int()) / 4 / 15 * 16
        assert side == pytest.approx(41.5 if not around_person else 24, abs=1.5 if not around_person else 7)
        assert not torch.equal(read["images"], samples.read([0, 1], generator(seed + 100))["images"])
        batch = samples.batch(read)
        assert batch.latents.shape == (2, 4, 4, 2, 2) and batch.reference.shape == (2, 4, 2, 2)
        assert torch.equal(batch.latents[0, :, 0, 0, 0], images[0, :, 0, 0, 0].float())
        assert batch.person.shape == (2, 4, 2, 2) and 0 < batch.person.mean() < 0.8


def test_videos_without_masks_serve(tmp_path):
    write_video(tmp_path / "a", 3)
    write_video(tmp_path / "b", 3, kinds=("images", *ENCODED_MAPS))
    samples = FolderSamples(tmp_path, 2, 16, Colours())
    assert samples.batch(samples.read([0, 1], generator(0))).person is None
    with pytest.raises(ValueError, match="folder mask"):
        FolderSamples(tmp_path, 2, 16, Colours(), around_person=True)


def test_unequal_folders_are_named(tmp_path):
    write_video(tmp_path / "a", 3)
    (tmp_path / "a" / "normal" / "2.png").unlink()
    with pytest.raises(ValueError, match="normal 2"):
        find_videos(tmp_path)
    with pytest.raises(ValueError, match="no videos"):
        find_videos(tmp_path / "a" / "depth")


@pytest.mark.parametrize("kind", ["depth", "mask", "images"])
def test_pictures_of_another_size_are_not_cropped(tmp_path, kind):
    write_video(tmp_path / "a", 3)
    for file in (tmp_path / "a" / kind).iterdir():
        if file.name != "0.png" or kind != "images":
            Image.open(file).resize((WIDTH // 2, HEIGHT // 2)).save(file)
    samples = FolderSamples(tmp_path, 3, 16, Colours())
    sizes = f"{kind}.*22x21 .*images.*44x42" if kind != "images" else "images.*(22x21 .*44x42|44x42 .*22x21)"
    with pytest.raises(ValueError, match=sizes):
        samples.read([0], generator(0))


def test_what_is_still_being_made_is_no_video(tmp_path):
    write_video(tmp_path / "a", 3)
    with whole(tmp_path / "b", folder=True) as made:
        write_video(made, 3)
        assert len(find_videos(tmp_path)) == 1
    assert len(find_videos(tmp_path)) == 2
