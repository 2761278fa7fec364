"""Networks from files of all formats: the same functions as in OpenCV, in torch and in the official code."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from champ.estimate.network import Network, read_network
from champ.estimate.onnx import _Reader

from .full_dwpose import (
    DATA,
    HEIGHT,
    SIZE,
    WIDTH,
    Block,
    filled,
    onnx_file,
    pictures,
    small_rtmpose,
    small_yolox,
    traced,
)
from .small_dwpose import write_torchscript

SMALL = Path(__file__).parents[1] / "data" / "dwpose"


@pytest.fixture(scope="module")
def official():
    """What the official code makes of `pictures` with the weights of full_dwpose.py."""
    return {name: torch.from_numpy(value) for name, value in np.load(DATA / "official.npz").items()}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    write_torchscript(folder)
    return folder


def in_order(outputs) -> list[Tensor]:
    return sorted((torch.as_tensor(output) for output in outputs), key=lambda output: output.shape[-1])


def assert_same(found, expected, atol=1e-4):
    found, expected = in_order(found), in_order(expected)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected):
        assert a.dtype == torch.float32 and b.abs().max() > 0.1
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def read(file: Path, height: int, width: int) -> Network:
    network = read_network(file)
    network.check(height, width)
    return network


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("name", ["yolox", "yolox_decoded", "rtmpose", "yolox_l", "dw-ll_ucoco_384"])
def test_onnx_gives_what_opencv_gives(tmp_path, name):
    small = SMALL / f"{name}.onnx"
    file = small if small.exists() else written(tmp_path / f"{name}.onnx", onnx_file(name))
    size = {"rtmpose": (HEIGHT, WIDTH), "yolox_l": (640, 640), "dw-ll_ucoco_384": (384, 288)}.get(name, (SIZE, SIZE))
    seen = pictures(2, *size) * (60 if name == "yolox_l" else 1)
    found = read(file, *size)(seen)
    net = cv2.dnn.readNetFromONNX(str(file))
    for i in range(2):
        net.setInput(seen[i : i + 1].numpy())
        assert_same([output[i : i + 1] for output in found], net.forward(net.getUnconnectedOutLayersNames()))


LAYOUTS = {
    "weights alone": lambda state: state,
    "YOLOX": lambda state: {"start_epoch": 300, "model": state, "optimizer": {"state": {0: torch.zeros(3)}}},
    "mmpose": lambda state: {"meta": {"epoch": 3, "seed": np.float64(1)}, "state_dict": state, "optimizer": {}},
    "of several cards": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_give_what_the_official_code_gives(tmp_path, official, layout):
    for network, expected in ((small_yolox(), ["yolox"]), (small_rtmpose(), ["simcc_x", "simcc_y"])):
        file = tmp_path / "network.pth"
        old = layout == "weights alone"  # in torch's format from before 1.6
        torch.save(LAYOUTS[layout](network.state_dict()), file, _use_new_zipfile_serialization=not old)
        size = (SIZE, SIZE) if "yolox" in expected else (HEIGHT, WIDTH)
        assert_same(read(file, *size)(pictures(2, *size)), [official[name] for name in expected])


@pytest.mark.parametrize("stage", [1, 2])
def test_of_dwposes_training_the_student_is_taken(tmp_path, official, stage):
    """In the second stage the networks are of one size, and the student's head belongs to the teacher's backbone."""
    good = {name: value for name, value in small_rtmpose().state_dict().items() if value.ndim}
    if stage == 1:
        state = {f"student.{name}": value for name, value in good.items()}
        state |= {f"teacher.{name}": torch.rand(len(value) + 1) for name, value in good.items()}
    else:
        state = {f"teacher.{name}": value for name, value in good.items()}
        state |= {f"student.{name}": torch.rand_like(v) if "backbone" in name else v for name, v in good.items()}
        state |= {name: torch.rand_like(value) for name, value in state.items() if name.startswith("teacher.head")}
    torch.save({"state_dict": state}, tmp_path / "distilled.pth")
    found = read(tmp_path / "distilled.pth", HEIGHT, WIDTH)(pictures(2, HEIGHT, WIDTH))
    assert_same(found, [official["simcc_x"], official["simcc_y"]])


@pytest.mark.parametrize(
    ("make", "batch", "expected"),
    [
        (small_yolox, 1, ["yolox"]),
        (lambda: small_yolox(decoded=True), 1, ["yolox_decoded"]),
        (small_rtmpose, 5, ["simcc_x", "simcc_y"]),
    ],
    ids=["yolox", "yolox decoded", "rtmpose for 5"],
)
def test_torchscript_gives_what_torch_and_the_official_code_give(tmp_path, official, make, batch, expected):
    size = (HEIGHT, WIDTH) if len(expected) == 2 else (SIZE, SIZE)
    file = traced(make(), (batch, 3, *size), tmp_path / "network.pt")
    seen = pictures(2, *size)
    found = read(file, *size)(seen)
    padded = torch.cat([seen, torch.zeros(-2 % batch, 3, *size)])
    with torch.no_grad():
        parts = [torch.jit.load(str(file))(part) for part in padded.split(batch)]
    parts = [[part] if isinstance(part, Tensor) else part for part in parts]
    assert_same(found, [torch.cat(same)[:2] for same in zip(*parts)])
    assert_same(found, [official[name] for name in expected])


def test_a_frozen_script_keeps_its_weights_among_the_constants(tmp_path):
    block = filled(Block(3, 4, 3))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.freeze(torch.jit.trace(block, torch.rand(1, 3, 8, 8)))
    script.save(str(tmp_path / "frozen.pt"))
    seen = pictures(2, 8, 8)
    assert_same(read(tmp_path / "frozen.pt", 8, 8)(seen), [block(seen).detach()])


class Converted(nn.Module):
    """As converters from ONNX write it: shapes are tensors, which hold the batch that the network was traced with."""

    def __init__(self, batch: int):
        super().__init__()
        self.register_buffer("shape", torch.tensor([batch, 3, -1]))
        self.weight = nn.Parameter(torch.linspace(-1, 1, 64).reshape(16, 4))

    def forward(self, x):
        outer, inner, rest = self.shape
        x = torch.reshape(x, [int(outer), int(inner), int(rest)])
        x = torch.matmul(x * torch.sigmoid(x), self.weight)
        first, _, _ = torch.split(torch.reshape(x, (int(torch.tensor(x.shape)[0]), 12)), [4, 4, 4], 1)
        return (first / torch.linalg.vector_norm(first, dim=1, keepdim=True).clamp(min=1e-5),)


def test_shapes_with_the_batch_in_them_fit_any_batch(tmp_path):
    network = read(traced(Converted(5), (5, 3, 4, 4), tmp_path / "converted_bs5.pt"), 4, 4)
    seen = pictures(7, 4, 4)
    assert_same(network(seen), [Converted(7)(seen)[0].detach()])
    assert network.takes_any is True


class Mixing(nn.Module):
    """Gives each picture what all of them show."""

    def forward(self, x):
        return (x.flatten(1) - x.flatten(1).mean(dim=0, keepdim=True) + 1.0,)


def test_pictures_that_would_mix_go_one_by_one(tmp_path):
    network = read(traced(Mixing(), (1, 3, 4, 4), tmp_path / "mixing.pt"), 4, 4)
    [found] = network(pictures(3, 4, 4))
    assert network.takes_any is False
    torch.testing.assert_close(found, torch.ones(3, 48))


class Fixed(nn.Module):
    """Takes batches of 5 only, in half precision."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((5, 1), 2.0, dtype=torch.float16))

    def forward(self, x):
        return (x.flatten(1)[:, :3] * self.weight,)


