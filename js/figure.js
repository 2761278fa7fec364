// Draws a moving figure, the floor and the camera with WebGL: on one canvas for all views, because a page has few of them.
// Without WebGL the figure is a cloud of points.
import { drawLines, drawPoints } from "./points.js";

const FOV = 35; // degrees, of the eye that looks on
const BACKGROUND = [0.106, 0.114, 0.129];
const FIGURE = [0.78, 0.66, 0.56];
const GRID = [0.27, 0.29, 0.33];
const AXIS = [0.42, 0.45, 0.5];
const PATH = [0.9, 0.6, 0.25];
const FILMED = [0.45, 0.75, 0.95];
const CAMERA_AWAY = 2.6; // metres at most, that the camera may be seen: a long lens stands 40 m away

const FIGURE_SHADER = [
  `#version 300 es
  in vec3 place; in vec3 normal; in uvec4 joints; in vec4 weights;
  uniform vec4 rows[72]; uniform mat4 view;
  out vec3 lit;
  void main() {
    vec4 point = vec4(place, 1.0);
    vec3 at = vec3(0.0);
    lit = vec3(0.0);
    for (int i = 0; i < 4; i++) {
      int row = 3 * int(joints[i]);
      at += weights[i] * vec3(dot(rows[row], point), dot(rows[row + 1], point), dot(rows[row + 2], point));
      lit += weights[i] * vec3(dot(rows[row].xyz, normal), dot(rows[row + 1].xyz, normal), dot(rows[row + 2].xyz, normal));
    }
    gl_Position = view * vec4(at, 1.0);
  }`,
  `#version 300 es
  precision highp float;
  in vec3 lit; uniform vec3 colour; uniform vec3 eye;
  out vec4 pixel;
  void main() {
    vec3 n = normalize(lit);
    float sky = 0.5 + 0.5 * n.y;
    float facing = abs(dot(n, eye));
    pixel = vec4(colour * (0.25 + 0.35 * sky + 0.45 * facing), 1.0);
  }`,
];
const LINE_SHADER = [
  `#version 300 es
  in vec3 place; in vec3 tint; uniform mat4 view; out vec3 colour;
  void main() { colour = tint; gl_Position = view * vec4(place, 1.0); }`,
  `#version 300 es
  precision highp float; in vec3 colour; out vec4 pixel;
  void main() { pixel = vec4(colour, 1.0); }`,
];

const add = (a, b, s = 1) => a.map((value, i) => value + s * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));

// Column by column, as WebGL has them.
function times(a, b) {
  const out = new Array(16);
  for (let column = 0; column < 4; column++)
    for (let row = 0; row < 4; row++)
      out[4 * column + row] = [0, 1, 2, 3].reduce((sum, k) => sum + a[4 * k + row] * b[4 * column + k], 0);
  return out;
}

function looking(eye, at) {
  const z = unit(add(eye, at, -1));
  const x = unit(cross([0, 1, 0], z));
  const y = cross(z, x);
  return [x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0, -dot(x, eye), -dot(y, eye), -dot(z, eye), 1];
}

// Sizes of what is seen at a distance of 1, from the middle to the edge.
function lens(right, up, near, far) {
  const depth = (near + far) / (near - far);
  return [1 / right, 0, 0, 0, 0, 1 / up, 0, 0, 0, 0, depth, -1, 0, 0, (2 * near * far) / (near - far), 0];
}

function place(camera, point) {
  return camera.map((row) => dot(row, point) + row[3]);
}

let shared = null;

function program(gl, [vertex, fragment]) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

// Nothing where the browser has no WebGL 2.
function open() {
  if (shared === false || (shared && !shared.gl.isContextLost())) return shared;
  const gl = document.createElement("canvas").getContext("webgl2", { antialias: true });
  if (!gl) return (shared = false);
  shared = { gl, figure: program(gl, FIGURE_SHADER), lines: program(gl, LINE_SHADER), made: new WeakMap() };
  return shared;
}

