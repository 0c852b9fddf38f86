// Class lists written as text, by the one rule that forms, JSON documents and the command line have.

const ITEM = /\s*(?:"((?:[^"]|"")*)"\s*|((?:\\,|[^,\n])*))(,|\n|$)/y;
// where a name in other quotes would begin, and end: as in a shell, a tuple of Python's, or a word processor
const OPENED = /(?:^|[,\n])[ \t]*\(?['\u2018\u201c\u201e\u00ab]/;
const CLOSED = /['\u2019\u201c\u201d\u00bb]\)?[ \t]*(?=[,\n]|$)/;
const UNCLOSED = "A name in double quotes ends with one, as in \"red, ripe apple\", tree.";
const NO_JSON = "A list in brackets is JSON, as in [\"sky\", \"tree\"].";

/** Names with commas or line ends between, or JSON, as entries {name, ...}. Throws an Error in words. */
export function listed(text) {
  if (/^\s*[[{]/.test(text)) return fromJson(text);
  const opened = text.includes("\"") ? null : OPENED.exec(text);
  if (/^\s*\("/.test(text) || (opened && CLOSED.test(text.trimEnd().slice(opened.index + opened[0].length)))) {
    throw new Error("Names stand in straight double quotes or in none, as in \"red, ripe apple\", tree.");
  }
  const names = [];
  for (let [name, next] = item(text, 0); ; [name, next] = item(text, next)) {
    if (name.trim()) names.push(name.trim().replace(/\s+/g, " "));
    if (next > text.length) return names.map((each) => ({ name: each }));
  }
}

/** A text that is being typed: what stands before its last comma, and the rest, which is still open. */
export function complete(text) {
  if (/^\s*[[{]/.test(text)) return ["", text];
  let begin = 0;
  for (;;) {
    let next;
    try {
      [, next] = item(text, begin);
    } catch {
      break; // a quote is open
    }
    if (next > text.length) break;
    begin = next;
  }
  return [text.slice(0, Math.max(0, begin - 1)), text.slice(begin).trimStart()];
}

/** Names as one text that `listed` reads as the same. */
export const written = (names) => names.map((name) => (
  /[,\n"\\]|^[[{('\u2018\u201c\u201e\u00ab]/.test(name) ? `"${name.replaceAll("\"", "\"\"")}"` : name
)).join(", ");

/** One name, and where the next begins; behind the text if it was the last. */
function item(text, at) {
  ITEM.lastIndex = at;
  const match = ITEM.exec(text);
  if (match === null || match[2]?.startsWith("\"")) throw new Error(UNCLOSED);
  const [whole, quoted, plain, end] = match;
  const name = quoted === undefined ? plain.replaceAll("\\,", ",") : quoted.replaceAll("\"\"", "\"");
  return [name, end ? at + whole.length : text.length + 1];
}

function fromJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(NO_JSON);
  }
  const entries = (Array.isArray(value) ? value : [value]).map((one) => (typeof one === "string" ? { name: one } : one));
  if (!entries.every((one) => typeof one?.name === "string" && one.name.trim())) throw new Error("Every class has a name.");
  return entries;
}
