"""Files by hand: motions in every format and a folder of maps are dropped onto their node or chosen with its button."""

import base64
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from champ.body.free import load_free_body
from champ.motion.formats import EXTENSIONS, save_amass, save_motion
from champ.motion.presets import make_motion

# An empty graph with the node on it; the middle of its title and of its button on the screen.
OPEN = """
async ([kind, label]) => {
  await app.loadGraphData({ version: 0.4, last_node_id: 0, last_link_id: 0, nodes: [], links: [] });
  const node = LiteGraph.createNode(kind);
  app.graph.add(node);
  node.pos = [200, 200];
  app.canvas.ds.reset();
  app.canvas.setDirty(true, true);
  await new Promise((done) => setTimeout(done, 500));
  const widget = node.widgets.find((widget) => widget.name === label);
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
    names = [f"dance{i}{end}" for i, end in enumerate((".safetensors", ".npz", ".smpl", ".pkl", ".pt", ".npy"))]
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
    assert sorted(file.suffix for file in files) == sorted(EXTENSIONS)
    return files


def test_a_motion_of_every_format_is_dropped_and_seen(page, tmp_path, screenshots):
    files = write_motions(tmp_path)
    title, button = page.evaluate(OPEN, ["ChampLoadMotion", "Upload a motion..."])
    for frames, file in enumerate(files, start=3):
        if frames == 3:
            with page.expect_file_chooser() as chooser:
                page.mouse.click(*button)
            chooser.value.set_files(file)
        else:
            page.evaluate(DROP, [file.name, base64.b64encode(file.read_bytes()).decode(), title])
        page.wait_for_function(f"() => ({CHOSEN})('file') === 'champ/{file.name}'")
        page.locator(".champ-player").get_by_text(f"/ {frames}", exact=False).wait_for()
    page.screenshot(path=screenshots / "upload_motion.png")
    page.evaluate(DROP, ["picture.png", "AAAA", title])
    page.get_by_text("That is no motion").wait_for()
    assert page.complaints == []


@pytest.mark.parametrize("kind", ["depth", "semantic_map"])
def test_a_folder_of_maps_is_chosen(page, server, tmp_path, kind):
    place = tmp_path / "my dance" / kind
    place.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(place / f"{number:04}.png")
    _, button = page.evaluate(OPEN, ["ChampLoadMaps", "Upload a folder of maps..."])
    with page.expect_file_chooser() as chooser:
        page.mouse.click(*button)
    chooser.value.set_files(tmp_path / "my dance")
    page.wait_for_function(f"() => ({CHOSEN})('folder')?.startsWith('champ/my_dance')")
    folder = page.evaluate(CHOSEN, "folder")
    assert {file.name for file in (server.base / "input" / folder / kind).iterdir()} == {"0000.png", "0001.png"}
    assert page.complaints == []
