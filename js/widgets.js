// What views have in common: when they look at the nodes, the widgets that they write, as if somebody had typed into
// them, and their place in a node.
import { app } from "../../scripts/app.js";
import { everyNode, keyOf } from "./graph.js";

const LOOK_AGAIN = 200; // milliseconds between two looks at the nodes
export const AGAIN = 2000; // milliseconds after which a view asks again if the server did not answer

// Calls `look` with the set of all nodes, again and again while the page is seen.
export function keepLooking(look) {
  setInterval(() => document.hidden || look(new Set(everyNode())), LOOK_AGAIN);
}

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

const elements = new WeakMap(); // node: those of its views

// An element of the page as a widget that is not saved; `removed` is called when its node goes.
export function addView(node, name, element, height, removed = () => {}) {
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => height };
  node.addDOMWidget(name, name, element, options).serialize = false;
  elements.set(node, [...(elements.get(node) ?? []), element]);
  const { onRemoved } = node;
  node.onRemoved = function () {
    removed();
    return onRemoved?.apply(this, arguments);
  };
}

// The first Nodes 2.0 go on showing the element that a node had before an undo, which made the node anew.
function takePlace(node, element) {
  element.dataset.node = keyOf(node);
  if (element.isConnected) return;
  const alike = [...document.getElementsByClassName(element.className)];
  alike.find((other) => other.dataset.node === element.dataset.node)?.replaceWith(element);
}

app.registerExtension({
  name: "Champ.Widgets",
  setup() {
    keepLooking((nodes) => nodes.forEach((node) => elements.get(node)?.forEach((one) => takePlace(node, one))));
  },
});

// For Ctrl+Z, once the mouse is let go.
export function written() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.(); // as older editors call it
}
