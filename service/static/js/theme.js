// Light or dark: the system's choice, until the button says otherwise.

import { byId } from "./dom.js";

const NAME = "ebseg-theme";

/** Wires the button. */
export function installTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const show = () => {
    const chosen = localStorage.getItem(NAME);
    if (chosen) root.dataset.theme = chosen;
    byId("theme").setAttribute("aria-pressed", String(chosen ? chosen === "dark" : system.matches));
  };
  byId("theme").addEventListener("click", () => {
    const dark = byId("theme").getAttribute("aria-pressed") === "true";
    localStorage.setItem(NAME, dark ? "light" : "dark");
    show();
  });
  system.addEventListener("change", show);
  show();
}
