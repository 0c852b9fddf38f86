// Classes that a person has made, kept while those of a scene or a list stand in their place.

import { byId } from "./dom.js";

const KEPT = 5; // sets of classes

/** The sets, the last one first to come back; `onBack` is called when it is asked for. */
export class OwnClasses {
  #sets = [];

  constructor(onBack) {
    byId("own").addEventListener("click", onBack);
  }

  /** Whether there is something to bring back. */
  get any() {
    return this.#sets.length > 0;
  }

  /** Keeps classes that are about to be replaced. */
  keep(classes) {
    this.#forget(classes);
    if (classes.length) this.#sets.push(classes);
    this.#sets = this.#sets.slice(-KEPT);
    this.#show();
  }

  /** The last set, which is no longer kept; `current`, if any, waits behind all others. */
  back(current = []) {
    const classes = this.#sets.pop() ?? [];
    this.#forget(current);
    if (current.length) this.#sets.unshift(current);
    this.#show();
    return classes;
  }

  #forget(classes) {
    const written = JSON.stringify(classes);
    this.#sets = this.#sets.filter((one) => JSON.stringify(one) !== written);
  }

  #show() {
    const last = this.#sets.at(-1) ?? [];
    byId("own").hidden = !this.any;
    byId("own").textContent = `My own (${last.length})`;
    byId("own").title = last.map(({ name }) => name).join(", ").slice(0, 300);
  }
}
