// What is sent: the request document of the page's state, and the form around it.

export const DISPLAY_SIDE = 2048; // pixels; larger pictures get a mask of this long side, which screens do not exceed

const TILING = { size: 1024, overlap: 256 }; // pixels of the image

/** How many tiles a picture {width, height} is cut into, if a person wants that; 1 is not cut. */
export function tilesOf({ width, height }) {
  const { size, overlap } = TILING;
  const along = (side) => Math.max(1, Math.ceil((side - overlap) / (size - overlap)));
  return along(width) * along(height);
}

/** Colours by name, so that a class keeps its colour when others come and go. */
export class Colors {
  #byName = new Map();
  #natural = []; // what the service gives to the first, second, ... class of a list without colours

  /** Starts anew, for another list. */
  forget() {
    this.#byName.clear();
  }

  /** Learns from an answer. */
  learn(document, answer) {
    const plain = document.classes?.every((entry) => typeof entry === "string" || entry.color === undefined);
    answer.classes.forEach(({ name, color }, index) => {
      this.#byName.set(name, color);
      if (plain) this.#natural[index] = color;
    });
  }

  /** Entries of a request: with colours only where the service would not give the same by itself. */
  entries(classes) {
    const known = classes.map((entry) => entry.color ?? this.#byName.get(entry.name));
    const firstNew = known.findIndex((color) => color === undefined);
    const natural = known.every((color, index) => (
      color === undefined || (color === this.#natural[index] && (firstNew < 0 || index < firstNew))
    ));
    return classes.map((entry, index) => tidy(
      { ...entry, color: natural ? entry.color : known[index] },
    ));
  }
}

/** A class without fields that say nothing; a name alone is a string. */
function tidy({ name, synonyms, trained, color }) {
  const entry = { name };
  if (synonyms?.length) entry.synonyms = synonyms;
  if (typeof trained === "boolean") entry.trained = trained;
  if (color) entry.color = color;
  return Object.keys(entry).length === 1 ? name : entry;
}

/** Classes to store; without the colours that only the page remembers. */
export const toStore = (classes) => classes.map(tidy);

/** The request document of the page's state; a threshold of null leaves it to the model's card, 0 is none at all. */
export function requestDocument({ picture, classes, vocabulary, threshold, tiled, model, version }, colors) {
  const document = vocabulary ? { vocabulary } : { classes: colors.entries(classes) };
  if (threshold !== null) document.background = threshold > 0 ? { threshold } : null;
  document.outputs = ["rle"];
  if (Math.max(picture.width, picture.height) > DISPLAY_SIDE) document.output_size = { long_side: DISPLAY_SIDE };
  if (tiled && tilesOf(picture) > 1) document.tiling = TILING;
  if (model) document.model = model;
  if (version) document.version = version;
  return document;
}

/** The multipart body. */
export function requestForm(picture, document) {
  const form = new FormData();
  form.append("image", picture.blob, picture.name);
  form.append("request", JSON.stringify(document));
  return form;
}
