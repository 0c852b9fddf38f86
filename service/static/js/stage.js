// The picture under its mask, and what is read under the pointer or the keyboard's cross.

import { Compare } from "./compare.js";
import { byId, say, wholePercent } from "./dom.js";
import { FILL, colorOf, cutOut, paint, ring } from "./drawing.js";
import { Names } from "./names.js";
import { DISPLAY_SIDE } from "./request.js";
import { Zoom } from "./zoom.js";

const STEP = 1 / 40; // of the picture, for arrow keys
const LARGE_STEP = 1 / 8;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Shows pictures, masks and readings. */
export class Stage {
  #photo = byId("photo");
  #mask = byId("mask");
  #ring = byId("ring");
  #result = null; // {labels, width, height, classes, confidence}
  #look = { opacity: FILL, hidden: new Set(), focus: 0 };
  #ringed = 0; // label of the class with a line around it
  #zoom = new Zoom(byId("view"), byId("layers"), () => this.#arrange());
  #compare = new Compare(() => this.#arrange());
  #names = new Names((x, y) => this.#zoom.place(x, y));
  #cross = null;
  #place = null; // [x, y] that is read, as shares of the picture
  #toggles = false; // whether the click that comes hides or shows what is read
  #onLook;
  #onRead;
  #onToggle;

