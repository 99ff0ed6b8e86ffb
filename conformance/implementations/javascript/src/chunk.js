/**
 * Chunks (section 7): from streams to listed words. Who holds which words does not matter here: a Words is asked.
 *
 * @typedef {{tensor: number, offset: number, k: number, end: number}} Listed  the listed words k to end (excluded) of a
 *   chunk are words of the tensor; a word's number there is `offset` plus its natural number
 * @typedef {{naturals: Uint32Array|null, from: Uint32Array|null, values: import("./codecs.js").WordArray,
 *   slices: Listed[]}} Decoded  naturals, ascending, of the listed words; null: of all words. from: where the value of each
 *   stands; null: in the same order. values: steps or new words
 * @typedef {object} Words  the words of the new state that a Reader holds
 * @property {(tensor: number, start: number, stop: number) => number} held  how many of these words
 * @property {(tensor: number, start: number, stop: number) => import("./codecs.js").WordArray} base  these words, all of
 *   them held, before the chunk
 * @property {(pack: object, chunks: import("./chunktable.js").Chunk[]) => void} open  a chunk pack has been checked
 * @property {(chunk: import("./chunktable.js").Chunk, decoded: Decoded, object: string) => void} write
 * @property {(tensor: number, stored: Uint8Array, object: string) => void} replace  all words of a tensor; `stored` may
 *   begin anywhere
 */
import { decodeFrame } from "./zstd.js";
import { countEscapes, decodeBitmap, decodeGap, decodeReplace, decodeSteps, exponentOrder } from "./codecs.js";
import { reject } from "./errors.js";
import { EXPONENT_ORDER } from "./manifest.js";

/** The streams of a chunk, decompressed when they are asked for. */
function decompressor({ chunk, streams }, object, budget, bad) {
  return (name) => {
    const { stored, frame, size } = streams.get(name);
    if (!frame) return stored;
    budget.take(size, object, "a decompressed stream");
    return decodeFrame(stored, frame, (rule, what) => bad(rule, `${name}: ${what}`));
  };
}

const rejecting = (chunk, object) => (rule, what) => reject("malformed", rule, object, `chunk ${chunk.index}: ${what}`);

/** The positions of the listed words, ascending; null: of all words. */
function positionsOf({ chunk }, get, object, budget, bad) {
  const { m, n } = chunk;
  if (chunk.positions === "all") return null;
  budget.take(4 * m, object, "positions");
  if (chunk.positions === "bitmap") return decodeBitmap(get("bitmap"), m, n, bad);
  return decodeGap(get("gaps"), chunk.shift ? get("low") : null, chunk.shift, m, n, bad);
}

/** Step 9 for one chunk: its positions, and its steps or new words. They do not depend on the base. */
function decodeChunk(opened, object, budget) {
  const { chunk, streams } = opened;
  const { m, dtype } = chunk;
  const bad = rejecting(chunk, object);
  const get = decompressor(opened, object, budget, bad);
  const positions = positionsOf(opened, get, object, budget, bad);
  budget.take(m * (dtype.w / 8), object, "values");
  const planes = Array.from({ length: dtype.w / 8 }, (_, j) => j);
  if (chunk.values === "replace") {
    return { positions, values: decodeReplace(planes.map((j) => get(`values.${j}`)), m, dtype.w) };
  }
  const codes = get("codes");
  const x = countEscapes(codes, m, bad);
  const present = streams.has("escapes.0");
  if (x === 0 && present) bad("TD-CHK-020", "there are escapes, and no code is 3");
  if (x > 0 && !present) bad("TD-CHK-021", `there are no escapes, and ${x} codes are 3`);
  if (x > 0) {
    for (const j of planes) {
      const { size } = streams.get(`escapes.${j}`);
      if (size !== x) bad("TD-CHK-019", `stream escapes.${j} has ${size} bytes, and ${x} codes are 3`);
    }
  }
  const escapes = x > 0 ? planes.map((j) => get(`escapes.${j}`)) : [];
  return { positions, values: decodeSteps(codes, escapes, m, dtype.w, bad) };
}

/** Gives the exponent fields of the base words of some slices, in natural order. */
function keysOf({ dtype }, slices, words) {
  const { w, shift, exponentBits } = dtype;
  const mask = (1 << exponentBits) - 1;
  return (visit) => {
    for (const { tensor, start, stop } of slices) {
      const base = words.base(tensor, start, stop);
      if (w === 64) {
        const halves = new Uint32Array(base.buffer, base.byteOffset, 2 * base.length);
        for (let j = 0; j < base.length; j++) visit((halves[2 * j + 1] >>> (shift - 32)) & mask);
      } else {
        for (let j = 0; j < base.length; j++) visit((base[j] >>> shift) & mask);
      }
    }
  };
}

