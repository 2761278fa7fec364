// The temporal windows of Champ Sampler and Temporal Aggregation as a timeline, with what they cost, before anything is
// queued.
import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { inputsOf, keyOf, linkOf, outputOf } from "./graph.js";
import { translate } from "./language.js";
import { ask, describe } from "./motion.js";
import { addView, AGAIN, keepLooking, valueOf } from "./widgets.js";

const NODES = ["ChampSampler", "ChampTemporalAggregation"];
// What a clip goes through on its way from a motion to a sampler.
const CLIP = ["LATENT", "CHAMP_GUIDANCE", "IMAGE"];
const HEIGHT = 118;
const STYLE = `
.champ-windows { width: 100%; height: 100%; min-height: ${HEIGHT - 20}px; display: flex; flex-direction: column; gap: 4px;
  box-sizing: border-box; padding: 6px 8px; overflow: hidden; border-radius: 6px; background: #1b1d21; color: #cfd3da;
  font: 12px sans-serif; }
.champ-windows canvas { flex: 1 1 0; min-height: 0; width: 100%; }
.champ-windows div { flex: none; line-height: 1.35; }
`;
const COLOURS = ["#6fa8d6", "#d69a5c"];

const timelines = new WeakMap(); // node: { canvas, says, told, about, busy }

function after(node) {
  const links = (node.outputs ?? []).flatMap((output) => output.links ?? []);
  return links.map((id) => linkOf(node.graph, id)).map((link) => node.graph?.getNodeById(link?.target_id)).filter(Boolean);
}

// The first of a node and those that `next` leads to which is what is looked for.
function nearest(node, next, isIt, seen = new Set()) {
  if (isIt(node)) return node;
  for (const other of next(node)) {
    if (seen.has(other)) continue;
    seen.add(other);
    const found = nearest(other, next, isIt, seen);
    if (found) return found;
  }
  return null;
}

function before(types) {
  return (node) => inputsOf(node).filter((input) => input.node && types.includes(input.type)).map((input) => input.node);
}

function motionInto(node) {
  return inputsOf(node).find(({ type }) => type === "CHAMP_MOTION")?.node;
}

// The node before this one whose motion decides the length of the clip.
function motionBefore(node) {
  const maker = nearest(node, before(CLIP), motionInto);
  return maker && motionInto(maker);
}

// The sampler that a model goes to: the node itself, or one after it.
function samplerOf(node) {
  return nearest(node, after, (other) => other.inputs?.some((input) => input.type === "LATENT"));
}

// The checkpoint set that a model comes from.
function setOf(node) {
  const loader = nearest(node, before(["MODEL"]), (other) => other.comfyClass === "ChampLoadModel");
  return loader ? valueOf(loader, "checkpoint_set") : undefined;
}

function question(node) {
  const widgets = Object.fromEntries(["length", "overlap", "schedule", "weights"].map((name) => [name, valueOf(node, name)]));
  const sampler = samplerOf(node);
  const [known] = (sampler && outputOf(sampler)?.champ_size) ?? [];
  widgets.length ||= known?.length ?? 0; // 0 is what the model was made for
  const about = { widgets, checkpoint_set: setOf(node) };
  const motion = sampler && motionBefore(sampler);
  if (motion) return { ...about, node: keyOf(motion), nodes: describe(motion) };
  return { ...about, ...known };
}

// What of the sampler's own widgets the sentence needs; other samplers may have none.
function effort(node) {
  const sampler = samplerOf(node) ?? node;
  const [steps, cfg] = ["steps", "cfg"].map((name) => valueOf(sampler, name));
  return { steps, twice: cfg === undefined || cfg > 1 };
}

function sentences({ frames, width, height, count, bytes, moves }, { steps, twice }) {
  const sum = (steps || 1) * count * (twice ? 2 : 1);
  const clip =
    count === 1
      ? translate("{frames} frames of {width}x{height} in one window.", { frames, width, height })
      : translate("{frames} frames of {width}x{height} in {count} windows.", { frames, width, height, count });
  const times = twice ? 2 : 1;
  const work = !steps
    ? translate("{sum} evaluations of the model in every step.", { sum })
    : count === 1
      ? translate("{sum} evaluations of the model: {steps} steps x {times}.", { sum, steps, times })
      : translate("{sum} evaluations of the model: {steps} steps x {count} windows x {times}.", { sum, steps, count, times });
  const memory = translate("ComfyUI plans {size} GB of graphics memory for a window, beside the model.", { size: (bytes / 1e9).toFixed(1) });
  return [clip, moves && translate("Every step has other windows."), work, memory].filter(Boolean);
}

function draw({ canvas, about }) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return;
  const detail = Math.min(window.devicePixelRatio || 1, 2);
  Object.assign(canvas, { width: width * detail, height: height * detail });
  const context = canvas.getContext("2d");
  context.scale(detail, detail);
  const { windows, frames, weights } = about;
  const lanes = Math.min(windows.length, Math.max(1, Math.floor(height / 5)));
  const tall = height / lanes;
  const top = Math.max(...weights);
  const column = width / frames;
  windows.forEach((runs, i) => {
    context.fillStyle = COLOURS[i % COLOURS.length];
    let k = 0; // frames of the window so far; where it counts less, it is darker
    for (const [first, last] of runs)
      for (let frame = first; frame <= last; frame++) {
        context.globalAlpha = 0.25 + (0.75 * weights[k++]) / top;
        context.fillRect(frame * column, (i % lanes) * tall, column + 0.5, Math.max(1, tall - 1));
      }
  });
}

async function look(node, view) {
  const asked = question(node);
  const told = JSON.stringify([asked, effort(node), view.canvas.clientWidth, view.canvas.clientHeight]);
  if (told === view.told || view.busy) return;
  Object.assign(view, { told, busy: true });
  try {
    const about = await ask("/champ/windows", asked);
    view.canvas.style.visibility = about.says ? "hidden" : "";
    view.says.textContent = about.says ?? sentences(about, effort(node)).join(" ");
    if (!about.says) {
      view.about = about;
      draw(view);
    }
  } catch (error) {
    view.says.textContent = error.message;
    setTimeout(() => (view.told = null), AGAIN);
  } finally {
    view.busy = false;
  }
}

function add(node) {
  const [canvas, says] = [element("canvas"), element("div")];
  const shown = element("div", { className: "champ-windows" }, element("style", { textContent: STYLE }), canvas, says);
  addView(node, "champ_windows", shown, HEIGHT);
  timelines.set(node, { canvas, says });
}

app.registerExtension({
  name: "Champ.Windows",
  setup() {
    keepLooking((nodes) => nodes.forEach((node) => timelines.has(node) && look(node, timelines.get(node))));
  },
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass) && node.addDOMWidget) add(node);
  },
});
