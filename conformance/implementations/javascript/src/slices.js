/** Slices of a state (section 9.5): what one holder has of it, and the edges of a route as far as they concern it. */
import { checkBase, fingerprintsOf, readPacks } from "./edge.js";
import { EMPTY_LAYOUT } from "./layout.js";
import { Slot } from "./slots.js";
import { Values } from "./fingerprint.js";
import { allocate } from "./state.js";
import { checkFeatures } from "./manifest.js";
import { wordView } from "./dtypes.js";

const u64 = (x) => BigInt.asUintN(64, x);

/** Rows 4 to 7 of an update, and what all holders of it have in common. */
export class Progress {
  constructor() {
    this.listed = 0n;
    this.results = 0n;
    this.change = 0n;
    this.replicas = 0n;
    /** Names of manifests and digests of packs, for row 3. */
    this.trace = "";
  }

  copy() {
    return Object.assign(new Progress(), this);
  }
}

/**
 * What one holder has. It stands where a State does, and is never changed either.
 * @typedef {{entry: import("./layout.js").Entry, bytes: Uint8Array}} Held  the words of the holder's share, in order
 */
export class Slices {
  /**
   * @param {import("./layout.js").Layout|null} layout of the whole version
   * @param {bigint|null} fingerprint of the whole version, remembered; null before it is proven
   * @param {Map<string, Held>} tensors
   * @param {number|null} version that is remembered
   */
  constructor(layout, fingerprint, tensors, version, progress = new Progress()) {
    this.layout = layout;
    this.fingerprint = fingerprint;
    this.tensors = tensors;
    this.version = version;
    this.progress = progress;
    this.part = false;
  }

  /** What a holder has of a state. @param {import("./state.js").State} state @param {import("./share.js").Shares} shares */
  static of(state, shares, index) {
    const tensors = new Map();
    for (const [name, { entry, bytes }] of state.tensors) {
      const share = shares.of(index, entry);
      if (share.count > 0) tensors.set(name, { entry, bytes: share.gather(bytes, entry.dtype.w / 8) });
    }
    return new Slices(state.layout, null, tensors, state.version);
  }

  static nothing() {
    return new Slices(EMPTY_LAYOUT, 0n, new Map(), null);
  }

  restricted() {
    return this;
  }

  /** The same words as another version, or with a fingerprint that was proven. */
  named(version, fingerprint = this.fingerprint) {
    return new Slices(this.layout, fingerprint, this.tensors, version);
  }

  /** An update goes with the very words from which it was prepared. */
  equals(other) {
    return this.tensors === other.tensors;
  }
}

/** Row 7 for the words of one tensor. */
class Replicas {
  constructor(seed) {
    this.seed = seed;
    /** The sums of owned words, by the number of holders that have them. @type {Map<number, Values>} */
    this.owned = new Map();
    this.others = new Values(seed);
  }

  add({ owned, copies }, word, value, w) {
    if (copies === 1) return;
    let sum = this.others;
    if (owned) {
      sum = this.owned.get(copies) ?? new Values(this.seed);
      this.owned.set(copies, sum);
    }
    sum.word(word, value, w);
  }

  sum() {
    let sum = -this.others.sum();
    for (const [copies, values] of this.owned) sum += BigInt(copies - 1) * values.sum();
    return sum;
  }
}

/**
 * The scan of one tensor's share: the sum of the words that the holder owns, and row 7 over all that it has.
 * @param {Held} held @param {import("./share.js").Share} share
 */
export function scanShare({ entry, bytes }, share) {
  const { seed, dtype: { w } } = entry;
  const words = wordView(bytes, w);
  const owned = new Values(seed);
  const replicas = new Replicas(seed);
  for (const stretch of share.stretches) {
    for (let j = stretch.start, place = stretch.place; j < stretch.stop; j++, place++) {
      if (stretch.owned) owned.word(j, words[place], w);
      replicas.add(stretch, j, words[place], w);
    }
  }
  return { owned: owned.sum(), replicas: replicas.sum() };
}

/** The words of a holder that an edge writes, as the Words of chunk.js. */
class SliceWords {
  /**
   * @param {({slot: Slot, share: import("./share.js").Share}|null)[]} mine by tensor index; null: no word of it is held
   * @param {Progress} progress changed
   */
  constructor(mine, progress, { layout, shares, index, budget }) {
    Object.assign(this, { mine, progress, index, budget });
    /** The first holder that has words of each tensor; -1 for none. */
    this.first = layout.tensors.map((entry) => shares.first(entry));
  }

  held(tensor, start, stop) {
    return this.mine[tensor]?.share.within(start, stop) ?? 0;
  }

  base(tensor, start, stop) {
    const { slot, share } = this.mine[tensor];
    const place = share.place(start);
    return wordView(slot.bytes, slot.entry.dtype.w).subarray(place, place + stop - start);
  }

  /** A group that lacks a tensor of a chunk cannot know its sums. */
  counts({ slices }) {
    return slices.every(({ tensor }) => this.first[tensor] >= 0); // a slice has words
  }

  /** The first holder that has words of a tensor of the pack answers for its chunks. */
  open(pack, chunks) {
    let first = this.index;
    for (const [from, to] of pack.tensors) {
      for (let tensor = from; tensor < to; tensor++) {
        if (this.first[tensor] >= 0 && this.first[tensor] < first) first = this.first[tensor];
      }
    }
    if (first < this.index) return;
    for (const chunk of chunks) {
      if (!this.counts(chunk)) continue;
      this.progress.listed -= BigInt(chunk.m);
      this.progress.results -= chunk.result;
    }
  }

