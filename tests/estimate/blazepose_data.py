"""Pictures of drawn people for BlazePose, and what MediaPipe's own files say about them (tests/data/blazepose).

    pip install ai-edge-litert==2.3.0
    python tests/estimate/blazepose_data.py mediapipe-0.10.21-*.whl

The clip has two people, of whom one comes later; where their joints are is known from the bodies they were drawn of."""

import math
import sys
import zipfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "blazepose"
CLIP, TRUTH, ORACLE = DATA / "two_people.mp4", DATA / "two_people.npz", DATA / "oracle.npz"
WIDTH, HEIGHT, FRAMES, FPS = 448, 320, 16, 12
COMES = 6  # frame in which the person on the right is there first
SURE = 24  # boxes that are kept, of the detector's 2254
COARSE = 8  # every how manieth cell of a heat map is kept
FILES = {
    "person": "pose_detection/pose_detection",
    "body": "pose_landmark/pose_landmark_full",
    "hand": "hand_landmark/hand_landmark_full",
    "face": "face_landmark/face_landmark",
}


def crops() -> dict[str, np.ndarray]:
    """A uint8 crop (size, size, 3) for each network, from the picture of Example Person."""
    from champ.estimate.blazepose import networks
    from champ.estimate.blazepose.crops import TurnedSquare, cut
    from champ.people.portrait import portrait

    sitter = portrait(512, 512)
    picture = sitter.picture.numpy()
    points = sitter.motion.project(sitter.body.keypoints(sitter.motion.posed(sitter.body)))[0].numpy()
    hips, nose, elbow, wrist = points[11:13].mean(0), points[0], points[7], points[9]
    forearm = wrist - elbow
    squares = {
        "person": TurnedSquare(256, 256, 512),
        "body": TurnedSquare(*hips, 560, 0.1),
        "hand": TurnedSquare(*(wrist + 0.3 * forearm), 60, math.atan2(forearm[0], -forearm[1])),
        "face": TurnedSquare(*nose, 100, -0.05),
    }
    return {name: cut(picture, square, getattr(networks, name.upper())) for name, square in squares.items()}


def oracle(wheel: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    said = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, crop in inputs.items():
            interpreter = Interpreter(model_content=archive.read(f"mediapipe/modules/{FILES[name]}.tflite"))
            interpreter.allocate_tensors()
            values = crop[None].astype(np.float32) / 255
            interpreter.set_tensor(
                interpreter.get_input_details()[0]["index"], values * 2 - 1 if name == "person" else values
            )
            interpreter.invoke()
            for output in interpreter.get_output_details():
                said[f"{name}.{output['name']}"] = interpreter.get_tensor(output["index"])
    logits = said["person.Identity_1"].ravel()
    best = np.argsort(-logits)[:SURE]
    return {
        **{f"{name}.crop": crop for name, crop in inputs.items()},
        "person.best": best,
        "person.boxes": said["person.Identity"][0, best],
        "person.logits": logits[best],
        "body.points": said["body.Identity"].reshape(39, 5),
        "body.presence": said["body.Identity_1"].ravel(),
        "body.heat": said["body.Identity_3"][0, ::COARSE, ::COARSE].transpose(2, 0, 1),
        "body.world": said["body.Identity_4"].reshape(39, 3),
        "hand.points": said["hand.Identity"].reshape(21, 3),
        "hand.presence": said["hand.Identity_1"].ravel(),
        "face.points": said["face.conv2d_21"].reshape(468, 3),
        "face.presence": 1 / (1 + np.exp(-said["face.conv2d_31"].ravel())),
    }


def draw_clip() -> tuple[np.ndarray, np.ndarray]:
    """Pictures (F, H, W, 3), and COCO's 17 points of both people (F, 2, 17, 2), NaN where one is not there."""
    from champ.motion.camera import View, frame_person
    from champ.motion.presets import make_motion
    from champ.motion.rotation import rot_x
    from champ.people.draw import Draw
    from champ.people.looks import draw_look
    from champ.people.samples import UP, draw_pictures, draw_room, make_actor

    halves, truth, half = [], [], WIDTH // 2
    for number, (name, azimuth) in enumerate((("dance", 10), ("walk", -60))):
        actor = make_actor(draw_look(Draw("held_out", 5, number)), Draw("held_out", 9), half, HEIGHT)
        motion = make_motion(name, actor.body, FRAMES, FPS, width=half, height=HEIGHT)
        motion = frame_person(motion, actor.body, half, HEIGHT, View(azimuth=azimuth, elevation=4.0, fill=0.8))
        up = rot_x(4.0) @ UP
        pictures = draw_pictures(actor, motion, up)[0].numpy()
        points = motion.project(actor.body.keypoints(motion.posed(actor.body)))[:, :17].numpy() + (number * half, 0)
        if number:
            pictures[:COMES] = draw_room(actor, motion, up)[:1].numpy()
            points[:COMES] = np.nan
        halves.append(pictures)
        truth.append(points)
    return np.concatenate(halves, axis=2), np.stack(truth, axis=1)


def write_clip(pictures: np.ndarray) -> None:
    import av

    with av.open(str(CLIP), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "22"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))))
        container.mux(stream.encode())


def main() -> None:
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(ORACLE, **oracle(Path(sys.argv[1]), crops()))
    pictures, truth = draw_clip()
    write_clip(pictures)
    np.savez_compressed(TRUTH, points=truth.astype(np.float32))


if __name__ == "__main__":
    main()
