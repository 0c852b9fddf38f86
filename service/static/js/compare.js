// Before and after: the picture alone to the left of a line, the mask to its right.

import { byId } from "./dom.js";

const GRIP = 40; // pixels, as wide as the slider's thumb in page.css; its middle is the line

/** The button and the line; `onChange` hears of every move. */
export class Compare {
  #line = byId("divide");
  #button = byId("compare");
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    this.#button.addEventListener("click", () => this.#show(this.#line.hidden));
    this.#line.addEventListener("input", () => this.#onChange());
  }

  /** Pixels from the left of the box at which the mask begins; 0 if nothing is compared. */
  get edge() {
    if (this.#line.hidden) return 0;
    return GRIP / 2 + (this.#line.value / 100) * (this.#line.clientWidth - GRIP);
  }

  /** Back to the mask alone. */
  stop() {
    this.#show(false);
  }

  #show(open) {
    this.#line.hidden = !open;
    this.#button.setAttribute("aria-pressed", String(open));
    this.#onChange();
  }
}