  write(chunk, decoded, object) {
    const { progress } = this;
    const counts = this.counts(chunk);
    for (const listed of decoded.slices) {
      const mine = this.mine[listed.tensor];
      if (mine === null || listed.end === listed.k) continue;
      mine.slot.own(this.budget, object);
      const { count, before, after, replicas } = writeListed(mine, listed, decoded, chunk.values === "step");
      progress.change += after - before;
      progress.replicas += replicas;
      if (!counts) continue;
      progress.listed += BigInt(count);
      progress.results += after;
    }
  }

  replace(tensor, stored, object) {
    const mine = this.mine[tensor];
    if (mine === null) return;
    const { slot, share } = mine;
    const { entry } = slot;
    const before = scanShare(slot, share).owned;
    if (!slot.owned) this.budget.keep(slot.bytes.length, object, `the words of ${entry.name}`);
    slot.owned = true;
    slot.bytes = share.gather(stored, entry.dtype.w / 8);
    const after = scanShare(slot, share);
    this.progress.change += after.owned - before;
    this.progress.replicas += after.replicas;
  }
}

/**
 * Writes the listed words that a holder has.
 * @returns {{count: number, before: bigint, after: bigint, replicas: bigint}} of those that it owns: how many, and the sums
 *   of their words; and row 7
 */
function writeListed({ slot, share }, { offset, k, end }, { naturals, from, values }, step) {
  const { seed, dtype: { w } } = slot.entry;
  const { stretches } = share;
  const words = wordView(slot.bytes, w);
  const [before, after, replicas] = [new Values(seed), new Values(seed), new Replicas(seed)];
  let count = 0;
  let s = share.after(offset + (naturals ? naturals[k] : k));
  for (let i = k; i < end; i++) {
    const j = offset + (naturals ? naturals[i] : i);
    while (s < stretches.length && stretches[s].stop <= j) s++;
    if (s === stretches.length) break;
    const stretch = stretches[s];
    if (j < stretch.start) continue;
    const place = stretch.place + j - stretch.start;
    const value = values[from ? from[i] : i];
    const old = words[place];
    words[place] = step ? old + value : value; // the array takes it modulo 2^w
    if (stretch.owned) {
      count++;
      before.word(j, old, w);
      after.word(j, words[place], w);
    }
    replicas.add(stretch, j, words[place], w);
  }
  return { count, before: before.sum(), after: after.sum(), replicas: replicas.sum() };
}

/** fit of section 5 for one holder; what it owned of tensors that go is taken off the change. */
function fitSlices(base, layout, { shares, index, budget }, progress, object) {
  const kept = new Set();
  const mine = layout.tensors.map((entry) => {
    const share = shares.of(index, entry);
    const held = base.tensors.get(entry.name);
    if (held && held.entry.sameType(entry)) {
      kept.add(entry.name);
      return { slot: new Slot(entry, held.bytes, 0n, false), share };
    }
    if (share.count === 0) return null;
    const size = share.count * (entry.dtype.w / 8);
    budget.keep(size, object, "tensors that start with zero words");
    return { slot: new Slot(entry, allocate(size, object), 0n, true), share };
  });
  for (const [name, held] of base.tensors) {
    if (!kept.has(name)) progress.change -= scanShare(held, shares.of(index, held.entry)).owned;
  }
  return mine;
}

/**
 * One edge for one holder: steps 5 to 9 of section 9.1, and what it adds to the sums.
 * @param {import("./objects.js").Objects} objects
 * @param {import("./manifest.js").Manifest} manifest
 * @param {Slices} state that the edge starts from; not looked at where base is null
 * @param {Progress} progress of the edges before
 * @param {{features: Iterable<string>, shares: import("./share.js").Shares, index: number}} holder
 * @returns {Promise<Slices>} with the progress after the edge
 */
export async function applySlices(objects, manifest, state, progress, { features, shares, index }) {
  const { budget } = objects;
  checkFeatures(manifest, features);
  const layout = await objects.layout(manifest.layout);
  const after = progress.copy();
  after.trace += [manifest.object, ...manifest.packs.map(({ sha256 }) => sha256), ""].join("\n");
  if (manifest.base) await checkBase(objects, manifest, state, ["TD-SLC-003", "TD-SLC-003"]);
  const group = { layout, shares, index, budget };
  const mine = fitSlices(manifest.base ? state : Slices.nothing(), layout, group, after, manifest.object);
  await readPacks(objects, manifest, layout, new SliceWords(mine, after, group), (tensor) => mine[tensor] !== null);
  const tensors = new Map();
  for (const each of mine) if (each) tensors.set(each.slot.entry.name, { entry: each.slot.entry, bytes: each.slot.bytes });
  return new Slices(layout, manifest.fingerprint, tensors, manifest.version, after);
}

/**
 * The sum of the tensors that a group has, in a version: its fingerprint; or, for a group that lacks tensors, by its
 * fingerprints object.
 * @param {{version: number, layout: string, fingerprint: bigint, object: string}} edge its manifest, or an edge's base
 * @param {import("./layout.js").Layout} layout of the version
 * @param {import("./share.js").Shares} shares
 */
export async function sumOf(objects, { fingerprint, version, object }, layout, shares) {
  if (layout.tensors.every((entry) => shares.have(entry))) return fingerprint;
  const { sums } = await fingerprintsOf(objects, version, object);
  return u64(layout.tensors.reduce((sum, entry, i) => (shares.have(entry) ? sum + sums[i] : sum), 0n));
}
