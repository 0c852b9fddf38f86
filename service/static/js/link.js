// A link that carries classes and settings in its fragment, which no server sees; the picture stays here.

import { address } from "./api.js";
import { byId, say } from "./dom.js";
import { listed, written } from "./listed.js";
import { toStore } from "./request.js";

/** The link of {classes, vocabulary, threshold, tiled, model, version}. */
export function linkOf({ classes, vocabulary, threshold, tiled, model, version }) {
  const fields = new URLSearchParams();
  const plain = classes.every((entry) => Object.keys(entry).every((key) => key === "name"));
  if (vocabulary) fields.set("list", vocabulary);
  else if (classes.length) fields.set("classes", plain ? written(classes.map(({ name }) => name)) : JSON.stringify(toStore(classes)));
  if (threshold !== null) fields.set("other", String(threshold));
  if (tiled) fields.set("tiles", "1");
  if (model) fields.set("model", model);
  if (version) fields.set("version", String(version));
  return `${address("./")}#${fields}`;
}

/** What a fragment says, as `linkOf` takes it. Throws an Error in words. */
export function readLink(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const number = (name, most) => {
    if (!fields.has(name)) return null;
    const value = Number(fields.get(name));
    if (!(value >= 0 && value <= most)) throw new Error(`The link's ${name} is no number of at most ${most}.`);
    return value;
  };
  return {
    classes: listed(fields.get("classes") ?? ""),
    vocabulary: fields.get("list"),
    threshold: number("other", 1),
    tiled: number("tiles", 1) === 1,
    model: fields.get("model"),
    version: number("version", 999_999_999),
  };
}

/** Wires the button that copies it. */
export function installLink(state) {
  const button = byId("copy-link");
  button.addEventListener("click", async () => {
    const link = linkOf(state());
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = "Copied";
      say("link copied");
    } catch { // no secure context, or not allowed; the address has it
      button.textContent = "See the address";
      say("the address of this page is the link now");
    }
    setTimeout(() => { button.textContent = "Copy link"; }, 2000);
  });
}
