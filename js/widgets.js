// Widgets that a view writes, as if somebody had typed into them.
import { app } from "../../scripts/app.js";

export function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

export function write(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets.find((other) => other.name === name);
    if (!widget || widget.value === value) continue;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
  }
  app.graph.setDirtyCanvas(true, true);
}

// For Ctrl+Z, once the mouse is let go.
export function written() {
  app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
}
