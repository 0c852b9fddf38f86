// The page: what it knows, and who hears of changes.

import { ownThreshold, ownWords, showAbout } from "./about.js";
import { Chips } from "./chips.js";
import { Code } from "./code.js";
import { showDetails } from "./details.js";
import { byId, el, milliseconds, say, wholePercent } from "./dom.js";
import { installDownloads } from "./downloads.js";
import { FILL, colorOf } from "./drawing.js";
import { installKey } from "./key.js";
import { Legend, summaryOf } from "./legend.js";
import { installLink, readLink } from "./link.js";
import { Lists, installSaving } from "./lists.js";
import { labelMap } from "./mask.js";
import { chooseModel, chosenModel, loadModels } from "./models.js";
import { clearNotice, showError, showStopped, showWaiting } from "./notices.js";
import { OwnClasses } from "./own.js";
import { installIntake, markScene, openPicture, showScenes } from "./picture.js";
import { Recents } from "./recents.js";
import { Colors, requestDocument, tilesOf } from "./request.js";
import { Runner, same } from "./runner.js";
import { fetchConfidence } from "./scores.js";
import { Stage } from "./stage.js";
import { installSuggestions } from "./suggestions.js";
import { installTheme } from "./theme.js";

const TYPING_MS = 500; // another class may follow
const SLIDING_MS = 200;
const SOURCES = { card: "the model’s own", uncalibrated: "the model has none", request: "" };

const state = {
  picture: null,
  scene: "", // name of the scene whose words the chips are, until they are changed
  vocabulary: null, // name of the stored list that the chips are, until they are changed
  threshold: null, // null leaves it to the model's card; 0 is none at all
  tiled: false, // whether large pictures are cut into tiles
  shown: null, // {sent, answer, text} of the mask that is on the page
  first: null, // ms of the picture's first answer, for which the network ran
  looking: null, // AbortController of the confidences that are on their way
};

let turns = 0; // pictures that were offered
let limits = null; // {max_bytes, max_pixels} of what the service takes
let models = []; // of the service, as GET v1/models tells

const colors = new Colors();
const stage = new Stage(fetchConfidences, (label) => legend.highlight(label), (label) => legend.toggle(label));
const legend = new Legend((hidden) => stage.look({ hidden }), (focus) => stage.look({ focus }));
const code = new Code();
const recents = new Recents((blob, name) => takePicture(blob, name));
const chips = new Chips(() => {
  state.scene = "";
  state.vocabulary = null;
  byId("list").value = "";
  classesChanged(TYPING_MS);
});
const own = new OwnClasses(() => { // the button may go away
  byId("class-input").focus();
  putClasses(own.back(isOwn() ? chips.classes : []));
});
const runner = new Runner({ onStart, onWait: showWaiting, onAnswer, onError, onEnd });

function compose() {
  const { picture } = state;
  const document = requestDocument({ ...state, classes: chips.classes, ...chosenModel() }, colors);
  return { picture, document };
}

/** Something that the answer depends on has changed. */
function refresh(ms = 0) {
  const able = state.picture !== null && chips.classes.length > 0;
  byId("run").disabled = !able;
  if (able) {
    markOutdated(state.shown !== null && !same(state.shown.sent, compose()));
    runner.schedule(compose, ms);
  } else {
    runner.cancel();
    forgetResult();
  }
}

/** Greys a mask that is of an earlier request, with its legend. */
function markOutdated(outdated) {
  document.querySelector("main").dataset.outdated = String(outdated);
}

/** Takes the mask and all that belongs to it off the page. */
function forgetResult() {
  state.looking?.abort();
  markOutdated(false);
  if (state.shown === null) return;
  state.shown = null;
  chips.paint(new Map());
  stage.show(state.picture);
  for (const id of ["result", "timing", "code"]) byId(id).hidden = true;
}

function stop() {
  runner.cancel();
  byId("run").focus(); // the button that was pressed goes away
  showStopped(state.shown ? "The grey mask is of the request before." : "There is no mask yet.", () => refresh());
  say("stopped");
}

function classesChanged(ms) {
  byId("save-open").disabled = chips.classes.length === 0;
  if (chips.classes.length === 0) colors.forget();
  refresh(ms);
}

/** Whether the chips are a person's own, and not a scene's or a list's. */
const isOwn = () => state.scene === "" && state.vocabulary === null;

/** Puts others in the place of the chips. */
function putClasses(classes, { scene = "", vocabulary = null } = {}) {
  colors.forget();
  chips.set(classes);
  Object.assign(state, { scene, vocabulary });
  byId("list").value = vocabulary ?? "";
  classesChanged(0);
}

