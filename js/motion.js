// The motion of a node as a source for the player: asks the server what the widgets make of it, before anything is run.
import { api } from "../../scripts/api.js";
import { beginning, drawFigure, forget } from "./figure.js";
import { inputsOf, keyOf, outputOf } from "./graph.js";
import { translate } from "./language.js";

// Whose motion the server works out from their widgets; others are known after a run.
const WORKED_OUT = new Set([
  "ChampBuiltInMotion", "ChampCamera", "ChampExamplePerson", "ChampFreeBody", "ChampLoadMotion", "ChampLoadSMPL",
  "ChampPreviewMotion", "ChampRetimeMotion", "ChampSmoothMotion", "ChampTransferMotion",
]);
const TURN = 0.01; // radians for a pixel

const meshes = {};
const pictures = {}; // that the server has drawn, by what it calls them
const NOT_WITHOUT = new Set(["ChampExamplePerson"]); // whose picture is drawn with the motion

// A node and all before it, as a prompt has them; what only a run can tell as the token that the run left.
export function describe(node, nodes = {}) {
  const key = keyOf(node);
  if (key in nodes) return nodes;
  if (!WORKED_OUT.has(node.comfyClass)) {
    const token = outputOf(node)?.champ_motion?.[0];
    nodes[key] = token ? { token } : {};
    return nodes;
  }
  const inputs = {};
  nodes[key] = { class_type: node.comfyClass, inputs };
  for (const { name, value } of node.widgets ?? []) if (isConstant(value)) inputs[name] = value;
  for (const { name, type, node: source, slot, value } of inputsOf(node)) {
    if (isConstant(value)) inputs[name] = value;
    if (!source || (type.includes("IMAGE") && !NOT_WITHOUT.has(source.comfyClass))) continue;
    inputs[name] = [keyOf(source), slot];
    describe(source, nodes);
  }
  return nodes;
}

function isConstant(value) {
  return ["string", "number", "boolean"].includes(typeof value);
}

function floats(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

function unpack(about) {
  if (about.faces)
    meshes[about.mesh] = {
      faces: floats(about.faces, Uint32Array),
      joints: floats(about.joints, Uint8Array),
      weights: floats(about.weights, Uint8Array),
    };
  if (about.picture) pictures[about.behind] = `data:image/jpeg;base64,${about.picture}`;
  const scene = { ...about, mesh: meshes[about.mesh], picture: pictures[about.behind] };
  for (const name of ["matrices", "vertices", "normals"]) scene[name] = floats(about[name], Float32Array);
  const eye = scene.camera.map((row) => row[3]);
  const forward = scene.camera.map((row) => row[2]);
  const middle = [0, scene.path[0][1], 0];
  scene.depth = Math.max(0.1, forward.reduce((sum, value, i) => sum + value * (middle[i] - eye[i]), 0));
  return scene;
}

// What the server answers; { says } if it cannot.
export async function ask(place, question) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) };
  const answer = await api.fetchApi(place, options);
  if (answer.status >= 500) throw new Error(`${answer.status} ${answer.statusText}`);
  if (!answer.ok) return { says: await answer.text() };
  const about = await answer.json();
  const reason = about.not_yet ?? about.error;
  return { ...about, says: reason && translate(reason) };
}

// { scene, source } of a node's motion, or { says } why there is none.
export async function readMotion(node, nodes, before) {
  const have = [...Object.keys(meshes), ...Object.keys(pictures)];
  const about = await ask("/champ/motion", { node: keyOf(node), nodes, have });
  if (about.says) return about;
  const scene = unpack(about);
  return { scene, source: sourceOf(scene, before?.look) };
}

function sourceOf(scene, seenFrom) {
  const look = seenFrom ?? beginning(scene);
  const actions = [
    {
      name: "camera",
      title: translate("Look through the camera that films the motion"),
      on: () => look.filmed,
      press: () => (look.filmed = !look.filmed),
    },
    {
      name: "⟲",
      title: translate("Look from the beginning again"),
      on: () => false,
      press: () => Object.assign(look, beginning(scene)),
    },
  ];
  return {
    look,
    actions,
    total: scene.frames,
    fps: scene.fps,
    numbers: scene.numbers,
    confidence: scene.confidence,
    draw: (context, index, width, height) => drawFigure(context, scene, index, look, width, height),
    turn(x, y, move) {
      look.filmed = false;
      if (move) {
        const [right, up] = [x, y].map((value) => (value * look.away) / 600);
        look.at = [look.at[0] - right * Math.cos(look.yaw), look.at[1] + up, look.at[2] + right * Math.sin(look.yaw)];
      } else {
        look.yaw -= x * TURN;
        look.pitch = Math.max(-0.2, Math.min(1.5, look.pitch + y * TURN));
      }
    },
    zoom(factor) {
      look.filmed = false;
      look.away = Math.max(0.6, Math.min(60, look.away * factor));
    },
    close: () => forget(scene),
  };
}
