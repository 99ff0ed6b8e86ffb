/** Manifests and shortcuts (sections 4.7 to 4.10). */
import { parseJson } from "./json.js";
import {
  annotations, array, checkFormat, digest, integer, object as anObject, optional, orNull, path, pathUnder, required,
  string, sum, time, uuid, version,
} from "./fields.js";
import { LIMIT } from "./limits.js";
import { reject } from "./errors.js";

const FEATURE = /^([a-z0-9][a-z0-9-]{0,63}|(?=.{1,128}$)([a-z0-9-]+\.)+[a-z0-9-]+\/[a-z0-9][a-z0-9._-]{0,63})$/;
export const EXPONENT_ORDER = "exponent-order";
/** The features that this program knows. */
export const FEATURES = Object.freeze([EXPONENT_ORDER]);

/**
 * @typedef {{sha256: string, size: number, path: string|null, content: "chunks"|"tensors",
 *   tensors: [number, number][], changed: number, sources: string[], name: string|null, where: string}} PackEntry
 * @typedef {{name: string, size: number, sha256: string, path: string}} FileEntry
 * @typedef {{object: string, chain: string, version: number, layout: string, fingerprint: bigint,
 *   base: {version: number, layout: string, fingerprint: bigint}|null, packs: PackEntry[], features: Set<string>,
 *   created: string, annotations: object, tensorFingerprints: string|null, files: FileEntry[], cost: bigint}} Manifest
 */

const u64 = (hex) => BigInt(`0x${hex}`);

function size(value, where, object) {
  const number = integer(value, where, object);
  if (number > LIMIT.bytes) reject("limit", "TD-LIM-004", object, `${where} is beyond 2^40 bytes`);
  return number;
}

/** @returns {[number, number][]} ascending, none touching the next */
function ranges(list, where, object) {
  if (list.length > LIMIT.ranges) reject("limit", "TD-LIM-004", object, `${where} has more than 2^16 ranges`);
  if (list.length === 0) reject("malformed", "TD-MAN-001", object, `${where} is empty`);
  let before = -1;
  return list.map((pair, i) => {
    if (array(pair, `${where}[${i}]`, object).length !== 2) {
      reject("malformed", "TD-JSN-012", object, `${where}[${i}] is no array of two`);
    }
    const [first, stop] = pair.map((n, k) => integer(n, `${where}[${i}][${k}]`, object));
    if (first <= before || stop <= first) reject("malformed", "TD-MAN-001", object, `${where}[${i}] is no range after the one before`);
    before = stop;
    return [first, stop];
  });
}

/** @returns {PackEntry} */
function packEntry(item, where, object, known) {
  anObject(item, where, object);
  const at = `${where}.`;
  const field = (name, check) => required(item, name, check, object, at);
  const out = { where, sha256: field("sha256", digest), size: field("size", size) };
  out.path = field("path", orNull(pathUnder("packs/", "TD-PTH-003")));
  out.content = field("content", string);
  if (known && out.content !== "chunks" && out.content !== "tensors") {
    reject("unsupported", "TD-MAN-012", object, `${at}content ${JSON.stringify(out.content.slice(0, 40))} is unknown`);
  }
  out.tensors = ranges(field("tensors", array), `${at}tensors`, object);
  out.changed = field("changed", integer);
  out.sources = optional(item, "sources", array, object, [], at);
  out.sources.forEach((uri, i) => string(uri, `${at}sources[${i}]`, object));
  if (out.path === null && out.sources.length === 0) {
    reject("malformed", "TD-MAN-009", object, `${at}path is null and there are no sources`);
  }
  out.name = optional(item, "name", out.content === "tensors" ? path : string, object, null, at);
  return out;
}

/** @returns {FileEntry} */
function fileEntry(item, where, object) {
  anObject(item, where, object);
  const field = (name, check) => required(item, name, check, object, `${where}.`);
  return {
    name: field("name", path), size: field("size", size), sha256: field("sha256", digest),
    path: field("path", pathUnder("files/", "TD-PTH-004")),
  };
}

