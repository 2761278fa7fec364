// A player inside a node: play, pause, scrub, speed and frame number. Players of clips of the same length are in step.

import { element } from "./element.js";
import { translate } from "./language.js";

const STYLE = `
.champ-player { display: flex; flex-direction: column; width: 100%; height: 100%; min-height: 240px; box-sizing: border-box;
  overflow: hidden; border-radius: 6px; background: #1b1d21; color: #cfd3da; font: 12px sans-serif; }
.champ-player .stage { flex: 1 1 0; min-height: 0; position: relative; overflow: hidden; }
.champ-player canvas { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; }
.champ-player .turn { cursor: grab; }
.champ-player .turn:active { cursor: grabbing; }
.champ-player .pick { cursor: pointer; }
.champ-player .stage img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.champ-player .says { position: absolute; inset: auto 0 0 0; padding: 6px 8px; text-align: center; color: #e6c07b;
  pointer-events: none; }
.champ-player .bar { flex: none; display: flex; flex-wrap: wrap; gap: 4px; align-items: center; padding: 4px 6px; }
.champ-player .bar[hidden] { display: none; }
.champ-player button, .champ-player select { flex: none; height: 22px; padding: 0 7px; cursor: pointer; color: inherit;
  white-space: nowrap; background: #2b2f36; border: 1px solid #444a54; border-radius: 4px; font: inherit; }
.champ-player button.on { background: #3f6d8e; }
.champ-player .time { flex: 1 1 50px; display: flex; flex-direction: column; }
.champ-player input[type="range"] { width: 100%; height: 14px; margin: 0; accent-color: #7fb2d9; cursor: pointer; }
.champ-player .seen { position: static; width: 100%; height: 4px; }
.champ-player .number { flex: none; min-width: 46px; text-align: right; font-variant-numeric: tabular-nums; }
`;
const SPEEDS = [0.25, 0.5, 1, 2];

const clocks = new Map(); // by number of frames; so all maps of a clip run in step
const players = new Set();
let drawing = false;
let restUntil = 0; // where drawing is slow, most of the time is left to everything else in the page

function clockFor({ total, fps }) {
  if (!clocks.has(total)) clocks.set(total, { frame: 0, playing: true, speed: 1, fps, last: performance.now() });
  return clocks.get(total);
}

function tick(now) {
  for (const [total, clock] of clocks) {
    const passed = Math.max(0, Math.min((now - clock.last) / 1000, 0.25));
    clock.last = now;
    if (clock.playing && total > 1) clock.frame = (clock.frame + passed * clock.fps * clock.speed) % total;
  }
  if (now >= restUntil) {
    for (const player of players) {
      try {
        player.draw();
      } catch (error) {
        player.say(error.message); // the others go on
      }
    }
    const ended = performance.now();
    restUntil = ended + 3 * Math.max(0, ended - now - 4);
  }
  drawing = players.size > 0;
  if (drawing) requestAnimationFrame(tick);
}

