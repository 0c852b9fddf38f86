// The last pictures of this browser, in its own storage: they go nowhere else, and can be forgotten.

import { byId, el, say } from "./dom.js";

const KEPT = 5;
const MOST_BYTES = 30 << 20; // of all of them
const NAME = "ebseg-pictures";
const SIDE = 144; // pixels of a thumbnail

/** A request of IndexedDB as a promise. */
const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** Pictures {id, name, blob, thumbnail}, the last one first. */
export class Recents {
  #database = null;
  #onChoose;
  #urls = [];
  #work = Promise.resolve(); // one change at a time

  /** `onChoose` gets the blob and the name of a picture that is asked for again. */
  constructor(onChoose) {
    this.#onChoose = onChoose;
    byId("forget-recents").addEventListener("click", () => {
      byId("choose-other").focus(); // the button goes away
      this.#change((store) => store.clear()).then(() => say("the last images are forgotten"));
    });
  }

  /** Opens the storage and shows what is there; where a browser has none, there are no last pictures. */
  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("pictures", { keyPath: "id", autoIncrement: true });
      this.#database = await done(request);
      await this.#show();
    } catch {
      this.#database = null;
    }
  }

  /** Keeps a picture {blob, name, bitmap}; the oldest leave. */
  async add({ blob, name, bitmap }) {
    if (this.#database === null || bitmap === null || blob.size > MOST_BYTES) return;
    const canvas = new OffscreenCanvas(SIDE, (SIDE * 3) / 4);
    const scale = Math.max(canvas.width / bitmap.width, canvas.height / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    canvas.getContext("2d").drawImage(bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
    const thumbnail = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 });
    await this.#change(async (store) => {
      const all = await done(store.getAll());
      const kept = all.filter((one) => one.name !== name || one.blob.size !== blob.size).reverse().slice(0, KEPT - 1);
      let bytes = blob.size;
      const ids = new Set(kept.filter((one) => (bytes += one.blob.size) <= MOST_BYTES).map(({ id }) => id));
      for (const { id } of all) if (!ids.has(id)) store.delete(id);
      store.add({ name, blob, thumbnail });
    });
  }

  /** Changes the storage, after the changes before; a storage that is full or gone keeps nothing. */
  #change(act) {
    this.#work = this.#work.then(async () => {
      const transaction = this.#database.transaction("pictures", "readwrite");
      const finished = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
      });
      await act(transaction.objectStore("pictures"));
      await finished;
    }).catch(() => undefined).then(() => this.#show()).catch(() => undefined);
    return this.#work;
  }

  async #show() {
    const all = await done(this.#database.transaction("pictures").objectStore("pictures").getAll());
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
    this.#urls = all.map(({ thumbnail }) => URL.createObjectURL(thumbnail));
    byId("recents").replaceChildren(...all.map(({ id, name, blob }, index) => el(
      "span", { className: "recent" },
      el(
        "button", { type: "button", className: "scene", title: name, "aria-label": `Image ${name}`, onclick: () => this.#onChoose(blob, name) },
        el("img", { src: this.#urls[index], alt: "", width: 64, height: 48 }),
      ),
      el("button", {
        type: "button", className: "remove", "aria-label": `Forget ${name}`, textContent: "×",
        onclick: () => {
          byId("choose-other").focus();
          this.#change((store) => store.delete(id)).then(() => say(`${name} is forgotten`));
        },
      }),
    )).reverse());
    byId("last").hidden = all.length === 0;
  }
}
