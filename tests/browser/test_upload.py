"""Files by hand: motions in every format and a folder of maps are dropped onto their node or chosen with its button."""

import base64
import json
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from champ.body.free import load_free_body
from champ.motion.bvh import save_bvh
from champ.motion.formats import EXTENSIONS, save_amass, save_motion
from champ.motion.presets import make_motion

# An empty graph with the node on it; the middle of its title and of its button on the screen.
OPEN = """
async (kind) => {
  await app.loadGraphData({ version: 0.4, last_node_id: 0, last_link_id: 0, nodes: [], links: [] });
  const node = LiteGraph.createNode(kind);
  app.graph.add(node);
  node.pos = [200, 200];
  app.canvas.ds.reset();
  app.canvas.setDirty(true, true);
  await new Promise((done) => setTimeout(done, 500));
  const widget = node.widgets.find((widget) => widget.name === "upload");
  const rect = app.canvas.canvas.getBoundingClientRect();
  return [node.pos[1] - 15, widget.last_y + node.pos[1] + 10].map((y) => {
    const [x, down] = app.canvas.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, y]);
    return [rect.x + x, rect.y + down];
  });
}
"""
DROP = """
([name, content, [clientX, clientY]]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  const about = { dataTransfer, clientX, clientY, bubbles: true, cancelable: true };
  for (const kind of ["dragover", "drop"]) app.canvas.canvas.dispatchEvent(new DragEvent(kind, about));
}
"""
CHOSEN = "(name) => app.graph.nodes[0].widgets.find((widget) => widget.name === name).value"


def choose(page, button: tuple[float, float], path: Path) -> None:
    """Presses the button, and answers the dialog of the browser."""
    with page.expect_file_chooser() as chooser:
        page.mouse.click(*button)
    chooser.value.set_files(path)


def open_node(page, kind: str) -> list[tuple[float, float]]:
    page.on("filechooser", lambda chooser: None)  # so that the browser's dialog is already caught when it is opened
    return page.evaluate(OPEN, kind)


def write_motions(folder: Path) -> list[Path]:
    """A file of each format in a tool's own layout; each has a number of frames of its own."""
    body = load_free_body()
    still = {"pose": np.zeros((6, 72)), "trans": np.full((6, 3), 3.0), "betas": np.zeros((6, 10)),
             "pose_world": np.zeros((6, 72)), "trans_world": np.zeros((6, 3)), "frame_ids": np.arange(6)}  # fmt: skip
    camera = torch.tensor([[900.0, 0, 320], [0, 900, 180], [0, 0, 1]]).repeat(7, 1, 1)
    params = {"body_pose": torch.zeros(7, 63), "global_orient": torch.zeros(7, 3), "betas": torch.zeros(7, 10),
              "transl": torch.full((7, 3), 3.0)}  # fmt: skip
    gvhmr = {"smpl_params_global": params, "smpl_params_incam": params, "K_fullimg": camera}
    tram = {"pred_rotmat": torch.eye(3).repeat(8, 24, 1, 1), "pred_shape": torch.zeros(8, 10),
            "pred_trans": torch.full((8, 1, 3), 3.0), "frame": torch.arange(8)}  # fmt: skip
    names = [
        f"dance{i}{end}"
        for i, end in enumerate((".safetensors", ".npz", ".smpl", ".pkl", ".pt", ".npy", ".bvh", ".json"))
    ]
    files = [folder / name for name in names]
    save_motion(files[0], make_motion("wave", body, 3, width=64, height=96))
    save_amass(files[1], make_motion("wave", body, 4, width=64, height=96), body)
    with files[2].open("wb") as file:
        about = {"codecVersion": 2, "smplVersion": 0, "gender": 2, "frameCount": 5, "frameRate": 24.0}
        np.savez(file, shapeParameters=np.zeros(10), bodyTranslation=np.zeros((5, 3)), bodyPose=np.zeros((5, 24, 3)),
                 **about)  # fmt: skip
    files[3].write_bytes(pickle.dumps({3: still}))
    torch.save(gvhmr, files[4])
    np.save(files[5], np.array(tram, dtype=object), allow_pickle=True)
    save_bvh(files[6], make_motion("wave", body, 9, width=64, height=96), body)
    joints = make_motion("wave", body, 10).posed(body).joints * torch.tensor([1, -1, -1])
    files[7].write_text(json.dumps(joints.tolist()))
    assert sorted(file.suffix for file in files) == sorted(EXTENSIONS)
    return files


def test_a_motion_of_every_format_is_dropped_and_seen(module_page, tmp_path, screenshots):
    page = module_page
    files = write_motions(tmp_path)
    title, button = open_node(page, "ChampLoadMotion")
    for frames, file in enumerate(files, start=3):
        if frames == 3:
            choose(page, button, file)
        else:
            page.evaluate(DROP, [file.name, base64.b64encode(file.read_bytes()).decode(), title])
        page.wait_for_function(f"() => ({CHOSEN})('file') === 'champ/{file.name}'")
        page.locator(".champ-player").get_by_text(f"/ {frames}", exact=False).wait_for()
    page.screenshot(path=screenshots / "upload_motion.png")
    page.evaluate(DROP, ["picture.png", "AAAA", title])
    page.get_by_text("That is no motion").wait_for()
    assert page.complaints == []


def test_a_folder_of_maps_is_chosen_and_a_second_one_has_another_name(module_page, server, tmp_path):
    page = module_page
    for number, kind in enumerate(("depth", "semantic_map")):
        (tmp_path / "my dance" / kind).mkdir(parents=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "my dance" / kind / "0000.png")
    _, button = open_node(page, "ChampLoadMaps")
    for folder in ("champ/my_dance", "champ/my_dance_2"):
        choose(page, button, tmp_path / "my dance")
        page.wait_for_function(f"() => ({CHOSEN})('folder') === '{folder}'")
        for kind in ("depth", "semantic_map"):
            there, sent = (root / kind / "0000.png" for root in (server.base / "input" / folder, tmp_path / "my dance"))
            assert there.read_bytes() == sent.read_bytes()
    assert page.complaints == []
