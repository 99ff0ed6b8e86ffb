/** The chunk table (section 6.3) and the streams that its chunks have (sections 7.9, 7.11). */
import { parseText } from "./json.js";
import { array, checkFormat, digest, integer, object as anObject, required, string, sum } from "./fields.js";
import { DTYPES } from "./dtypes.js";
import { LIMIT } from "./limits.js";
import { reject } from "./errors.js";

/**
 * @typedef {{tensor: number, start: number, stop: number}} Slice
 * @typedef {{index: number, dtype: import("./dtypes.js").DType, slices: Slice[], n: number, m: number,
 *   order: "natural"|"exponent", limit: number, groups: number[], positions: "gap"|"bitmap"|"all", shift: number,
 *   values: "step"|"replace", compression: "none"|"zstd", result: bigint}} Chunk
 */

const CODECS = {
  order: { natural: [], exponent: ["limit"] },
  positions: { gap: ["shift"], bitmap: [], all: [] },
  values: { step: [], replace: [] },
};

/** A codec object: the codec and its parameters, nothing else. */
function codec(chunk, kind, where, object, slices) {
  const map = required(chunk, kind, anObject, object, where);
  const at = `${where}${kind}.`;
  const name = required(map, "codec", string, object, at);
  if (!Object.hasOwn(CODECS[kind], name)) {
    reject("unsupported", "TD-CHK-012", object, `${at}codec ${JSON.stringify(name.slice(0, 40))} is unknown`);
  }
  const parameters = CODECS[kind][name];
  for (const member of map.keys()) {
    if (member !== "codec" && !parameters.includes(member) && !(name === "exponent" && member === "groups")) {
      reject("malformed", "TD-CHK-014", object, `${at}${member.slice(0, 40)} is no parameter of ${name}`);
    }
  }
  const out = { codec: name };
  for (const parameter of parameters) {
    if (!map.has(parameter)) reject("malformed", "TD-CHK-013", object, `${at}${parameter} is absent`);
    out[parameter] = integer(map.get(parameter), at + parameter, object);
  }
  if (name === "exponent") {
    out.groups = map.has("groups") ? array(map.get("groups"), `${at}groups`, object) : [slices];
    const sum = out.groups.reduce((total, count, i) => total + integer(count, `${at}groups[${i}]`, object), 0);
    if (sum !== slices || out.groups.includes(0)) reject("malformed", "TD-ORD-006", object, `${at}groups are not those of ${slices} slices`);
  }
  return out;
}

