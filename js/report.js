// Shows what a node has to say below its widgets.
import { app } from "../../scripts/app.js";

const SPEAKING = ["ChampEstimateMotion", "ChampMeasure"];

app.registerExtension({
  name: "Champ.Report",
  nodeCreated(node) {
    if (!SPEAKING.includes(node.comfyClass)) return;
    const onExecuted = node.onExecuted;
    node.onExecuted = function (message) {
      onExecuted?.apply(this, arguments);
      let widget = this.widgets?.find((other) => other.name === "champ_report");
      if (!widget) {
        widget = app.widgets.STRING(this, "champ_report", ["STRING", { multiline: true }], app).widget;
        widget.serialize = false; // neither in the workflow nor in the prompt
        widget.options.serialize = false;
        if (widget.inputEl) widget.inputEl.readOnly = true;
        this.setSize([Math.max(this.size[0], 320), Math.max(this.size[1], this.computeSize()[1] + 60)]);
      }
      widget.value = (message.text ?? []).join("\n");
      app.graph.setDirtyCanvas(true, true);
    };
  },
});
