/**
 * Fingerprints (section 8).
 *
 * c(name, i) is a product of one factor for the block of 65536 lanes and one for the lane in its block, so a block's
 * sum is its factor times the sum of lane * inner(lane & 65535). That inner sum needs no 64-bit arithmetic: inner is cut
 * into 16 + 16 + 32 bits; the two low parts are summed as exact doubles, the high one modulo 2^32.
 */
import { sha256 } from "./sha256.js";
import { toUtf8 } from "./bytes.js";

const u64 = (x) => BigInt.asUintN(64, x);

/** @param {bigint} z */
export function mix(z) {
  z = u64(z + 0x9e3779b97f4a7c15n);
  z = u64((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = u64((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}

/** @param {string} name of a tensor */
export function seed(name) {
  const digest = sha256(toUtf8(name));
  return new DataView(digest.buffer).getBigUint64(0, true);
}

const outer = (start, block) => mix(u64(start + BigInt(block))) | 1n;

/** c(name, i) for a seed; the slow way, for tests and single words. */
export const coefficient = (start, i) =>
  u64(outer(start, BigInt(i) >> 16n) * (mix(BigInt(i) & 65535n) | 1n));

/** mix(i) | 1 for i in [0, 65536), in three tables; made when first needed. */
let inner = null;
function tables() {
  if (inner) return inner;
  const low = new Uint16Array(65536);
  const middle = new Uint16Array(65536);
  const high = new Int32Array(65536);
  for (let i = 0; i < 65536; i++) {
    const x = mix(BigInt(i)) | 1n;
    low[i] = Number(x & 65535n);
    middle[i] = Number((x >> 16n) & 65535n);
    high[i] = Number(x >> 32n) | 0;
  }
  inner = { low, middle, high };
  return inner;
}

const joined = (low, middle, high) => u64(BigInt(low) + (BigInt(middle) << 16n) + (BigInt(high) << 32n));

/**
 * The fingerprint of a whole tensor.
 * @param {bigint} start the tensor's seed
 * @param {Uint8Array|Uint16Array} lanes
 */
export function tensorFingerprint(start, lanes) {
  const { low, middle, high } = tables();
  let total = 0n;
  for (let from = 0, number = 0; from < lanes.length; from += 65536, number++) {
    const count = Math.min(65536, lanes.length - from);
    let a = 0;
    let b = 0;
    let c = 0;
    for (let i = 0; i < count; i++) {
      const x = lanes[from + i];
      a += x * low[i];
      b += x * middle[i];
      c = (c + Math.imul(x, high[i])) | 0;
    }
    if (a || b || c) total += outer(start, number) * joined(a, b, c);
  }
  return u64(total);
}

/** The sum of value(…) of section 8.3 over lanes of one tensor, added in ascending order of the lanes. */
export class Values {
  /** @param {bigint} start the tensor's seed */
  constructor(start) {
    Object.assign(this, tables());
    this.start = start;
    this.number = -1;
    this.a = 0;
    this.b = 0;
    this.c = 0;
    this.total = 0n;
  }

  /** @param {number} lane its number @param {number} x its bits */
  add(lane, x) {
    const number = Math.floor(lane / 65536);
    if (number !== this.number) {
      this.flush();
      this.number = number;
    }
    const i = lane & 65535; // also right beyond 2^32: & takes the number modulo 2^32
    this.a += x * this.low[i];
    this.b += x * this.middle[i];
    this.c = (this.c + Math.imul(x, this.high[i])) | 0;
  }

  /** Adds value(…) of section 8.3. @param {number} j the word's number @param {number|bigint} x the word @param {number} w */
  word(j, x, w) {
    if (w <= 16) {
      this.add(j, x);
    } else if (w === 32) {
      this.add(2 * j, x & 65535);
      this.add(2 * j + 1, x >>> 16);
    } else {
      for (let q = 0; q < 4; q++) this.add(4 * j + q, Number((x >> BigInt(16 * q)) & 65535n));
    }
  }

  flush() {
    if (this.number >= 0) this.total += outer(this.start, this.number) * joined(this.a, this.b, this.c);
    this.a = this.b = this.c = 0;
  }

  /** @returns {bigint} */
  sum() {
    this.flush();
    this.number = -1;
    this.total = u64(this.total);
    return this.total;
  }
}
