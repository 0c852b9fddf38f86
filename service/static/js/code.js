// The panel with the call as code.

import { address } from "./api.js";
import { byId, say } from "./dom.js";
import { storedKey } from "./key.js";
import { curlText, pythonText } from "./snippets.js";

/** The panel: tabs, text, and a button that copies it. */
export class Code {
  #sent = null;
  #language = "curl";
  #tabs = { curl: byId("tab-curl"), python: byId("tab-python") };

  constructor() {
    for (const [language, tab] of Object.entries(this.#tabs)) {
      tab.addEventListener("click", () => this.#choose(language));
      tab.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        event.preventDefault();
        const other = language === "curl" ? "python" : "curl";
        this.#choose(other);
        this.#tabs[other].focus();
      });
    }
    byId("copy").addEventListener("click", () => this.#copy());
  }

  /** Shows a call {picture, document} that was made. */
  show(sent) {
    this.#sent = sent;
    byId("code").hidden = false;
    this.#draw();
  }

  #choose(language) {
    this.#language = language;
    for (const [name, tab] of Object.entries(this.#tabs)) {
      tab.setAttribute("aria-selected", String(name === language));
      tab.tabIndex = name === language ? 0 : -1;
    }
    byId("code-panel").setAttribute("aria-labelledby", `tab-${language}`);
    this.#draw();
  }

  #draw() {
    const { picture, document } = this.#sent;
    const withKey = storedKey() !== null;
    const write = this.#language === "curl" ? curlText : pythonText;
    byId("code-text").textContent = write({ url: address("v1/segment"), document, picture, withKey });
    const where = picture.url ? "Exactly what was sent." : `Exactly what was sent. Run it in the folder that holds ${picture.name}.`;
    byId("code-note").textContent = withKey ? `${where} The key is read from EBSEG_API_KEY.` : where;
  }

  async #copy() {
    const text = byId("code-text").textContent;
    const button = byId("copy");
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      say("copied");
    } catch { // no secure context, or not allowed: select it, so that the keyboard can copy
      getSelection().selectAllChildren(byId("code-text"));
      button.textContent = "Press Ctrl+C";
      say("the code is selected, copy it with the keyboard");
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }
}
