/** The safetensors file (section 6.1), and the header of a plain one (section 6.4). */
import { parseJson } from "./json.js";
import { readU64 } from "./bytes.js";
import { DTYPES } from "./dtypes.js";
import { LIMIT } from "./limits.js";
import { reject } from "./errors.js";

const OPEN = 0x7b;

/**
 * The parsed header and the buffer of a pack.
 * @param {Uint8Array} bytes
 * @param {string} object
 * @returns {{header: Map<string, any>, buffer: Uint8Array}}
 */
export function openSafetensors(bytes, object, budget) {
  if (bytes.length < 8) reject("malformed", "TD-PCK-001", object, `${bytes.length} bytes are no pack`);
  const length = readU64(bytes, 0);
  if (length > LIMIT.packHeader) reject("limit", "TD-PCK-002", object, `a header of ${length} bytes`);
  if (8 + length > bytes.length) reject("malformed", "TD-PCK-001", object, "the header is longer than the file");
  if (bytes[8] !== OPEN || length === 0) reject("malformed", "TD-PCK-003", object, "the header does not begin with {");
  const header = parseJson(bytes.subarray(8, 8 + length), object, budget);
  return { header, buffer: bytes.subarray(8 + length) };
}

/** [TD-PCK-004]: the entries tile the buffer. @param {{begin: number, end: number, name: string}[]} entries */
export function checkTiling(entries, size, object) {
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const entry of sorted) {
    if (entry.begin !== at) reject("malformed", "TD-PCK-004", object, `${entry.name} begins at ${entry.begin}, not at ${at}`);
    if (entry.end < at) reject("malformed", "TD-PCK-004", object, `${entry.name} ends before it begins`);
    at = entry.end;
  }
  if (at !== size) reject("malformed", "TD-PCK-004", object, `the entries end at ${at}, and the buffer at ${size}`);
}

/** @returns {Map<string, string>|null} `__metadata__`, or null without it */
export function metadataOf(header, object, rule) {
  if (!header.has("__metadata__")) return null;
  const map = header.get("__metadata__");
  if (!(map instanceof Map) || [...map.values()].some((v) => typeof v !== "string")) {
    reject("malformed", rule, object, "__metadata__ is no object of strings");
  }
  return map;
}

/**
 * The tensors of a plain pack, in the order of its header.
 * @returns {{name: string, dtype: import("./dtypes.js").DType, shape: number[], begin: number, end: number}[]}
 */
export function plainEntries(header, size, object) {
  metadataOf(header, object, "TD-PCK-014");
  const bad = (name, what) => reject("malformed", "TD-PCK-014", object, `entry ${JSON.stringify(name.slice(0, 80))} ${what}`);
  const whole = (n) => typeof n === "number"; // an integer of section 4.3
  const entries = [];
  for (const [name, item] of header) {
    if (name === "__metadata__") continue;
    if (!(item instanceof Map)) bad(name, "is no object");
    const dtypeName = item.get("dtype");
    const shape = item.get("shape");
    const offsets = item.get("data_offsets");
    if (typeof dtypeName !== "string") bad(name, "has no dtype");
    if (!Array.isArray(shape) || !shape.every(whole)) bad(name, "has no shape of integers");
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole)) bad(name, "has no two data_offsets");
    const dtype = DTYPES.get(dtypeName);
    if (!dtype) {
      reject("unsupported", "TD-PCK-018", object, `entry ${JSON.stringify(name.slice(0, 80))} has dtype ${JSON.stringify(dtypeName.slice(0, 40))}`);
    }
    const [begin, end] = offsets.map(Number);
    // Beyond 2^53 a product of dimensions is inexact, and larger than any file.
    const elements = shape.some((n) => n === 0) ? 0 : shape.reduce((a, n) => a * Number(n), 1);
    if (!(elements * dtype.bits <= Number.MAX_SAFE_INTEGER) || (end - begin) * 8 !== elements * dtype.bits) {
      bad(name, `has ${end - begin} bytes for ${elements} elements of ${dtypeName}`);
    }
    entries.push({ name, dtype, shape, begin, end });
  }
  checkTiling(entries, size, object);
  return entries;
}