function onStart() {
  state.looking?.abort();
  clearNotice();
  byId("progress").hidden = false;
  byId("running").hidden = false;
  byId("stage").setAttribute("aria-busy", "true");
  say("segmenting");
}

function onEnd() {
  byId("progress").hidden = true;
  byId("running").hidden = true;
  byId("stage").setAttribute("aria-busy", "false");
}

function onAnswer(sent, answer, text, roundTrip) {
  clearNotice();
  if (answer.caches?.prediction === "miss") state.first = answer.timings_ms.total;
  const previous = state.shown?.answer;
  state.shown = { sent, answer, text };
  markOutdated(false);
  colors.learn(sent.document, answer);
  const summary = summaryOf(answer);
  stage.showResult(
    sent.picture, { labels: labelMap(answer), ...answer.size, classes: answer.classes, confidence: null }, summary,
  );
  legend.show(answer, previous);
  if (state.threshold === null) showThreshold(answer.background);
  chips.paint(new Map(answer.classes.map((one) => [one.name, colorOf(one)])));
  showDetails(answer, { roundTrip, first: state.first });
  code.show(sent);
  if (sent.picture.bitmap === null) say(`the browser cannot show this image; the mask is shown alone: ${summary}`);
  else say(`found in ${milliseconds(answer.timings_ms.total)}: ${summary}`);
}

function onError(error) {
  const fatal = error.status === 400 || error.status === 413 || error.status === 415 || error.status === 422;
  showError(error, fatal ? null : () => refresh());
  say("there is no new mask");
}

/** Somebody looks for a class: its confidence at that place is worth a call, once an answer. */
async function fetchConfidences() {
  const shown = state.shown;
  // tiles would all be predicted again
  if (shown === null || shown.looked || runner.running || shown.sent.document.tiling) return;
  shown.looked = true;
  state.looking = new AbortController();
  try {
    const confidence = await fetchConfidence(shown.sent, shown.answer, state.looking.signal);
    if (state.shown === shown) stage.setConfidence(confidence);
  } catch {
    // the mean confidence is read instead, and says that it is a mean
  }
}

async function takePicture(blob, name, scene = null) {
  const turn = ++turns;
  let picture;
  try {
    picture = await openPicture(blob, name, scene?.url ?? null, limits);
  } catch (error) {
    if (turn === turns) showError(error, null);
    return;
  }
  if (turn !== turns) return; // another one came while this one was decoded
  runner.cancel();
  clearNotice();
  state.picture?.bitmap?.close();
  Object.assign(state, { picture, first: null });
  markScene(scene?.name ?? "");
  forgetResult();
  stage.show(picture);
  showTiles();
  byId("others").hidden = false;
  if (scene === null) recents.add(picture);
  if (scene || state.scene) { // a photograph does not inherit a scene's words
    if (scene && isOwn()) own.keep(chips.classes);
    if (scene) putClasses(scene.classes.map((each) => ({ name: each })), { scene: scene.name });
    else putClasses(own.back());
  }
  if (scene) return;
  if (chips.classes.length) {
    refresh();
  } else {
    byId("class-input").focus();
    say("image taken; now type what to look for");
  }
}

async function takeScene(scene) {
  try {
    const answer = await fetch(scene.url, { signal: AbortSignal.timeout(20_000) });
    await takePicture(await answer.blob(), `${scene.name}.jpg`, scene);
  } catch {
    showError({ title: "The scene could not be fetched", message: "The service cannot be reached" }, () => takeScene(scene));
  }
}

async function takeList(name, lists) {
  if (!name) {
    state.vocabulary = null;
    if (own.any) putClasses(own.back());
    return;
  }
  try {
    const classes = await lists.classes(name);
    if (byId("list").value !== name) return; // another one was chosen meanwhile
    if (isOwn()) own.keep(chips.classes);
    putClasses(classes, { vocabulary: name });
    say(`list ${name}, ${classes.length} classes`);
  } catch (error) {
    byId("list").value = state.vocabulary ?? "";
    showError(error, null);
  }
}

function installSliders() {
  const opacity = byId("opacity");
  const showOpacity = () => {
    byId("opacity-value").textContent = `${opacity.value}%`;
    opacity.setAttribute("aria-valuetext", `${opacity.value}%`);
  };
  opacity.value = String(100 * FILL);
  showOpacity();
  opacity.addEventListener("input", () => {
    showOpacity();
    stage.look({ opacity: opacity.value / 100 });
  });
  const threshold = byId("threshold");
  threshold.addEventListener("input", () => {
    state.threshold = Number(threshold.value);
    showThreshold({ threshold: state.threshold, source: "request" });
    refresh(SLIDING_MS);
  });
  byId("tiled").addEventListener("change", () => {
    state.tiled = byId("tiled").checked;
    refresh();
  });
  byId("threshold-own").addEventListener("click", () => {
    state.threshold = null;
    threshold.focus(); // the button goes away with the answer
    refresh();
  });
}

