"""Network files that are damaged, or made to do harm: one sentence each, nothing written, read or run."""

import json
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from champ.estimate.network import read_network

from .small_onnx import field, floats, ints, many_operators, model, node, tensor, value

SECONDS = 20  # for what takes far less on a machine that has nothing else to do


def refused(file: Path, size: int = 16) -> str:
    """The sentence."""
    started = time.process_time()
    with pytest.raises(ValueError) as error:
        read_network(file).check(size, size)
    assert time.process_time() - started < SECONDS
    text = str(error.value)
    assert text.startswith(file.name) and text.endswith(".") and "\n" not in text and "Traceback" not in text
    assert len(text) < 500
    return text


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return torch.relu(x * self.weight)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    file = tmp_path_factory.mktemp("plain") / "plain.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Plain(), torch.rand(1, 3, 4, 4)).save(str(file))
    return file


def with_code(archive: Path, file: Path, lines: str, more: str = "") -> Path:
    """The archive with other lines in the network's `forward`, and more methods."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("hostile_networks.py"):
                head, _ = content.decode().split(") -> Tensor:\n")
                body = "".join(f"    {line}\n" for line in lines.split("\n"))
                content = (head + ") -> Tensor:\n" + body + more).encode()
            new.writestr(name, content)
    return file


def test_the_archive_with_its_own_code_is_read(archive, tmp_path):
    lines = "weight = self.weight\n_0 = torch.mul(x, weight)\nreturn torch.relu(_0)"
    network = read_network(with_code(archive, tmp_path / "good.pt", lines))
    assert network.check(4, 4) == [(1, 3, 4, 4)]
    torch.testing.assert_close(network(-torch.ones(1, 3, 4, 4))[0], torch.zeros(1, 3, 4, 4))


WRITE = 'write_file("written", torch.to(x, 0))'
FORMS = {
    "write": f"_0 = ops.image.{WRITE}",
    "write in brackets": f"_0 = (ops).image.{WRITE}",
    "write with a space": f"_0 = ops .image.{WRITE}",
    "write by its name": f'_0 = getattr(ops, "image").{WRITE}',
    "write in a continued line": f"_0 = ops.\\\n  image.{WRITE}",
    "save": '_0 = torch.save(x, "written")',
    "save in brackets": '_0 = (torch.save)(x, "written")',
    "save by its name": '_0 = getattr(torch, "save")(x, "written")',
    "save in a return": 'return torch.save(x, "written")',
    "read": '_0 = torch.from_file("secret", False, 3)',
    "read by its name": '_0 = getattr(torch, "from_file")("secret", False, 3)',
    "read a picture": '_0 = ops.image.read_file("secret")',
    "a class": "_0 = __torch__.torch.classes.quantized.Conv2dPackedParamsBase()",
    "a library": '_0 = torch.ops.load_library("secret")',
    "python": "_0 = eval(\"open('written', 'w')\")",
    "an import": 'import os\n_0 = os.system("touch written")',
    "an attribute of the interpreter": "_0 = x.__class__.__mro__",
    "a loop": "while True:\n  pass",
    "a long loop": "for i in torch.range(100000000000):\n  x = torch.relu(x)",
    "a condition": "if torch.gt(x, 0):\n  x = torch.relu(x)",
    "itself": "_0 = (self).forward(x, )",
    "brackets": "_0 = " + "(" * 100000 + "x" + ")" * 100000,
    "many constants": "_0 = torch.ones([100000, 100000], dtype=6, layout=None, device=None, pin_memory=False)",
    "a large grid": "_0 = torch.arange(1000000000000, dtype=4, layout=None, device=None, pin_memory=False)",
    "a large result": "_0 = torch.upsample_nearest2d(x, [100000, 100000], None)",
    "lists in lists": "\n".join(
        ["_0 = [x, x]", *(f"_{i + 1} = [_{i}, _{i}]" for i in range(60)), "_0 = torch.cat(_60)"]
    ),
    "lists in lists, step by step": "\n".join(
        ["_0 = torch.alias([x, x])", *(f"_{i + 1} = torch.alias([_{i}, _{i}])" for i in range(60))]
    ),
    "its own weights": "weight = self.weight\n_0 = torch.add_(weight, 1)",
}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_code_in_a_file_runs(archive, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(12))
    refused(with_code(archive, tmp_path / "bad.pt", FORMS[form] + "\nreturn torch.relu(x)"), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt", "secret"]


def test_pictures_it_was_traced_with_may_be_in_many_lists(archive, tmp_path):
    """A list of 60 lists, each of which contains the one before twice, would be walked 2**60 times."""
    lists = b"\x80\x02]q\x00" + b"".join(b"0(h%ch%clq%c" % (i, i, i + 1) for i in range(60)) + b"."
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "lists.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, lists if name.endswith("/traced_inputs.pkl") else old.read(name))
    assert any(name.endswith("/traced_inputs.pkl") for name in zipfile.ZipFile(archive).namelist())
    assert read_network(tmp_path / "lists.pt").check(4, 4) == [(1, 3, 4, 4)]


def test_parts_that_call_each_other_twice_end(archive, tmp_path):
    """Sixty lines stand for 2**30 calls."""
    names = [f"m{i}" for i in range(40)]
    head = "(self: int,\n    x: Tensor) -> Tensor:\n"
    more = "".join(
        f"  def {name}{head}    _0 = (self).{after}(x, )\n    return (self).{after}(_0, )\n"
        for name, after in zip(names, [*names[1:], "last"])
    )
    more += "  def last(self: int,\n    x: Tensor) -> Tensor:\n    return torch.relu(x)\n"
    assert "more steps than any" in refused(with_code(archive, tmp_path / "twice.pt", "return (self).m0(x, )", more), 4)


def test_code_that_would_take_hours_to_read_is_refused(archive, tmp_path):
    """A line that could be the head of a method in a hundred thousand ways, and a long list made again and again."""
    good = "return torch.relu(x)"
    text = refused(with_code(archive, tmp_path / "arrows.pt", good, "  def f(" + ") -> :" * 100_000 + "x\n"), 4)
    assert "its code is damaged" in text
    lines = "_0 = (self).m(x, )\n" * 5000 + good
    more = f"  def m(self: int,\n    x: Tensor) -> Tensor:\n    return [{'x, ' * 100_000}]\n"
    assert "more steps than any" in refused(with_code(archive, tmp_path / "lists.pt", lines, more), 4)


class Writes(torch.nn.Module):
    """Would write a file while it is being loaded."""

    @torch.jit.export
    def __getstate__(self):
        return self.training

    @torch.jit.export
    def __setstate__(self, training: bool):
        self.training = training
        torch.save(1, "written by a network")

    def forward(self, x):
        return torch.relu(x)


def test_what_torch_would_run_while_it_loads_does_not_run(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Writes()).save(str(tmp_path / "bad.pt"))
    monkeypatch.chdir(tmp_path)
    read_network(tmp_path / "bad.pt").check(4, 4)  # its forward does no harm, and is all that there is to it
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


def external(place: str) -> bytes:
    entry = field(1, "location") + field(2, place)
    weights = b"".join(field(1, length) for length in (4, 3, 3, 3)) + field(2, 1) + field(8, "w")
    return weights + field(13, entry) + field(14, 1)


RELU = node("Relu", "x", "y")
ONNX = {
    "a tensor in a file": (model([node("Conv", "x w", "y")], [external("secret")]), "in other files"),
    "a tensor in any file": (model([node("Conv", "x w", "y")], [external("/etc/passwd")]), "in other files"),
    "a huge shape": (model([RELU], [field(1, 2**40) + field(2, 1) + field(8, "w") + field(9, b"1234")]), "its shape"),
    "a negative shape": (model([RELU], [field(1, -4) + field(2, 1) + field(9, b"1234")]), "no network needs"),
    "text": (model([RELU], [field(2, 8) + field(6, "text")]), "no network needs"),
    "many numbers in a shape": (model([RELU], [field(1, bytes(2_000_000)) + field(2, 1)]), "more parts"),
    "many steps": (model([node("Relu", "x", "y")] * 30_000), "more than 20000 steps"),
    "an unknown operator": (model([node("Loop", "x", "y")]), "operator 'Loop'"),
    "a huge batch": (model([RELU]).replace(value("x", 1, 3, 16, 16), value("x", 99, 3, 16, 16)), "99 pictures at once"),
    "a missing input": (model([node("Add", "x z", "y")]), "step 1, Add"),
    "a value of nobody": (model([node("Relu", "z", "y")]), "step 1, Relu"),
    "no output": (model([RELU], outputs="z"), "damaged|does not depend|does not take"),
    "an output of constants": (model([node("Shape", "x", "y")]), "does not depend on the picture"),
    "constants without end": (
        model([node("ConstantOfShape", "s", "k"), node("Add", "k k", "y")], [ints("s", 10**6, 10**6)]), "constants"),
    "a range without end": (
        model([node("Range", "a b c", "y")], [ints("a", 0), ints("b", 2**50), ints("c", 1)]), "constants|Range"),
    "doubled forty times": (
        model([node("Concat", f"{'x' if i == 0 else i} {'x' if i == 0 else i}", "y" if i == 39 else str(i + 1), axis=1)
               for i in range(40)]), "memory"),
    "resized": (model([node("Resize", "x n s", "y")],
                      [tensor("n", np.zeros(0, np.float32)), tensor("s", np.array([1, 1, 1e5, 1e5], np.float32))]),
                "memory"),
    "padded": (model([node("Pad", "x p", "y")], [ints("p", 0, 0, 10**7, 10**7, 0, 0, 0, 0)]), "memory|Pad"),
    "work without end": (
        model([node("Conv", "x w", "y", pads=[3000, 3000, 3000, 3000])], [floats("w", 64, 3, 99, 99)]), "or time"),
    "a product without end": (
        model([node("Reshape", "x c", "a"), node("Reshape", "x r", "b"), node("MatMul", "a b", "y")],
              [ints("c", 196608, 1), ints("r", 1, 196608)], size=256), "memory"),
    "an index outside": (model([node("Gather", "x i", "y")], [ints("i", 5)]), "outside"),
    "no groups": (model([node("Conv", "x w", "y", group=0)], [floats("w", 4, 3, 3, 3)]), "step 1, Conv"),
    "no stride": (model([node("Conv", "x w", "y", strides=[0, 0])], [floats("w", 4, 3, 3, 3)]), "step 1, Conv"),
    "negative padding": (model([node("Conv", "x w", "y", pads=[-9] * 4)], [floats("w", 4, 3, 3, 3)]), "step 1, Conv"),
    "no window": (model([node("MaxPool", "x", "y", kernel_shape=[0, 0])]), "step 1, MaxPool"),
    "no stride of a window": (model([node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[0, 0])]), "MaxPool"),
    "a division by nothing": (
        model([node("Div", "a b", "s"), node("Reshape", "x s", "y")], [ints("a", 5), ints("b", 0)]), "step 1, Div"),
    "a step of nothing": (
        model([node("Slice", "x a b c d", "y")], [ints("a", 0), ints("b", 9), ints("c", 2), ints("d", 0)]), "Slice"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONNX)
def test_an_onnx_file_that_makes_no_sense_is_a_sentence(tmp_path, monkeypatch, case):
    content, message = ONNX[case]
    (tmp_path / "bad.onnx").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    text = refused(tmp_path / "bad.onnx", 256 if case == "a product without end" else 16)
    assert any(part in text for part in message.split("|")), text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.onnx", b"", "it is empty"),
        ("page.onnx", b"<!DOCTYPE html><html>", "a web page"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("words.onnx", b"not a network", "cannot be read as a network of DWPose"),
        ("words.pt", b"not a network", "cannot be read as a network of DWPose"),
        ("words.pth", b"not a network", "cannot be read as a network of DWPose"),
        ("cut.pt", b"PK\3\4 and so on", "cannot be read as a network of DWPose"),
    ],
)
def test_what_is_no_network_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refused(tmp_path / name)


def test_weights_of_something_else_are_named(tmp_path):
    torch.save({"state_dict": {"head.cls_x.weight": torch.ones(3, 3)}}, tmp_path / "pose.pth")
    assert "it lacks backbone.stem.0" in refused(tmp_path / "pose.pth")
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    assert "neither YOLOX nor RTMPose" in refused(tmp_path / "other.pth")


def test_the_good_file_of_the_mutations_is_good(tmp_path):
    """Otherwise it would be no wonder that the bad ones are refused."""
    (tmp_path / "good.onnx").write_bytes(many_operators())
    network = read_network(tmp_path / "good.onnx")
    assert network.check(16, 16) == [(1, 4, 6)]
    seen = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "good.onnx"))
    net.setInput(seen)
    np.testing.assert_allclose(network(torch.from_numpy(seen))[0].numpy(), net.forward(), atol=1e-4)


MUTATIONS = 560
CHILD = """
import collections, json, random, resource, sys, tempfile
from pathlib import Path
import torch
from champ.estimate.network import read_network
from tests.estimate.small_onnx import many_operators

