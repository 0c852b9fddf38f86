// The result as files.

import { SEGMENT_MS, call } from "./api.js";
import { byId, saveFile } from "./dom.js";
import { labelMap } from "./mask.js";
import { requestForm } from "./request.js";

/** Wires the buttons; `current()` gives {sent, answer, text}, `stage` draws, `onError` hears what fails. */
export function installDownloads(current, stage, onError) {
  const offer = (id, ending, make) => byId(id).addEventListener("click", async () => {
    const button = byId(id);
    button.disabled = true;
    try {
      const { sent } = current();
      saveFile(await make(current()), `${sent.picture.name.replace(/\.[^.]*$/, "")}-${ending}`);
    } catch (error) {
      onError(error);
    } finally {
      button.disabled = false;
    }
  });
  offer("get-png", "mask.png", ({ sent, answer }) => again(sent, answer, "png", "image/png"));
  offer("get-rle", "rle.json", ({ sent, answer, text }) => (sent.document.output_size
    ? again(sent, answer, "rle", "application/json")
    : new Blob([text], { type: "application/json" })));
  offer("get-overlay", "overlay.png", () => stage.overlay());
  offer("get-cutout", "cutout.png", async ({ sent, answer }) => {
    if (sent.picture.bitmap === null) throw new Error("The browser cannot show this image, so it cannot cut it out.");
    const whole = sent.document.output_size
      ? JSON.parse(await (await again(sent, answer, "rle", "application/json")).text())
      : answer;
    return stage.cutOut(sent.picture, { labels: labelMap(whole), ...whole.size, classes: whole.classes });
  });
}

/** The same call in another form, at the picture's own size; the service has the prediction still. */
async function again(sent, answer, output, accept) {
  const { output_size: _, ...document } = sent.document;
  const request = { ...document, outputs: [output], model: answer.model.name, version: answer.model.version };
  const got = await call("v1/segment", {
    method: "POST", body: requestForm(sent.picture, request), headers: { Accept: accept }, ms: SEGMENT_MS,
  });
  return got.blob();
}
