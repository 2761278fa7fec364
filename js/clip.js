// The frames of an animated preview, for the player. Some have several parts side by side, which can be shown alone.

const PIXELS = 160_000; // of a frame that is kept

export const canDecode = typeof ImageDecoder !== "undefined";

// Where a picture of this size is shown: the largest place with its sides' ratio.
export function fitted(pictureWidth, pictureHeight, width, height) {
  const scale = Math.min(width / pictureWidth, height / pictureHeight);
  const [w, h] = [pictureWidth * scale, pictureHeight * scale];
  return { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h, scale };
}

export async function readClip(address, { fps, step, frames, parts = [], confidence }, before) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`The preview is gone (${answer.status}); run the workflow again.`);
  const decoder = new ImageDecoder({ data: await answer.arrayBuffer(), type: "image/webp" });
  await decoder.tracks.ready;
  const pictures = [];
  for (let frameIndex = 0; frameIndex < decoder.tracks.selectedTrack.frameCount; frameIndex++) {
    const { image } = await decoder.decode({ frameIndex });
    const scale = Math.min(1, Math.sqrt(PIXELS / (image.displayWidth * image.displayHeight)));
    const resizeWidth = Math.max(1, Math.round(image.displayWidth * scale));
    pictures.push(await createImageBitmap(image, { resizeWidth, resizeQuality: "high" }));
    image.close();
  }
  decoder.close();
  const look = before?.look ?? { part: -1 };
  return {
    look,
    total: frames,
    fps,
    confidence,
    numbers: pictures.map((_, i) => i * step),
    actions: parts.map((name, part) => ({
      name,
      title: `Show the ${name} alone, or all`,
      on: () => look.part === part,
      press: () => (look.part = look.part === part ? -1 : part),
    })),
    draw(context, index, width, height) {
      const picture = pictures[index];
      const wide = look.part < 0 ? picture.width : picture.width / parts.length;
      const { x, y, width: w, height: h } = fitted(wide, picture.height, width, height);
      context.drawImage(picture, Math.max(0, look.part) * wide, 0, wide, picture.height, x, y, w, h);
    },
    close: () => pictures.forEach((picture) => picture.close()),
  };
}
