// The API key: asked for when the service wants one, kept in this tab only.

import { byId } from "./dom.js";

const NAME = "ebseg-api-key";
let asking = null;

/** The key, or null. */
export const storedKey = () => sessionStorage.getItem(NAME);

/** Shows the dialog; the promise tells whether a key was given. Callers at the same time share one dialog. */
export function askForKey(why) {
  asking ??= open(why).finally(() => { asking = null; });
  return asking;
}

function open(why) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-why").textContent = why ? `${why[0].toUpperCase()}${why.slice(1)}. Is it complete?` : "";
  byId("key-forget").hidden = storedKey() === null;
  byId("key-button").hidden = false;
  input.value = "";
  return new Promise((resolve) => {
    const done = new AbortController();
    const listen = (element, event, then) => element.addEventListener(event, then, { signal: done.signal });
    const finish = (given) => {
      done.abort();
      dialog.close();
      resolve(given);
    };
    listen(byId("key-form"), "submit", (event) => {
      event.preventDefault();
      if (!input.value.trim()) return;
      sessionStorage.setItem(NAME, input.value.trim());
      finish(true);
    });
    listen(byId("key-cancel"), "click", () => finish(false));
    listen(byId("key-forget"), "click", () => {
      sessionStorage.removeItem(NAME);
      finish(false);
    });
    listen(dialog, "cancel", (event) => {
      event.preventDefault();
      finish(false);
    });
    dialog.showModal();
    input.focus();
  });
}

/** Makes the header's button open the dialog; `onKey` is called after a new key was given. */
export function installKey(onKey) {
  const button = byId("key-button");
  button.hidden = storedKey() === null;
  button.addEventListener("click", async () => {
    if (await askForKey("")) onKey();
  });
}
