// Puts a player into the nodes that make or change a motion, and into those that show a clip.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { canDecode, readClip } from "./clip.js";
import { outputOf } from "./graph.js";
import { translate } from "./language.js";
import { describe, readMotion } from "./motion.js";
import { choosable } from "./people.js";
import { addressBehind, pictureAt } from "./pictures.js";
import { placed, placing } from "./placing.js";
import { Player } from "./player.js";
import { addView, AGAIN, keepLooking } from "./widgets.js";

const MOVING = [
  "ChampBuiltInMotion", "ChampCamera", "ChampEstimateMotion", "ChampFitMotion", "ChampLoadMotion", "ChampPreviewMotion",
  "ChampRetimeMotion", "ChampSmoothMotion", "ChampTransferMotion",
];
const SHOWING = [
  "ChampCompareGrid", "ChampEstimatePose", "ChampFollowPerson", "ChampRenderDensePose", "ChampRenderMaps",
]; // clips, after a run
const BEHIND = ["ChampTransferMotion"]; // whose figure is placed over a picture
const PLACE = "place";
const HEIGHT = 260;

const views = new Map(); // node: { player, asked, clip, busy, seen, close }

// The editor would show an animated picture; the player shows it instead. This module is loaded before the editor
// begins to listen, so that it hears of it first.
api.addEventListener("executed", ({ detail }) => {
  const output = detail?.output;
  if (!canDecode || !output?.champ_clip || !output.images) return;
  output.champ_clip = [{ ...output.champ_clip[0], image: output.images[0] }];
  delete output.images;
  delete output.animated;
});

function viewOf(node) {
  if (views.has(node)) return views.get(node);
  const player = new Player();
  const close = () => {
    player.remove();
    Object.values(player.sources).forEach((source) => source.close());
    views.delete(node);
  };
  addView(node, "champ_view", player.element, HEIGHT, close);
  const view = { player, close };
  views.set(node, view);
  return view;
}

function put(view, name, source, choose) {
  view.player.sources[name]?.close();
  view.player.put(name, source, choose);
}

async function lookAtMotion(node, view) {
  const nodes = describe(node);
  const behind = BEHIND.includes(node.comfyClass) ? addressBehind(node) : null;
  const asked = JSON.stringify([nodes, behind]);
  if (asked === view.asked || view.busy) return;
  Object.assign(view, { asked, busy: true });
  const made = placed(node);
  try {
    const { scene, source, says } = await readMotion(node, nodes, view.player.sources["3D"]);
    const picture = scene && BEHIND.includes(node.comfyClass) ? await pictureAt(scene.picture ?? behind) : null;
    if (!views.has(node)) source?.close();
    else if (source) {
      const { chosen, sources } = view.player;
      const stay = chosen === "2D" || (chosen === PLACE && picture);
      if (picture) view.player.put(PLACE, placing(scene, node, picture, made), !sources[PLACE] || chosen === PLACE);
      else delete sources[PLACE];
      put(view, "3D", source, !picture && !stay);
    } else view.player.say(says);
  } catch (error) {
    view.player.say(error.message);
    setTimeout(() => (view.asked = null), AGAIN);
  } finally {
    view.busy = false;
  }
}

async function lookAtClip(node) {
  const [about] = outputOf(node)?.champ_clip ?? [];
  const name = about?.image?.filename;
  if (!name || views.get(node)?.clip === name) return;
  const view = viewOf(node);
  view.clip = name;
  const isWanted = () => views.get(node) === view && view.clip === name; // another run may have ended in between
  try {
    const { sources } = view.player;
    const clip = await readClip(api.apiURL(`/view?${new URLSearchParams(about.image)}`), about, sources["2D"]);
    if (!isWanted()) clip.close();
    else put(view, "2D", about.boxes ? choosable(clip, about, node) : clip, view.player.chosen !== PLACE);
  } catch (error) {
    if (!isWanted()) return;
    view.player.say(error.message);
    if (error instanceof TypeError) setTimeout(() => isWanted() && (view.clip = null), AGAIN); // no answer
  }
}

function look(nodes) {
  for (const node of nodes) {
    if (!node.comfyClass?.startsWith("Champ")) continue;
    lookAtClip(node);
    const view = views.get(node);
    if (!view) continue;
    view.seen = true;
    if (MOVING.includes(node.comfyClass)) lookAtMotion(node, view);
  }
  // Not every node is told that it goes: none in a subgraph.
  for (const [node, view] of views) if (view.seen && !nodes.has(node)) view.close();
}

app.registerExtension({
  name: "Champ.Views",
  setup() {
    keepLooking(look);
  },
  nodeCreated(node) {
    if (!node.addDOMWidget) return;
    if (MOVING.includes(node.comfyClass)) viewOf(node);
    if (SHOWING.includes(node.comfyClass)) viewOf(node).player.say(translate("Plays here after a run."));
  },
});
