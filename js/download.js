// The button "Download files..." of the loaders: lists the official files and fetches those whose buttons are pressed.
import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { translate } from "./language.js";

const LOADERS = ["ChampLoadDWPose", "ChampLoadHMR2", "ChampLoadModel"];
const READERS = [...LOADERS, "VAELoader", "CLIPVisionLoader"]; // of the files

const STYLE = `
.champ-download[open] { display: flex; flex-direction: column; gap: 10px; }
.champ-download { width: min(960px, 92vw); max-height: 84vh; padding: 20px; overflow: hidden; border-radius: 8px; font: 14px sans-serif;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535);
  border: 1px solid var(--border-color, #4e4e4e); }
.champ-download::backdrop { background: rgba(0, 0, 0, 0.5); }
.champ-download h3 { margin: 0; font-size: 17px; }
.champ-download p { margin: 0; opacity: 0.8; }
.champ-download li { display: grid; grid-template-columns: 1fr 180px; gap: 2px 16px; align-items: center;
  padding: 8px 0; border-top: 1px solid var(--border-color, #4e4e4e); }
.champ-download ul { margin: 0; padding: 0 8px 0 0; list-style: none; overflow-y: auto; }
.champ-download small { grid-column: 1; opacity: 0.75; overflow-wrap: anywhere; }
.champ-download a { color: inherit; }
.champ-download button { padding: 6px 12px; cursor: pointer; color: inherit; border-radius: 4px;
  background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e); }
.champ-download .act { grid-column: 2; grid-row: 1 / span 2; justify-self: end; text-align: right; }
.champ-download progress { width: 180px; display: block; margin-bottom: 4px; }
.champ-download .ends { display: flex; justify-content: space-between; align-items: end; gap: 16px; }
.champ-download .models { display: flex; flex-wrap: wrap; gap: 8px; }
.champ-download .error { grid-column: 1 / span 2; color: var(--error-text, #ff6b6b); opacity: 1; }
`;

let running = null; // what the server said last about the one file that is being fetched
let waiting = []; // names of files that were asked for meanwhile
const errors = {}; // what went wrong, by name of file
const taken = new WeakMap(); // what `refresh` has chosen in a combo
let shown = null; // the open dialog: { dialog, list, models, node, files }

function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

async function read() {
  const answer = await app.api.fetchApi("/champ/files");
  if (!answer.ok) throw new Error(await answer.text());
  const found = await answer.json();
  running = found.running;
  return found.loaders;
}

async function post(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await app.api.fetchApi(path, options);
  if (!answer.ok) throw new Error(await answer.text());
}

async function start(name) {
  delete errors[name];
  if (running) {
    waiting.push(name);
  } else {
    running = { file: name, done: 0, total: 0 };
    try {
      await post("/champ/download", { file: name });
    } catch (error) {
      errors[name] = error.message;
      running = null;
    }
  }
  draw();
}

function warn({ message }) {
  app.extensionManager.toast.add({ severity: "error", summary: "Champ", detail: message, life: 20000 });
}

function cancel(name) {
  if (running?.file === name) post("/champ/download/cancel", {}).catch(warn);
  waiting = waiting.filter((other) => other !== name);
  draw();
}

function action({ file, present }) {
  const act = element("span", { className: "act" });
  const button = (textContent, onclick) => element("button", { textContent, onclick });
  if (present) {
    act.append(translate("is there"));
  } else if (running?.file === file) {
    const { done, total } = running;
    act.append(element("progress", total ? { max: total, value: done } : {}));
    const state = total ? translate("{done} of {total}", { done: size(done), total: size(total) }) : translate("connecting");
    act.append(state, " ", button(translate("Cancel"), () => cancel(file)));
  } else if (waiting.includes(file)) {
    act.append(translate("waiting"), " ", button(translate("Cancel"), () => cancel(file)));
  } else {
    act.append(button(translate("Download"), () => start(file)));
  }
  return act;
}

