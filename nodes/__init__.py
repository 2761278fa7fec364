"""The ComfyUI nodes of the pack: sockets, widgets and tooltips. The work is done in champ/."""

from comfy_api.latest import ComfyExtension, io

from . import (
    aggregate,
    blazepose,
    body,
    calibrate,
    compare,
    download,
    estimate,
    example,
    fit,
    guidance,
    maps,
    metrics,
    models,
    motion,
    motion_files,
    person,
    pose,
    reference,
    sampling,
    shortcuts,
    smooth,
    timeline,
    transfer,
    view,
)


class ChampExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (  # in the order of the work, which is that of the node library
            body,
            example,
            motion,
            motion_files,
            blazepose,
            pose,
            person,
            estimate,
            fit,
            smooth,
            transfer,
            maps,
            models,
            guidance,
            reference,
            sampling,
            aggregate,
            shortcuts,
            calibrate,
            compare,
            metrics,
        )
        return [node for module in modules for node in module.NODES]


async def comfy_entrypoint() -> ChampExtension:
    download.add_routes()
    timeline.add_routes()
    view.add_routes()
    return ChampExtension()
