// The few things that every module does with the document.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element; `on…` properties are listeners, `aria-…` and `data-…` attributes, the rest DOM properties. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A square in a class's colour; style attributes are forbidden by the page's policy, this is not. */
export function swatch(color) {
  const made = el("span", { className: "swatch", "aria-hidden": "true" });
  made.style.backgroundColor = color;
  return made;
}

let saying = 0;

/** Tells screen readers, after a moment in which something newer may come; the same text twice is read twice. */
export function say(text) {
  clearTimeout(saying);
  byId("status").textContent = "";
  saying = setTimeout(() => { byId("status").textContent = text; }, 50);
}

/** Saves bytes as a file. */
export function saveFile(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const SHARE = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** 0..1 as a percentage; what is there but rounds to nothing says so. */
export const percent = (share) => (share > 0 && share < 0.0005 ? "<0.1%" : SHARE.format(share));

/** 0..1 as a whole percentage. */
export const wholePercent = (share) => `${Math.round(100 * share)}%`;

/** Milliseconds in words that fit their size. */
export function milliseconds(value) {
  if (value >= 10_000) return `${(value / 1000).toFixed(0)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 ? `${value.toFixed(0)} ms` : `${value.toFixed(1)} ms`;
}

/** Waits, unless the signal ends it. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
