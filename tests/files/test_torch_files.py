"""torch's files and safetensors: every layout gives what torch gives, hostile ones a sentence."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from champ.files.errors import DamagedError
from champ.files.pickles import Unpickler
from champ.files.tensors import read_tensors
from champ.files.torch_files import TorchArchive, is_tensor, read_torch, to_tensor
from champ.motion.containers import MOTION_NAMES


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "transposed": base.T, "part": base[1:, 2:], "again": base, "half": base.half(), "bfloat16": base.bfloat16(),
        "double": base.double(), "int": base.int(), "long": base.long(), "short": base.short(), "byte": base.byte(),
        "bool": base > 3, "complex": base.to(torch.complex64), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base), "one": torch.ones(1).expand(1, 1),
    }  # fmt: skip


def same(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value.data), key


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(tmp_path, zipped, protocol):
    torch.save(tensors(), tmp_path / "x.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / "x.pth")
    same(found, tensors())
    assert found["again"].untyped_storage().size() == found["transposed"].untyped_storage().size()


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "uint16"])
def test_types_that_have_no_storage_of_their_own(tmp_path, name):
    if not hasattr(torch, name):
        pytest.skip("this torch has none")
    value = torch.arange(5).to(getattr(torch, name))
    torch.save({"a": value}, tmp_path / "x.pth")
    found = read_tensors(tmp_path / "x.pth")["a"]
    assert found.dtype == value.dtype and torch.equal(found.float(), value.float())


def test_a_file_is_known_by_what_is_in_it(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "x.pth")
    torch.save({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    for name in ("x.pth", "x.safetensors"):
        same(read_tensors(tmp_path / name), {"a": torch.ones(3)})


def test_tensors_inside_a_training_checkpoint(tmp_path):
    weights = {"module.a": torch.ones(3), "b": torch.zeros(2), "version": 3}
    for saved in ({"epoch": 1, "state_dict": weights}, {"model": {"state_dict": weights}}):
        torch.save({**saved, "optimizer": {"state": {0: torch.ones(5)}}}, tmp_path / "x.ckpt")
        found = read_tensors(tmp_path / "x.ckpt", ("state_dict", "model"), "module.")
        same(found, {"a": torch.ones(3), "b": torch.zeros(2)})
        with pytest.raises(ValueError, match="x.ckpt cannot be read as a file of tensors: it holds no named tensors"):
            read_tensors(tmp_path / "x.ckpt")


def test_other_values_and_pickled_tensors():
    """A whole file with all that it holds, and a tensor that was pickled by itself."""
    file = io.BytesIO()
    torch.save({"step": 3, "shape": torch.Size([1, 2]), "list": [torch.ones(2), np.float32(2)]}, file)
    found = read_torch(file.getvalue())
    assert found["step"] == 3 and is_tensor(found["list"][0]) and not is_tensor(found["list"][1])
    assert torch.equal(to_tensor(found["list"][0]), torch.ones(2))

    node = Unpickler(pickle.dumps(torch.arange(4.0)), MOTION_NAMES).load()
    assert torch.equal(to_tensor(node), torch.arange(4.0))


def test_an_archive_shows_its_members():
    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file)
    archive = TorchArchive(file.getvalue())
    assert {"data.pkl", "data/0", "version"} <= set(archive.names()) and archive.names("data/") == ["data/0"]
    assert "data/0" in archive and "code/x.py" not in archive and len(archive.read("data/0")) == 8


def test_large_files_stay_on_disk(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    for name, zipped in (("zip.pth", True), ("legacy.pth", False)):
        values = {"a": torch.zeros(25_000_000), "b": torch.zeros(3)}
        torch.save(values, tmp_path / name, _use_new_zipfile_serialization=zipped)
        del values
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_tensors(tmp_path / "zip.pth")["a"].shape == (25_000_000,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 20_000  # kilobytes, of 100 000


def test_writing_into_a_tensor_leaves_the_file_alone(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()
    read_tensors(tmp_path / "x.pth")["a"].add_(1)
    assert (tmp_path / "x.pth").read_bytes() == before


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


def archive_of(description: bytes, numbers: bytes = bytes(16), **more: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", description)
        archive.writestr("x/data/0", numbers)
        for name, content in more.items():
            archive.writestr(f"x/{name}", content)
    return file.getvalue()


def described(size: tuple, stride: tuple, count: int = 4, offset: int = 0) -> bytes:
    """A state with one tensor over four float32."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    sizes, strides = (b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride))
    pid = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + number(offset) + sizes + strides + b"I00\nNtR"
    return b"\x80\x02}Va\n" + tensor + b"s."


