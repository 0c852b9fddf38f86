// What a model's checkpoint tells of itself.

import { byId, el, wholePercent } from "./dom.js";

const MOST_WORDS = 60; // more would be a page of their own; GET v1/models has them all

// what a visitor of the page can do; the service's own advice is for those who run it
const ADVICE = {
  "unknown-words": "The words that it knows are under “About this model”.",
  "unlike-its-domain": "Other models, if this service has any, are in the list at the top.",
};

const named = (models, name) => models.find((one) => (name === null ? one.default : one.name === name));

/** The words that a model's card lists, by the model's name; none where it has a sentence, or no card. */
export function ownWords(models, name) {
  const words = named(models, name)?.card?.words;
  return Array.isArray(words) ? words : [];
}

/** The threshold of a model's card, by the model's name; null where it has none. */
export const ownThreshold = (models, name) => named(models, name)?.card?.threshold ?? null;

/** A warning {code, message} of an answer in words for visitors: what is wrong as the service says it, before its last semicolon. */
export function forVisitors({ code, message }) {
  const end = message.lastIndexOf("; ");
  return code in ADVICE && end > 0 ? `${message.slice(0, end)}. ${ADVICE[code]}` : message;
}

/** Shows the card of a model, by name; null is the service's default. What it warns of is in sight. */
export function showAbout(models, name) {
  const model = named(models, name);
  const warnings = model ? warningsOf(model) : [];
  byId("model-note").replaceChildren(...warnings.map((textContent) => el("p", { textContent })));
  byId("model-note").hidden = warnings.length === 0;
  const rows = model ? facts(model) : [];
  byId("about").hidden = rows.length === 0;
  byId("about-facts").replaceChildren(...rows.flatMap(([term, text]) => (
    [el("dt", { textContent: term }), el("dd", { textContent: text })]
  )));
}

function warningsOf({ untrained, card }) {
  const warnings = untrained ? ["The weights of this model are random: its masks mean nothing."] : [];
  if (card?.domain) warnings.push(`This model is for ${card.domain.replace(/[.]$/, "")}.`);
  return warnings;
}

function facts({ name, version, license, card }) {
  const rows = [["Model", `${name}, version ${version}`], ["Licence", license ?? "not said"]];
  if (card === null) return rows;
  rows.push(["For", card.domain], ["Knows", words(card.words)]);
  rows.push(["“Other” below", card.threshold === null ? "no threshold" : wholePercent(card.threshold)]);
  if (card.training_data.length) rows.push(["Trained on", card.training_data.map((data) => `${data.name} (${data.terms})`).join("; ")]);
  if (card.parts.length) rows.push(["Parts", card.parts.map((part) => `${part.name}: ${part.license}`).join("; ")]);
  if (card.notes) rows.push(["Note", card.notes]);
  return rows;
}

function words(known) {
  if (typeof known === "string") return known;
  const more = known.length - MOST_WORDS;
  return known.slice(0, MOST_WORDS).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
