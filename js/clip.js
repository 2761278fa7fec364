// The frames of an animated preview, for the player.

const PIXELS = 160_000; // of a frame that is kept

export const canDecode = typeof ImageDecoder !== "undefined";

export async function readClip(address, { fps, step, frames }) {
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
  return {
    total: frames,
    fps,
    numbers: pictures.map((_, i) => i * step),
    draw(context, index, width, height) {
      const picture = pictures[index];
      const scale = Math.min(width / picture.width, height / picture.height);
      const [w, h] = [picture.width * scale, picture.height * scale];
      context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
    },
    close: () => pictures.forEach((picture) => picture.close()),
  };
}
