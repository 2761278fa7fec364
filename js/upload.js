// Files by hand: motions and folders of maps are dropped onto their node, or chosen with its button, and go through
// ComfyUI's own upload into its input folder.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { translate } from "./language.js";
import { write, written } from "./widgets.js";

const MOTIONS = [".bvh", ".json", ".npz", ".npy", ".pkl", ".pt", ".safetensors", ".smpl"];
const MAPS = ["depth", "normal", "semantic_map", "dwpose", "mask"];
const FOLDER = "champ"; // below the input folder

function tell(severity, detail) {
  app.extensionManager.toast.add({ severity, summary: "Champ", detail, life: 15000 });
}

async function upload(file, subfolder) {
  const body = new FormData();
  body.append("image", file, file.name); // ComfyUI's name for whatever is uploaded; a folder's file would bring its path
  body.append("type", "input");
  body.append("subfolder", subfolder);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) {
    const values = { file: file.name, status: `${answer.status} ${answer.statusText}` };
    throw new Error(translate("{file} could not be uploaded ({status}).", values));
  }
  const { name, subfolder: place } = await answer.json();
  return [place, name].filter(Boolean).join("/");
}

async function choose(node, name, value) {
  await app.refreshComboInNodes();
  write(node, { [name]: value });
  written();
}

async function takeMotion(node, files) {
  const [{ file } = {}] = files.filter(({ path }) => MOTIONS.some((end) => path.toLowerCase().endsWith(end)));
  if (!file) return tell("warn", translate("That is no motion; they end in {endings}.", { endings: MOTIONS.join(", ") }));
  await choose(node, "file", await upload(file, FOLDER));
}

// All files of a folder whose place ends in the name of a map and their own: .../depth/0001.png
async function takeMaps(node, files) {
  const maps = files
    .map(({ file, path }) => ({ file, parts: path.split("/").slice(-3) }))
    .filter(({ parts }) => parts.length > 1 && MAPS.includes(parts.at(-2)) && /\.(png|jpe?g|webp)$/i.test(parts.at(-1)));
  if (!maps.length) {
    const values = { folders: MAPS.join(", ") };
    return tell("warn", translate("That is no folder of maps; it has folders {folders} with pictures inside.", values));
  }
  await app.refreshComboInNodes(); // another page may have uploaded one, too
  const known = node.widgets.find((widget) => widget.name === "folder").options.values;
  const wanted = `${FOLDER}/${(maps[0].parts.length > 2 ? maps[0].parts[0] : "maps").replace(/[^\w-]+/g, "_")}`;
  let folder = wanted;
  for (let number = 2; known.includes(folder); number++) folder = `${wanted}_${number}`;
  for (const [i, { file, parts }] of maps.entries()) {
    await upload(file, `${folder}/${parts.at(-2)}`);
    if (i % 100 === 99) tell("info", translate("{count} of {total} pictures are there.", { count: i + 1, total: maps.length }));
  }
  await choose(node, "folder", folder);
}

const TAKES = {
  ChampLoadMotion: { take: takeMotion, label: () => translate("Upload a motion..."), attributes: { accept: MOTIONS.join(",") } },
  ChampLoadMaps: { take: takeMaps, label: () => translate("Upload a folder of maps..."), attributes: { webkitdirectory: true } },
};

async function run(node, files) {
  try {
    await TAKES[node.comfyClass].take(node, files);
  } catch (error) {
    tell("error", error.message);
  }
}

async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return [{ file, path: entry.fullPath.slice(1) }];
  }
  const reader = entry.createReader();
  const found = [];
  for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length; ) found.push(...some);
  return (await Promise.all(found.map(filesBelow))).flat();
}

function dropped(event) {
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...event.dataTransfer.files].map((file) => ({ file, path: file.name }));
  return entries.length ? Promise.all(entries.map(filesBelow)).then((found) => found.flat()) : Promise.resolve(files);
}

app.registerExtension({
  name: "Champ.Upload",
  nodeCreated(node) {
    const about = TAKES[node.comfyClass];
    if (!about) return;
    const pick = () => {
      const input = Object.assign(document.createElement("input"), { type: "file", multiple: true, ...about.attributes });
      input.onchange = () => run(node, [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      input.click();
    };
    const button = node.addWidget("button", "upload", null, pick, { serialize: false });
    button.label = about.label();
    button.serialize = false;
    node.onDragOver = (event) => Boolean(event?.dataTransfer?.types?.includes?.("Files"));
    node.onDragDrop = (event) => {
      if (!event?.dataTransfer?.items?.length) return false;
      dropped(event).then((files) => run(node, files));
      return true;
    };
  },
});
