"""Motions for the 3D view in the page: what the widgets say, before anything is queued, or what a node has made."""

import asyncio
import base64
import hashlib
import json
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import cv2
import torch
from aiohttp import web
from comfy_api.latest import io
from server import PromptServer

from ..champ.body.body import Body
from ..champ.body.free import load_free_body
from ..champ.motion.motion import Motion
from ..champ.progress import listening
from ..champ.render.stage import skin, stage
from . import body, example, motion, motion_files, smooth, transfer
from .animation import preview_scale
from .requests import asked
from .transfer import put_into
from .types import aside

SECONDS = 5  # that a view may take
MOST_NODES = 40  # before a motion
LONGEST_TEXT = 4000
KEPT_FRAMES = 5000  # of a motion that is kept in memory
KEPT_MOTIONS, KEPT_STEPS = 24, 32
KEPT_PICTURES = 100_000_000  # bytes in the outputs of steps

NODES: dict[str, type[io.ComfyNode]] = {
    node.__name__: node
    for node in [*body.NODES, *example.NODES, *motion.NODES, *motion_files.NODES, *smooth.NODES, *transfer.NODES]
}
Step = Callable[..., tuple]


def step_of(kind: str) -> Step:
    return lambda **inputs: NODES[kind].execute(**inputs).args


# What a view may make of which node; nothing here writes a file or takes long.
STEPS: dict[str, Step] = {
    kind: step_of(kind)
    for kind in (
        "ChampFreeBody", "ChampLoadSMPL", "ChampExamplePerson", "ChampBuiltInMotion", "ChampCamera",
        "ChampRetimeMotion", "ChampSmoothMotion", "ChampLoadMotion",
    )
} | {
    "ChampTransferMotion": lambda **inputs: put_into(**inputs)[:1],
    "ChampPreviewMotion": lambda motion, **_: (motion,),
}  # fmt: skip


class NotYet(Exception):
    """The view needs something that is only known after a run."""


# Made by nodes that a view cannot run, by token; None for one that is too long.
kept: OrderedDict[str, tuple[Motion, Body] | None] = OrderedDict()
done: OrderedDict[str, tuple] = OrderedDict()  # outputs of steps, by what they were made of
one_at_a_time = asyncio.Lock()


def remember(store: OrderedDict, key: str, value: Any, most: int) -> None:
    store[key] = value
    while len(store) > most:
        store.popitem(last=False)


def bytes_of(outputs: tuple) -> int:
    return sum(value.nbytes for value in outputs if isinstance(value, torch.Tensor))


def keep(motion: Motion, body: Body | None) -> dict:
    """Keeps a motion for the view; a part of the node's ui that tells the page how to ask for it."""
    token = uuid.uuid4().hex
    short = len(motion) <= KEPT_FRAMES
    remember(kept, token, (motion, body or load_free_body()) if short else None, KEPT_MOTIONS)
    return {"champ_motion": [token]}


