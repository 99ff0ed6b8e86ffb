/** States (section 3.3). A State is never changed: an update makes another one (slots.js, edge.js). */
import { Entry, Layout } from "./layout.js";
import { compareUtf8, equalBytes } from "./bytes.js";
import { laneView } from "./dtypes.js";
import { tensorFingerprint } from "./fingerprint.js";
import { reject } from "./errors.js";

/** The words of one tensor. @typedef {{entry: Entry, bytes: Uint8Array, fingerprint: bigint}} Tensor */

/** A scan of all words. @returns {bigint} */
export const scan = (entry, bytes) => tensorFingerprint(entry.seed, laneView(bytes, entry.dtype.w));

export class State {
  /**
   * @param {Layout|null} layout of the whole version; null where only a part is held and the whole is not known
   * @param {Map<string, Tensor>} tensors
   * @param {number|null} version that is remembered for the state
   * @param {boolean} part whether these are some tensors only
   */
  constructor(layout, tensors, version, part = false) {
    this.layout = layout;
    this.tensors = tensors;
    this.version = version;
    this.part = part;
    let sum = 0n;
    for (const { fingerprint } of tensors.values()) sum += fingerprint;
    /** Of the tensors held. */
    this.fingerprint = BigInt.asUintN(64, sum);
  }

  /**
   * A state from tensors of the caller, whose words are scanned. The bytes belong to the state from now on, and each must
   * begin where a 64-bit word may.
   * @param {{entry: Entry, bytes: Uint8Array}[]} list
   */
  static of(list, version = null, part = false) {
    const sorted = [...list].sort((a, b) => compareUtf8(a.entry.name, b.entry.name));
    const layout = part ? null : new Layout(sorted.map((t) => t.entry));
    const tensors = new Map(sorted.map(({ entry, bytes }) =>
      [entry.name, { entry, bytes, fingerprint: scan(entry, bytes) }]));
    return new State(layout, tensors, version, part);
  }

  static empty(part = false) {
    return State.of([], null, part);
  }

  /** The tensors of these names as a part; all of them, as a whole, for null. */
  restricted(only) {
    if (this.part === (only !== null) && (!only || [...this.tensors.keys()].every((name) => only.has(name)))) return this;
    const tensors = new Map([...this.tensors].filter(([name]) => !only || only.has(name)));
    const layout = only ? null : new Layout([...tensors.values()].map((t) => t.entry));
    return new State(layout, tensors, this.version, only !== null);
  }

  /** The same state under another version. */
  named(version) {
    return new State(this.layout, this.tensors, version, this.part);
  }

  /** Same names, dtypes, shapes and words. */
  equals(other) {
    if (this === other) return true;
    if (this.tensors.size !== other.tensors.size) return false;
    for (const [name, tensor] of this.tensors) {
      const its = other.tensors.get(name);
      if (!its || !tensor.entry.sameType(its.entry)) return false;
      if (tensor.bytes !== its.bytes && !equalBytes(tensor.bytes, its.bytes)) return false;
    }
    return true;
  }
}

/** Room for words, all zero. What is within the budget can still be more than the platform has. */
export function allocate(bytes, object) {
  try {
    return new Uint8Array(bytes);
  } catch (e) {
    if (!(e instanceof RangeError)) throw e;
    return reject("limit", "TD-LIM-002", object, `${bytes} bytes are more than this platform gives`);
  }
}

/** Bytes of all states together; tensors that they share count once. */
export function residentBytes(states) {
  const seen = new Set();
  let sum = 0;
  for (const state of states) {
    for (const { bytes } of state?.tensors.values() ?? []) {
      if (seen.has(bytes)) continue;
      seen.add(bytes);
      sum += bytes.length;
    }
  }
  return sum;
}