/** Offers tiles where a picture is large enough for some, and says what they are good for. */
function showTiles() {
  const tiles = state.picture === null ? 1 : tilesOf(state.picture);
  byId("tiled").checked = state.tiled;
  byId("tiles").hidden = tiles === 1;
  byId("tiles-note").textContent = `${tiles} parts one by one: finds smaller things, and takes longer`;
}

/** Shows which threshold made pixels "other"; the slider stays where a person has put it. */
function showThreshold({ threshold, source }) {
  const slider = byId("threshold");
  const asked = source === "request";
  if (!asked) slider.value = String(threshold ?? 0);
  const words = threshold ? wholePercent(threshold) : "off";
  byId("threshold-value").textContent = words;
  slider.setAttribute("aria-valuetext", asked ? words : `${words}, ${SOURCES[source]}`);
  byId("threshold-source").textContent = SOURCES[source];
  byId("threshold-own").hidden = !asked;
}

/** Shows the threshold of the chosen model's card, until an answer or a person says another. */
function showOwnThreshold() {
  if (state.threshold !== null) return;
  const threshold = ownThreshold(models, chosenModel().model);
  showThreshold({ threshold, source: threshold === null ? "uncalibrated" : "card" });
}

/** Takes over what the address carries, once. */
async function takeLink(lists) {
  if (location.hash.length < 2) return;
  const asked = readLink(location.hash);
  history.replaceState(null, "", location.pathname + location.search); // what is changed from here on is not in it
  if (!chooseModel(models, asked)) {
    const which = asked.version === null ? asked.model : `${asked.model}, version ${asked.version}`;
    showError({ title: "The link's model is not here", message: `This service does not serve ${which}` }, null);
  }
  showAbout(models, chosenModel().model);
  state.threshold = asked.threshold;
  state.tiled = asked.tiled;
  showTiles();
  showOwnThreshold();
  if (asked.threshold !== null) byId("threshold").value = String(asked.threshold);
  if (asked.threshold !== null) showThreshold({ threshold: asked.threshold, source: "request" });
  if (asked.vocabulary) {
    byId("list").value = lists.has(asked.vocabulary) ? asked.vocabulary : "";
    if (byId("list").value) await takeList(asked.vocabulary, lists);
    else showError({ title: "The link's list is not here", message: `There is no list ${asked.vocabulary}` }, null);
  } else if (asked.classes.length) {
    chips.set(asked.classes);
    classesChanged(0);
  }
}

async function connect(lists) {
  try {
    models = await loadModels(() => {
      byId("model").replaceChildren(el("option", { value: "", textContent: "loading the model" }));
    });
    showAbout(models, chosenModel().model);
    showOwnThreshold();
    await lists.refresh(state.vocabulary ?? "");
    clearNotice();
    await takeLink(lists);
  } catch (error) {
    showError(error, () => connect(lists));
  }
}

async function start() {
  installTheme();
  installSliders();
  const { scenes, words } = await (await fetch("static/scenes.json")).json();
  limits = await (await fetch("static/limits.json")).json();
  const lists = new Lists(words, () => renewSuggestions());
  showScenes(scenes, takeScene);
  installIntake((file) => takePicture(file, file.name), (message) => showError({ title: "No image", message }, null));
  const renewSuggestions = installSuggestions(
    chips, () => [ownWords(models, chosenModel().model), lists.words], () => lists.readWords(),
  );
  installSaving(lists, chips, (name) => {
    state.vocabulary = name;
    say(`saved as ${name}`);
    refresh();
  });
  installDownloads(() => state.shown, stage, onError);
  installLink(() => ({ classes: chips.classes, ...state, ...chosenModel() }));
  await recents.open();
  installKey(() => connect(lists).then(() => refresh()));
  byId("list").addEventListener("change", () => takeList(byId("list").value, lists));
  byId("model").addEventListener("change", () => {
    showAbout(models, chosenModel().model);
    showOwnThreshold();
    refresh();
  });
  byId("run").addEventListener("click", () => {
    if (!runner.runs(compose())) refresh();
  });
  byId("stop").addEventListener("click", stop);
  document.body.dataset.ready = "true";
  await connect(lists);
}

start().catch((error) => showError(error, () => location.reload()));
