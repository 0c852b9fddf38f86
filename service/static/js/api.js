// Calls of the service: keys, errors in words, deadlines, and waiting when it asks for that.

import { pause } from "./dom.js";
import { askForKey, storedKey } from "./key.js";

export const SEGMENT_MS = 125_000; // the service's own longest answer takes 120 s
const SHORT_MS = 20_000;
const MOST_TRIES = 5;
const LONGEST_WAIT_S = 60; // a longer Retry-After is shown, not waited for

/** Where a path of the service is, also behind a proxy that puts a prefix before it. */
export const address = (path) => new URL(path, document.baseURI).href;

/** What the service says is wrong. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `The service answered with status ${status}.`);
    this.status = status;
    this.title = body.title || "That did not work";
    this.fields = body.errors || [];
    this.requestId = body.request_id || "";
    this.retryAfter = retryAfter;
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor(late) {
    super(late
      ? "The service took too long to answer."
      : "It may have stopped, be starting again, or the network is down.");
    this.title = late ? "No response in time" : "The service cannot be reached";
  }
}

/**
 * One call.
 *
 * Options: method, body, headers, signal, ms (deadline).
 * Throws Problem, Unreachable, or the signal's reason.
 */
export async function call(path, { signal, ms = SHORT_MS, headers = {}, ...options } = {}) {
  let why = "";
  for (;;) {
    const key = storedKey();
    const answer = await send(path, { ...options, headers: key ? { ...headers, "X-API-Key": key } : headers }, signal, ms);
    if (answer.ok) return answer;
    const problem = await readProblem(answer);
    if (answer.status !== 401) throw problem;
    why = key ? problem.message : "";
    const changed = storedKey() !== key; // another call has asked meanwhile
    if (!changed && !(await askForKey(why))) throw problem;
    signal?.throwIfAborted();
  }
}

/** A call that waits and tries again where the service says when; `onWait` hears of the seconds that are left. */
export async function patientCall(path, options, onWait) {
  for (let tries = 1; ; tries++) {
    try {
      return await call(path, options);
    } catch (error) {
      const seconds = error instanceof Problem ? error.retryAfter : null;
      if (seconds === null || seconds > LONGEST_WAIT_S || tries === MOST_TRIES) throw error;
      for (let left = Math.max(1, seconds); left > 0; left--) {
        onWait(left, error);
        await pause(1000, options.signal);
      }
    }
  }
}

async function send(path, options, signal, ms) {
  const deadline = AbortSignal.timeout(ms);
  try {
    // the body is read here, so that the deadline covers it as well
    const answer = await fetch(address(path), {
      ...options,
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      credentials: "same-origin",
    });
    return new Response(answer.status === 204 ? null : await answer.blob(), answer);
  } catch {
    signal?.throwIfAborted();
    throw new Unreachable(deadline.aborted);
  }
}

async function readProblem(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // a proxy's page instead of a problem document; the status is all there is to tell
  }
  return new Problem(answer.status, body, readRetryAfter(answer.headers.get("Retry-After")));
}

function readRetryAfter(text) {
  if (text === null) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.ceil(Math.max(0, seconds)) : null;
}
