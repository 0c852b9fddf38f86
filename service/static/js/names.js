// Names of classes on their regions.

import { byId, el } from "./dom.js";
import { colorOf } from "./drawing.js";
import { namePlaces } from "./regions.js";

const GAP = 3; // pixels between two names

/** The names over the picture; each leaves when another, of a roomier region, lies where it would. */
export class Names {
  #box = byId("names");
  #made = []; // {name, x, y}: an element, and where it belongs
  #place;

  /** `place(x, y)`: where a place of the picture, as shares, is in the box. */
  constructor(place) {
    this.#place = place;
  }

  /** Shows the names of a result; null shows none. */
  show(result) {
    const places = result === null ? [] : namePlaces(result);
    const classes = new Map((result?.classes ?? []).map((one) => [one.label, one]));
    this.#made = places.map(({ label, x, y }) => {
      const name = el("span", { className: "region-name", "data-label": String(label), textContent: classes.get(label).name });
      name.style.setProperty("--color", colorOf(classes.get(label)));
      return { name, label, x, y };
    });
    this.#box.replaceChildren(...this.#made.map(({ name }) => name));
  }

  /** Puts them where they belong; those of `hidden` labels leave. */
  arrange(hidden) {
    const [width, height] = [this.#box.clientWidth, this.#box.clientHeight];
    const sizes = this.#made.map(({ name }) => [name.offsetWidth, name.offsetHeight]); // before anything moves
    const taken = [];
    this.#made.forEach(({ name, label, x, y }, index) => {
      const [wide, high] = sizes[index];
      const [middle, center] = this.#place(x, y);
      const left = Math.min(width - wide - GAP, Math.max(GAP, middle - wide / 2));
      const top = center - high / 2;
      const outside = middle < 0 || middle > width || top < GAP || top + high > height - GAP || wide + 2 * GAP > width;
      const lies = (one) => (
        left < one[2] + GAP && left + wide > one[0] - GAP && top < one[3] + GAP && top + high > one[1] - GAP
      );
      const gone = outside || hidden.has(label) || taken.some(lies);
      if (!gone) taken.push([left, top, left + wide, top + high]);
      name.classList.toggle("gone", gone);
      name.style.transform = `translate(${left}px, ${top}px)`;
    });
  }
}
