// What was found: colours, shares, confidences; a click shows or hides a class.

import { forVisitors } from "./about.js";
import { byId, el, percent, swatch, wholePercent } from "./dom.js";
import { colorOf } from "./drawing.js";

/** The legend; `onChange` gets the set of hidden labels, `onFocus` the label that is pointed at, 0 for none. */
export class Legend {
  #hidden = new Set();
  #found = [];
  #onChange;
  #onFocus;

  constructor(onChange, onFocus) {
    this.#onChange = onChange;
    this.#onFocus = onFocus;
    byId("show-all").addEventListener("click", () => {
      this.#hidden = this.#hidden.size ? new Set() : new Set(this.#found.map(({ label }) => label));
      this.#mark();
      this.#onChange(this.#hidden);
    });
  }

  /** Shows an answer; classes that were hidden before and are still asked for stay hidden. */
  show(answer, previous) {
    const wasHidden = new Set(
      (previous?.classes ?? []).filter(({ label }) => this.#hidden.has(label)).map(({ name }) => name),
    );
    this.#hidden = new Set(answer.classes.filter(({ name }) => wasHidden.has(name)).map(({ label }) => label));
    this.#found = answer.classes.filter(({ area }) => area > 0).sort((a, b) => b.area - a.area);
    const missing = answer.classes.filter(({ area }) => area === 0);
    const rows = this.#found.map((found) => this.#row(found));
    if (answer.other) rows.push(el("li", { className: "other-row" }, ...otherRow(answer.other)));
    byId("legend").replaceChildren(...rows);

    byId("result-title").textContent = `Found ${this.#found.length} of ${answer.classes.length}`;
    byId("missing").hidden = missing.length === 0;
    byId("missing").open = missing.length <= 8;
    byId("missing").querySelector("summary").textContent = `Not found: ${missing.length}`;
    byId("missing").querySelector("ul").replaceChildren(...missing.map(({ name, trained }) => (
      el("li", {}, el("span", { textContent: name }), badge(trained))
    )));
    byId("warning").replaceChildren(...(answer.warnings ?? []).map((warning) => (
      el("p", { "data-code": warning.code, textContent: forVisitors(warning) })
    )));
    byId("warning").hidden = !answer.warnings?.length;
    byId("none-found").hidden = this.#found.length > 0 || !answer.background?.threshold;
    byId("result").hidden = false;
    this.#mark();
    this.#onChange(this.#hidden);
  }

  /** Hides or shows a class. */
  toggle(label) {
    if (!this.#hidden.delete(label)) this.#hidden.add(label);
    this.#mark();
    this.#onChange(this.#hidden);
  }

  /** Marks the class that is read in the picture. */
  highlight(label) {
    for (const button of byId("legend").querySelectorAll("button")) {
      button.classList.toggle("read", label !== 0 && button.dataset.label === String(label));
    }
  }

  #row(found) {
    const { label, name, trained, area, fraction, mean_confidence: mean } = found;
    const color = colorOf(found);
    const focus = (to) => () => this.#onFocus(to);
    const share = el("span", { className: "share" });
    share.style.setProperty("--share", String(fraction));
    share.style.setProperty("--color", color);
    return el("li", {}, el(
      "button",
      {
        type: "button", className: "row", "data-label": String(label), "aria-pressed": "true",
        "aria-label": `${name}, ${trained ? "trained" : "new"}, ${percent(fraction)} of the image, `
          + `${wholePercent(mean)} sure`,
        title: `${name}: ${area.toLocaleString("en")} pixels; click to hide or show`, // a long name is cut
        onclick: () => this.toggle(label), onpointerenter: focus(label), onpointerleave: focus(0), onfocus: focus(label), onblur: focus(0),
      },
      swatch(color),
      el("span", { className: "name", textContent: name }),
      badge(trained),
      el("span", { className: "figure", textContent: percent(fraction) }),
      el("span", { className: "figure sure", textContent: `${wholePercent(mean)} sure` }),
      share,
    ));
  }

  #mark() {
    for (const button of byId("legend").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(!this.#hidden.has(Number(button.dataset.label))));
    }
    byId("show-all").textContent = this.#hidden.size ? "Show all" : "Hide all";
    byId("show-all").hidden = this.#found.length === 0;
  }
}

function badge(trained) {
  return el("span", { className: trained ? "badge" : "badge new", textContent: trained ? "trained" : "new" });
}

function otherRow({ fraction, area }) {
  const row = el(
    "div", { className: "row", title: `${area.toLocaleString("en")} pixels` },
    el("span", { className: "swatch none", "aria-hidden": "true" }),
    el("span", { className: "name", textContent: "other" }),
    el("span", { className: "figure", textContent: percent(fraction) }),
  );
  return [row];
}

/** One sentence about an answer. */
export function summaryOf(answer) {
  const found = answer.classes.filter(({ area }) => area > 0).sort((a, b) => b.area - a.area);
  if (found.length === 0) return "none of the classes was found";
  const named = found.slice(0, 5).map(({ name, fraction }) => `${name} ${percent(fraction)}`).join(", ");
  return found.length > 5 ? `${named}, and ${found.length - 5} more` : named;
}