function fill(gl, target, values) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(target, buffer);
  gl.bufferData(target, values, gl.STATIC_DRAW);
  return buffer;
}

function attribute(gl, shader, name, size, kind) {
  const at = gl.getAttribLocation(shader, name);
  gl.enableVertexAttribArray(at);
  if (kind === "whole") gl.vertexAttribIPointer(at, size, gl.UNSIGNED_BYTE, 0, 0);
  else if (kind === "part") gl.vertexAttribPointer(at, size, gl.UNSIGNED_BYTE, true, 0, 0);
  else gl.vertexAttribPointer(at, size, gl.FLOAT, false, kind?.stride ?? 0, kind?.offset ?? 0);
}

function lineList(scene) {
  const points = [];
  const line = (a, b, colour) => points.push(...a, ...colour, ...b, ...colour);
  const reach = Math.ceil(Math.max(1.5, ...scene.path.map(([x, , z]) => Math.max(Math.abs(x), Math.abs(z)) + 1)));
  for (let i = -2 * reach; i <= 2 * reach; i++) {
    const colour = i === 0 ? AXIS : GRID;
    line([i / 2, 0, -reach], [i / 2, 0, reach], colour);
    line([-reach, 0, i / 2], [reach, 0, i / 2], colour);
  }
  scene.path.slice(1).forEach((point, i) => {
    line([scene.path[i][0], 0.004, scene.path[i][2]], [point[0], 0.004, point[2]], PATH);
  });
  const floor = points.length / 6;
  const { camera, focal, width, height } = scene;
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) =>
    place(camera, [(x * width * scene.depth) / 2 / focal, (y * height * scene.depth) / 2 / focal, scene.depth]),
  );
  const middle = place(camera, [0, 0, scene.depth]);
  const away = place(camera, [0, 0, Math.max(0, scene.depth - CAMERA_AWAY)]);
  corners.forEach((corner, i) => {
    line(corner, corners[(i + 1) % 4], FILMED);
    line(corner, away, FILMED.map((value) => value * 0.5));
  });
  const box = corners.map((corner) => add(away, add(corner, middle, -1), 0.12 / Math.hypot(...add(corner, middle, -1))));
  box.forEach((corner, i) => line(corner, box[(i + 1) % 4], FILMED));
  return { points: new Float32Array(points), floor };
}

function prepare({ gl, made, figure, lines }, scene) {
  if (made.has(scene)) return made.get(scene);
  const body = gl.createVertexArray();
  gl.bindVertexArray(body);
  for (const [name, values, size, kind] of [
    ["place", scene.vertices, 3], ["normal", scene.normals, 3],
    ["joints", scene.mesh.joints, 4, "whole"], ["weights", scene.mesh.weights, 4, "part"],
  ]) {
    fill(gl, gl.ARRAY_BUFFER, values);
    attribute(gl, figure, name, size, kind);
  }
  fill(gl, gl.ELEMENT_ARRAY_BUFFER, scene.mesh.faces);
  const drawn = gl.createVertexArray();
  gl.bindVertexArray(drawn);
  const { points, floor } = lineList(scene);
  fill(gl, gl.ARRAY_BUFFER, points);
  attribute(gl, lines, "place", 3, { stride: 24, offset: 0 });
  attribute(gl, lines, "tint", 3, { stride: 24, offset: 12 });
  gl.bindVertexArray(null);
  const parts = { body, drawn, floor, count: points.length / 6 };
  made.set(scene, parts);
  return parts;
}

// From where a scene is looked at. `filmed` is through its own camera.
export function beginning(scene) {
  const tall = 1.9;
  const reach = Math.max(0, ...scene.path.map(([x, , z]) => Math.hypot(x, z)));
  return { yaw: 0.5, pitch: 0.2, away: 2.2 * tall + 1.6 * reach, at: [0, tall / 2, 0], filmed: false };
}