/** The slices of a chunk by group, with the number of words of each, and how many of them are held. */
function groupsOf({ groups, slices }, words) {
  let first = 0;
  return groups.map((count) => {
    const mine = slices.slice(first, first += count);
    const sum = (of) => mine.reduce((total, slice) => total + of(slice), 0);
    return {
      slices: mine, n: sum((s) => s.stop - s.start), held: sum((s) => words.held(s.tensor, s.start, s.stop)),
    };
  });
}

/**
 * The natural numbers of the words at some positions in order exponent, ascending, and where the value of each stands.
 * Positions in a group that is not held stand for themselves: nobody takes their words.
 */
function naturalsOf(chunk, groups, words, positions) {
  const naturals = new Uint32Array(positions.length);
  const from = new Uint32Array(positions.length);
  let first = 0;
  let k = 0;
  for (const { slices, n, held } of groups) {
    const end = firstFrom(positions, first + n);
    const mine = positions.slice(k, end).map((position) => position - first);
    const order = held > 0
      ? exponentOrder(keysOf(chunk, slices, words), chunk.limit, n, mine) : { naturals: mine, from: mine.keys() };
    naturals.set(order.naturals.map((number) => number + first), k);
    from.set([...order.from].map((place) => place + k), k);
    k = end;
    first += n;
  }
  return { naturals, from };
}

/** The first k whose natural number is not below `stop`. @param {Uint32Array} naturals ascending */
function firstFrom(naturals, stop) {
  let low = 0;
  let high = naturals.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (naturals[middle] < stop) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The listed words by slice. @param {Uint32Array|null} naturals @returns {Listed[]} */
function listedBySlice({ slices }, naturals) {
  let k = 0;
  let before = 0;
  return slices.map(({ tensor, start, stop }) => {
    const after = before + (stop - start);
    const end = naturals ? firstFrom(naturals, after) : after;
    const listed = { tensor, offset: start - before, k, end };
    k = end;
    before = after;
    return listed;
  });
}

/** Steps 9 and 10 for one chunk. @param {Words} words */
export function readChunk(opened, words, manifest, object, budget) {
  const { chunk } = opened;
  const groups = chunk.order === "exponent" ? groupsOf(chunk, words) : [];
  if (chunk.order === "exponent" && !manifest.features.has(EXPONENT_ORDER)) {
    reject("malformed", "TD-MAN-006", manifest.object, `${object} uses order exponent, and features lacks ${EXPONENT_ORDER}`);
  }
  if (groups.some(({ held, n }) => held > 0 && held < n)) {
    reject("unsupported", "TD-RDR-017", object, `chunk ${chunk.index}: a group in order exponent of which some words are not held`);
  }
  let { positions: naturals, values } = decodeChunk(opened, object, budget);
  if (chunk.slices.every((s) => words.held(s.tensor, s.start, s.stop) === 0)) return;
  let from = null;
  if (chunk.order === "exponent") {
    budget.take(4 * chunk.n + 16 * chunk.m, object, "order exponent");
    ({ naturals, from } = naturalsOf(chunk, groups, words, naturals));
  }
  words.write(chunk, { naturals, from, values, slices: listedBySlice(chunk, naturals) }, object);
}

/**
 * How many words of each slice a chunk lists, without a base. In order exponent the base decides which word of a group is
 * which: there the words of a group of several slices are spread over these by their sizes, and `exact` is false.
 * @returns {{listed: number[], exact: boolean}} listed: by slice
 */
export function listedPerSlice(opened, object, budget) {
  const { chunk } = opened;
  const { slices } = chunk;
  if (slices.length === 1) return { listed: [chunk.m], exact: true };
  const bad = rejecting(chunk, object);
  const positions = positionsOf(opened, decompressor(opened, object, budget, bad), object, budget, bad);
  if (chunk.order === "natural") {
    return { listed: listedBySlice(chunk, positions).map(({ k, end }) => end - k), exact: true };
  }
  const listed = [];
  let exact = true;
  let first = 0;
  let at = 0;
  for (const count of chunk.groups) {
    const sizes = slices.slice(at, at + count).map(({ start, stop }) => stop - start);
    const n = sizes.reduce((sum, size) => sum + size, 0);
    const m = firstFrom(positions, first + n) - firstFrom(positions, first);
    listed.push(...sizes.map((size) => m * (size / n)));
    exact &&= count === 1 || m === 0;
    first += n;
    at += count;
  }
  return { listed, exact };
}