  /**
   * `onLook` is called when somebody looks for a class; `onRead` with the label that is read, 0 for none;
   * `onToggle` with a label to hide or show.
   */
  constructor(onLook, onRead, onToggle) {
    this.#onLook = onLook;
    this.#onRead = onRead;
    this.#onToggle = onToggle;
    const mask = this.#mask;
    const follow = (event) => {
      const box = mask.getBoundingClientRect();
      this.#cross = null;
      this.#read((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, false);
    };
    mask.addEventListener("pointermove", follow);
    mask.addEventListener("pointerdown", (event) => {
      const before = this.#labelRead();
      follow(event);
      // a finger cannot point: its first tap reads, one more on the same class hides or shows
      this.#toggles = event.pointerType !== "touch" || before === this.#labelRead();
    });
    mask.addEventListener("click", () => { if (this.#toggles && !this.#zoom.dragged) this.#toggle(); });
    mask.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") this.#stopReading(); });
    mask.addEventListener("pointercancel", () => this.#stopReading());
    mask.addEventListener("blur", () => this.#stopReading());
    mask.addEventListener("keydown", (event) => this.#onKey(event));
    byId("zoom-in").addEventListener("click", () => this.#zoom.key("+"));
    byId("zoom-out").addEventListener("click", () => this.#zoom.key("-"));
    byId("zoom-all").addEventListener("click", () => this.#zoom.reset());
    byId("show-names").addEventListener("click", () => {
      const shown = byId("names").hidden;
      byId("names").hidden = !shown;
      byId("show-names").setAttribute("aria-pressed", String(shown));
      this.#arrange();
    });
  }

  /** Shows a picture without a mask. */
  show(picture) {
    this.#result = null;
    this.#names.show(null);
    this.#stopReading();
    this.#compare.stop();
    this.#zoom.reset();
    byId("invitation").hidden = true;
    byId("view").hidden = false;
    byId("tools").hidden = true;
    byId("stage").dataset.empty = "false";
    this.#photo.classList.toggle("unknown", picture.bitmap === null);
    const [width, height] = [picture.width || 4, picture.height || 3];
    const scale = Math.min(1, DISPLAY_SIDE / Math.max(width, height)); // as its mask will be
    this.#resize(Math.max(1, Math.round(scale * width)), Math.max(1, Math.round(scale * height)), picture.bitmap);
    this.#mask.setAttribute("aria-label", `Image ${picture.name}, no mask yet`);
  }

  /** Shows a result {labels, width, height, classes} over the picture. */
  showResult(picture, result, summary) {
    this.#result = result;
    if (this.#photo.width !== result.width || this.#photo.height !== result.height) {
      this.#resize(result.width, result.height, picture.bitmap);
    }
    this.#mask.setAttribute("aria-label", `Image ${picture.name} and mask: ${summary}`);
    this.#look.focus = 0;
    this.#names.show(result);
    byId("tools").hidden = false;
    this.draw();
  }

  /** Changes {opacity, hidden, focus}. */
  look(change) {
    Object.assign(this.#look, change);
    this.draw();
  }

  /** Confidences have come for the result that is shown. */
  setConfidence(confidence) {
    if (this.#result) this.#result.confidence = confidence;
  }

  /** Paints the mask. */
  draw() {
    const context = this.#mask.getContext("2d");
    context.clearRect(0, 0, this.#mask.width, this.#mask.height);
    if (this.#result !== null) context.putImageData(paint(this.#result, this.#look), 0, 0);
    this.#encircle(0);
    this.#arrange();
  }

  /** Picture and mask in one, as a PNG. */
  async overlay() {
    const both = document.createElement("canvas");
    [both.width, both.height] = [this.#photo.width, this.#photo.height];
    const context = both.getContext("2d");
    context.drawImage(this.#photo, 0, 0);
    context.drawImage(this.#mask, 0, 0);
    return new Promise((resolve) => { both.toBlob(resolve, "image/png"); });
  }

  /** The picture where a class is that is not hidden, clear elsewhere, as a PNG; of the result's size. */
  async cutOut(picture, result) {
    const hidden = this.#look.hidden;
    const shown = new Set(result.classes.map(({ label }) => label).filter((label) => !hidden.has(label)));
    const canvas = cutOut(picture.bitmap, result, shown);
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  }

  /** Puts names, and the line between before and after, where zoom and sizes have them. */
  #arrange() {
    const edge = this.#compare.edge;
    const begin = Math.max(0, (edge - this.#zoom.place(0, 0)[0]) / this.#zoom.scale);
    // not a clip path: pointers are to be heard where nothing is drawn, too
    const from = (pixels) => (edge > 0 ? `linear-gradient(to right, transparent ${pixels}px, black ${pixels}px)` : "");
    for (const canvas of [this.#mask, this.#ring]) canvas.style.maskImage = from(begin);
    byId("names").style.maskImage = from(edge);
    this.#names.arrange(this.#look.hidden);
  }

  /** Draws a line around the regions of a class; 0 draws none. */
  #encircle(label) {
    if (label === this.#ringed) return;
    this.#ringed = label;
    const context = this.#ring.getContext("2d");
    context.clearRect(0, 0, this.#ring.width, this.#ring.height);
    if (label && this.#result !== null) context.putImageData(ring(this.#result, label), 0, 0);
  }

  #resize(width, height, bitmap) {
    for (const canvas of [this.#photo, this.#mask, this.#ring]) [canvas.width, canvas.height] = [width, height];
    byId("view").style.setProperty("--ratio", String(width / height));
    if (bitmap) {
      const context = this.#photo.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(bitmap, 0, 0, width, height);
    }
  }

  #onKey(event) {
    if (event.key === "Escape") {
      this.#cross = null;
      this.#stopReading();
      return;
    }
    if (this.#cross !== null && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      this.#toggle();
      return;
    }
    if (!event.ctrlKey && !event.metaKey && this.#zoom.key(event.key)) {
      event.preventDefault();
      return;
    }
    const way = KEYS[event.key];
    if (way === undefined || this.#result === null) return;
    event.preventDefault();
    const step = event.shiftKey ? LARGE_STEP : STEP;
    const move = (from, by) => Math.min(0.999, Math.max(0, from + by * step));
    this.#cross = this.#cross ? [move(this.#cross[0], way[0]), move(this.#cross[1], way[1])] : [0.5, 0.5];
    this.#zoom.show(...this.#cross);
    this.#read(...this.#cross, true);
  }

  #read(x, y, aloud) {
    if (this.#result === null || x < 0 || y < 0 || x >= 1 || y >= 1) return this.#stopReading();
    const { classes, confidence } = this.#result;
    this.#place = [x, y];
    const label = this.#labelRead();
    const text = this.#words(label, classes, confidence?.(x, y));
    const reading = byId("reading");
    reading.textContent = text;
    reading.hidden = false;
    const [left, top] = this.#zoom.place(x, y);
    const view = byId("view");
    reading.style.left = `${left}px`;
    reading.style.top = `${top}px`;
    reading.classList.toggle("leftwards", left > 0.6 * view.clientWidth);
    reading.classList.toggle("upwards", top > 0.8 * view.clientHeight);
    const found = classes.find((one) => one.label === label);
    reading.style.setProperty("--color", found ? colorOf(found) : "transparent");
    const cross = byId("cross");
    cross.hidden = !aloud;
    cross.style.left = reading.style.left;
    cross.style.top = reading.style.top;
    if (aloud) say(text);
    this.#encircle(label);
    this.#onRead(label);
    this.#onLook();
  }

  /** The label of the place that is read; null if none is. */
  #labelRead() {
    if (this.#place === null || this.#result === null) return null;
    const { labels, width, height } = this.#result;
    const [x, y] = this.#place;
    return labels[Math.floor(y * height) * width + Math.floor(x * width)];
  }

  #toggle() {
    const label = this.#labelRead();
    if (!label) return; // nothing, or "other"
    this.#onToggle(label);
    this.#read(...this.#place, this.#cross !== null);
    const { name } = this.#result.classes.find((one) => one.label === label);
    say(`${name} ${this.#look.hidden.has(label) ? "hidden" : "shown"}`);
  }

  #words(label, classes, here) {
    if (label === 0) {
      if (!here) return "other";
      const best = here.indexOf(Math.max(...here));
      return `other; nearest is ${classes[best].name}, ${wholePercent(here[best])}`;
    }
    const index = classes.findIndex((one) => one.label === label);
    const { name, mean_confidence: mean } = classes[index];
    const hidden = this.#look.hidden.has(label) ? ", hidden" : "";
    return here
      ? `${name}, ${wholePercent(here[index])} sure${hidden}`
      : `${name}, ${wholePercent(mean)} sure on average${hidden}`;
  }

  #stopReading() {
    this.#place = null;
    byId("reading").hidden = true;
    byId("cross").hidden = true;
    this.#encircle(0);
    this.#onRead(0);
  }
}
