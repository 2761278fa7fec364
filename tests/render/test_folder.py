from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from champ.progress import listening
from champ.render.folder import MAP_FOLDERS, load_maps, save_maps


def random_maps(frames=3, height=5, width=7):
    random = torch.Generator().manual_seed(0)
    maps = {
        name: torch.randint(256, (frames, height, width, 3), generator=random, dtype=torch.uint8)
        for name in MAP_FOLDERS[:-1]
    }
    maps["depth"] = maps["depth"][..., :1].repeat(1, 1, 1, 3)
    maps["mask"] = torch.randint(2, (frames, height, width), generator=random, dtype=torch.uint8) * 255
    maps["semantic_map"] *= maps["mask"][..., None] // 255
    return maps


def write(folder: Path, name: str, value: int = 128, size=(7, 5), mode="RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value,) * 3).save(folder / name)


def test_saved_maps_load_again(tmp_path):
    maps, done = random_maps(), []
    folder = tmp_path / "cl\u00edp \u821e" / "maps"
    with listening(lambda *count: done.append(count)):
        save_maps(folder, maps)
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert sorted(p.name for p in (folder / "dwpose").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    with Image.open(folder / "depth" / "0000.png") as depth, Image.open(folder / "mask" / "0000.png") as mask:
        assert depth.mode == mask.mode == "L"
    with listening(lambda *count: done.append(count)):
        loaded = load_maps(folder)
    assert done[3:] == [(1, 3), (2, 3), (3, 3)]
    assert list(loaded) == list(MAP_FOLDERS)
    for name in MAP_FOLDERS:
        assert loaded[name].dtype == torch.uint8
        assert torch.equal(loaded[name], maps[name]), name


def test_floats_are_saved_as_the_levels_they_stand_for(tmp_path):
    maps = random_maps()
    save_maps(tmp_path, {name: value.float() / 255 for name, value in maps.items()})
    assert all(torch.equal(value, maps[name]) for name, value in load_maps(tmp_path).items())


def test_images_are_written_beside_the_maps(tmp_path):
    maps = random_maps()
    save_maps(tmp_path, {"depth": maps["depth"], "images": maps["dwpose"]})
    for i, expected in enumerate(maps["dwpose"]):
        with Image.open(tmp_path / "images" / f"{i:04d}.png") as picture:
            assert np.array_equal(np.array(picture), expected.numpy())
    assert list(load_maps(tmp_path)) == ["depth"]


def test_semantic_map_is_black_outside_the_mask(tmp_path):
    maps = random_maps()
    maps["semantic_map"] = torch.full_like(maps["semantic_map"], 84)
    save_maps(tmp_path, maps)
    semantic = load_maps(tmp_path)["semantic_map"]
    assert torch.equal(semantic, (maps["mask"][..., None] // 255 * 84).expand_as(semantic))
    without = {"semantic_map": maps["semantic_map"], "normal": maps["normal"]}
    save_maps(tmp_path / "b", without)
    assert (load_maps(tmp_path / "b")["semantic_map"] == 84).all()


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10, 9):
        write(tmp_path / "normal", f"frame_{number}.png", number)
        write(tmp_path / "dwpose", f"{number:04d}.png", number)
    (tmp_path / "normal" / "._frame_1.png").write_bytes(b"mac")
    (tmp_path / "normal" / "notes.txt").write_text("x")
    maps = load_maps(tmp_path)
    assert list(maps) == ["normal", "dwpose"]
    assert maps["normal"][:, 0, 0, 0].tolist() == maps["dwpose"][:, 0, 0, 0].tolist() == [1, 2, 9, 10]


def test_a_part_of_the_frames(tmp_path):
    for number in range(5):
        write(tmp_path / "normal", f"{number}.png", number)

    def values(**part):
        return load_maps(tmp_path, **part)["normal"][:, 0, 0, 0].tolist()

    assert values(start=3) == [3, 4]
    assert values(start=1, count=2) == [1, 2]
    assert values(count=50) == [0, 1, 2, 3, 4]
    for start in (5, -1):
        with pytest.raises(ValueError, match=f"Frame {start} is not in .*: it has 5 frames"):
            load_maps(tmp_path, start=start)


@pytest.mark.parametrize("suffix, tolerance", [(".png", 0), (".jpg", 3), (".JPEG", 3), (".webp", 3)])
def test_picture_formats(tmp_path, suffix, tolerance):
    write(tmp_path / "normal", f"0{suffix}", 200)
    assert (load_maps(tmp_path)["normal"].int() - 200).abs().max() <= tolerance


@pytest.mark.parametrize("mode, color", [("L", 90), ("RGBA", (90, 90, 90, 10)), ("P", 0)])
def test_colour_modes_become_rgb(tmp_path, mode, color):
    write(tmp_path / "depth", "0.png", color, mode=mode)
    expected = np.array(Image.open(tmp_path / "depth" / "0.png").convert("RGB"))
    assert np.array_equal(load_maps(tmp_path)["depth"][0], expected)


def test_folder_without_maps(tmp_path):
    (tmp_path / "depth").mkdir()
    with pytest.raises(ValueError, match="expected pictures in a folder named depth, normal, semantic_map, dwpose"):
        load_maps(tmp_path)
    with pytest.raises(ValueError, match="No guidance maps in"):
        load_maps(tmp_path / "nowhere")


def test_missing_frame_is_named(tmp_path):
    for number in range(4):
        write(tmp_path / "depth", f"{number:04d}.png")
        if number != 2:
            write(tmp_path / "semantic_map", f"{number:04d}.png")
    with pytest.raises(ValueError, match="semantic_map has 3 frames and lacks number 2, which depth has"):
        load_maps(tmp_path)


def test_frame_of_another_size_is_named(tmp_path):
    for name in ("depth", "normal"):
        write(tmp_path / name, "0.png")
        write(tmp_path / name, "1.png", size=(7, 5) if name == "depth" else (5, 7))
    with pytest.raises(ValueError, match=r"normal.1\.png is 5x7 but the frames before it are 7x5"):
        load_maps(tmp_path)


@pytest.mark.parametrize("content", ["empty", "text", "cut"])
def test_unreadable_frame_is_named(tmp_path, content):
    write(tmp_path / "normal", "0.png", size=(64, 64))
    broken = tmp_path / "normal" / "1.png"
    whole = random_maps(1, 64, 64)["normal"][0].numpy()
    Image.fromarray(whole).save(broken)
    data = {"empty": b"", "text": b"not a picture", "cut": broken.read_bytes()[:5000]}[content]
    broken.write_bytes(data)
    with pytest.raises(ValueError, match=r"normal.1\.png cannot be read as a picture"):
        load_maps(tmp_path)


def test_sixteen_bits_are_refused(tmp_path):
    (tmp_path / "depth").mkdir()
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "depth" / "0.png")
    with pytest.raises(ValueError, match="16 bits per channel"):
        load_maps(tmp_path)


def test_saving_never_overwrites(tmp_path):
    maps = random_maps()
    save_maps(tmp_path, {"mask": maps["mask"]})
    with pytest.raises(ValueError, match="is already there; choose another name"):
        save_maps(tmp_path, maps)
    assert not (tmp_path / "depth").exists()


def test_cancelling_leaves_no_folder_that_loads_as_a_shorter_clip(tmp_path):
    def cancel(done, _):
        assert not (tmp_path / "maps").exists()
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(cancel):
        save_maps(tmp_path / "maps", random_maps())
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_there_before_its_last_part_is(tmp_path):
    def finish(made):
        assert not (tmp_path / "maps").exists() and (made / "depth" / "0002.png").exists()
        (made / "preview.webp").touch()

    save_maps(tmp_path / "maps", random_maps(), finish=finish)
    assert {item.name for item in (tmp_path / "maps").iterdir()} == {*MAP_FOLDERS, "preview.webp"}


def test_maps_to_save_are_checked(tmp_path):
    maps = random_maps()
    with pytest.raises(ValueError, match="no guidance map called 'pose'"):
        save_maps(tmp_path, {"pose": maps["dwpose"]})
    with pytest.raises(ValueError, match=r"\[2, 3\] frames"):
        save_maps(tmp_path, {"depth": maps["depth"], "mask": maps["mask"][:2]})
    with pytest.raises(ValueError, match="connect one or more maps"):
        save_maps(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_a_picture_without_a_number_is_named(tmp_path):
    write(tmp_path / "depth", "0001.png")
    write(tmp_path / "depth", "x.png")
    with pytest.raises(ValueError, match=r"depth has the picture x without a number beside numbered frames; give it"):
        load_maps(tmp_path)


def test_more_frames_than_there_is_memory_for(tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    write(tmp_path / "depth", "0.png")
    monkeypatch.setattr("torch.empty", full)
    with pytest.raises(ValueError, match="^1 frames of 7x5 take 0 GB for each map, .*; load fewer at once"):
        load_maps(tmp_path)
