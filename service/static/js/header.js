// What a file is by its first bytes, and the size that they tell, before anything is decoded.

const READ = 1 << 20; // bytes of the beginning; a JPEG has its colour profile and thumbnail before its size
const BRANDS = /avi[fs]|hei[cmsx]|hev[cmsx]|mif1|miaf|msf1/;

const text = (view, at, length) => (
  String.fromCharCode(...new Uint8Array(view.buffer, Math.min(at, view.byteLength), Math.max(0, Math.min(length, view.byteLength - at))))
);
const begins = (...starts) => (view) => starts.some((start) => text(view, 0, start.length) === start);

// [whether it is of this kind, its [width, height]]; null where the size is no plain field, and no browser but
// Safari would decode it
const KINDS = [
  [begins("\xff\xd8\xff"), ofJpeg],
  [begins("\x89PNG\r\n\x1a\n"), (view) => [view.getUint32(16), view.getUint32(20)]],
  [begins("GIF87a", "GIF89a"), (view) => [view.getUint16(6, true), view.getUint16(8, true)]],
  [(view) => text(view, 0, 4) === "RIFF" && text(view, 8, 4) === "WEBP", ofWebp],
  [(view) => text(view, 4, 4) === "ftyp" && BRANDS.test(text(view, 8, 64)), ofHeif],
  [begins("BM"), ofBmp],
  [begins("II*\0", "MM\0*", "II+\0", "MM\0+"), () => null],
  [begins("\xff\x0a", "\0\0\0\x0cJXL \r\n\x87\n"), () => null],
];

/** What a file says of itself: null if it is no image; `size` is [width, height] in pixels, null if it does not tell. */
export async function readHeader(blob) {
  const view = new DataView(await blob.slice(0, READ).arrayBuffer());
  const kind = KINDS.find(([is]) => is(view));
  if (kind === undefined) return null;
  try {
    return { size: kind[1](view) };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { size: null }; // cut short
  }
}

function ofJpeg(view) {
  for (let at = 2; ;) {
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) at += 1; // filling
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return [view.getUint16(at + 7), view.getUint16(at + 5)];
    } else at += 2 + view.getUint16(at + 2);
  }
}

function ofWebp(view) {
  const three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  const kind = text(view, 12, 4);
  if (kind === "VP8X") return [1 + three(24), 1 + three(27)];
  if (kind === "VP8 ") return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
  const bits = view.getUint32(21, true);
  return [1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff)];
}

/** The largest of the sizes: of the image, its tiles and its thumbnail. */
function ofHeif(view) {
  let size = null;
  for (let at = 0; at + 16 <= view.byteLength; at++) {
    if (view.getUint32(at) !== 0x69737065) continue; // "ispe"
    const [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (size === null || width * height > size[0] * size[1]) size = [width, height];
  }
  return size;
}

function ofBmp(view) {
  if (view.getUint32(14, true) === 12) return [view.getUint16(18, true), view.getUint16(20, true)];
  return [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
}
