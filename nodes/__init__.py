"""The ComfyUI face of the pack: sockets, widgets and tooltips; the work is done in champ/."""

from comfy_api.latest import ComfyExtension, io

from . import body, maps, motion


class ChampExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [*body.NODES, *motion.NODES, *maps.NODES]


async def comfy_entrypoint() -> ChampExtension:
    return ChampExtension()
