// Shows the pack's warnings as toasts, so that nobody has to read the server's log.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "Champ",
  setup() {
    app.api.addEventListener("champ.warning", ({ detail }) => {
      app.extensionManager.toast.add({ severity: "warn", summary: "Champ", detail: detail.message, life: 20000 });
    });
  },
});
