// The chosen classes as chips, and the box that new ones are typed into.

import { byId, el, say, swatch } from "./dom.js";
import { listed } from "./listed.js";

const SHOWN = 18; // of a long list, until all are asked for
const HELP = byId("class-help").textContent;

/** Chips; `onChange` is called after every change that a user made. */
export class Chips {
  #classes = [];
  #colors = new Map();
  #all = false;
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    byId("chip-box").addEventListener("click", (event) => {
      if (event.target === byId("chip-box") || event.target === byId("chips")) byId("class-input").focus();
    });
    byId("clear").addEventListener("click", () => {
      this.set([]);
      byId("class-input").focus();
      this.#onChange();
    });
  }

  /** Entries {name, synonyms?, trained?, color?}, in order. */
  get classes() {
    return this.#classes;
  }

  /** Replaces all of them, without telling. */
  set(classes) {
    this.#classes = [...classes];
    this.#all = false;
    this.#draw();
  }

  /** Adds the names of a text, see `listed`; tells whether it could be read, and says why not. */
  addText(text) {
    try {
      const entries = listed(text);
      this.#help("");
      this.add(entries);
    } catch (error) {
      this.#help(error.message);
      return false;
    }
    return true;
  }

  /** Adds entries that are not there yet. */
  add(entries) {
    const have = new Set(this.#classes.map(({ name }) => name.toLowerCase()));
    const fresh = [];
    for (const entry of entries) {
      const name = entry.name.toLowerCase();
      if (have.has(name)) say(`${entry.name} is chosen already`);
      else fresh.push(entry);
      have.add(name);
    }
    if (fresh.length === 0) return;
    this.#classes = [...this.#classes, ...fresh];
    this.#draw();
    say(`added ${fresh.map(({ name }) => name).join(", ")}`);
    this.#onChange();
  }

  /** Removes the last one. */
  removeLast() {
    if (this.#classes.length) this.#remove(this.#classes.length - 1);
  }

  /** Gives the chips the colours of an answer. */
  paint(colors) {
    this.#colors = colors;
    this.#draw();
  }

  /** Says what is wrong with a text; an empty one says how to type. */
  #help(wrong) {
    const help = byId("class-help");
    help.textContent = wrong || HELP;
    help.classList.toggle("wrong", wrong !== "");
    if (wrong) say(wrong);
  }

  #remove(index) {
    const [{ name }] = this.#classes.splice(index, 1);
    this.#classes = [...this.#classes];
    this.#draw();
    const buttons = byId("chips").querySelectorAll(".chip button");
    (buttons[Math.min(index, buttons.length - 1)] ?? byId("class-input")).focus();
    say(`removed ${name}`);
    this.#onChange();
  }

  #draw() {
    const shown = this.#all ? this.#classes : this.#classes.slice(0, SHOWN);
    const items = shown.map(({ name }, index) => el(
      "li",
      { className: "chip" },
      ...(this.#colors.has(name) ? [swatch(this.#colors.get(name))] : []),
      el("span", { className: "chip-name", textContent: name }),
      el("button", { type: "button", "aria-label": `Remove ${name}`, textContent: "×", onclick: () => this.#remove(index) }),
    ));
    if (shown.length < this.#classes.length) {
      const more = () => {
        this.#all = true;
        this.#draw();
        byId("chips").querySelectorAll(".chip button")[SHOWN].focus();
      };
      items.push(el("li", {}, el("button", {
        type: "button", className: "link", textContent: `and ${this.#classes.length - shown.length} more`, onclick: more,
      })));
    }
    byId("chips").replaceChildren(...items);
    byId("chips").hidden = items.length === 0;
    byId("clear").hidden = this.#classes.length === 0;
  }
}