def test_a_fixed_batch_is_filled_up_and_half_precision_is_met(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Fixed(), torch.zeros(5, 3, 2, 2, dtype=torch.half)).save(str(tmp_path / "net_bs5.pt"))
    network = read(tmp_path / "net_bs5.pt", 2, 2)
    seen = torch.arange(7 * 12, dtype=torch.float32).reshape(7, 3, 2, 2)
    [output] = network(seen)
    assert network.takes_any is False and output.dtype == torch.float32
    torch.testing.assert_close(output, seen.reshape(7, 12)[:, :3] * 2)


@pytest.mark.parametrize("count", [2])
def test_pictures_in_a_batch_do_not_mix(scripts, count):
    network = read(scripts / "dw-ll_ucoco_384_bs5.torchscript.pt", 384, 288)
    seen = pictures(6, 384, 288)
    together = network(seen[:count])
    for i in range(count):
        for whole, alone in zip(together, network(seen[i : i + 1])):
            torch.testing.assert_close(whole[i], alone[0], atol=1e-6, rtol=1e-5)


def test_a_detector_of_one_picture_looks_at_several(scripts):
    """Its code takes the pictures for one, so that they have to go one by one."""
    network = read(scripts / "yolox_l.torchscript.pt", 640, 640)
    onnx = read(SMALL / "yolox_l.onnx", 640, 640)
    seen = pictures(3, 640, 640) * 60
    for i in range(3):
        seen[i, :, : 100 * i] = 0
    [found], [expected] = network(seen), onnx(seen)
    assert found.shape == (3, 8400, 85) and network.takes_any is False
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.01


def test_a_network_for_something_else_says_so():
    message = "dw-ll_ucoco_384.onnx does not take pictures of 7x5 pixels: its step .*; choose the right file"
    with pytest.raises(ValueError, match=message) as error:
        read(SMALL / "dw-ll_ucoco_384.onnx", 5, 7)
    assert "\n" not in str(error.value)


def test_no_name_in_a_file_matters(tmp_path):
    """Each name of a value is given to another value; the graph says what belongs to what."""
    content = bytearray(onnx_file("rtmpose"))
    reader = _Reader()
    graph = reader.message(reader.message(memoryview(content))[7][0])
    nodes, tensors = map(reader.message, graph[1]), map(reader.message, graph[5])
    places = [name for node in nodes for name in node[1] + node[2]] + [tensor[8][0] for tensor in tensors]
    places += [reader.message(value)[1][0] for value in graph[11] + graph[12]]
    alike: dict[int, list[bytes]] = {}
    for place in places:
        if bytes(place) not in alike.setdefault(len(place), []):
            alike[len(place)].append(bytes(place))
    other = {name: names[i - 1] for names in alike.values() for i, name in enumerate(names)}
    for place in places:
        place[:] = other[bytes(place)]
    plain = read(written(tmp_path / "plain.onnx", onnx_file("rtmpose")), HEIGHT, WIDTH)
    renamed = read(written(tmp_path / "renamed.onnx", bytes(content)), HEIGHT, WIDTH)
    assert len(plain.graph.names) == len(renamed.graph.names) and plain.graph.names != renamed.graph.names
    seen = pictures(1, HEIGHT, WIDTH)
    assert_same(renamed(seen), plain(seen), atol=0)


def test_weights_can_be_moved_and_cast(official, tmp_path):
    """As ComfyUI does it: they are parameters, and all of the floats."""
    file = written(tmp_path / "yolox.onnx", onnx_file("yolox"))
    network = read(file, SIZE, SIZE)
    whole = sum(parameter.numel() for parameter in network.parameters())
    assert whole > 50_000 and all(not parameter.requires_grad for parameter in network.parameters())
    seen = pictures(2, SIZE, SIZE)
    [full] = network(seen)
    [half] = network.to(torch.bfloat16)(seen.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)
