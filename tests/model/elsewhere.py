"""A device that is not there: its tensors say that they are on MPS, and their numbers are in main memory.

Every operator that runs on them is checked as MPS would check it: no float64, no tensors of two devices in one
operator, and only operators for which torch has MPS kernels, which its own table (native_functions.yaml) tells."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torchgen
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MPS = torch.device("mps", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
WIDE = {torch.float64, torch.complex128}
# May have a tensor of another device before them.
CROSSING = {aten._to_copy, aten.copy_, aten.empty_like, aten.zeros_like, aten._local_scalar_dense, aten.lift_fresh}
# Indices may be in main memory.
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2}
INDEXED = {aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_, aten._unsafe_index}


class Refused(AssertionError):
    """What MPS would not do."""


class Elsewhere(torch.Tensor):
    """Says to Python that it is on MPS, and to torch itself, which may be built without, that it is a meta tensor."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device="meta", requires_grad=False
        )
        made.here = here
        return made

    device = property(lambda self: MPS)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """Makes what is made anew on MPS, and counts the operators that ran there, and what went there and came back."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {}, self)

    def count(self, func, given: list[torch.Tensor], there: bool) -> None:
        """Counts launches, transfers to the device, and waits for its numbers or for a shape that depends on them."""
        packet = func.overloadpacket
        mine = [isinstance(value, Elsewhere) for value in given]
        if packet in WAITING:
            self.counts["waits"] += any(mine)
        elif packet is aten._to_copy:
            self.counts["transfers"] += there and not mine[0]
            self.counts["waits"] += mine[0] and not there
        elif packet is aten.copy_:
            self.counts["transfers"] += mine[0] and not mine[1]
            self.counts["waits"] += mine[1] and not mine[0]
        self.counts["launches"] += there and not func.is_view


class Numbers(TorchFunctionMode):
    """Tensors of Python's numbers, which torch makes past all modes for operators, begin in main memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.new_tensor:
            own, data = args
            return torch.tensor(data, dtype=kwargs.get("dtype", own.dtype)).to(kwargs.get("device", own.device))
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):  # torch refuses it for classes of ours
            return args[0].cpu().tolist()
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            return func(*args, **kwargs) if device is None else func(*args, **kwargs).to(device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            own, index, *rest = args
            parts = [numbers(part) for part in index] if isinstance(index, tuple) else [numbers(index)]
            args = (own, tuple(parts) if isinstance(index, tuple) else parts[0], *rest)
        return func(*args, **kwargs)


def numbers(index):
    return torch.tensor(index) if isinstance(index, list) else index


def run(func, args, kwargs, pretend: Pretend | None = None):
    given = [value for value in flat((args, kwargs)) if isinstance(value, torch.Tensor)]
    assert not any(value.is_meta and not isinstance(value, Elsewhere) for value in given), "numbers that nobody has"
    target = kwargs.get("device")
    if target is not None:
        there = torch.device(target).type in ("mps", "meta")
        kwargs = {**kwargs, "device": CPU}
    else:
        there = any(isinstance(value, Elsewhere) for value in given)
    packet = func.overloadpacket
    if there:
        check(func, given)
        if pretend is not None:
            pretend.ran.add(func.name())
    if pretend is not None:
        pretend.count(func, given, there)
    if packet is aten._fused_sdp_choice:
        return 0  # attention out of its parts
    made = func(*mapped(inside, args), **mapped(inside, kwargs))
    owners = {id(value.here): value for value in given if isinstance(value, Elsewhere)}

    def outside(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in owners:
            return owners[id(value)]
        if not there or packet is aten._local_scalar_dense:
            return value
        if value.dtype in WIDE:
            raise Refused(f"{func} makes {value.dtype}, which MPS does not have")
        return Elsewhere(value)

    return mapped(outside, made)


def inside(value):
    return value.here if isinstance(value, Elsewhere) else value


def flat(value) -> Iterator:
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from flat(part)
    else:
        yield value


def mapped(change: Callable, value):
    if isinstance(value, dict):
        return {key: mapped(change, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([mapped(change, part) for part in value])
    return change(value)


def check(func, given: list[torch.Tensor]) -> None:
    packet = func.overloadpacket
    name = func.name().removeprefix("aten::")
    if not has_kernel(name):
        raise Refused(f"{name} is not on MPS")
    for value in given:
        if isinstance(value, Elsewhere):
            if value.dtype in WIDE:
                raise Refused(f"{name} is given {value.dtype}, which MPS does not have")
        elif value.ndim and packet not in CROSSING and not (packet in INDEXED and value.dtype == torch.int64):
            raise Refused(f"{name} is given tensors on MPS and on the CPU")


@functools.cache
def table() -> dict[str, str]:
    """What torch's table says of each operator."""
    file = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = re.split(r"^- func: ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {entry.partition("(")[0]: entry for entry in entries}


@functools.cache
def has_kernel(name: str) -> bool:
    """Whether it runs on MPS: by a kernel for that, or put together of other operators on every device."""
    entry = table().get(name)
    if entry is None:
        raise Refused(f"{name} is no operator of torch's own")
    if delegate := re.search(r"structured_delegate: (\S+)", entry):
        return has_kernel(delegate[1])
    dispatch = re.search(r"^  dispatch:\n((?:    .*\n?)+)", entry, re.MULTILINE)
    kinds = "Composite" if dispatch is None else re.sub(r":.*", "", dispatch[1])
    return "Composite" in kinds or re.search(r"\bMPS\b", kinds) is not None


@contextmanager
def pretending() -> Iterator[Pretend]:
    """ComfyUI's device is MPS meanwhile."""
    import comfy.model_management as management

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(management, "get_torch_device", lambda: MPS)
        patches.setattr(management, "mac_version", lambda: (14, 5))
        with Pretend() as pretend, Numbers():
            yield pretend
