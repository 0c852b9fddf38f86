// Zooming and panning: two fingers, Ctrl and the wheel, plus, minus and zero, and buttons.

const MOST = 8;
const STEP = 1.5;
const STILL = 5; // pixels that a pointer may move and still be a click

/** The place and scale of what lies in a box. */
export class Zoom {
  #box;
  #inner;
  #onChange;
  #scale = 1;
  #at = [0, 0]; // of the inner element's corner, in pixels of the box
  #pointers = new Map();
  #moved = false;

  /** `inner` fills `box` at scale 1; `onChange` hears of every move. */
  constructor(box, inner, onChange) {
    this.#box = box;
    this.#inner = inner;
    this.#onChange = onChange;
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      this.by(Math.exp(-event.deltaY / 200), this.#place(event));
    }, { passive: false });
    box.addEventListener("pointerdown", (event) => {
      if (event.isPrimary) {
        this.#pointers.clear(); // those whose end was not heard
        this.#moved = false;
      }
      this.#pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    addEventListener("pointermove", (event) => this.#follow(event));
    for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    new ResizeObserver(() => this.#move(...this.#at)).observe(box);
  }

  /** Whether the pointer that is down, or was last, has moved the picture: no click. */
  get dragged() {
    return this.#moved;
  }

  get scale() {
    return this.#scale;
  }

  /** Where a place of the picture, as shares, is in the box: pixels. */
  place(x, y) {
    return [this.#at[0] + x * this.#scale * this.#box.clientWidth, this.#at[1] + y * this.#scale * this.#box.clientHeight];
  }

  /** Makes it larger, around a place of the box; its middle if left out. */
  by(factor, [x, y] = [this.#box.clientWidth / 2, this.#box.clientHeight / 2]) {
    const scale = Math.min(MOST, Math.max(1, this.#scale * factor));
    const grown = scale / this.#scale;
    this.#scale = scale;
    this.#move(x - grown * (x - this.#at[0]), y - grown * (y - this.#at[1]));
  }

  /** All of the picture again. */
  reset() {
    this.#scale = 1;
    this.#move(0, 0);
  }

  /** Takes a key; tells whether it was one of zooming. */
  key(key) {
    if (key === "+" || key === "=") this.by(STEP);
    else if (key === "-") this.by(1 / STEP);
    else if (key === "0") this.reset();
    else return false;
    return true;
  }

  /** Brings a place of the picture, as shares, into sight. */
  show(x, y) {
    const [left, top] = this.place(x, y);
    const into = (at, room) => Math.min(0, room - 20 - at) + Math.max(0, 20 - at);
    if (this.#scale > 1) this.#move(this.#at[0] + into(left, this.#box.clientWidth), this.#at[1] + into(top, this.#box.clientHeight));
  }

  #follow(event) {
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined) return;
    const now = [event.clientX, event.clientY];
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    const [right, down] = [now[0] - before[0], now[1] - before[1]];
    if (other === undefined) {
      if (this.#scale === 1 || (!this.#moved && Math.hypot(right, down) < STILL)) return;
      this.#move(this.#at[0] + right, this.#at[1] + down);
    } else {
      const apart = (one) => Math.max(1, Math.hypot(one[0] - other[0], one[1] - other[1]));
      const box = this.#box.getBoundingClientRect();
      this.#at = [this.#at[0] + right / 2, this.#at[1] + down / 2];
      this.by(apart(now) / apart(before), [(now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top]);
    }
    this.#moved = true;
    this.#pointers.set(event.pointerId, now);
  }

  #place(event) {
    const box = this.#box.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #move(left, top) {
    const within = (at, room) => Math.min(0, Math.max(room * (1 - this.#scale), at));
    this.#at = [within(left, this.#box.clientWidth), within(top, this.#box.clientHeight)];
    this.#inner.style.transform = this.#scale === 1 ? "" : `translate(${this.#at[0]}px, ${this.#at[1]}px) scale(${this.#scale})`;
    this.#box.classList.toggle("zoomed", this.#scale > 1);
    this.#onChange();
  }
}
