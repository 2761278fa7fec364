// The button "Choose by picture..." of Built-in Motion, with all motions as moving thumbnails, and of Example Person, with
// the first people.
import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { translate } from "./language.js";
import { write, written } from "./widgets.js";

const STYLE = `
.champ-picker { width: min(880px, 92vw); max-height: 84vh; padding: 16px; overflow-y: auto; border-radius: 8px;
  font: 13px sans-serif; color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535);
  border: 1px solid var(--border-color, #4e4e4e); }
.champ-picker::backdrop { background: rgba(0, 0, 0, 0.5); }
.champ-picker div { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 10px; }
.champ-picker button { padding: 0 0 6px; overflow: hidden; cursor: pointer; color: inherit; font: inherit;
  background: #2e3136; border: 2px solid transparent; border-radius: 6px; }
.champ-picker button:hover, .champ-picker button:focus-visible { border-color: #7fb2d9; outline: none; }
.champ-picker .chosen { border-color: #3f6d8e; }
.champ-picker img { display: block; width: 100%; aspect-ratio: 4 / 5; object-fit: cover; }
`;

const PEOPLE = 30; // of whom there are thumbnails; tools/make_thumbnails.py draws as many

// The widget that is chosen by picture, its values with pictures, and the folder of these.
const CHOICES = {
  ChampBuiltInMotion: { name: "motion", values: (widget) => widget.options.values, folder: "motions" },
  ChampExamplePerson: { name: "person", values: () => [...Array(PEOPLE).keys()], folder: "people" },
};

function thumbnail(folder, value) {
  return new URL(`./${folder}/${String(value).replaceAll(" ", "_")}.webp`, import.meta.url).href;
}

function open(node) {
  const { name, values, folder } = CHOICES[node.comfyClass];
  const widget = node.widgets.find((other) => other.name === name);
  const dialog = element("dialog", { className: "champ-picker" });
  const buttons = values(widget).map((value) => {
    const onclick = () => {
      write(node, { [name]: value });
      written();
      dialog.close();
    };
    const picture = element("img", { src: thumbnail(folder, value), alt: "", onerror: () => picture.remove() });
    const className = value === widget.value ? "chosen" : "";
    return element("button", { onclick, className, title: String(value) }, picture, translate(String(value)));
  });
  dialog.append(element("style", { textContent: STYLE }), element("div", {}, ...buttons));
  dialog.onkeydown = (event) => {
    event.stopPropagation(); // not the editor's shortcuts
    if (event.key === "Escape") dialog.close();
  };
  dialog.onclick = ({ target }) => target === dialog && dialog.close(); // beside the pictures
  dialog.onclose = () => dialog.remove();
  document.body.append(dialog);
  dialog.showModal();
  buttons.find(({ className }) => className)?.focus();
}

app.registerExtension({
  name: "Champ.Picker",
  nodeCreated(node) {
    if (!(node.comfyClass in CHOICES)) return;
    const button = node.addWidget("button", "Choose by picture...", null, () => open(node), { serialize: false });
    button.label = translate("Choose by picture...");
    button.serialize = false;
  },
});
