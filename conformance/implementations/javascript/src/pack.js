/** Packs (section 6): from the bytes of a pack to words for those who hold some of its tensors. */
import { checkTiling, metadataOf, openSafetensors, plainEntries } from "./safetensors.js";
import { parseChunkTable, streamsOf } from "./chunktable.js";
import { checkFrame } from "./zstd.js";
import { listedPerSlice, readChunk } from "./chunk.js";
import { array, integer, object as anObject, required } from "./fields.js";
import { sameShape } from "./layout.js";
import { reject } from "./errors.js";

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
 * @param {import("./chunk.js").Words} words of the new state; changed
 * @param {import("./ranges.js").Ranges} ranges
 * @param {() => Promise<void>} breathe is awaited before each chunk, so that others of the same thread have their turn
 */
export async function readPack(bytes, pack, manifest, layout, words, ranges, budget, breathe) {
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
    words.open(pack, opened.map(({ chunk }) => chunk));
    for (const one of opened) {
      await breathe();
      const mark = budget.mark();
      readChunk(one, words, manifest, object, budget);
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
    found.push({ tensor, stored: buffer.subarray(entry.begin, entry.end) });
  }
  if (found.length === 0) reject("malformed", "TD-PCK-016", object, "a plain pack without a tensor of the layout");
  named.check(pack, manifest);
  ranges.check(manifest, layout);
  for (const { tensor, stored } of found) words.replace(tensor, stored, object);
}

/**
 * How many words of each tensor a pack names, without the state that its edge starts from; its streams of values are not
 * decoded. Size and digest are checked.
 * @returns {Promise<{changed: Map<number, number>, exact: boolean}>} changed: by tensor index; exact: see `listedPerSlice`
 */
export async function changedWords(bytes, pack, manifest, layout, budget, breathe) {
  const object = pack.path ?? manifest.object;
  const changed = new Map();
  const add = (tensor, count) => changed.set(tensor, (changed.get(tensor) ?? 0) + count);
  let exact = true;
  if (pack.content === "chunks") {
    for (const opened of openChunkPack(bytes, layout, object, budget)) {
      await breathe();
      const mark = budget.mark();
      const found = listedPerSlice(opened, object, budget);
      opened.chunk.slices.forEach(({ tensor }, i) => add(tensor, found.listed[i]));
      exact &&= found.exact;
      budget.back(mark);
    }
    return { changed, exact };
  }
  const { header, buffer } = openSafetensors(bytes, object, budget);
  for (const { name } of plainEntries(header, buffer.length, object)) {
    const tensor = layout.indexOf(name);
    if (tensor !== undefined) add(tensor, layout.tensors[tensor].words);
  }
  return { changed, exact };
}
