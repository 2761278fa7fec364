// The reference image with the body over it, in Put Reference into Motion: dragging moves the body, a corner or the
// wheel changes its size. The widgets are all that is changed; what the server makes of them replaces the picture.
import { fitted } from "./clip.js";
import { drawFigure } from "./figure.js";
import { translate } from "./language.js";
import { filmed, skinned } from "./points.js";
import { valueOf, write, written } from "./widgets.js";

const OPACITY = 0.75;
const SOME = 5; // vertices of which one counts for the box
const CORNER = 16; // pixels around a corner in which it is taken
const LINE = "#7fb2d9";
const STILL = 300; // milliseconds after which the wheel rests
const LEAST = { move_right: -200, move_down: -200, size: 10 };
const MOST = { move_right: 200, move_down: 200, size: 1000 };

function widgets(node) {
  return { move_right: 0, move_down: 0, size: 100, ...Object.fromEntries(
    Object.keys(LEAST).map((name) => [name, valueOf(node, name)]).filter(([, value]) => typeof value === "number"),
  ) };
}

function set(node, values) {
  const tenth = ([name, value]) => [name, Math.round(10 * Math.max(LEAST[name], Math.min(MOST[name], value))) / 10];
  write(node, Object.fromEntries(Object.entries(values).map(tenth)));
}

function bounds(points) {
  const [xs, ys] = [0, 1].map((i) => points.map((point) => point[i]));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

// `made` are the widgets' values that the scene was made with.
export function placing(scene, node, picture, made) {
  const [[middle]] = filmed(scene, [scene.path[0]]);
  const feet = [middle, bounds(filmed(scene, skinned(scene, 0, SOME)))[3]]; // the point that the widgets move
  const boxes = [];
  let shown = { x: 0, y: 0, scale: 1 };
  let box = [0, 0, 0, 0];
  let resting = 0;

  // What the widgets have changed since: pixels of the picture, and size.
  function since() {
    const now = widgets(node);
    const part = (name) => (now[name] - made[name]) / 100;
    return { right: part("move_right") * scene.width, down: part("move_down") * scene.height, size: now.size / made.size };
  }

  return {
    total: scene.frames,
    fps: scene.fps,
    numbers: scene.numbers,
    confidence: scene.confidence,
    made,
    picture: picture.src,
    state: () => JSON.stringify(widgets(node)),
    actions: [
      {
        name: "⟲",
        title: translate("Put the figure back to where it was"),
        on: () => false,
        press: () => (set(node, { move_right: 0, move_down: 0, size: 100 }), written()),
      },
    ],
    draw(context, index, width, height) {
      shown = fitted(scene.width, scene.height, width, height);
      const { x, y, scale } = shown;
      const { right, down, size } = since();
      context.drawImage(picture, x, y, shown.width, shown.height);
      context.save();
      context.globalAlpha = OPACITY;
      const foot = [x + feet[0] * scale, y + feet[1] * scale];
      context.translate(foot[0] + right * scale, foot[1] + down * scale);
      context.scale(size, size);
      context.translate(-foot[0], -foot[1]);
      drawFigure(context, scene, index, { filmed: true }, width, height, true);
      context.restore();
      boxes[index] ??= bounds(filmed(scene, skinned(scene, index, SOME)));
      const moved = (value, i) => (i % 2 ? y + (feet[1] + down + (value - feet[1]) * size) * scale : x + (feet[0] + right + (value - feet[0]) * size) * scale);
      box = boxes[index].map(moved);
      const [x0, y0, x1, y1] = box;
      context.strokeStyle = context.fillStyle = LINE;
      context.lineWidth = 1.5;
      context.setLineDash([6, 4]);
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      context.setLineDash([]);
      for (const [right_, down_] of [[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) context.fillRect(right_ - 4, down_ - 4, 8, 8);
    },
    grab(x, y) {
      const [x0, y0, x1, y1] = box;
      const near = Math.abs(x - x0) < CORNER || Math.abs(x - x1) < CORNER;
      const corner = near && (Math.abs(y - y0) < CORNER || Math.abs(y - y1) < CORNER);
      if (!corner && (x < x0 || x > x1 || y < y0 || y > y1)) return null;
      const before = widgets(node);
      const { right, down } = since();
      const foot = [shown.x + (feet[0] + right) * shown.scale, shown.y + (feet[1] + down) * shown.scale];
      const away = (a, b) => Math.max(1, Math.hypot(a - foot[0], b - foot[1]));
      const move = corner
        ? (a, b) => set(node, { size: (before.size * away(a, b)) / away(x, y) })
        : (a, b) =>
            set(node, {
              move_right: before.move_right + (100 * (a - x)) / shown.scale / scene.width,
              move_down: before.move_down + (100 * (b - y)) / shown.scale / scene.height,
            });
      return { move, end: written };
    },
    zoom(factor) {
      set(node, { size: widgets(node).size / factor });
      clearTimeout(resting);
      resting = setTimeout(written, STILL);
    },
    close() {},
  };
}

export const placed = widgets;