torch.set_num_threads(1)
good, random, ends = many_operators(), random.Random(0), collections.Counter()
file = Path(tempfile.mkdtemp()) / "bad.onnx"
file.write_bytes(good)
read_network(file).check(16, 16)  # what torch imports for this is not for the limit
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30),) * 2)
for i in range({count}):
    bad = bytearray(good)
    kind, at = random.randrange(5), random.randrange(len(good))
    if kind == 0:
        bad = bad[:at]
    elif kind == 1:
        bad[at : at + random.randrange(1, 40)] = b""
    elif kind == 2:
        bad[at:at] = bad[random.randrange(len(good)) :][: random.randrange(1, 40)]
    else:
        for _ in range(random.randrange(1, 9)):
            bad[random.randrange(len(bad))] = random.choice([0, 1, 127, 128, 255, random.randrange(256)])
    file.write_bytes(bad)
    try:
        network = read_network(file)
        network.check(16, 16)
        network(torch.rand(2, 3, 16, 16))
        ends["run"] += 1
    except ValueError as error:
        assert str(error).startswith("bad.onnx ") and str(error).endswith("."), error
        ends["refused"] += 1
print(json.dumps(ends))
"""


def test_damaged_onnx_files_never_end_the_process():
    """Also those that can be run after all: a weight that is another one is no damage that can be seen."""
    child = [sys.executable, "-c", CHILD.format(count=MUTATIONS)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=400, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    ends = json.loads(done.stdout)
    assert sum(ends.values()) == MUTATIONS and ends["refused"] > MUTATIONS // 2