export class Player {
  constructor() {
    this.sources = {}; // by the name that stands on their button
    this.chosen = null;
    this.canvas = element("canvas", { tabIndex: 0 });
    this.canvas.style.outline = "none";
    this.canvas.dataset.captureWheel = "true"; // once clicked, the wheel is not the editor's in Nodes 2.0
    this.says = element("div", { className: "says" });
    this.play = element("button", { title: translate("Play or pause"), onclick: () => this.toggle() });
    this.slider = element("input", { type: "range", min: 0, step: 1, title: translate("Frame") });
    this.seen = element("canvas", { className: "seen", height: 1, title: translate("Where nobody was seen (red)") });
    this.number = element("span", { className: "number", title: translate("Frame") });
    this.speed = element("select", { title: translate("Speed") });
    this.speed.append(...SPEEDS.map((value) => element("option", { value, textContent: `${value}x` })));
    this.buttons = element("span");
    const time = element("div", { className: "time" }, this.slider, this.seen);
    this.bar = element("div", { className: "bar" }, this.play, time, this.number, this.speed, this.buttons);
    this.stage = element("div", { className: "stage" }, this.canvas, this.says);
    this.element = element("div", { className: "champ-player" }, element("style", { textContent: STYLE }), this.stage);
    this.element.append(this.bar);
    this.bar.hidden = true;
    this.slider.oninput = () => this.seek(Number(this.slider.value));
    this.speed.onchange = () => (clockFor(this.source).speed = Number(this.speed.value));
    // What happens here is not for the editor below.
    for (const kind of ["pointerdown", "pointermove", "pointerup", "mousedown", "dblclick", "contextmenu"])
      this.element.addEventListener(kind, (event) => event.stopPropagation());
    // Its shortcuts are, but for single keys, of which one deletes the node.
    this.element.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.focus({ preventScroll: true });
      this.drag(event);
    });
    this.canvas.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
  }

  get source() {
    return this.sources[this.chosen];
  }

  // A source: total (frames of the clip), fps, numbers (of the frames that there are), confidence (theirs, or nothing),
  // draw(context, index, width, height), state() of what else changes the picture, and for what can be turned: turn, zoom. Some have actions ({name, title, on,
  // press}), and some can be taken with the mouse: grab(x, y) returns what to do with later places, move(x, y) and end().
  put(name, source, choose = true) {
    const before = this.source && clockFor(this.source);
    this.sources[name] = source;
    this.choose(choose || !this.source ? name : this.chosen);
    const clock = clockFor(source);
    Object.assign(clock, { fps: source.fps, playing: (before ?? clock).playing });
    this.say("");
    players.add(this);
    if (!drawing) {
      drawing = true;
      requestAnimationFrame(tick);
    }
  }

  choose(name) {
    this.chosen = name;
    this.drawn = null;
    const { source } = this;
    this.bar.hidden = false;
    this.slider.max = source.total - 1;
    for (const part of [this.play, this.slider.parentElement, this.number, this.speed])
      part.style.display = source.total > 1 ? "" : "none";
    this.canvas.classList.toggle("turn", Boolean(source.turn));
    this.canvas.classList.toggle("pick", Boolean(source.grab));
    const names = Object.keys(this.sources);
    const choices = names.length > 1 ? names : [];
    this.buttons.replaceChildren(
      ...(source.actions ?? []).map(({ name, title, on, press }) =>
        element("button", {
          textContent: translate(name),
          title,
          className: on() ? "on" : "",
          onclick: () => (press(), this.choose(this.chosen)),
        }),
      ),
      ...choices.map((other) =>
        element("button", {
          textContent: translate(other),
          className: other === name ? "on" : "",
          onclick: () => this.choose(other),
        }),
      ),
    );
    this.drawConfidence();
    this.bar.hidden = source.total < 2 && !this.buttons.childElementCount;
  }

  drawConfidence() {
    const { confidence } = this.source;
    this.seen.style.display = confidence?.some((value) => value < 0.99) ? "" : "none";
    if (!confidence) return;
    this.seen.width = confidence.length;
    const context = this.seen.getContext("2d");
    confidence.forEach((value, i) => {
      context.fillStyle = `hsl(${Math.round(120 * value)} 60% 45%)`;
      context.fillRect(i, 0, 1, 1);
    });
  }

  say(text) {
    this.says.textContent = text;
  }

  toggle() {
    const clock = clockFor(this.source);
    clock.playing = !clock.playing;
  }

  seek(frame) {
    Object.assign(clockFor(this.source), { frame, playing: false });
  }

  // What the mouse does with a source until it is let go.
  hold(event) {
    const box = this.canvas.getBoundingClientRect(); // with the editor's zoom
    if (this.source?.grab) {
      const scale = this.canvas.width / box.width;
      const at = (other) => [(other.clientX - box.x) * scale, (other.clientY - box.y) * scale];
      const held = this.source.grab(...at(event), (text) => this.say(text));
      return held ? { move: (other) => held.move(...at(other)), end: () => held.end() } : null;
    }
    if (!this.source?.turn) return null;
    const scale = this.canvas.clientWidth / box.width;
    const sideways = event.shiftKey || event.button === 1;
    return { move: (other) => this.source.turn(other.movementX * scale, other.movementY * scale, sideways), end: () => {} };
  }

  drag(event) {
    this.draw(); // what is taken is what is there now, however late the last picture is
    const held = event.button === 2 || !event.isPrimary ? null : this.hold(event);
    this.drawn = null;
    if (!held) return;
    this.canvas.setPointerCapture(event.pointerId);
    const listening = new AbortController();
    const listen = (kind, act) =>
      this.canvas.addEventListener(kind, (other) => other.pointerId === event.pointerId && act(other), { signal: listening.signal });
    const end = () => {
      listening.abort();
      held.end();
    };
    listen("pointermove", (other) => {
      held.move(other);
      this.drawn = null;
    });
    listen("pointerup", end);
    listen("pointercancel", end);
  }

  zoom(event) {
    if (!this.source?.zoom) return;
    event.preventDefault();
    event.stopPropagation();
    this.source.zoom(Math.exp(event.deltaY / 600));
    this.drawn = null;
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!this.element.isConnected || !width || !height || !this.source) return;
    const { source } = this;
    const clock = clockFor(source);
    const frame = Math.min(Math.floor(clock.frame), source.total - 1);
    const detail = Math.min(window.devicePixelRatio || 1, 2);
    const now = [this.chosen, frame, width, height, clock.playing, source.state?.()].join();
    if (now === this.drawn && this.shown === source) return;
    Object.assign(this, { drawn: now, shown: source });
    let index = source.numbers.findIndex((number) => number > frame);
    index = (index < 0 ? source.numbers.length : index) - 1;
    this.canvas.width = Math.round(width * detail);
    this.canvas.height = Math.round(height * detail);
    source.draw(this.canvas.getContext("2d"), Math.max(index, 0), this.canvas.width, this.canvas.height);
    this.play.textContent = clock.playing ? "❚❚" : "►";
    this.slider.value = frame;
    this.speed.value = clock.speed;
    this.number.textContent = `${frame} / ${source.total}`;
  }

  remove() {
    players.delete(this);
  }
}
