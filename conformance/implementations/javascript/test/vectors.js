/** The cases of the suite, from the documents of ../../../vectors (CASES.md there). */
import { existsSync, readFileSync } from "node:fs";

const VECTORS = new URL("../../../vectors/", import.meta.url);
const documents = new Map();

/** The document of an area's valid or invalid cases, such as `positions/valid`; null where there is none. */
function document(half) {
  if (!documents.has(half)) {
    const url = new URL(`${half}.json`, VECTORS);
    documents.set(half, existsSync(url) ? JSON.parse(readFileSync(url, "utf8")) : null);
  }
  return documents.get(half);
}

/** The bytes of a file: pieces of text and base64, or the digest of a content that the document or the pool has. */
function bytes(content, contents) {
  if (!Array.isArray(content)) {
    const pieces = contents[content.sha256];
    return pieces ? bytes(pieces, contents) : readFileSync(new URL(`pool/${content.sha256}`, VECTORS));
  }
  return Buffer.concat(content.map((piece) => (typeof piece === "string" ? Buffer.from(piece) : Buffer.from(piece.base64, "base64"))));
}

/** A case's files by path: those of the case that it is like, with its own over them; null: it lacks this one. */
function filesOf(half, { like, files }) {
  const found = new Map();
  if (like !== null) {
    const at = like.lastIndexOf("/");
    const other = document(like.slice(0, at)).cases.find((each) => each.case.id === like.slice(at + 1));
    for (const [name, data] of filesOf(like.slice(0, at), other)) found.set(name, data);
  }
  for (const [name, content] of Object.entries(files)) {
    if (content === null) found.delete(name);
    else found.set(name, bytes(content, document(half).contents));
  }
  return found;
}

/** The cases of `positions/valid` and the like: what case.json says, and the files. */
export function casesOf(half) {
  return (document(half)?.cases ?? []).map((entry) => ({ ...entry.case, files: filesOf(half, entry) }));
}
