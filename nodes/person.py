"""Node that follows one of several people through a clip."""

from collections.abc import Iterable
from itertools import count, islice

import cv2
import numpy as np
import torch
from comfy_api.latest import io

from ..champ.estimate.track import CHOICES, Track, choose_person, link, track
from ..champ.frame_lists import in_short
from ..champ.keypoints.pose_keypoint import SHOT
from ..champ.progress import counted
from ..champ.render.skeleton import draw_skeleton
from .animation import PREVIEW_SIZE, animated_part, preview_scale, preview_step
from .pose import FPS, keypoints_of_clip
from .types import PoseKeypoint, progress, schema, to_image
from .video import clip_input

CHOSEN, OTHER, INK = (92, 205, 112), (190, 194, 200), (24, 26, 28)


class ChampFollowPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampFollowPerson",
            display_name="Follow Person",
            category="Champ/pose",
            aliases=["track person", "choose person", "select person", "multiple people", "tracking"],
            description="Follows one of several people through the whole clip, also when people cross, are missed for "
            "a while, or the shot changes. Shows all people with a number.",
            inputs=[
                PoseKeypoint.Input(
                    "pose_keypoints", tooltip="All people of the clip, from Estimate Pose or another pose node."
                ),
                clip_input(
                    "clip",
                    "The same video or images. It is shown behind the boxes, and searched for cuts if pose_keypoints "
                    "do not contain them.",
                    optional=True,
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="For marked: a mask painted over the person in the first frame in which they appear. A "
                    "batch of masks is used frame by frame.",
                ),
                io.Combo.Input(
                    "person",
                    options=list(CHOICES),
                    default="largest",
                    tooltip="largest: the largest boxes, in each shot. central: nearest to the middle, in each shot. "
                    "number: the one with the number below. marked: the one under the mask.",
                ),
                io.Int.Input(
                    "number",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="For number: the number in the boxes of the overlay. 0 appears longest and largest.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="pose_keypoints",
                    tooltip="The chosen person alone, with as many frames as before. Frames without the person are "
                    "empty.",
                ),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="Everybody's box and number; the chosen person's in green. A long or large clip is shown "
                    f"with fewer frames and at most {PREVIEW_SIZE} pixels.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Who appears in which frames, and where the chosen person is missing.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @progress("Following the person")
    def execute(cls, pose_keypoints, person, number, clip=None, mask=None) -> io.NodeOutput:
        frames, width, height, people, shot = keypoints_of_clip(pose_keypoints, clip)
        tracks = track(people, shot)
        chosen = choose_person(
            tracks, person, number, None if mask is None else _pixels(mask, width, height), (width, height)
        )
        everybody = link(tracks)
        alone = [
            {**frame, "people": [frame["people"][i]] if i >= 0 else [], SHOT: int(s)}
            for frame, i, s in zip(pose_keypoints, chosen.member, shot)
        ]
        fps = FPS if frames is None or frames.fps is None else frames.fps
        step = preview_step(len(people), fps)
        if frames is None:
            behind = (draw_skeleton(poses, width, height) for poses in people[::step])
        else:
            behind = islice(counted(frames), 0, None, step)
        overlay = boxes_over(behind, everybody, chosen, step)
        report = _report(everybody, chosen, person, number)
        shown = animated_part(overlay, fps, step, len(people), boxes=boxes_of(everybody, step), size=[width, height])
        return io.NodeOutput(alone, to_image(overlay), report, ui=shown)


def boxes_of(everybody: list[Track], step: int) -> list[list[list[int]]]:
    """The number, x0, y0, x1 and y1 of everybody who is there, for every `step`-th frame."""
    frames = range(0, len(everybody[0].member), step) if everybody else ()
    return [
        [[n, *t.boxes[f, :4].round().astype(int).tolist()] for n, t in enumerate(everybody) if t.member[f] >= 0]
        for f in frames
    ]


def boxes_over(frames: Iterable[np.ndarray], everybody: list[Track], chosen: Track, step: int) -> torch.Tensor:
    """Draws a numbered box around everybody over every `step`-th frame, at half its brightness and a reduced size: (F,
    H, W, 3) uint8."""
    overlay = []
    for f, picture in zip(count(0, step), frames):
        scale, size = preview_scale(*picture.shape[1::-1])
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) // 2
        there = [(n, t) for n, t in enumerate(everybody) if t.member[f] >= 0]
        for n, t in sorted(there, key=lambda pair: pair[1].member[f] == chosen.member[f]):  # the chosen one last
            color = CHOSEN if t.member[f] == chosen.member[f] else OTHER
            _numbered_box(small, t.boxes[f, :4] * scale, str(n), color)
        overlay.append(torch.from_numpy(small))
    return torch.stack(overlay)


def _numbered_box(picture: np.ndarray, box: np.ndarray, text: str, color: tuple[int, int, int]) -> None:
    line = max(1, round(min(picture.shape[:2]) / 250))
    x0, y0, x1, y1 = np.round(box).astype(int).tolist()
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, line)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5 * max(1.0, min(picture.shape[:2]) / 400)
    (w, h), _ = cv2.getTextSize(text, font, size, line)
    # The label stays inside the picture, wherever the box is.
    x, y = np.clip((x0, y0), 0, np.maximum(np.array(picture.shape[1::-1]) - (w + 8, h + 8), 0)).tolist()
    cv2.rectangle(picture, (x, y), (x + w + 7, y + h + 7), color, -1)
    cv2.putText(picture, text, (x + 4, y + h + 3), font, size, INK, line, cv2.LINE_AA)


def _pixels(mask: torch.Tensor, width: int, height: int) -> np.ndarray:
    """Resizes masks to the clip: one (H, W) for all frames, or (F, H, W)."""
    masks = [cv2.resize(m.cpu().numpy(), (width, height), interpolation=cv2.INTER_AREA) > 0.5 for m in mask]
    return masks[0] if len(masks) == 1 else np.stack(masks)


def _report(everybody: list[Track], chosen: Track, person: str, number: int) -> str:
    frames = len(chosen.member)
    lines = [f"{len(everybody)} people:" if len(everybody) > 1 else "1 person:"]
    lines += [f"  {n}: in {len(t.seen)} of {frames} frames ({in_short(t.seen)})" for n, t in enumerate(everybody[:20])]
    absent = in_short(np.flatnonzero(chosen.member < 0))
    who = f"number {number}" if person == "number" else f"the {person} one"
    lines.append(f"Followed: {who}, in {len(chosen.seen)} frames{f'; missing in {absent}' if absent else ''}.")
    cuts = np.flatnonzero(np.diff(chosen.shot)) + 1
    if len(cuts):
        how = "chosen again" if person in ("largest", "central") else "matched by place and size only"
        lines.append(f"After the cuts at {', '.join(map(str, cuts))} the person was {how}: look at the overlay.")
    return "\n".join(lines)


NODES = [ChampFollowPerson]
