// The graph as a run would see it: through reroutes, bypassed and primitive nodes, into subgraphs and out of them.
import { app } from "../../scripts/app.js";

const [NEVER, BYPASS] = [2, 4]; // modes of a node
const OUTSIDE = -10; // the id of what leads into a subgraph
const MOST_STEPS = 100; // along one wire; it ends, whatever a workflow says
const CONSTANT = /^Primitive(Node|Int|Float|Boolean|String|StringMultiline)$/;

export function everyNode(graph = app.graph, found = []) {
  for (const node of graph?.nodes ?? []) {
    found.push(node);
    if (node.subgraph) everyNode(node.subgraph, found);
  }
  return found;
}

// The nodes, from the outside to the inside, that hold a graph; the first of those that share it.
function holders(graph) {
  if (graph?.isRootGraph !== false) return [];
  const holder = everyNode(graph.rootGraph ?? app.graph).find(({ subgraph }) => subgraph === graph);
  return holder ? [...holders(holder.graph), holder] : [];
}

// A name for a node that no other has. ComfyUI keeps what nodes have put out under it.
export function keyOf(node) {
  const { graph, id } = node;
  return graph?.isRootGraph === false ? `${graph.id}:${id}` : String(id);
}

// What a run calls a node: the ids of those that hold it, and its own.
export function runId(node) {
  return [...holders(node.graph), node].map(({ id }) => id).join(":");
}

// What a node has put out in the last run; after a change of tabs ComfyUI has it under the other name.
export function outputOf(node) {
  return app.nodeOutputs?.[keyOf(node)] ?? app.nodeOutputs?.[runId(node)];
}

// Nothing for copies of nodes that are in no graph: they know their links all the same.
export function linkOf(graph, id) {
  return id == null ? null : (graph?.getLink?.(id) ?? graph?.links[id]);
}

// The input that takes the place of an output of a bypassed node.
function bypassed(node, slot, type) {
  const { inputs = [], outputs } = node;
  const valid = window.LiteGraph.isValidConnection;
  const fits = (input) => input && valid(input.type, type) && valid(input.type, outputs[slot].type);
  if (fits(inputs[slot])) return slot;
  const same = inputs.findIndex((input) => input.type === type);
  return same < 0 ? inputs.findIndex(fits) : same;
}

// What is at the other end of a link: { node, slot }, or { value } if it is constant, or nothing.
function from(graph, link, type, steps) {
  if (!graph || !link || steps > MOST_STEPS) return {};
  const { origin_id: origin, origin_slot: slot } = link;
  if (Number(origin) === OUTSIDE) {
    const holder = holders(graph).at(-1);
    const input = holder?.inputs[slot];
    if (!input) return {};
    if (input.link != null) return into(holder, slot, type, steps + 1);
    return { value: holder.getWidgetFromSlot?.(input)?.value };
  }
  const node = graph.getNodeById(origin);
  if (!node || node.mode === NEVER) return {};
  if (node.mode === BYPASS) return into(node, bypassed(node, slot, type), type, steps + 1);
  if (node.subgraph) {
    const inner = node.resolveSubgraphOutputLink?.(slot)?.link;
    return from(node.subgraph, inner, type, steps + 1);
  }
  if (CONSTANT.test(node.comfyClass ?? node.type)) {
    const given = (node.inputs ?? []).findIndex(({ link }) => link != null);
    return given < 0 ? { value: node.widgets?.[0]?.value } : into(node, given, type, steps + 1);
  }
  if (node.isVirtualNode) return from(graph, node.getInputLink(slot), type, steps + 1);
  return { node, slot };
}

function into(node, slot, type, steps) {
  return from(node.graph, linkOf(node.graph, node.inputs?.[slot]?.link), type, steps);
}

// The connected inputs of a node: { name, type, and node, slot or value }.
export function inputsOf(node) {
  return (node.inputs ?? [])
    .map((input, slot) => ({ input, slot }))
    .filter(({ input }) => input.link != null)
    .map(({ input: { name, type }, slot }) => ({ name, type: String(type), ...into(node, slot, type, 0) }));
}
