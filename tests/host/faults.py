"""Faults on demand inside a running ComfyUI, for the tests: this file lies in its custom nodes.

A fault strikes while a node of this pack works, at one of the torch operators that it runs: memory runs out there, or
the user cancels. What the nodes run is counted first, so that a fault can be put halfway."""

import gc

import comfy.model_management
import torch
from aiohttp import web
from server import PromptServer
from torch.utils._python_dispatch import TorchDispatchMode

import nodes

counts: dict[str, int] = {}  # operators that each class of nodes has run
armed: dict[str, tuple[str, int]] = {}  # by class: the fault and the operator at which it strikes
struck: list[str] = []


class Operators(TorchDispatchMode):
    """Counts the operators of a node, and lets its fault strike."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        fault, at = armed.get(self.name, (None, 0))
        if fault and self.count == at:
            del armed[self.name]
            struck.append(self.name)
            if fault == "out of memory":
                raise comfy.model_management.OOM_EXCEPTION("injected: the memory does not suffice")
            comfy.model_management.interrupt_current_processing()
        return func(*args, **(kwargs or {}))


def watch(name: str) -> None:
    node = nodes.NODE_CLASS_MAPPINGS[name]
    if "watched" in vars(node):
        return
    execute = node.execute.__func__

    def watched(cls, *args, **kwargs):
        with Operators(name) as operators:
            try:
                return execute(cls, *args, **kwargs)
            finally:
                counts[name] = operators.count

    node.watched = True
    node.execute = classmethod(watched)


def tensor_bytes() -> int:
    """What all tensors hold that anything in the process still refers to."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided and thing.device.type != "meta":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


routes = PromptServer.instance.routes


@routes.post("/test_faults/watch")
async def _watch(request):
    for name in await request.json():
        watch(name)
    return web.json_response({})


@routes.post("/test_faults/arm")
async def _arm(request):
    """Puts faults in the place of those before; answers which of them have struck."""
    answer = web.json_response(struck)
    armed.clear()
    struck.clear()
    armed.update({name: tuple(fault) for name, fault in (await request.json()).items()})
    return answer


@routes.get("/test_faults/state")
async def _state(request):
    loaded = [type(model.model.model).__name__ for model in comfy.model_management.current_loaded_models if model.model]
    return web.json_response({"counts": counts, "loaded": loaded, "tensor_bytes": tensor_bytes()})


NODE_CLASS_MAPPINGS: dict = {}
