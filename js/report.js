// Shows what a node has to say below its widgets.
import { app } from "../../scripts/app.js";
import { element } from "./element.js";
import { outputOf } from "./graph.js";
import { translate } from "./language.js";
import { addView, keepLooking } from "./widgets.js";

const SPEAKING = ["ChampEstimateMotion", "ChampMeasure"];
const HEIGHT = 100;
const STYLE = `
.champ-report { width: 100%; height: 100%; min-height: ${HEIGHT - 20}px; box-sizing: border-box; padding: 6px 8px;
  overflow: auto; white-space: pre-wrap; user-select: text; border-radius: 6px; background: #1b1d21; color: #cfd3da;
  font: 12px/1.35 sans-serif; }
`;

const reports = new WeakMap(); // node: where it stands

function look(nodes) {
  for (const node of nodes) {
    const place = reports.get(node);
    if (!place) continue;
    const text = outputOf(node)?.text?.join("\n") ?? translate("Stands here after a run.");
    if (place.textContent !== text) place.textContent = text;
  }
}

app.registerExtension({
  name: "Champ.Report",
  setup() {
    keepLooking(look);
  },
  nodeCreated(node) {
    if (!SPEAKING.includes(node.comfyClass) || !node.addDOMWidget) return;
    const place = element("div");
    reports.set(node, place);
    const shown = element("div", { className: "champ-report" }, element("style", { textContent: STYLE }), place);
    addView(node, "champ_report", shown, HEIGHT);
  },
});
