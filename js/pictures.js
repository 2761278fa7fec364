// The reference image behind the figure, as far as the page has it.
import { api } from "../../scripts/api.js";
import { inputsOf, outputOf } from "./graph.js";

const loaded = {}; // pictures by address

// "folder/picture.png [output]", as the widget of Load Image has it
function addressOf(name) {
  const [, path, type] = name.match(/^(.*?)(?: \[(input|output|temp)\])?$/);
  const parts = path.split("/");
  const about = { filename: parts.pop(), subfolder: parts.join("/"), type: type ?? "input" };
  return api.apiURL(`/view?${new URLSearchParams(about)}`);
}

// What Load Image will load, or else the picture of the last run; the server adds those that this pack draws.
export function addressBehind(node) {
  const source = inputsOf(node).find(({ name }) => name === "reference_image")?.node;
  const name = source?.comfyClass === "LoadImage" && source.widgets?.find((widget) => widget.name === "image")?.value;
  if (name) return addressOf(name);
  const [known] = (source && outputOf(node)?.champ_behind) || [];
  return known ? api.apiURL(`/view?${new URLSearchParams(known)}`) : null;
}

// Nothing if there is none.
export async function pictureAt(address) {
  if (!address) return null;
  if (!loaded[address]) {
    const picture = Object.assign(new Image(), { src: address });
    await picture.decode().catch(() => delete loaded[address]);
    if (!picture.naturalWidth) return null;
    loaded[address] = picture;
  }
  return loaded[address];
}