function matrix(scene, look, aspect) {
  if (look.filmed) {
    const [x, y, z] = scene.camera; // rows; their columns are the axes of the camera frame in the scene
    const origin = [x[3], y[3], z[3]];
    const axes = [0, 1, 2].map((i) => [x[i], y[i], z[i]]);
    const rows = [axes[0], axes[1].map((value) => -value), axes[2].map((value) => -value)];
    const view = [0, 1, 2].flatMap((i) => [...rows.map((row) => row[i]), 0]);
    view.push(...rows.map((row) => -dot(row, origin)), 1);
    const [right, up] = [scene.width / 2 / scene.focal, scene.height / 2 / scene.focal];
    const wide = Math.max(1, (aspect * up) / right);
    const tall = Math.max(1, right / up / aspect);
    return { view: times(lens(right * wide, up * tall, Math.max(0.1, scene.depth - 8), scene.depth + 12), view), eye: axes[2] };
  }
  const toEye = [Math.sin(look.yaw) * Math.cos(look.pitch), Math.sin(look.pitch), Math.cos(look.yaw) * Math.cos(look.pitch)];
  const half = Math.tan((FOV * Math.PI) / 360);
  const eye = add(look.at, toEye, look.away);
  return { view: times(lens(half * aspect, half, 0.05, 200), looking(eye, look.at)), eye: toEye };
}

// Fills a picture with a frame of a scene; `bare` is the figure alone, with nothing behind it.
export function drawFigure(context, scene, index, look, width, height, bare = false) {
  const engine = open();
  const { view, eye } = matrix(scene, look, width / height);
  if (!engine) {
    if (!bare) {
      context.fillStyle = `rgb(${BACKGROUND.map((value) => 255 * value)})`;
      context.fillRect(0, 0, width, height);
      const { points, floor } = lineList(scene);
      drawLines(context, look.filmed ? points.subarray(0, 6 * floor) : points, view, width, height);
    }
    return drawPoints(context, scene, index, view, eye, FIGURE, width, height);
  }
  const { gl, figure, lines } = engine;
  if (gl.canvas.width < width || gl.canvas.height < height)
    Object.assign(gl.canvas, { width: Math.max(width, gl.canvas.width), height: Math.max(height, gl.canvas.height) });
  const parts = prepare(engine, scene);
  gl.viewport(0, gl.canvas.height - height, width, height);
  gl.clearColor(...(bare ? [0, 0, 0, 0] : [...BACKGROUND, 1]));
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.enable(gl.DEPTH_TEST);
  if (!bare) {
    gl.useProgram(lines);
    gl.uniformMatrix4fv(gl.getUniformLocation(lines, "view"), false, view);
    gl.bindVertexArray(parts.drawn);
    gl.drawArrays(gl.LINES, 0, look.filmed ? parts.floor : parts.count); // the camera does not see itself
  }
  gl.useProgram(figure);
  gl.uniformMatrix4fv(gl.getUniformLocation(figure, "view"), false, view);
  gl.uniform4fv(gl.getUniformLocation(figure, "rows"), scene.matrices.subarray(288 * index, 288 * (index + 1)));
  gl.uniform3fv(gl.getUniformLocation(figure, "colour"), FIGURE);
  gl.uniform3fv(gl.getUniformLocation(figure, "eye"), eye);
  gl.bindVertexArray(parts.body);
  gl.drawElements(gl.TRIANGLES, scene.mesh.faces.length, gl.UNSIGNED_INT, 0);
  gl.bindVertexArray(null);
  context.drawImage(gl.canvas, 0, 0, width, height, 0, 0, width, height);
}

// Gives the graphics memory of a scene back.
export function forget(scene) {
  const parts = shared && shared.made.get(scene);
  if (!parts) return;
  shared.gl.deleteVertexArray(parts.body);
  shared.gl.deleteVertexArray(parts.drawn);
  shared.made.delete(scene);
}
