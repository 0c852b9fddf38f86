// Stored class lists: to choose from, to suggest words of, to save the chosen classes as.

import { call } from "./api.js";
import { byId, el } from "./dom.js";
import { toStore } from "./request.js";

const MOST_READ = 24; // lists whose words are suggested
const AT_ONCE = 4;
const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/;

/** The lists of the service. */
export class Lists {
  #summaries = [];
  #details = new Map();
  #words = [];
  #own;
  #onWords;
  #wanted = false; // somebody looks for suggestions
  #reading = null;

  /** `own`: words that are suggested first; `onWords` is called when there are more. */
  constructor(own, onWords) {
    this.#own = own;
    this.#onWords = onWords;
  }

  /** Words to suggest, each once. */
  get words() {
    return this.#words.length ? this.#words : this.#own;
  }

  /** Fills the select; keeps what is chosen there. */
  async refresh(chosen) {
    const answer = await call("v1/vocabularies");
    this.#summaries = (await answer.json()).vocabularies;
    const group = (label, builtin) => {
      const items = this.#summaries.filter((one) => one.builtin === builtin);
      const options = items.map(({ name, size }) => el("option", { value: name, textContent: `${name} (${size})` }));
      return items.length ? [el("optgroup", { label }, ...options)] : [];
    };
    byId("list").replaceChildren(
      el("option", { value: "", textContent: "my own" }), ...group("Saved", false), ...group("Built in", true),
    );
    byId("list").value = this.has(chosen) ? chosen : "";
    this.#reading = null;
    if (this.#wanted) this.readWords();
  }

  /** Whether there is a list of this name. */
  has(name) {
    return this.#summaries.some((one) => one.name === name);
  }

  /** Whether a list of this name came with the service. */
  isBuiltin(name) {
    return this.#summaries.some((one) => one.name === name && one.builtin);
  }

  /** The classes of a list. */
  async classes(name) {
    if (!this.isBuiltin(name) || !this.#details.has(name)) {
      const answer = await call(`v1/vocabularies/${encodeURIComponent(name)}`);
      this.#details.set(name, (await answer.json()).classes);
    }
    return this.#details.get(name);
  }

  /** Reads the lists for their words: once, and again when there are other lists. */
  readWords() {
    this.#wanted = true;
    if (this.#summaries.length === 0) return; // refresh() comes back here
    this.#reading ??= this.#read().catch(() => { this.#reading = null; }); // the next focus tries again
  }

  async #read() {
    const names = this.#summaries.map(({ name }) => name).slice(0, MOST_READ);
    const waiting = [...names];
    const work = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await this.classes(name);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    const words = new Map(this.#own.map((word) => [word.toLowerCase(), word]));
    for (const name of names) {
      for (const { name: title, synonyms } of this.#details.get(name)) {
        const said = title.includes(",") ? synonyms : [title, ...synonyms]; // "road, route" is a class of two words
        for (const word of said) if (!words.has(word.toLowerCase())) words.set(word.toLowerCase(), word);
      }
    }
    this.#words = [...words.values()];
    this.#onWords();
  }

  /** Stores classes under a name. */
  async save(name, classes) {
    await call(`v1/vocabularies/${encodeURIComponent(name)}`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ classes: toStore(classes) }),
    });
    this.#details.delete(name);
    await this.refresh(name);
  }
}

/** Wires the form that saves; `onSaved` gets the name. */
export function installSaving(lists, chips, onSaved) {
  const [opener, form, input, note, button] = ["save-open", "save-form", "save-name", "save-note", "save"].map(byId);
  const show = (open) => {
    form.hidden = !open;
    opener.setAttribute("aria-expanded", String(open));
    note.textContent = "";
    if (open) input.focus();
  };
  const judge = () => {
    const name = input.value.trim();
    button.textContent = lists.has(name) && !lists.isBuiltin(name) ? "Replace" : "Save";
    note.textContent = lists.isBuiltin(name) ? "A list of this name is built in; choose another name."
      : name && !NAME.test(name) ? "Only small letters, digits, dots, dashes and underscores, a letter or digit first."
        : lists.has(name) ? "This replaces the list of this name, for everybody." : "";
    button.disabled = name !== "" && (lists.isBuiltin(name) || !NAME.test(name));
  };
  opener.addEventListener("click", () => { show(form.hidden); judge(); });
  input.addEventListener("input", judge);
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    show(false);
    opener.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (button.disabled || !name) return;
    button.disabled = true;
    try {
      await lists.save(name, chips.classes);
      input.value = "";
      show(false);
      opener.focus();
      onSaved(name);
    } catch (error) {
      note.textContent = `Not saved: ${error.message}`;
    } finally {
      button.disabled = false;
    }
  });
}