def checked_value(kind: str, given: io.Input, value: object) -> object:
    """A widget's value, if it is one that the node's widget could have."""
    if isinstance(given, io.Boolean.Input):
        good = isinstance(value, bool)
    elif isinstance(given, (io.Int.Input, io.Float.Input)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        good = number and given.min <= value <= given.max  # type: ignore[operator]
        if good and isinstance(given, io.Int.Input):
            value = round(value)  # type: ignore[call-overload]
    else:
        good = isinstance(value, str) and len(value) <= LONGEST_TEXT
    if not good:
        raise ValueError(f"{given.id} of {kind} is {str(value)[:50]!r}, which its widget does not allow.")
    return value


class ViewedGraph:
    """The nodes that lead to a motion, as the page describes them: {"class_type", "inputs"} as in a prompt, or
    {"token"} for what a node made in its last run."""

    def __init__(self, nodes: object) -> None:
        if not isinstance(nodes, dict) or len(nodes) > MOST_NODES:
            raise ValueError(f"A view takes an object of at most {MOST_NODES} nodes.")
        self.nodes = nodes
        self.busy: list[str] = []

    def outputs(self, id: str) -> tuple[str, tuple]:
        """What a node's outputs were made of, and the outputs."""
        node = self.nodes.get(id)
        if not isinstance(node, dict) or id in self.busy:
            raise NotYet("Run the workflow once to see the motion here.")
        if "token" in node:
            if node["token"] not in kept:
                raise NotYet("Run the workflow again to see the motion here.")
            kept.move_to_end(node["token"])
            return node["token"], self.known(node["token"])[:1]
        kind, inputs = node.get("class_type"), node.get("inputs")
        if kind not in STEPS or not isinstance(inputs, dict):
            raise NotYet("Run the workflow once to see the motion here.")
        self.busy.append(id)
        made_of, values = self.values(kind, inputs)
        self.busy.pop()
        key = hashlib.sha256(json.dumps([kind, made_of]).encode()).hexdigest()
        if key not in done:
            made = STEPS[kind](**values)
            if any(isinstance(value, Motion) and len(value) > KEPT_FRAMES for value in made):
                return key, made
            remember(done, key, made, KEPT_STEPS)
            while sum(map(bytes_of, done.values())) > KEPT_PICTURES:
                done.popitem(last=False)
            return key, made
        return key, done[key]

    @staticmethod
    def known(token: str) -> tuple[Motion, Body]:
        if (made := kept[token]) is None:
            raise NotYet("This motion is too long to be shown here.")
        return made

    def values(self, kind: str, inputs: dict) -> tuple[list, dict]:
        made_of, values = [], {}
        for given in NODES[kind].define_schema().inputs:
            value = inputs.get(given.id, getattr(given, "default", None) if given.optional else None)
            if isinstance(value, list) and len(value) == 2:
                if isinstance(given, io.Image.Input):
                    continue  # pictures are not needed for a motion, see `behind`
                source = self.nodes.get(str(value[0]))
                if isinstance(given, io.WidgetInput) and not (isinstance(source, dict) and "class_type" in source):
                    raise NotYet(
                        "A value comes from a node that only a run can ask, so the motion cannot be shown before."
                    )
                key, outputs = self.outputs(str(value[0]))
                if not isinstance(value[1], int) or not 0 <= value[1] < len(outputs):
                    raise NotYet("Run the workflow once to see the motion here.")
                values[given.id] = outputs[value[1]]
                made_of.append([given.id, key, value[1]])
            elif isinstance(given, io.WidgetInput):
                values[given.id] = checked_value(kind, given, value)
                made_of.append([given.id, values[given.id]])
            elif not given.optional:
                raise NotYet(f"Connect {given.id} to see the motion here.")
        if kind == "ChampLoadMotion":
            made_of.append(NODES[kind].fingerprint_inputs(**values))  # type: ignore[attr-defined]
        return made_of, values

    def motion(self, id: str) -> tuple[Motion, Body]:
        """The motion that a node makes, and a body to show it with."""
        found = [value for value in self.outputs(id)[1] if isinstance(value, Motion)]
        if not found:
            raise NotYet("Run the workflow once to see the motion here.")
        return found[0], self.body(id) or load_free_body()

    def behind(self, id: str) -> tuple[str, torch.Tensor] | None:
        """The reference image of a node, where this pack draws it, and what it was made of."""
        source = self.nodes[id].get("inputs", {}).get("reference_image")
        drawn = (
            isinstance(source, list) and self.nodes.get(str(source[0]), {}).get("class_type") == "ChampExamplePerson"
        )
        if not drawn:
            return None
        key, outputs = self.outputs(str(source[0]))
        return key, outputs[0][0]

    def body(self, id: str) -> Body | None:
        """The nearest body before a node."""
        node = self.nodes[id]
        if "token" in node:
            return self.known(node["token"])[1]
        links = [value for value in node["inputs"].values() if isinstance(value, list)]
        for source, slot in links:
            outputs = self.outputs(str(source))[1] if str(source) in self.nodes else ()
            if slot < len(outputs) and isinstance(outputs[slot], Body):
                return outputs[slot]
        return next(
            (found for source, _ in links if str(source) in self.nodes and (found := self.body(str(source)))), None
        )


def packed(values: torch.Tensor) -> str:
    return base64.b64encode(values.cpu().contiguous().numpy().tobytes()).decode()


def mesh_key(body: Body) -> str:
    return hashlib.sha256(body.faces.numpy().tobytes() + body.weights.numpy().tobytes()).hexdigest()[:16]


def scene(motion: Motion, body: Body, have: list) -> dict:
    """What the page draws; the mesh's triangles and weights only where it does not have them already."""
    made = stage(body, motion)
    about: dict[str, Any] = {name: packed(made[name].float()) for name in ("matrices", "vertices", "normals")}
    about |= {name: made[name].tolist() for name in ("numbers", "camera", "path", "confidence")}
    about |= {"mesh": mesh_key(body), "frames": len(motion), "fps": motion.fps}
    about |= {"focal": motion.focal, "width": motion.width, "height": motion.height}
    if about["mesh"] not in have:
        joints, weights = skin(body)
        about |= {"faces": packed(body.faces.int()), "joints": packed(joints), "weights": packed(weights)}
    return about


def jpeg(picture: torch.Tensor) -> str:
    """A picture (H, W, 3) in 0..1 for the page."""
    pixels = (picture * 255).round().byte().numpy()
    _, size = preview_scale(pixels.shape[1], pixels.shape[0])
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".jpg", small[..., ::-1])[1].tobytes()).decode()


def seen_from(about: dict) -> dict:
    """The scene of a node's motion, and the picture behind it, if the page does not have it."""
    graph, id, have = ViewedGraph(about.get("nodes")), str(about.get("node")), about.get("have")
    have = have if isinstance(have, list) else []
    answer = scene(*graph.motion(id), have)
    if picture := graph.behind(id):
        answer["behind"] = picture[0]
        if picture[0] not in have:
            answer["picture"] = jpeg(picture[1])
    return answer


def within_time(answer: Callable[[dict], dict], about: dict) -> dict:
    """The answer to a page, or why there is none; runs in a thread."""
    deadline = time.monotonic() + SECONDS

    def stop_when_late(done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise NotYet("This motion is too long to be shown before it is made; run the workflow once.")

    aside.set(True)  # in this thread alone
    try:
        with torch.inference_mode(), listening(stop_when_late):
            return answer(about)
    except NotYet as why:
        return {"not_yet": str(why)}
    except (ValueError, OSError) as error:
        return {"error": str(error)}


async def show(request: web.Request) -> web.Response:
    about = await asked(request)
    async with one_at_a_time:
        return web.json_response(await asyncio.to_thread(within_time, seen_from, about))


def add_routes() -> None:
    PromptServer.instance.routes.post("/champ/motion")(show)
