/** Packs (sections 6 and 7): from the bytes of a pack to changed words in slots. */
import { checkTiling, metadataOf, openSafetensors, plainEntries } from "./safetensors.js";
import { parseChunkTable, streamsOf } from "./chunktable.js";
import { checkFrame, decodeFrame } from "./zstd.js";
import { countEscapes, decodeBitmap, decodeGap, decodeReplace, decodeSteps, exponentOrder } from "./codecs.js";
import { array, integer, object as anObject, required } from "./fields.js";
import { wordView } from "./dtypes.js";
import { Values } from "./fingerprint.js";
import { sameShape } from "./layout.js";
import { scan } from "./state.js";
import { reject } from "./errors.js";
import { EXPONENT_ORDER } from "./manifest.js";

/** The entries of a chunk pack's header (section 6.2). @returns {Map<string, {begin: number, end: number}>} */
function chunkEntries(header, size, object) {
  const entries = new Map();
  const list = [];
  for (const [name, item] of header) {
    if (name === "__metadata__") continue;
    const where = JSON.stringify(name.slice(0, 80));
    anObject(item, where, object);
    const bad = (what) => reject("malformed", "TD-PCK-008", object, `${where} ${what}`);
    if (required(item, "dtype", (x) => x, object, `${where}.`) !== "U8") bad("is not U8");
    const numbers = (field) => required(item, field, array, object, `${where}.`)
      .map((n, i) => integer(n, `${where}.${field}[${i}]`, object));
    const shape = numbers("shape");
    const offsets = numbers("data_offsets");
    if (offsets.length !== 2 || offsets[0] > offsets[1]) bad("has no data_offsets [begin, end]");
    const [begin, end] = offsets;
    if (shape.length !== 1 || shape[0] !== end - begin) bad("has another shape than its bytes");
    entries.set(name, { begin, end });
    list.push({ name, begin, end });
  }
  checkTiling(list, size, object);
  return entries;
}

/**
 * Steps 7 (in part) and 8 for a chunk pack: everything that can be checked before a stream is decompressed.
 * @param {Uint8Array} bytes
 * @returns {{chunk: import("./chunktable.js").Chunk, streams: Map<string, {stored: Uint8Array, frame: object|null,
 *   size: number}>}[]}
 */
export function openChunkPack(bytes, layout, object, budget) {
  const { header, buffer } = openSafetensors(bytes, object, budget);
  const metadata = metadataOf(header, object, "TD-PCK-010");
  const table = metadata?.get("tensordelta");
  if (table === undefined) reject("malformed", "TD-PCK-010", object, "__metadata__ has no key tensordelta");
  const entries = chunkEntries(header, buffer.length, object);
  const chunks = parseChunkTable(table, layout, object, budget);
  const out = [];
  let used = 0;
  for (const chunk of chunks) {
    const streams = new Map();
    let escapes = 0;
    let expected = 0;
    for (const { name, lowest, highest, escape } of streamsOf(chunk)) {
      const full = `${chunk.index}.${name}`;
      const entry = entries.get(full);
      if (escape) expected++;
      if (!entry) {
        if (escape) continue;
        reject("malformed", "TD-PCK-013", object, `stream ${full} is absent`);
      }
      used++;
      if (escape) escapes++;
      const stored = buffer.subarray(entry.begin, entry.end);
      let frame = null;
      let size = stored.length;
      if (chunk.compression === "zstd") {
        frame = checkFrame(stored, lowest, highest, (rule, what) => reject("malformed", rule, object, `${full}: ${what}`));
        size = frame.size;
      } else if (size < lowest || size > highest) {
        const want = lowest === highest ? `${lowest}` : `${lowest} to ${highest}`;
        reject("malformed", "TD-CHK-019", object, `stream ${full} has ${size} bytes, not ${want}`);
      }
      streams.set(name, { stored, frame, size });
    }
    if (escapes !== 0 && escapes !== expected) {
      reject("malformed", "TD-CHK-021", object, `chunk ${chunk.index} has ${escapes} of ${expected} streams escapes`);
    }
    out.push({ chunk, streams });
  }
  if (used !== entries.size) reject("malformed", "TD-PCK-012", object, "an entry is no stream of a chunk");
  return out;
}

