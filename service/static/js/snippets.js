// The call that was made, as curl and as Python. A key is never shown: both read it from the environment.

const WIDTH = 88;

/** Text for a POSIX shell, taken literally. */
export const shellQuote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** curl's form syntax wants names with separators in quotes. */
function formFile(name) {
  return /^[\w.-]+$/.test(name) ? name : `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** The call as a shell command; a sample scene is fetched first. */
export function curlText({ url, document, picture, withKey }) {
  const lines = ["curl"];
  if (withKey) lines.push('-H "X-API-Key: $EBSEG_API_KEY"');
  lines.push(
    `-F ${shellQuote(`image=@${formFile(picture.name)}`)}`,
    `--form-string ${shellQuote(`request=${JSON.stringify(document)}`)}`,
    shellQuote(url),
  );
  const call = lines.join(" \\\n    ").replace("curl \\\n    ", "curl ");
  return picture.url ? `curl -sO ${shellQuote(picture.url)}\n${call}` : call;
}

/** The call as a Python script. */
export function pythonText({ url, document, picture, withKey }) {
  const name = pythonLiteral(picture.name);
  const read = picture.url
    ? `image = httpx.get(${pythonLiteral(picture.url)}).raise_for_status().content`
    : `image = Path(${name}).read_bytes()`;
  const modules = ["import json", ...(withKey ? ["import os"] : [])];
  if (!picture.url) modules.push("from pathlib import Path");
  return [
    ...modules,
    "",
    "import httpx",
    "",
    `request = ${pythonLiteral(document)}`,
    read,
    "response = httpx.post(",
    `    ${pythonLiteral(url)},`,
    `    files={"image": (${name}, image)},`,
    '    data={"request": json.dumps(request)},',
    ...(withKey ? ['    headers={"X-API-Key": os.environ["EBSEG_API_KEY"]},'] : []),
    "    timeout=60,",
    ")",
    "response.raise_for_status()",
    'for found in response.json()["classes"]:',
    `    print(f"{found['name']:24} {found['fraction']:7.1%}")`,
    "",
  ].join("\n");
}

/** A JSON value as Python writes it; what is long goes over several lines. */
export function pythonLiteral(value, indent = "") {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const [open, close] = list ? "[]" : "{}";
  const parts = (inner) => (list
    ? value.map((item) => pythonLiteral(item, inner))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${pythonLiteral(item, inner)}`));
  const short = `${open}${parts(indent).join(", ")}${close}`;
  if (short.length + indent.length <= WIDTH && !short.includes("\n")) return short;
  const deeper = `${indent}    `;
  return `${open}\n${parts(deeper).map((part) => `${deeper}${part},\n`).join("")}${indent}${close}`;
}
