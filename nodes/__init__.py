"""The ComfyUI face of the pack: sockets, widgets and tooltips; the work is done in champ/."""

from comfy_api.latest import ComfyExtension, io

from . import (
    aggregate,
    body,
    compare,
    guidance,
    maps,
    metrics,
    models,
    motion,
    motion_files,
    reference,
    sampling,
    transfer,
)


class ChampExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (
            body,
            motion,
            motion_files,
            transfer,
            maps,
            models,
            guidance,
            reference,
            sampling,
            aggregate,
            compare,
            metrics,
        )
        return [node for module in modules for node in module.NODES]


async def comfy_entrypoint() -> ChampExtension:
    return ChampExtension()