/** @returns {Chunk} */
function chunkEntry(item, index, layout, object) {
  anObject(item, `chunks[${index}]`, object);
  const where = `chunks[${index}].`;
  const bad = (rule, what) => reject("malformed", rule, object, where + what);
  const dtypeName = required(item, "dtype", string, object, where);
  const dtype = DTYPES.get(dtypeName);
  if (!dtype) reject("unsupported", "TD-CHK-010", object, `${where}dtype ${JSON.stringify(dtypeName.slice(0, 40))} is unknown`);
  const list = required(item, "slices", array, object, where);
  if (list.length === 0) bad("TD-CHK-002", "slices is empty");
  const slices = [];
  let n = 0;
  let before = null;
  for (const [i, triple] of list.entries()) {
    const at = `slices[${i}]`;
    if (array(triple, where + at, object).length !== 3) bad("TD-JSN-012", `${at} is no array of three`);
    const [tensor, start, stop] = triple.map((x, k) => integer(x, `${where}${at}[${k}]`, object));
    if (start >= stop) bad("TD-CHK-007", `${at} is empty`);
    const entry = layout.tensors[tensor];
    if (!entry) bad("TD-CHK-008", `${at} names tensor ${tensor} of ${layout.tensors.length}`);
    if (stop > entry.words) bad("TD-CHK-008", `${at} ends at word ${stop} of ${entry.words}`);
    if (entry.dtype !== dtype) bad("TD-CHK-009", `${at} is of a tensor of dtype ${entry.dtype.name}`);
    if (before && (tensor < before.tensor || (tensor === before.tensor && start < before.start))) {
      bad("TD-CHK-004", `${at} does not come after the slice before it`);
    }
    if (before && tensor === before.tensor && start < before.stop) bad("TD-CHK-005", `${at} overlaps the slice before it`);
    before = { tensor, start, stop };
    slices.push(before);
    n += stop - start;
    if (n > LIMIT.chunkWords) reject("limit", "TD-CHK-016", object, `${where}slices have more than 2^27 words`);
  }
  const m = required(item, "changed", integer, object, where);
  if (m < 1 || m > n) bad("TD-CHK-011", `changed is ${m}, and there are ${n} words`);
  const order = codec(item, "order", where, object, slices.length);
  const positions = codec(item, "positions", where, object);
  const values = codec(item, "values", where, object);
  const compression = required(item, "compression", string, object, where);
  if (compression !== "none" && compression !== "zstd") {
    reject("unsupported", "TD-CHK-015", object, `${where}compression ${JSON.stringify(compression.slice(0, 40))} is unknown`);
  }
  const result = BigInt(`0x${required(item, "result", sum, object, where)}`);
  if (order.codec === "exponent") {
    if (dtype.exponentBits === 0) bad("TD-ORD-003", `order exponent for dtype ${dtype.name}`);
    if (order.limit < 1 || order.limit > 2 ** dtype.exponentBits) bad("TD-ORD-004", `order.limit is ${order.limit}`);
    if (positions.codec === "all") bad("TD-POS-012", "positions all in order exponent");
    if (values.codec === "replace") bad("TD-VAL-006", "values replace in order exponent");
    let first = 0;
    for (const count of order.groups) {
      const words = slices.slice(first, first + count).reduce((sum, s) => sum + (s.stop - s.start), 0);
      if (words > LIMIT.groupWords) reject("limit", "TD-ORD-005", object, `${where}order.groups has one of more than 2^24 words`);
      first += count;
    }
  }
  if (positions.codec === "gap" && ![0, 4, 8].includes(positions.shift)) {
    bad("TD-CHK-013", `positions.shift is ${positions.shift}`);
  }
  if (positions.codec === "all" && m !== n) bad("TD-POS-011", `positions all of ${m} of ${n} words`);
  return {
    index, dtype, slices, n, m, order: order.codec, limit: order.limit ?? 0, groups: order.groups ?? [slices.length], positions: positions.codec,
    shift: positions.shift ?? 0, values: values.codec, compression, result,
  };
}

/**
 * @param {string} text the value of the key `tensordelta`
 * @param {import("./layout.js").Layout} layout of the manifest
 * @returns {Chunk[]}
 */
export function parseChunkTable(text, layout, object, budget) {
  const map = parseText(text, object, budget);
  checkFormat(map, object);
  const named = required(map, "layout", digest, object);
  if (named !== layout.digest) reject("malformed", "TD-CHK-003", object, "the chunk table is for another layout");
  const list = required(map, "chunks", array, object);
  if (list.length === 0) reject("malformed", "TD-CHK-001", object, "a chunk table without chunks");
  return list.map((item, i) => chunkEntry(item, i, layout, object));
}

/**
 * The streams of a chunk with the bounds of their sizes.
 * @param {Chunk} chunk
 * @returns {{name: string, lowest: number, highest: number, escape: boolean}[]}
 */
export function streamsOf({ n, m, positions, shift, values, dtype }) {
  const out = [];
  const exact = (name, size) => out.push({ name, lowest: size, highest: size, escape: false });
  if (positions === "gap") {
    out.push({ name: "gaps", lowest: m, highest: m + Math.floor((n - m) / (255 * 2 ** shift)), escape: false });
    if (shift === 8) exact("low", m);
    if (shift === 4) exact("low", Math.ceil(m / 2));
  }
  if (positions === "bitmap") exact("bitmap", Math.ceil(n / 8));
  const planes = dtype.w / 8;
  if (values === "step") {
    exact("codes", Math.ceil(m / 4));
    for (let j = 0; j < planes; j++) out.push({ name: `escapes.${j}`, lowest: 1, highest: m, escape: true });
  } else {
    for (let j = 0; j < planes; j++) exact(`values.${j}`, m);
  }
  return out;
}