def test_the_description_itself_is_read(tmp_path):
    (tmp_path / "x.pth").write_bytes(archive_of(described((2, 2), (2, 1))))
    assert torch.equal(read_tensors(tmp_path / "x.pth")["a"], torch.zeros(2, 2))


def saved(value, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


WHOLE, LEGACY = saved({"a": torch.ones(1000)}), saved({"a": torch.ones(1000)}, zipped=False)
LONG = saved({"a": torch.ones(4)}, zipped=False)
BAD = {
    "nothing": (b"", "it is empty"),
    "a web page": (b"\n<!DOCTYPE html><html><body>404", "it is a web page"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "only a pointer of Git LFS"),
    "text": (b"not found", "it is damaged"),
    "a truncated archive": (WHOLE[: len(WHOLE) // 2], "it ends in the middle"),
    "a truncated old file": (LEGACY[: len(LEGACY) // 2], "it claims more numbers than it holds"),
    "an old file without numbers": (LONG[:-20], "it is damaged"),
    "truncated safetensors": (struct.pack("<Q", 500) + b'{"a":', "it ends in the middle"),
    "safetensors without a header": (struct.pack("<Q", 5) + b"{abcd", "it is damaged"),
    "a pickle": (pickle.dumps({"a": 1}), "it is a pickle, but not a torch file"),
    "a hostile pickle": (pickle.dumps(Hostile()), "was refused and nothing in it was run: it calls builtins.exec"),
    "a hostile archive": (saved({"a": Hostile()}), "was refused and nothing in it was run: it calls .*exec"),
    "a hostile old file": (saved({"a": Hostile()}, zipped=False), "was refused .* it calls .*exec"),
    "a list": (saved([torch.ones(2)]), "it holds no named tensors"),
    "a tensor": (saved(torch.ones(2)), "it holds no named tensors"),
    "numbers": (saved({"a": 1}), "it holds no named tensors"),
    "another archive": (archive_of(b"N.").replace(b"data.pkl", b"atad.pkl"), "not a torch file"),
    "a stride of 0": (archive_of(described((1000, 1000), (0, 0))), "it claims more numbers than it holds"),
    "numbers that are shared": (archive_of(described((3, 3), (1, 0))), "it claims more numbers than it holds"),
    "rows that overlap": (archive_of(described((3, 2), (1, 1))), "it claims more numbers than it holds"),
    "an offset behind the end": (archive_of(described((2,), (1,), offset=3)), "it claims more numbers than it holds"),
    "more numbers than there are": (archive_of(described((2,), (1,), 1 << 40)), "more numbers than it holds"),
    "a huge shape": (archive_of(described((1 << 40, 1 << 40), (1, 1))), "it claims more numbers than it holds"),
    "a negative shape": (archive_of(described((-1,), (1,))), "it is damaged"),
    "no numbers": (archive_of(described((2,), (1,))).replace(b"data/0", b"data/1"), "it holds no x/data/0"),
    "big-endian numbers": (archive_of(described((2,), (1,)), byteorder=b"big"), "on a big-endian machine"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, name):
    content, reason = BAD[name]
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^x\.pth [^\n]*{reason}[^\n]*; download it again\.$") as caught:
        read_tensors(tmp_path / "x.pth")
    assert "weights_only" not in str(caught.value)


def test_a_folder_a_missing_and_a_locked_file(tmp_path, monkeypatch):
    (tmp_path / "x.pth").mkdir()
    for name, reason in (("x.pth", "it is a folder"), ("y.pth", "it is not there")):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a file of tensors: {reason}; download it"):
            read_tensors(tmp_path / name)

    def locked(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "z.pth").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(
        ValueError, match="z.pth cannot be read as a file of tensors: the system reports Permission deni"
    ):
        read_tensors(tmp_path / "z.pth")


def test_old_files_of_other_machines():
    place = LONG.index(b"little_endian") + len("little_endian")
    truth = LONG.index(b"\x88", place)
    with pytest.raises(DamagedError, match="big-endian"):
        read_torch(LONG[:truth] + b"\x89" + LONG[truth + 1 :])
