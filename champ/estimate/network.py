"""Networks that are frozen in files: ONNX through OpenCV on the CPU, TorchScript through torch on any device."""

import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

EXTENSIONS = {".onnx", ".pt"}
# What TorchScript has for touching files, and all that is more than torch's own operators on tensors.
FORBIDDEN = re.compile(rb"\b(save|from_file)\s*\(|\bops\.(?!prim\.|aten\.)\w+|\btorch\.classes\b")


class FrozenNetwork(nn.Module):
    """Float32 pictures (N, 3, H, W) in, a list of float32 arrays (N, ...) out; the outputs are in no certain order.

    A module, so that ComfyUI can move the weights that torch has; those of OpenCV stay where they are.
    """

    batch = 1  # how many pictures go in at once, no fewer: the rest is padded

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, pictures: np.ndarray) -> list[np.ndarray]:
        count = len(pictures)
        padding = np.zeros((-count % self.batch, *pictures.shape[1:]), dtype=np.float32)
        padded = np.concatenate([pictures, padding])
        try:
            runs = [self.run(padded[i : i + self.batch]) for i in range(0, count, self.batch)]
        except torch.OutOfMemoryError:
            raise
        except (cv2.error, RuntimeError) as error:
            raise ValueError(
                f"{self.name} does not take pictures of {pictures.shape[3]}x{pictures.shape[2]} pixels, "
                f"{self.batch} at once; choose the file that is meant for this ({_reason(error)})."
            ) from None
        return [np.concatenate(parts)[:count] for parts in zip(*runs)]

    def run(self, pictures: np.ndarray) -> list[np.ndarray]:
        raise NotImplementedError


class OnnxNetwork(FrozenNetwork):
    def __init__(self, file: Path):
        super().__init__(file.name)
        # From memory, because OpenCV cannot open every name that Windows allows.
        content = np.fromfile(file, dtype=np.uint8)
        try:
            self.net = cv2.dnn.readNetFromONNX(content)
        except cv2.error as error:
            raise ValueError(
                f"OpenCV {cv2.__version__} cannot read {file.name} as an ONNX network; download it again, or take the "
                f"TorchScript version ({_reason(error)})."
            ) from None
        self.outputs = self.net.getUnconnectedOutLayersNames()

    def run(self, pictures: np.ndarray) -> list[np.ndarray]:
        self.net.setInput(pictures)
        return list(self.net.forward(self.outputs))


class ScriptNetwork(FrozenNetwork):
    def __init__(self, file: Path):
        super().__init__(file.name)
        # The community's dw-ll_ucoco_384_bs5.torchscript.pt was traced for batches of 5.
        batch = re.search(r"_bs(\d+)", file.name)
        self.batch = int(batch[1]) if batch else 1
        # torch.jit.load runs no Python: its own unpickler only knows tensors and the file's own classes, and code is
        # TorchScript, which only reaches torch's operators. Those of them that could do harm are refused before.
        try:
            _check_code(file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is old is nothing a user can change
                self.script = torch.jit.load(str(file), map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(
                f"{file.name} cannot be read as a TorchScript network; download it again, or take the ONNX version "
                f"({_reason(error)})."
            ) from None

    @torch.no_grad()
    def run(self, pictures: np.ndarray) -> list[np.ndarray]:
        weight = next(self.script.parameters())
        outputs = self.script(torch.from_numpy(pictures).to(weight.device, weight.dtype))
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        return [output.float().cpu().numpy() for output in outputs]


def read_network(file: Path) -> FrozenNetwork:
    return OnnxNetwork(file) if file.suffix == ".onnx" else ScriptNetwork(file)


def _check_code(file: Path) -> None:
    reader = torch._C.PyTorchFileReader(str(file))  # the reader of torch.jit.load, so that both see the same
    for record in reader.get_all_records():
        found = FORBIDDEN.search(reader.get_record(record)) if record.endswith(".py") else None
        if found:
            raise ValueError(f"{file.name} uses {found[0].decode()!r}, which DWPose does not need; it was not loaded.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