/** [TD-MAN-020], [TD-MAN-021]: laid out side by side, no name may be another's, nor a folder of another's. */
function checkNames(files, packs, object) {
  const names = files.map((f) => f.name);
  for (const p of packs) if (p.content === "tensors" && p.name !== null) names.push(p.name);
  const all = new Set();
  for (const name of names) {
    if (all.has(name)) reject("malformed", "TD-MAN-020", object, `two files or plain packs are named ${name}`);
    all.add(name);
  }
  for (const name of names) {
    for (let i = name.indexOf("/"); i >= 0; i = name.indexOf("/", i + 1)) {
      if (all.has(name.slice(0, i))) {
        reject("malformed", "TD-MAN-021", object, `${name.slice(0, i)} is a name and the folder of ${name}`);
      }
    }
  }
}

/**
 * Steps 4 of section 9.1, features excepted (see checkFeatures).
 * @param {Uint8Array} bytes
 * @param {string} object its name
 * @param {string} chain the chain id of chain.json
 * @param {{version: number, base?: number|null}} named what the object's name says; base undefined: nothing
 * @returns {Manifest}
 */
export function parseManifest(bytes, object, chain, named, budget) {
  const map = parseJson(bytes, object, budget);
  checkFormat(map, object);
  const field = (name, check) => required(map, name, check, object);
  const out = { object, chain: field("chain", uuid), version: field("version", version) };
  out.layout = field("layout", digest);
  out.fingerprint = u64(field("fingerprint", sum));
  if (!map.has("base")) reject("malformed", "TD-MAN-002", object, "base is absent");
  const base = field("base", orNull(anObject));
  out.base = base && {
    version: required(base, "version", version, object, "base."),
    layout: required(base, "layout", digest, object, "base."),
    fingerprint: u64(required(base, "fingerprint", sum, object, "base.")),
  };
  const packs = field("packs", array);
  if (packs.length > LIMIT.packs) reject("limit", "TD-LIM-004", object, `more than ${LIMIT.packs} packs`);
  const features = field("features", array);
  features.forEach((name, i) => {
    if (!FEATURE.test(string(name, `features[${i}]`, object))) {
      reject("malformed", "TD-MAN-001", object, `features[${i}] is no name of a feature`);
    }
  });
  out.features = new Set(features);
  // Under an unknown feature an entry may have content that is unknown too: the manifest is no edge then.
  const known = features.every((name) => FEATURES.includes(name));
  out.packs = packs.map((item, i) => packEntry(item, `packs[${i}]`, object, known));
  out.created = field("created", time);
  out.annotations = optional(map, "annotations", annotations, object, {});
  out.tensorFingerprints = optional(map, "tensor_fingerprints", digest, object, null);
  out.files = optional(map, "files", array, object, []).map((item, i) => fileEntry(item, `files[${i}]`, object));
  checkNames(out.files, out.packs, object);
  if (out.chain !== chain) reject("conflict", "TD-OBJ-011", object, `chain is ${out.chain}, and chain.json's ${chain}`);
  const shortcut = named.base !== undefined;
  if (out.version !== named.version) {
    reject("malformed", shortcut ? "TD-OBJ-005" : "TD-OBJ-004", object, `version is ${out.version}`);
  }
  if (shortcut && (out.base ? out.base.version : null) !== named.base) {
    reject("malformed", "TD-OBJ-005", object, `base is ${out.base ? out.base.version : "null"}`);
  }
  if (out.base && out.base.version >= out.version) {
    reject("malformed", "TD-MAN-003", object, `base.version ${out.base.version} is not less than version ${out.version}`);
  }
  out.cost = out.packs.reduce((total, p) => total + BigInt(p.size), 0n);
  if (out.cost > LIMIT.edgeBytes) reject("limit", "TD-LIM-004", object, "packs of more than 2^48 bytes");
  return out;
}

/** [TD-MAN-004]. @param {Manifest} manifest @param {Iterable<string>} known */
export function checkFeatures(manifest, known) {
  const set = new Set(known);
  for (const name of manifest.features) {
    if (!set.has(name)) reject("unsupported", "TD-MAN-004", manifest.object, `feature ${name} is unknown`);
  }
}
