/**
 * Positions, values and orders (sections 7.2 to 7.8): streams to numbers. Nothing here knows of tensors.
 * Every function gets `bad(rule, message)`, which throws.
 */
import { wordArray } from "./dtypes.js";

/** @typedef {Uint8Array|Uint16Array|Uint32Array|BigUint64Array} WordArray */

/** decode_gap. @returns {Uint32Array} m positions, ascending; n is at most 2^27 */
export function decodeGap(gaps, low, shift, m, n, bad) {
  if (gaps[gaps.length - 1] === 255) bad("TD-POS-004", "gaps ends with 255");
  const out = new Uint32Array(m);
  const scale = 2 ** shift;
  let k = 0;
  let part = 0;
  let r = -1;
  for (let i = 0; i < gaps.length; i++) {
    const b = gaps[i];
    part += b; // at most 2^27 * 255: exact in a double, also times 2^8
    if (b === 255) continue;
    if (k === m) bad("TD-POS-003", `gaps has more than ${m} bytes less than 255`);
    let g = part * scale;
    if (shift === 8) g += low[k];
    else if (shift === 4) g += (low[k >> 1] >> (4 * (k & 1))) & 15;
    r += 1 + g;
    if (r >= n) bad("TD-POS-005", `position ${k} is ${r}, and there are ${n} words`);
    out[k++] = r;
    part = 0;
  }
  if (k !== m) bad("TD-POS-003", `gaps has ${k} bytes less than 255, not ${m}`);
  if (shift === 4 && m % 2 === 1 && low[m >> 1] >> 4 !== 0) bad("TD-POS-006", "the unused nibble of low is not zero");
  return out;
}

/** decode_bitmap. @returns {Uint32Array} */
export function decodeBitmap(bitmap, m, n, bad) {
  if (n % 8 !== 0 && bitmap[bitmap.length - 1] >> (n % 8) !== 0) bad("TD-POS-010", "a padding bit of bitmap is set");
  const out = new Uint32Array(m);
  let k = 0;
  for (let i = 0; i < bitmap.length; i++) {
    for (let b = bitmap[i]; b !== 0; b &= b - 1) {
      if (k === m) bad("TD-POS-009", `bitmap has more than ${m} bits set`);
      out[k++] = 8 * i + 31 - Math.clz32(b & -b);
    }
  }
  if (k !== m) bad("TD-POS-009", `bitmap has ${k} bits set, not ${m}`);
  return out;
}

/** How many codes are 3, and no padding. */
export function countEscapes(codes, m, bad) {
  const unused = (4 - (m % 4)) % 4;
  if (unused && codes[codes.length - 1] >> (8 - 2 * unused) !== 0) bad("TD-VAL-003", "a padding bit of codes is set");
  let x = 0;
  for (let i = 0; i < codes.length; i++) {
    const both = codes[i] & (codes[i] >> 1) & 0x55;
    x += (both & 1) + ((both >> 2) & 1) + ((both >> 4) & 1) + (both >> 6);
  }
  return x;
}

/**
 * decode_step without its last line: the steps d, to be added to the base words modulo 2^w.
 * @param {Uint8Array} codes
 * @param {Uint8Array[]} escapes one plane a byte of a word, or none
 */
export function decodeSteps(codes, escapes, m, w, bad) {
  const out = wordArray(m, w);
  const tooBig = () => bad("TD-VAL-002", `an escape is greater than 2^${w} - 5`);
  let t = 0;
  if (w === 64) {
    for (let k = 0; k < m; k++) {
      let y = BigInt((codes[k >> 2] >> (2 * (k & 3))) & 3);
      if (y === 3n) {
        let e = 0n;
        for (let j = 7; j >= 0; j--) e = (e << 8n) | BigInt(escapes[j][t]);
        if (e > 0xfffffffffffffffbn) tooBig();
        y += e;
        t++;
      }
      const z = y + 1n;
      out[k] = z & 1n ? ~(z >> 1n) : z >> 1n; // the array takes it modulo 2^64
    }
    return out;
  }
  const greatest = 2 ** w - 5;
  const planes = w / 8;
  for (let k = 0; k < m; k++) {
    let y = (codes[k >> 2] >> (2 * (k & 3))) & 3;
    if (y === 3) {
      let e = 0;
      for (let j = planes - 1; j >= 0; j--) e = e * 256 + escapes[j][t];
      if (e > greatest) tooBig();
      y += e;
      t++;
    }
    const z = y + 1; // at most 2^32 - 1
    out[k] = z % 2 === 1 ? ~(z >>> 1) : z >>> 1; // the array takes it modulo 2^w
  }
  return out;
}

/** decode_replace: the new words. @param {Uint8Array[]} planes */
export function decodeReplace(planes, m, w) {
  const out = wordArray(m, w);
  const bytes = new Uint8Array(out.buffer);
  const width = w / 8;
  for (let j = 0; j < width; j++) {
    const plane = planes[j];
    for (let k = 0, at = j; k < m; k++, at += width) bytes[at] = plane[k];
  }
  return out;
}

/**
 * exponent_permutation, read at the listed positions only.
 * @param {(visit: (key: number) => void) => void} eachKey gives the keys of the n base words in natural order
 * @param {Uint32Array} positions
 * @returns {{naturals: Uint32Array, from: Uint32Array}} the listed natural numbers, ascending, and for each the place of
 *   its value in the order of the positions
 */
export function exponentOrder(eachKey, limit, n, positions) {
  const m = positions.length;
  const next = new Uint32Array(limit + 1); // counts, then the next free position of a key; the last is `rest`
  eachKey((key) => {
    next[key < limit ? key : limit]++;
  });
  let sum = 0;
  for (let key = 0; key <= limit; key++) {
    const count = next[key];
    next[key] = sum;
    sum += count;
  }
  const permutation = new Uint32Array(n);
  let i = 0;
  eachKey((key) => {
    permutation[next[key < limit ? key : limit]++] = i++;
  });
  const listed = new Uint32Array(m);
  for (let k = 0; k < m; k++) listed[k] = permutation[positions[k]];
  permutation.fill(0); // used again: for each natural number 1 + the place of its value
  for (let k = 0; k < m; k++) permutation[listed[k]] = k + 1;
  const from = new Uint32Array(m);
  for (let natural = 0, k = 0; k < m; natural++) {
    if (permutation[natural] === 0) continue;
    from[k] = permutation[natural] - 1;
    listed[k++] = natural;
  }
  return { naturals: listed, from };
}
