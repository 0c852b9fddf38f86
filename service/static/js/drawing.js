// How an answer is drawn: the one place that knows fills, outlines, and where colours come from.

export const FILL = 0.35; // of a region, until the slider says otherwise
const FADED = 0.15; // share of the fill that the other classes keep when one is pointed at
const WIDE = 960; // pixels of a long side; larger pictures are shown smaller, and get wider outlines
const ROUND = 0xffffffff; // the line around the class that is pointed at: 0xAABBGGRR

/** The colour that a class is drawn in, "#rrggbb". */
export const colorOf = ({ color }) => color;

/** Pixels of an outline in a picture of this size. */
export const outlineWidth = (width, height) => Math.max(1, Math.round(Math.max(width, height) / WIDE));

function packed(color, opacity) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return ((Math.round(255 * opacity) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function table(classes, value) {
  const most = classes.reduce((top, { label }) => Math.max(top, label), 0);
  const values = new Uint32Array(most + 1);
  for (const one of classes) values[one.label] = value(one);
  return values;
}

/**
 * The regions in their colours with outlines between them; "other" stays clear.
 *
 * `opacity` is of the regions, outlines are opaque. Classes in `hidden` are left out; if `focus` is a label,
 * the others fade.
 */
export function paint({ labels, width, height, classes }, { opacity, hidden, focus = 0 }) {
  const clear = ({ label }) => opacity === 0 || hidden.has(label);
  const faded = ({ label }) => focus !== 0 && focus !== label;
  const fills = table(classes, (one) => (clear(one) ? 0 : packed(colorOf(one), opacity * (faded(one) ? FADED : 1))));
  const lines = table(classes, (one) => (clear(one) ? 0 : faded(one) ? fills[one.label] : packed(colorOf(one), 1)));
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const wide = outlineWidth(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      const edge = (x >= wide && labels[at - wide] !== label) || (y >= wide && labels[at - wide * width] !== label);
      pixels[at] = edge ? lines[label] : fills[label];
    }
  }
  return image;
}

/** A line around all regions of one class, and nothing else. */
export function ring({ labels, width, height }, label) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const wide = 2 * outlineWidth(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (labels[at] === label) continue;
      if ((x >= wide && labels[at - wide] === label) || (x + wide < width && labels[at + wide] === label)
        || (y >= wide && labels[at - wide * width] === label)
        || (y + wide < height && labels[at + wide * width] === label)) pixels[at] = ROUND;
    }
  }
  return image;
}

/** The picture where one of the `shown` labels is, clear elsewhere; as a canvas of the label map's size. */
export function cutOut(bitmap, { labels, width, height }, shown) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  for (let at = 0; at < labels.length; at++) if (!shown.has(labels[at])) image.data[4 * at + 3] = 0;
  context.putImageData(image, 0, 0);
  return canvas;
}
