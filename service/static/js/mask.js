// Run lengths to a label map, and a label map to coloured pixels.

/** COCO's compressed run lengths: 5 bits a character, differences to the run before the last. */
export function decodeCounts(text) {
  const counts = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 0x1f) << shift;
      shift += 5;
    } while (bits & 0x20);
    if (bits & 0x10 && shift < 32) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

/** An answer's classes as one label map, row by row; 0 is "other". */
export function labelMap(answer) {
  const { width, height } = answer.size;
  const labels = new Uint16Array(width * height);
  for (const { label, rle } of answer.classes) {
    const counts = decodeCounts(rle.counts);
    let position = 0; // down the columns
    for (let run = 0; run < counts.length; run++) {
      const end = position + counts[run];
      if (run % 2 === 1) {
        for (; position < end; position++) labels[(position % height) * width + Math.floor(position / height)] = label;
      }
      position = end;
    }
  }
  return labels;
}

/** Three numbers, 0..255, of "#rrggbb". */
export const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

/**
 * The colours of the classes with borders between them; "other" stays clear.
 *
 * `opacity` is of the areas, borders are opaque. Classes in `hidden` are left out; if `focus` is a label,
 * the others fade.
 */
export function paint(labels, width, height, classes, { opacity, hidden, focus = 0 }) {
  const most = classes.reduce((top, { label }) => Math.max(top, label), 0);
  const areas = new Uint32Array(most + 1); // 0xAABBGGRR
  const borders = new Uint32Array(most + 1);
  for (const { label, color } of classes) {
    if (hidden.has(label) || opacity === 0) continue;
    const [red, green, blue] = channels(color);
    const faded = focus !== 0 && focus !== label;
    const packed = (blue << 16) | (green << 8) | red;
    areas[label] = ((Math.round(255 * opacity * (faded ? 0.15 : 1)) << 24) | packed) >>> 0;
    borders[label] = faded ? areas[label] : ((255 << 24) | packed) >>> 0;
  }
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      const edge = (x > 0 && labels[at - 1] !== label) || (y > 0 && labels[at - width] !== label);
      pixels[at] = edge ? borders[label] : areas[label];
    }
  }
  return image;
}