/** Step 9 for one chunk: its positions, and its steps or new words. They do not depend on the base. */
function decodeChunk({ chunk, streams }, object, budget) {
  const { m, n, dtype } = chunk;
  const at = `chunk ${chunk.index}: `;
  const bad = (rule, what) => reject("malformed", rule, object, at + what);
  const get = (name) => {
    const { stored, frame, size } = streams.get(name);
    if (!frame) return stored;
    budget.take(size, object, "a decompressed stream");
    return decodeFrame(stored, frame, (rule, what) => bad(rule, `${name}: ${what}`));
  };
  if (chunk.positions !== "all") budget.take(4 * m, object, "positions");
  budget.take(m * (dtype.w / 8), object, "values");
  let positions = null; // all of them
  if (chunk.positions === "gap") {
    positions = decodeGap(get("gaps"), chunk.shift ? get("low") : null, chunk.shift, m, n, bad);
  } else if (chunk.positions === "bitmap") {
    positions = decodeBitmap(get("bitmap"), m, n, bad);
  }
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

/** Gives the exponent fields of a chunk's base words, in natural order. */
function keysOf({ dtype }, slices, slots) {
  const { w, shift, exponentBits } = dtype;
  const mask = (1 << exponentBits) - 1;
  return (visit) => {
    for (const { tensor, start, stop } of slices) {
      const { bytes } = slots[tensor];
      if (w === 64) {
        const halves = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
        for (let j = start; j < stop; j++) visit((halves[2 * j + 1] >>> (shift - 32)) & mask);
      } else {
        const words = wordView(bytes, w);
        for (let j = start; j < stop; j++) visit((words[j] >>> shift) & mask);
      }
    }
  };
}

/** The slices of a chunk by group, with the number of words of each. */
function groupsOf({ groups, slices }) {
  let first = 0;
  return groups.map((count) => {
    const mine = slices.slice(first, first += count);
    return { slices: mine, n: mine.reduce((sum, s) => sum + (s.stop - s.start), 0) };
  });
}

/**
 * The natural numbers of the words at some positions in order exponent, ascending, and where the value of each stands.
 * Positions in a group that is not held stand for themselves: nobody takes their words.
 */
function naturalsOf(chunk, slots, positions) {
  const naturals = new Uint32Array(positions.length);
  const from = new Uint32Array(positions.length);
  let first = 0;
  let k = 0;
  for (const { slices, n } of groupsOf(chunk)) {
    const end = firstFrom(positions, first + n);
    const mine = positions.slice(k, end).map((position) => position - first);
    const held = slots[slices[0].tensor] !== null;
    const order = held ? exponentOrder(keysOf(chunk, slices, slots), chunk.limit, n, mine) : { naturals: mine, from: mine.keys() };
    naturals.set(order.naturals.map((number) => number + first), k);
    from.set([...order.from].map((place) => place + k), k);
    k = end;
    first += n;
  }
  return { naturals, from };
}

/**
 * Writes the listed words of one slice and adds up what changes.
 * @param {number} offset from natural numbers to words of the tensor
 * @param {number} k the first of the listed words that are the slice's
 * @param {number} end the one after the last
 * @param {Uint32Array|null} naturals of the listed words; null: k itself
 * @param {Uint32Array|null} from where the value of each stands; null: in the same order
 */
function writeSlice(slot, offset, k, end, naturals, from, values, step, before, after) {
  const { w } = slot.entry.dtype;
  const words = wordView(slot.bytes, w);
  if (w === 64) {
    const lanes = wordView(slot.bytes, 16);
    for (; k < end; k++) {
      const j = offset + (naturals ? naturals[k] : k);
      const value = values[from ? from[k] : k];
      const lane = 4 * j;
      for (let q = 0; q < 4; q++) before.add(lane + q, lanes[lane + q]);
      words[j] = step ? words[j] + value : value;
      for (let q = 0; q < 4; q++) after.add(lane + q, lanes[lane + q]);
    }
    return;
  }
  for (; k < end; k++) {
    const j = offset + (naturals ? naturals[k] : k);
    const value = values[from ? from[k] : k];
    const old = words[j];
    words[j] = step ? old + value : value; // the array takes it modulo 2^w
    const now = words[j];
    if (w === 32) {
      before.add(2 * j, old & 65535);
      before.add(2 * j + 1, old >>> 16);
      after.add(2 * j, now & 65535);
      after.add(2 * j + 1, now >>> 16);
    } else {
      before.add(j, old);
      after.add(j, now);
    }
  }
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

/**
 * Steps 9 and 10 for one chunk.
 * @param {(import("./state.js").Slot|null)[]} slots
 */
function applyChunk(opened, slots, manifest, object, budget) {
  const { chunk } = opened;
  const held = chunk.slices.filter((s) => slots[s.tensor] !== null).length;
  const whole = held === chunk.slices.length;
  if (chunk.order === "exponent") {
    if (!manifest.features.has(EXPONENT_ORDER)) {
      reject("malformed", "TD-MAN-006", manifest.object, `${object} uses order exponent, and features lacks ${EXPONENT_ORDER}`);
    }
    for (const { slices } of groupsOf(chunk)) {
      const known = slices.filter((s) => slots[s.tensor] !== null).length;
      if (known > 0 && known < slices.length) {
        reject("unsupported", "TD-RDR-017", object, `chunk ${chunk.index}: a group in order exponent over tensors that are not held`);
      }
    }
  }
  let { positions: naturals, values } = decodeChunk(opened, object, budget);
  if (held === 0) return;
  let from = null;
  if (chunk.order === "exponent") {
    budget.take(4 * chunk.n + 16 * chunk.m, object, "order exponent");
    ({ naturals, from } = naturalsOf(chunk, slots, naturals));
  }
  let total = 0n;
  let k = 0;
  let before = 0;
  for (const { tensor, start, stop } of chunk.slices) {
    const after = before + (stop - start);
    const end = naturals ? firstFrom(naturals, after) : after;
    const slot = slots[tensor];
    if (slot && end > k) {
      slot.own(budget, object);
      const [old, written] = [new Values(slot.entry.seed), new Values(slot.entry.seed)];
      writeSlice(slot, start - before, k, end, naturals, from, values, chunk.values === "step", old, written);
      const sum = written.sum();
      slot.change += sum - old.sum();
      total += sum;
    }
    k = end;
    before = after;
  }
  // With a part of its tensors only, the sum cannot be known.
  if (whole && BigInt.asUintN(64, total) !== chunk.result) {
    const error = manifest.base ? "wrong-base" : "integrity";
    reject(error, "TD-CHK-024", object, `chunk ${chunk.index}: the new words are not those that were written`);
  }
}

/** What a pack says about itself, for the comparison with its entry. */
class Named {
  constructor() {
    /** @type {Set<number>} */
    this.tensors = new Set();
    this.changed = 0;
  }

  add(tensor) {
    this.tensors.add(tensor);
  }

  check(pack, manifest) {
    const { where } = pack;
    let k = 0;
    for (const tensor of [...this.tensors].sort((a, b) => a - b)) {
      while (k < pack.tensors.length && pack.tensors[k][1] <= tensor) k++;
      if (k === pack.tensors.length || tensor < pack.tensors[k][0]) {
        reject("malformed", "TD-MAN-030", manifest.object, `${where}.tensors lacks tensor ${tensor}, which the pack names`);
      }
    }
    if (pack.changed !== this.changed) {
      reject("malformed", "TD-MAN-011", manifest.object, `${where}.changed is ${pack.changed}, and the pack has ${this.changed}`);
    }
  }
}

/**
 * Steps 8 to 10 for one pack whose size and digest are checked.
 * @param {Uint8Array} bytes
 * @param {import("./manifest.js").PackEntry} pack
 * @param {(import("./state.js").Slot|null)[]} slots tensors of the new state; changed
 * @param {import("./ranges.js").Ranges} ranges
 */
export function applyPack(bytes, pack, manifest, layout, slots, ranges, budget) {
  const object = pack.path ?? manifest.object;
  const named = new Named();
  if (pack.content === "chunks") {
    const opened = openChunkPack(bytes, layout, object, budget);
    for (const { chunk } of opened) {
      named.changed += chunk.m;
      for (const { tensor, start, stop } of chunk.slices) {
        named.add(tensor);
        ranges.add(tensor, start, stop, budget, object);
      }
    }
    named.check(pack, manifest);
    ranges.check(manifest, layout);
    for (const one of opened) {
      const mark = budget.mark();
      applyChunk(one, slots, manifest, object, budget);
      budget.back(mark);
    }
    return;
  }
  const { header, buffer } = openSafetensors(bytes, object, budget);
  const found = [];
  for (const entry of plainEntries(header, buffer.length, object)) {
    const tensor = layout.indexOf(entry.name);
    if (tensor === undefined) continue;
    const want = layout.tensors[tensor];
    if (want.dtype !== entry.dtype || !sameShape(want.shape, entry.shape)) {
      reject("malformed", "TD-PCK-015", object, `${entry.name} has another dtype or shape than in the layout`);
    }
    named.add(tensor);
    named.changed += want.words;
    ranges.add(tensor, 0, want.words, budget, object);
    found.push({ tensor, entry });
  }
  if (found.length === 0) reject("malformed", "TD-PCK-016", object, "a plain pack without a tensor of the layout");
  named.check(pack, manifest);
  ranges.check(manifest, layout);
  for (const { tensor, entry } of found) {
    const slot = slots[tensor];
    if (!slot) continue;
    if (!slot.owned) budget.keep(slot.entry.bytes, object, `the words of ${entry.name}`);
    slot.owned = true;
    slot.bytes = buffer.slice(entry.begin, entry.end);
    slot.change += scan(slot.entry, slot.bytes) - slot.base;
  }
}
