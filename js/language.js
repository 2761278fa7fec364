// The language of the page. Sentences are written in English where they are said. Their translations are in
// locales/<language>/main.json under "champ", each under its English sentence.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

let languages = {};

// Returns a sentence in the language of ComfyUI's settings. {name} in it becomes values.name.
export function translate(sentence, values = {}) {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  const said = languages[language]?.champ?.[sentence] ?? sentence;
  return said.replace(/\{(\w+)\}/g, (placeholder, name) => values[name] ?? placeholder);
}

app.registerExtension({
  name: "Champ.Language",
  async init() {
    try {
      languages = await api.getCustomNodesI18n(); // of all packs
    } catch (error) {
      console.warn("The pack's translations cannot be read, so its sentences stay English.", error);
    }
  },
});
