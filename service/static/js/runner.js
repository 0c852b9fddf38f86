// Runs one segmentation at a time: a newer one ends the one before.

import { SEGMENT_MS, patientCall } from "./api.js";
import { requestForm } from "./request.js";

/** Whether two requests {picture, document} ask for the same. */
export const same = (one, other) => (
  one.picture === other.picture && JSON.stringify(one.document) === JSON.stringify(other.document)
);

/** The calls of the page. Callbacks: onStart, onWait(seconds, problem), onAnswer(sent, answer, text, ms), onError, onEnd. */
export class Runner {
  #callbacks;
  #timer = 0;
  #running = null; // AbortController
  #sent = null; // what is running

  constructor(callbacks) {
    this.#callbacks = callbacks;
  }

  get running() {
    return this.#running !== null;
  }

  /** Whether this request {picture, document} is the one that is running. */
  runs(sent) {
    return this.#running !== null && same(this.#sent, sent);
  }

  /** Runs what `compose()` gives, {picture, document}, after a while without further calls of this. */
  schedule(compose, ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.run(compose()), ms);
  }

  /** Ends what is running or scheduled. */
  cancel() {
    clearTimeout(this.#timer);
    this.#running?.abort();
  }

  /** Sends {picture, document}. */
  async run(sent) {
    this.cancel();
    const own = new AbortController();
    this.#running = own;
    this.#sent = sent;
    this.#callbacks.onStart();
    const began = performance.now();
    try {
      const response = await patientCall("v1/segment", {
        method: "POST",
        body: requestForm(sent.picture, sent.document),
        headers: { Accept: "application/json" },
        signal: own.signal,
        ms: SEGMENT_MS,
      }, (seconds, problem) => this.#callbacks.onWait(seconds, problem));
      const text = await response.text();
      own.signal.throwIfAborted();
      this.#callbacks.onAnswer(sent, JSON.parse(text), text, performance.now() - began);
    } catch (error) {
      if (!own.signal.aborted) this.#callbacks.onError(error);
    } finally {
      if (this.#running === own) {
        this.#running = null;
        this.#callbacks.onEnd();
      }
    }
  }
}
