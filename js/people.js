// A click on a person in the clip of Follow Person chooses that person.
import { fitted } from "./clip.js";
import { translate } from "./language.js";
import { valueOf, write, written } from "./widgets.js";

const CHOSEN = "#5ccd70";

// The clip with boxes ([number, x0, y0, x1, y1] for each person of each frame) that can be clicked.
export function choosable(clip, { boxes, size }, node) {
  let index = 0;
  let place = { x: 0, y: 0, scale: 1 };
  const chosen = () => (valueOf(node, "person") === "number" ? valueOf(node, "number") : null);
  return {
    ...clip,
    state: chosen,
    draw(context, at, width, height) {
      clip.draw(context, at, width, height);
      index = at;
      place = fitted(...size, width, height);
      const box = boxes[at]?.find(([number]) => number === chosen());
      if (!box) return;
      const [, x0, y0, x1, y1] = box.map((value) => value * place.scale);
      context.strokeStyle = CHOSEN;
      context.lineWidth = 3;
      context.strokeRect(place.x + x0, place.y + y0, x1 - x0, y1 - y0);
    },
    // The smallest box around the place: whoever stands before others is often the larger one.
    grab(x, y, say) {
      const [right, down] = [(x - place.x) / place.scale, (y - place.y) / place.scale];
      const area = ([, x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
      const here = (boxes[index] ?? [])
        .filter(([, x0, y0, x1, y1]) => x0 <= right && right <= x1 && y0 <= down && down <= y1)
        .sort((a, b) => area(a) - area(b));
      if (!here.length) return say(translate("Nobody was found there in this frame."));
      write(node, { person: "number", number: here[0][0] });
      written();
      say(translate("The next run follows number {number}.", { number: here[0][0] }));
      return null;
    },
  };
}
