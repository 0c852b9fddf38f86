// Run lengths to a label map.

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
