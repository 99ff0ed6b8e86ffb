/** Whole tensors of the state that an update makes: all of them, or those that a Reader of some tensors wants. */
import { scan, allocate } from "./state.js";
import { wordView } from "./dtypes.js";
import { Values } from "./fingerprint.js";
import { reject } from "./errors.js";

/**
 * A tensor of the state that an update makes. It shares the bytes of the state before until the first word changes.
 */
export class Slot {
  constructor(entry, bytes, fingerprint, owned) {
    this.entry = entry;
    this.bytes = bytes;
    this.base = fingerprint;
    this.owned = owned;
    this.change = 0n;
  }

  /** Makes the bytes the update's own, before a word is written. */
  own(budget, object) {
    if (this.owned) return;
    budget.keep(this.bytes.length, object, `a copy of ${this.entry.name}`);
    const copy = allocate(this.bytes.length, object);
    copy.set(this.bytes);
    this.bytes = copy;
    this.owned = true;
  }

  get fingerprint() {
    return BigInt.asUintN(64, this.base + this.change);
  }
}

/**
 * fit of section 5.
 * @param {State|null} base null: the empty state
 * @param {Layout} layout
 * @param {(name: string) => boolean} wanted which tensors are held
 * @returns {(Slot|null)[]} by tensor index; null for a tensor that is not held
 */
export function fit(base, layout, wanted, budget, object) {
  let zeros = 0;
  const kept = layout.tensors.map((entry) => {
    if (!wanted(entry.name)) return null;
    const held = base?.tensors.get(entry.name);
    if (held && held.entry.sameType(entry)) return held;
    zeros += entry.bytes;
    return null;
  });
  budget.keep(zeros, object, "tensors that start with zero words");
  return layout.tensors.map((entry, i) => {
    if (kept[i]) return new Slot(entry, kept[i].bytes, kept[i].fingerprint, false);
    return wanted(entry.name) ? new Slot(entry, allocate(entry.bytes, object), 0n, true) : null;
  });
}

/**
 * Writes the listed words of one slice and adds up what they were and are.
 * @param {Slot} slot @param {import("./chunk.js").Listed} listed @param {import("./chunk.js").Decoded} decoded
 */
function writeSlice(slot, { offset, k, end }, { naturals, from, values }, step, before, after) {
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
    before.word(j, old, w);
    after.word(j, words[j], w);
  }
}

/** The tensors that an edge writes, as the Words of chunk.js. */
export class WholeTensors {
  /** @param {(Slot|null)[]} slots by tensor index; null for a tensor that is not held */
  constructor(slots, manifest, budget) {
    this.slots = slots;
    this.manifest = manifest;
    this.budget = budget;
  }

  held(tensor, start, stop) {
    return this.slots[tensor] === null ? 0 : stop - start;
  }

  base(tensor, start, stop) {
    const { bytes, entry } = this.slots[tensor];
    return wordView(bytes, entry.dtype.w).subarray(start, stop);
  }

  open() {}

  write(chunk, decoded, object) {
    let total = 0n;
    for (const listed of decoded.slices) {
      const slot = this.slots[listed.tensor];
      if (slot === null || listed.end === listed.k) continue;
      slot.own(this.budget, object);
      const [before, after] = [new Values(slot.entry.seed), new Values(slot.entry.seed)];
      writeSlice(slot, listed, decoded, chunk.values === "step", before, after);
      const sum = after.sum();
      slot.change += sum - before.sum();
      total += sum;
    }
    // With a part of its tensors only, the sum cannot be known.
    const whole = chunk.slices.every(({ tensor }) => this.slots[tensor] !== null);
    if (whole && BigInt.asUintN(64, total) !== chunk.result) {
      const error = this.manifest.base ? "wrong-base" : "integrity";
      reject(error, "TD-CHK-024", object, `chunk ${chunk.index}: the new words are not those that were written`);
    }
  }

  replace(tensor, stored, object) {
    const slot = this.slots[tensor];
    if (slot === null) return;
    if (!slot.owned) this.budget.keep(slot.entry.bytes, object, `the words of ${slot.entry.name}`);
    slot.owned = true;
    slot.bytes = stored.slice();
    slot.change += scan(slot.entry, slot.bytes) - slot.base;
  }
}
