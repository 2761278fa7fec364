"""Node for test-time Procrustes calibration: moves the reference onto the person of every frame."""

import numpy as np
import torch
from comfy_api.latest import io

from ..champ.calibrate.attention import Reading
from ..champ.calibrate.branch import Picture, calibrate, plan_warps
from ..champ.calibrate.correspondences import People, covered, people_of_motion, people_of_poses
from ..champ.calibrate.procrustes import SUBSETS
from ..champ.calibrate.report import calibration_sheet, calibration_summary, doubts
from ..champ.keypoints.pose_keypoint import canvas_size, from_pose_keypoint, shots_of
from ..champ.model.span import Span
from .animation import still
from .types import (
    ChampBody,
    ChampMotion,
    ChampReference,
    ChampReferenceNet,
    PoseKeypoint,
    drawing_device,
    progress,
    schema,
    span_inputs,
    to_bytes,
    to_image,
    warn,
)


class ChampCalibrateReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ChampCalibrateReference",
            display_name="Calibrate Reference (TPC)",
            category="Champ/model",
            aliases=["TPC", "Procrustes", "align reference", "match pose", "calibration"],
            advanced=["points", "group_size", "seed", "max_warps", "start", "end"],
            description="For a reference person who is larger or smaller than in the video, turned, or in another "
            "place. Every frame also reads a copy of the image that is moved onto the person of that frame (test-time "
            "Procrustes calibration). Connect it between Encode Reference and Apply Champ. It needs to know where the "
            "person is, in the image and in the frames, from motions or from keypoints.",
            inputs=[
                ChampReference.Input("reference", tooltip="From Encode Reference. Its first image is calibrated."),
                ChampReferenceNet.Input("reference_net", tooltip="The same as for Encode Reference."),
                io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 1.5, the same as for Encode Reference."),
                ChampMotion.Input(
                    "reference_motion",
                    optional=True,
                    tooltip="The body in the reference image, as a motion. Only its first frame is used.",
                ),
                ChampMotion.Input("motion", optional=True, tooltip="The motion that the maps were rendered from."),
                ChampBody.Input("body", optional=True, tooltip="The kind of body of the motions."),
                PoseKeypoint.Input(
                    "reference_keypoints",
                    optional=True,
                    tooltip="Keypoints of the reference image, if there is no reference_motion.",
                ),
                PoseKeypoint.Input(
                    "pose_keypoints",
                    optional=True,
                    tooltip="Keypoints that the skeleton maps were drawn from, if there is no motion.",
                ),
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="Where the person is in the reference image; used when masking is paper. If empty, the "
                    "body of reference_motion is used.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the person is in every frame; used when masking is paper. If empty, the body of "
                    "motion is used.",
                ),
                io.Combo.Input(
                    "points",
                    display_name="points to align",
                    options=list(SUBSETS),
                    default="auto",
                    tooltip="Which points are aligned. auto: the largest group of points that agree, so limbs that "
                    "moved do not count. face, torso, all: exactly those points, all with the same weight.",
                ),
                io.Combo.Input(
                    "masking",
                    display_name="keep background apart",
                    options=["off", "paper"],
                    default="off",
                    tooltip="paper: the person's pixels read only the moved image, all others read only the background "
                    "of the reference. off: all pixels read both images.",
                ),
                io.Int.Input(
                    "group_size",
                    display_name="frames in a group",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Iterative propagation: this many consecutive frames read the image as it is moved for a "
                    "random one of them, drawn again in every step. This makes the video steadier. 1 turns it off.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Controls which frame of each group is drawn.",
                ),
                io.Int.Input(
                    "max_warps",
                    display_name="most positions",
                    default=32,
                    min=1,
                    max=1000,
                    tooltip="The most positions of the image that ReferenceNet encodes and main memory holds, about 35 "
                    "MB each at 512x768. Frames that need nearly the same position share one.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.01, tooltip="How much the moved image counts."
                ),
                *span_inputs(),
            ],
            outputs=[
                ChampReference.Output(display_name="reference", tooltip="The calibrated reference, for Apply Champ."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The reference image and, for some frames, the moved image. Crosses are the points of the "
                    "reference. Circles are the points of the frame: green ones decided the move, red ones did not.",
                ),
                io.String.Output(display_name="report", tooltip="Sizes, turns, difficult frames, and the cost."),
            ],
            is_output_node=True,
        )

    @classmethod
    @progress("Calibrating the reference", "")
    def execute(
        cls, reference, reference_net, vae, points, masking, group_size, seed, max_warps, strength, start, end,
        reference_motion=None, motion=None, body=None, reference_keypoints=None, pose_keypoints=None,
        reference_mask=None, mask=None,
    ) -> io.NodeOutput:  # fmt: skip
        shown = reference.shown[0]
        rows, columns = shown.image.shape[:2]
        masked = masking == "paper"
        ours, _ = people("reference", reference_motion, reference_keypoints, body, (rows, columns) if masked else None)
        cells = (shown.height // 8, shown.width // 8) if masked else None
        theirs, shot = people("", motion, pose_keypoints, body, cells)
        picture_size = "the reference image", columns, rows
        video_size = "the video of Encode Reference", shown.width, shown.height
        check_shape("the points of the reference", ours.width, ours.height, *picture_size)
        check_shape("the points of the frames", theirs.width, theirs.height, *video_size)

        person = None
        if masked:
            for what, given, size in (("reference_mask", reference_mask, picture_size), ("mask", mask, video_size)):
                if given is not None:
                    check_shape(f"the {what}", given.shape[-1], given.shape[-2], *size)
            person = silhouette(ours.shares, reference_mask, rows, columns, 1, "reference_mask")[0]
            theirs = theirs._replace(shares=silhouette(theirs.shares, mask, *cells, len(theirs.points), "mask"))
        picture = Picture(
            to_bytes(shown.image[None])[0, ..., :3].numpy(),
            shown.width,
            shown.height,
            shown.fit,
            None if person is None else to_bytes(person[None])[0].numpy(),
        )
        plan = plan_warps(picture, ours, theirs, points, max_warps, shot)
        for doubt in doubts(plan):
            warn(f"Calibrate Reference: {doubt}")
        first, *others = reference.references
        held = 0
        if any(alignment.aligned for alignment in plan.alignments):
            first = calibrate(
                first,
                reference_net,
                vae.encode,
                picture,
                plan,
                shown.clip_embeds,
                Reading(group_size, seed, shot, strength, Span(start, end)),
            )
            warps = first.calibration.warps[1:]
            held = sum(warp.nbytes for warp in warps)
        preview, report = to_image(calibration_sheet(picture, plan)), calibration_summary(plan, held)
        calibrated = reference._replace(references=(first, *others))
        return io.NodeOutput(calibrated, preview, report, ui=still(preview, cls))


def people(which, motion, keypoints, body, cells) -> tuple[People, np.ndarray]:
    """Returns where the person is, from a motion or else from keypoints, and the shot number of each frame."""
    name = f"{which}_motion" if which else "motion"
    if motion is not None:
        if body is None:
            raise ValueError(
                f"A {name} is connected but no body; connect the kind of body that the motion was made with."
            )
        motion = motion[:1] if which else motion
        return people_of_motion(body, motion, cells, drawing_device()), motion.shot.cpu().numpy()
    if keypoints is None:
        raise ValueError(
            "Calibrate Reference does not know where the person is in "
            f"{'the reference image' if which else 'the frames'}; connect {name} and body, or "
            f"{which or 'pose'}_keypoints."
        )
    keypoints = keypoints[:1] if which else keypoints
    width, height = canvas_size(keypoints)
    frames, shot = from_pose_keypoint(keypoints, width, height), shots_of(keypoints)
    return people_of_poses(frames, shot, width, height), shot


def silhouette(shares, mask, rows, columns, frames, name) -> torch.Tensor:
    """Returns a MASK as coverage per latent pixel, or the coverage of the body's silhouette if there is no mask."""
    if mask is None:
        if shares is None:
            raise ValueError(
                f"Masking needs to know which pixels belong to the person; connect {name}, or the motion and body, or "
                "set keep background apart (masking) to off."
            )
        return shares
    mask = mask.reshape(-1, *mask.shape[-2:])
    mask = mask[:1] if frames == 1 else mask
    if len(mask) not in (1, frames):
        raise ValueError(
            f"The {name} has {len(mask)} frames but {frames} are needed; connect the mask of the same clip."
        )
    return covered(mask, rows, columns).expand(frames, -1, -1)


def check_shape(what, own_width, own_height, picture, width, height) -> None:
    """Warns when points or masks come from a picture of another aspect ratio: they are stretched onto the picture."""
    ratio = own_width / own_height * height / width
    if not 0.98 < ratio < 1.02:
        warn(
            f"Calibrate Reference: the canvas of {what} is {own_width}x{own_height} pixels, but {picture} has "
            f"{width}x{height}, so nothing lies in the right place; use pictures of one aspect ratio."
        )


NODES = [ChampCalibrateReference]
