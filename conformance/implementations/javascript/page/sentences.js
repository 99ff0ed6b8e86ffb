/** What went wrong, as one sentence, and what to do, as another. */
import { Rejection, StoreFailure } from "../src/index.js";

/** Something that the page itself has to say. */
export class Slip extends Error {
  /** @param {string} sentence @param {string} advice */
  constructor(sentence, advice) {
    super(sentence);
    this.advice = advice;
  }
}

const ADVICE = {
  malformed: "Ask for this object again from where the chain was written; the program that wrote it may have a fault.",
  unsupported: "A newer program may know it; this page knows tensordelta 1.0-rc.1.",
  limit: "Give the page more memory in the settings, or use the command line: tensordelta verify.",
  integrity: "Get this object again from where the chain was written.",
  "wrong-base": "Get the chain again from where it was written; versions before this one can still be read.",
  missing: "Copy the chain again and completely, or give the folder that has all of it.",
  conflict: "Two chains may have been mixed in one folder: give the page the folder of one.",
  untrusted: "Give the page the public key of those who sign the chain, or no key to leave signatures unchecked.",
};

/** By rule, where a person can do something better. */
const OF_RULE = {
  "TD-OBJ-009": ["There is no chain here: chain.json is missing", "Give the folder that contains chain.json and manifests."],
  "TD-OBJ-018": [
    "The chain has no latest.json, and without a listing nothing else says which version is the newest",
    "Let the writer keep latest.json, or download the chain and drop its folder here.",
  ],
  "TD-LIM-002": ["The page may not use enough memory for this chain", "Give it more memory in the settings, or use the command line: tensordelta verify."],
  "TD-MAN-017": ["A pack is stored only outside the chain, and this page fetches nothing from elsewhere", "Use the command line, with --allow-source: tensordelta verify."],
};

const KIND = {
  malformed: "breaks the format", unsupported: "needs what this page does not know", limit: "goes beyond a limit",
  integrity: "is damaged", "wrong-base": "does not fit the version before it", missing: "is missing",
  conflict: "contradicts another object", untrusted: "cannot be trusted",
};

/** @returns {{sentence: string, advice: string, detail: string}} detail: for who implements the format; may be empty */
export function inWords(e, { where = "", names = new Map() } = {}) {
  if (e instanceof Slip) return { sentence: e.message, advice: e.advice, detail: "" };
  if (e instanceof Rejection) return ofRejection(e, names);
  if (e instanceof StoreFailure) return { ...ofAnswer(e, where), detail: e.message };
  if (e.name === "NotFoundError" || e.name === "NotReadableError") {
    return { sentence: "The browser cannot read a file of this folder any more.", advice: "The folder has changed since it was dropped: drop it again.", detail: String(e) };
  }
  return { sentence: "The page itself failed.", advice: "Reload it; if it fails again, please report this.", detail: String(e.stack ?? e) };
}

/** What an object is called, where a person does not know it by its name. @param {object[]} edges @returns {Map<string, string>} */
export function namesOf(edges) {
  const names = new Map();
  const add = (object, name) => {
    if (object && !names.has(object)) names.set(object, name);
  };
  for (const { object, version, shortcut, manifest } of edges) {
    const which = shortcut ? `the shortcut to version ${version}` : `version ${version}`;
    add(object, shortcut ? `The shortcut ${object.replace(/^shortcuts\/|\.json$/g, "")}` : `The manifest of ${which}`);
    if (!manifest) continue;
    manifest.packs.forEach(({ path }, i) => add(path, manifest.packs.length > 1 ? `Pack ${i + 1} of ${which}` : `The pack of ${which}`));
    add(`layouts/${manifest.layout}.json`, `The layout of ${which}`);
    if (manifest.tensorFingerprints) add(`fingerprints/${manifest.tensorFingerprints}.bin`, `The list of fingerprints of ${which}`);
    for (const { name, path } of manifest.files) add(path, `The file ${name} of ${which}`);
  }
  return names;
}

function ofRejection({ error, object, rule, message }, names) {
  const [sentence, advice] = OF_RULE[rule] ?? [`${names.get(object) ?? object} ${KIND[error]}`, ADVICE[error]];
  return { sentence: `${sentence}.`, advice, detail: `${error}: ${object}: ${message} (${rule})` };
}

function ofAnswer({ status, message }, where) {
  const host = hostOf(where);
  if (status === 401 || status === 403) {
    return { sentence: `${host} answered ${status}: it wants a login, which this page never sends.`, advice: "Download the chain and drop its folder here." };
  }
  if (status === 429 || status >= 500) return { sentence: `${host} answered ${status}.`, advice: "Try again in a while." };
  if (status !== null) return { sentence: `${host} answered ${status}.`, advice: "Check the address: it is the one of the folder that contains chain.json." };
  if (/not https$/.test(message)) return { sentence: `${host} leads to an address that is not https.`, advice: "Give the address that it leads to, with https." };
  return {
    sentence: `${host} does not answer, or does not let this page read.`,
    advice: `Check the address; the server has to send “Access-Control-Allow-Origin: *” with its answers (CORS). Else download the chain and drop its folder here.`,
  };
}

function hostOf(where) {
  try {
    return new URL(where).host;
  } catch {
    return "The server";
  }
}
