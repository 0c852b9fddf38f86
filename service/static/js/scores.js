// Confidence at a place: a small map of all classes' scores, asked for when somebody looks.

import { SEGMENT_MS, call } from "./api.js";
import { requestForm } from "./request.js";

const MOST_NUMBERS = 1_000_000;
const LONGEST_SIDE = 192;

/** Scores [K, H, W] of a finished call, as a function of place and label; prediction cache and text cache answer. */
export async function fetchConfidence(sent, answer, signal) {
  const { width, height } = answer.size;
  const scale = Math.sqrt(MOST_NUMBERS / (answer.classes.length * width * height));
  const longest = Math.max(width, height);
  const side = Math.max(1, Math.floor(Math.min(LONGEST_SIDE, longest, longest * scale)));
  const { background: _, ...document } = sent.document;
  const request = {
    ...document,
    model: answer.model.name,
    version: answer.model.version,
    outputs: ["scores"],
    output_size: { long_side: side },
  };
  const got = await call("v1/segment", {
    method: "POST", body: requestForm(sent.picture, request), signal, ms: SEGMENT_MS,
    headers: { Accept: "application/json" },
  });
  const scores = readScores((await got.json()).scores);
  return (x, y) => {
    const place = scores.width * Math.min(scores.height - 1, Math.floor(y * scores.height))
      + Math.min(scores.width - 1, Math.floor(x * scores.width));
    const each = answer.classes.map((_, k) => half(scores.data[k * scores.width * scores.height + place]));
    const whole = Math.max(1, each.reduce((sum, one) => sum + one, 0)); // as the model does it
    return each.map((one) => one / whole);
  };
}

/** A .npy file of float16 [K, H, W] in base64. */
function readScores(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const head = 10 + (bytes[8] | (bytes[9] << 8));
  const described = new TextDecoder("latin1").decode(bytes.subarray(10, head));
  const shape = /'descr': '<f2', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\)/.exec(described);
  if (shape === null) throw new Error("the service sent scores of an unknown form");
  return { data: new Uint16Array(bytes.buffer, head), height: Number(shape[2]), width: Number(shape[3]) };
}

/** The value of a half-precision number, 0 or above, by its bits. */
function half(bits) {
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  return exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
}
