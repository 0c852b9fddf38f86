// Suggestions under the class box, by the ARIA pattern of an editable combobox with a list.

import { byId, el } from "./dom.js";
import { complete } from "./listed.js";

const MOST = 8;

/** The best `MOST` words for a text: those that begin with it, then those with a word that does, then the others. */
export function rank(words, text, taken) {
  const wanted = text.trim().toLowerCase();
  const found = [[], [], []];
  for (const word of words) {
    const lower = word.toLowerCase();
    if (taken.has(lower)) continue;
    const at = lower.indexOf(wanted);
    if (at === 0) found[0].push(word);
    else if (at > 0) found[lower[at - 1] === " " ? 1 : 2].push(word);
  }
  return found.flat().slice(0, MOST);
}

/** The best `MOST` words of several lists, all that fit of one before any of the next. */
export function ranked(lists, text, taken) {
  const found = new Map(); // by small letters: a word is suggested once
  for (const words of lists) {
    for (const word of rank(words, text, taken)) if (!found.has(word.toLowerCase())) found.set(word.toLowerCase(), word);
  }
  return [...found.values()].slice(0, MOST);
}

/**
 * Wires the box.
 *
 * Args: chips; `words()` gives lists of words to suggest, those to come first before the others; `onFocus` may
 * fetch more of them, and what this returns is to be called when they are there.
 */
export function installSuggestions(chips, words, onFocus) {
  const input = byId("class-input");
  const list = byId("suggestions");
  let active = -1;

  const options = () => [...list.children];
  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function activate(index) {
    const all = options();
    active = all.length ? (index + all.length) % all.length : -1;
    all.forEach((option, at) => option.setAttribute("aria-selected", String(at === active)));
    if (active < 0) return;
    input.setAttribute("aria-activedescendant", all[active].id);
    all[active].scrollIntoView({ block: "nearest" });
  }
  function take(add) {
    if (add()) input.value = "";
    close();
    input.focus();
  }
  const takeText = (text) => take(() => chips.addText(text));
  const takeWord = (word) => take(() => { chips.add([{ name: word }]); return true; });
  function open() {
    const taken = new Set(chips.classes.map(({ name }) => name.toLowerCase()));
    const fitting = ranked(words(), input.value, taken);
    active = -1;
    input.removeAttribute("aria-activedescendant");
    list.replaceChildren(...fitting.map((word, index) => el("li", {
      id: `suggestion-${index}`, role: "option", "aria-selected": "false", textContent: word,
      onpointerdown: (event) => event.preventDefault(), // the box keeps the focus
      onclick: () => takeWord(word),
    })));
    list.hidden = fitting.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
  }

  input.addEventListener("input", () => {
    const [before, rest] = complete(input.value);
    if (before && chips.addText(before)) input.value = rest;
    if (input.value.trim()) open();
    else close();
  });
  input.addEventListener("focus", onFocus);
  input.addEventListener("blur", () => {
    close();
    if (chips.addText(input.value)) input.value = ""; // what was typed is kept
  });
  input.addEventListener("click", () => { if (list.hidden) open(); });
  input.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain");
    if (!/[,\n]/.test(text)) return;
    event.preventDefault();
    input.value += text; // stays there if it cannot be read
    takeText(input.value);
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) open();
      activate(event.key === "ArrowDown" ? active + 1 : Math.max(active, 0) - 1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const chosen = options()[active];
      if (chosen) takeWord(chosen.textContent);
      else if (input.value.trim()) takeText(input.value);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    } else if (event.key === "Backspace" && input.value === "") {
      chips.removeLast();
      input.focus();
    }
  });
  return () => {
    if (document.activeElement === input && input.value.trim() && active < 0) open();
  };
}
