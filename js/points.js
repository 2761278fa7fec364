// A scene's points without WebGL: where they are, and in the picture.

const SPACING = 0.02; // metres between two vertices, about

// Every n-th vertex of a frame: x, y, z and the normal, one after the other.
export function skinned(scene, index, every = 1) {
  const { vertices, normals, matrices } = scene;
  const { joints, weights } = scene.mesh;
  const found = [];
  for (let v = 0; v < vertices.length / 3; v += every) {
    const point = [0, 0, 0, 0, 0, 0];
    for (let k = 0; k < 4; k++) {
      const weight = weights[4 * v + k] / 255;
      if (!weight) continue;
      const first = 288 * index + 12 * joints[4 * v + k];
      for (let row = 0; row < 3; row++) {
        const [a, b, c, d] = matrices.subarray(first + 4 * row, first + 4 * row + 4);
        point[row] += weight * (a * vertices[3 * v] + b * vertices[3 * v + 1] + c * vertices[3 * v + 2] + d);
        point[row + 3] += weight * (a * normals[3 * v] + b * normals[3 * v + 1] + c * normals[3 * v + 2]);
      }
    }
    found.push(point);
  }
  return found;
}

// Where the scene's own camera sees points, in pixels of its picture.
export function filmed(scene, points) {
  const { camera, focal, width, height } = scene;
  return points.map(([x, y, z]) => {
    const way = [x - camera[0][3], y - camera[1][3], z - camera[2][3]];
    const [X, Y, Z] = [0, 1, 2].map((i) => camera[0][i] * way[0] + camera[1][i] * way[1] + camera[2][i] * way[2]);
    return [(focal * X) / Z + width / 2, (focal * Y) / Z + height / 2];
  });
}

function seen(view, [x, y, z], width, height) {
  const [right, up, , away] = [0, 1, 2, 3].map((row) => view[row] * x + view[4 + row] * y + view[8 + row] * z + view[12 + row]);
  return [((right / away + 1) * width) / 2, ((1 - up / away) * height) / 2, away];
}

export function drawPoints(context, scene, index, view, eye, colour, width, height) {
  const scale = (SPACING * Math.hypot(view[1], view[5], view[9]) * height) / 2;
  for (const [x, y, z, nx, ny, nz] of skinned(scene, index)) {
    const facing = nx * eye[0] + ny * eye[1] + nz * eye[2];
    const [right, down, away] = seen(view, [x, y, z], width, height);
    if (facing <= 0 || away <= 0) continue;
    const light = 255 * (0.425 + 0.175 * ny + 0.45 * facing);
    const size = Math.max(1, scale / away);
    context.fillStyle = `rgb(${colour.map((value) => Math.round(value * light))})`;
    context.fillRect(right - size / 2, down - size / 2, size, size);
  }
}

// Pairs of points with their colours, as WebGL has them.
export function drawLines(context, points, view, width, height) {
  for (let i = 0; i < points.length; i += 12) {
    const a = seen(view, points.subarray(i, i + 3), width, height);
    const b = seen(view, points.subarray(i + 6, i + 9), width, height);
    if (a[2] <= 0 || b[2] <= 0) continue;
    context.strokeStyle = `rgb(${[...points.subarray(i + 3, i + 6)].map((value) => Math.round(255 * value))})`;
    context.beginPath();
    context.moveTo(a[0], a[1]);
    context.lineTo(b[0], b[1]);
    context.stroke();
  }
}
