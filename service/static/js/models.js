// Which model and version answers.

import { call } from "./api.js";
import { byId, el, pause } from "./dom.js";

const AGAIN_MS = 1500;

/** Fills the chooser, as soon as the service has a model; `onLoading` hears when it has none yet. */
export async function loadModels(onLoading) {
  let models = [];
  for (;;) {
    models = (await (await call("v1/models")).json()).models;
    if (models.length) break;
    onLoading();
    await pause(AGAIN_MS);
  }
  const select = byId("model");
  const kept = select.value;
  const option = (value, textContent) => el("option", { value, textContent });
  const groups = models.map((model) => {
    const live = model.versions.filter(({ role }) => role !== "draining");
    return el(
      "optgroup", { label: model.name },
      option(model.default ? "" : value(model.name), policyWords(model)),
      ...live.map(({ version, role }) => option(
        value(model.name, version), `${model.name}, version ${version}${role === "canary" ? " (on trial)" : ""}`,
      )),
    );
  });
  select.replaceChildren(...groups);
  if ([...select.options].some((one) => one.value === kept)) select.value = kept;
  select.disabled = false;
  return models;
}

const value = (model, version = null) => JSON.stringify([model, version]);

/** What is chosen, as {model, version}; nulls leave it to the service. */
export function chosenModel() {
  const text = byId("model").value;
  const [model, version] = text ? JSON.parse(text) : [null, null];
  return { model, version };
}

/** Chooses {model, version}, of a link; tells whether the service has them. */
export function chooseModel(models, { model, version }) {
  const fallback = models.find((one) => one.default)?.name === model && version === null;
  const wanted = model === null || fallback ? "" : value(model, version);
  const found = [...byId("model").options].some((one) => one.value === wanted);
  if (found) byId("model").value = wanted;
  return found;
}

function policyWords({ name, policy, pinned, version }) {
  if (policy === "fixed") return name;
  if (pinned !== null) return `${name}, pinned to ${pinned}`;
  return `${name}, newest (${version})`;
}
