// Ways for a picture to come in: dropped, pasted, chosen, or one of the scenes.

import { byId, el } from "./dom.js";
import { readHeader } from "./header.js";

const ENDINGS = {
  "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tif", "image/bmp": "bmp", "image/gif": "gif",
};

/** A file that is not taken, and why. */
export class Refused extends Error {
  title = "Not an image to take";
}

/**
 * A picture, ready to be sent and, if the browser can, shown.
 *
 * `bitmap` is null for what the browser cannot read, such as TIFF; the service may still know it. `limits` are the
 * service's {max_bytes, max_pixels}: a larger file is not decoded, which would stop the page for as long.
 * Throws Refused.
 */
export async function openPicture(blob, name, url, limits) {
  if (blob.size > limits.max_bytes) {
    throw new Refused(`“${name}” has ${mebibytes(blob.size)}; this service takes ${mebibytes(limits.max_bytes)} at the most. Save it smaller.`);
  }
  const header = await readHeader(blob);
  if (header === null) throw new Refused(noImage(name));
  const [width, height] = header.size ?? [0, 0];
  if (width * height > limits.max_pixels) {
    throw new Refused(`“${name}” has ${width} × ${height} pixels, ${millions(width * height)}; this service takes `
      + `${millions(limits.max_pixels)} at the most. Scale it down.`);
  }
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    // broken, or of a kind that only the service reads; its answer will tell
  }
  return { blob, name, url, bitmap, width: bitmap?.width ?? 0, height: bitmap?.height ?? 0 };
}

const noImage = (name) => `“${name}” is no image. JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP and GIF are taken.`;
const figure = (value, unit) => `${value.toLocaleString("en", { maximumSignificantDigits: 3 })} ${unit}`;
const mebibytes = (bytes) => figure(bytes / (1 << 20), "MiB");
const millions = (pixels) => figure(pixels / 1e6, "million");

/** Listens to drop, paste and the file dialog; `onFile` gets a File, `onNone` the reason why there is none. */
export function installIntake(onFile, onNone) {
  const openers = { file: ["choose", "choose-other"], camera: ["shoot", "shoot-other"] };
  for (const [id, buttons] of Object.entries(openers)) {
    const input = byId(id);
    for (const button of buttons) byId(button).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      if (input.files.length) onFile(named(input.files[0]));
      input.value = ""; // so that the same file can be chosen again
    });
  }

  const hint = byId("drop-hint");
  let inside = 0;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    inside++;
    hint.hidden = false;
  });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  addEventListener("dragleave", (event) => {
    if (carriesFiles(event) && --inside <= 0) hint.hidden = true;
  });
  addEventListener("drop", (event) => {
    inside = 0;
    hint.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    takeFrom(event.dataTransfer, onFile, onNone);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length === 0) return; // text goes where it was pasted
    event.preventDefault();
    takeFrom(event.clipboardData, onFile, onNone);
  });
}

function takeFrom(transfer, onFile, onNone) {
  const files = [...transfer.files];
  const file = files.find(({ type }) => type.startsWith("image/")) ?? files[0];
  if (file === undefined) onNone("There was no file in that.");
  else if (file.type && !file.type.startsWith("image/")) onNone(noImage(file.name));
  else onFile(named(file));
}

/** A file with a name that says what it is; pasted pictures often have none of their own. */
function named(file) {
  const name = file.name || `pasted.${ENDINGS[file.type] ?? "png"}`;
  return file.name ? file : new File([file], name, { type: file.type });
}

/** The sample scenes' buttons; `onScene` gets a scene of scenes.json with its URL. */
export function showScenes(scenes, onScene) {
  byId("scenes").replaceChildren(...scenes.map((scene) => {
    const url = new URL(`static/scenes/${scene.name}.jpg`, document.baseURI).href;
    return el(
      "button",
      {
        type: "button", className: "scene", "aria-pressed": "false", title: scene.about, "data-scene": scene.name,
        onclick: () => onScene({ ...scene, url }),
      },
      el("img", { src: url, alt: "", width: 64, height: 48 }),
      el("span", { textContent: scene.name }),
    );
  }));
}

/** Marks the scene that is shown, if it is one. */
export function markScene(name) {
  for (const button of byId("scenes").children) button.setAttribute("aria-pressed", String(button.dataset.scene === name));
}