function row(file) {
  const source = element("a", { href: file.source, target: "_blank", rel: "noopener" });
  source.textContent = file.source.replace("https://", "");
  const values = { what: translate(file.what), size: size(file.size), licence: translate(file.licence) };
  const text = translate("{what}; about {size}; licence: {licence}; from:", values);
  const about = element("small", {}, text, " ", source);
  const made = element("li", {}, element("b", { textContent: file.file, title: file.folder }), action(file), about);
  if (errors[file.file]) made.append(element("small", { className: "error", textContent: errors[file.file] }));
  return made;
}

// A button for what a model needs and nobody has asked for yet.
function allOf(model) {
  const asked = (file) => running?.file === file || waiting.includes(file);
  const left = shown.files.filter(({ file, models, present }) => models.includes(model) && !present && !asked(file));
  const sum = size(left.reduce((sum, file) => sum + file.size, 0));
  const textContent = translate("Download all of {model} ({sum})", { model, sum });
  const onclick = () => left.forEach(({ file }) => start(file));
  return element("button", { textContent, onclick, hidden: left.length < 2 });
}

function draw() {
  if (!shown) return;
  shown.list.replaceChildren(...shown.files.map(row));
  const models = new Set(shown.files.flatMap((file) => file.models));
  shown.models.replaceChildren(...[...models].map(allOf));
  if (!shown.dialog.contains(document.activeElement)) shown.dialog.focus(); // the button that had it is gone
}

async function open(node) {
  let files = [];
  let failure = "";
  try {
    files = (await read())[node.comfyClass] ?? [];
  } catch (error) {
    failure = error.message;
  }
  const left = files.some((file) => !file.present);
  const text = left
    ? translate("Nothing is fetched before you press Download. Files go into ComfyUI's models folder. Read their terms first.")
    : failure || translate("No official file is missing.");
  const list = element("ul");
  const dialog = element("dialog", { className: "champ-download", tabIndex: -1 });
  const models = element("span", { className: "models" });
  const close = element("button", { textContent: translate("Close"), onclick: () => dialog.close() });
  const title = element("h3", { textContent: translate("Official files for {node}", { node: node.title }) });
  dialog.append(element("style", { textContent: STYLE }), title, element("p", { textContent: text }), list);
  dialog.append(element("div", { className: "ends" }, models, close));
  dialog.onkeydown = (event) => {
    event.stopPropagation(); // not the editor's shortcuts
    if (event.key === "Escape") dialog.close();
  };
  dialog.onclose = () => {
    dialog.remove();
    shown = null;
  };
  document.body.append(dialog);
  dialog.showModal();
  shown = { dialog, list, models, node, files };
  draw();
}

// The combos offer the new file. One that only said what is missing, or had nothing to offer, takes its first choice, and
// follows it while further files arrive, because the lists begin with what fits best.
async function refresh() {
  const readers = app.graph.nodes.filter((node) => READERS.includes(node.comfyClass));
  const combos = () => readers.flatMap((node) => (node.widgets ?? []).filter((w) => Array.isArray(w.options?.values)));
  const known = combos().filter((widget) => !widget.value || widget.options.values.includes(widget.value));
  await app.refreshComboInNodes();
  for (const widget of known) {
    const first = widget.options.values[0];
    if (!first) continue;
    if (widget.options.values.includes(widget.value) && taken.get(widget) !== widget.value) continue;
    taken.set(widget, first);
    widget.value = first;
    widget.callback?.(first);
  }
  app.graph.setDirtyCanvas(true, true);
}

async function onReport({ detail }) {
  const ended = detail.state !== "running";
  running = ended ? null : detail;
  if (detail.state === "failed") {
    errors[detail.file] = detail.message;
    warn(detail);
  }
  try {
    if (ended && shown) shown.files = (await read())[shown.node.comfyClass] ?? [];
  } catch (error) {
    warn(error);
  }
  draw();
  if (ended && waiting.length) await start(waiting.shift());
  if (detail.state === "done") await refresh();
}

app.registerExtension({
  name: "Champ.Download",
  setup() {
    app.api.addEventListener("champ.download", onReport);
  },
  nodeCreated(node) {
    if (!LOADERS.includes(node.comfyClass)) return;
    const button = node.addWidget("button", "Download files...", null, () => open(node), { serialize: false });
    button.label = translate("Download files...");
    button.serialize = false;
  },
});
