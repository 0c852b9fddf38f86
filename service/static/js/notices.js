// What went wrong, in words, and what to do about it.

import { byId, el } from "./dom.js";

/** Shows an error; `retry` is offered as a button if given. */
export function showError(error, retry) {
  const alert = byId("alert");
  const fields = error.fields?.length
    ? [el("ul", {}, ...error.fields.slice(0, 5).map(({ field, message }) => el("li", { textContent: `${field}: ${message}` })))]
    : [el("p", { textContent: sentence(error.message) })];
  const again = retry ? [el("button", { type: "button", className: "quiet outlined", textContent: "Try again", onclick: retry })] : [];
  const id = error.requestId ? [el("p", { className: "small", textContent: `Request ${error.requestId}` })] : [];
  alert.replaceChildren(
    el("div", { className: "grow" }, el("strong", { textContent: error.title ?? "That did not work" }), ...fields, ...id),
    ...again,
  );
  alert.className = "alert";
  alert.hidden = false;
}

/** Tells that the service asked to wait. */
export function showWaiting(seconds, problem) {
  const alert = byId("alert");
  if (alert.hidden || !alert.classList.contains("waiting")) {
    alert.className = "alert waiting";
    alert.replaceChildren(el(
      "div", { className: "grow" },
      el("strong", { textContent: problem.title }),
      el("p", { textContent: sentence(problem.message) }),
      el("p", { id: "waiting", "aria-live": "off" }), // not every second aloud
    ));
    alert.hidden = false;
  }
  byId("waiting").textContent = `Trying again in ${seconds} s.`;
}

/** Tells that a person has stopped the request; `about` the mask that is shown, `again` runs it once more. */
export function showStopped(about, again) {
  const alert = byId("alert");
  alert.className = "alert waiting";
  alert.replaceChildren(
    el("div", { className: "grow" }, el("strong", { textContent: "Stopped" }), el("p", { textContent: about })),
    el("button", { type: "button", className: "quiet outlined", textContent: "Segment again", onclick: again }),
  );
  alert.hidden = false;
}

/** Takes it away. */
export function clearNotice() {
  byId("alert").hidden = true;
  byId("alert").replaceChildren();
}

function sentence(text) {
  const trimmed = text.trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
