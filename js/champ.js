// Shows the pack's warnings as toasts, so that nobody has to read the server's log, and keeps moving previews in place.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "Champ",
  setup() {
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
