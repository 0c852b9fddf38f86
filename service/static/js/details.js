// Where the time went, and what the caches did.

import { byId, el, milliseconds } from "./dom.js";

const STAGES = [
  ["decode", "decode the image"], ["queue", "wait for the device"], ["predict", "run the network"],
  ["text", "embed the names"], ["classify", "compare with the names"], ["encode", "write the response"],
];
const TEXT = {
  l1: ["hit", "Names: known to this process"],
  l2: ["hit", "Names: known to Redis"],
  embedded: ["miss", "Names: embedded just now"],
  joined: ["hit", "Names: being embedded for someone else"],
};
const PREDICTION = {
  hit: ["hit", "Image: known, so the network did not run"],
  miss: ["miss", "Image: new to the network"],
};

/**
 * Shows an answer's times and caches.
 *
 * `first` is the time in ms that this picture's first answer took, if the network ran for it on this page.
 */
export function showDetails(answer, { roundTrip, first }) {
  const times = answer.timings_ms;
  byId("timing").hidden = false;
  byId("total").replaceChildren(
    el("strong", { textContent: milliseconds(times.total) }),
    ` in the service, ${milliseconds(roundTrip)} with the way there and back`,
  );
  const hit = answer.caches?.prediction === "hit";
  const factor = first === null ? 0 : first / times.total;
  byId("saved").hidden = !hit;
  byId("saved").textContent = factor >= 1.5
    ? `Known image: ${factor < 10 ? factor.toFixed(1) : Math.round(factor)} times as fast as the first response `
      + `(${milliseconds(first)}).`
    : "Known image: the network did not have to run.";

  const stages = STAGES.map(([stage, words]) => ({ stage, words, ms: times[stage] ?? 0 }));
  byId("bar").replaceChildren(...stages.filter(({ ms }) => ms > 0).map(({ stage, ms }) => {
    const part = el("span", { "data-stage": stage });
    part.style.flexGrow = String(ms);
    return part;
  }));
  byId("stages").replaceChildren(...stages.map(({ stage, words, ms }) => el(
    "div", {},
    el("dt", { "data-stage": stage, title: words }, el("span", { textContent: stage })),
    el("dd", { textContent: ms > 0 ? milliseconds(ms) : "–" }),
  )));
  const parts = [PREDICTION[answer.caches?.prediction], TEXT[answer.caches?.text]].filter(Boolean);
  byId("caches").replaceChildren(...parts.map(([kind, words]) => el("li", { className: kind, textContent: words })));
  const { name, version, digest } = answer.model;
  byId("answered-by").textContent = `${name}, version ${version}, weights ${digest.slice(0, 12)}`;
}
