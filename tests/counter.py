"""Counts the memory of tensors as they come and go."""

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Counter(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, but not those of what was there before."""

    def __init__(self, before: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: dict[int, object] = {tensor.untyped_storage()._cdata: tensor for tensor in before}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, list | tuple) else (made,):
            if isinstance(value, torch.Tensor):
                self.count(value.untyped_storage())
        return made

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def gone(_: weakref.ref) -> None:
            self.alive -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, gone)
        self.alive += size
        self.peak = max(self.peak, self.alive)
