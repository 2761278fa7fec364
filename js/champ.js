// Shows the pack's warnings as toasts, so that nobody has to read the server's log, keeps moving previews in place, and
// takes the lines about progress away when the work is done.
import { app } from "../../scripts/app.js";
import { everyNode, runId } from "./graph.js";

const LINE = "$$node-text-preview"; // the editor's widget for a line about progress, which it leaves there

function takeLinesAway({ detail }) {
  const working = String(detail ?? ""); // where a node begins to work, the others are done
  for (const node of everyNode()) {
    const at = node.comfyClass?.startsWith("Champ") ? (node.widgets ?? []).findIndex(({ name }) => name === LINE) : -1;
    if (at < 0 || runId(node) === working) continue;
    const [line] = node.widgets.splice(at, 1);
    const tall = line.computedHeight ?? 0;
    line.onRemove?.();
    node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1] - tall)]);
  }
}

app.registerExtension({
  name: "Champ",
  setup() {
    for (const end of ["executing", "execution_success", "execution_error", "execution_interrupted"])
      app.api.addEventListener(end, takeLinesAway);
    app.api.addEventListener("champ.warning", ({ detail }) => {
      app.extensionManager.toast.add({ severity: "warn", summary: "Champ", detail: detail.message, life: 20000 });
    });
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Champ")) return;
    // The editor puts a moving preview into its node in the drawing after the one that makes it. Nothing asks for that
    // drawing when a run is over, and the preview would fill the page.
    const add = node.addDOMWidget;
    node.addDOMWidget = function (...about) {
      requestAnimationFrame(() => this.setDirtyCanvas(true, true));
      return add.apply(this, about);
    };
  },
});
