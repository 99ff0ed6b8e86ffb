/** The low 32 bits of XXH64 with seed 0: the checksum of a zstd frame. 64-bit numbers are pairs of 32 bits. */

// Results of the functions below: two numbers need no object that way.
let H = 0;
let L = 0;

/** (ah, al) * (bh, bl) into (H, L) */
function multiply(ah, al, bh, bl) {
  const a0 = al & 0xffff;
  const a1 = al >>> 16;
  const b0 = bl & 0xffff;
  const b1 = bl >>> 16;
  const low = a0 * b0;
  const mid = a1 * b0 + (low >>> 16);
  const mid2 = a0 * b1 + (mid % 65536);
  const carry = a1 * b1 + Math.floor(mid / 65536) + Math.floor(mid2 / 65536);
  L = (((mid2 & 0xffff) << 16) | (low & 0xffff)) | 0;
  H = (Math.imul(ah, bl) + Math.imul(al, bh) + (carry | 0)) | 0;
}
const add = (ah, al, bh, bl) => {
  const low = (al >>> 0) + (bl >>> 0);
  L = low | 0;
  H = (ah + bh + (low > 0xffffffff ? 1 : 0)) | 0;
};
function rotate(h, l, k) {
  if (k >= 32) {
    const t = h;
    h = l;
    l = t;
    k -= 32;
  }
  if (k === 0) {
    H = h;
    L = l;
  } else {
    H = (h << k) | (l >>> (32 - k));
    L = (l << k) | (h >>> (32 - k));
  }
}

const P1H = 0x9e3779b1 | 0, P1L = 0x85ebca87 | 0;
const P2H = 0xc2b2ae3d | 0, P2L = 0x27d4eb4f | 0;
const P3H = 0x165667b1 | 0, P3L = 0x9e3779f9 | 0;
const P4H = 0x85ebca77 | 0, P4L = 0xc2b2ae63 | 0;
const P5H = 0x27d4eb2f | 0, P5L = 0x165667c5 | 0;

/** round(accumulator, input) = rotl(accumulator + input * P2, 31) * P1 */
function round(ah, al, ih, il) {
  multiply(ih, il, P2H, P2L);
  add(ah, al, H, L);
  rotate(H, L, 31);
  multiply(H, L, P1H, P1L);
}

function merge(hh, hl, ah, al) {
  round(0, 0, ah, al);
  multiply(hh ^ H, hl ^ L, P1H, P1L);
  add(H, L, P4H, P4L);
}

const word = (d, i) => d[i] | (d[i + 1] << 8) | (d[i + 2] << 16) | (d[i + 3] << 24);

/** @param {Uint8Array} d @returns {number} u32 */
export function xxh64Low(d) {
  let at = 0;
  let h;
  let l;
  if (d.length >= 32) {
    add(P1H, P1L, P2H, P2L);
    let h1 = H, l1 = L, h2 = P2H, l2 = P2L, h3 = 0, l3 = 0;
    add(0, 0, ~P1H, ~P1L);
    add(H, L, 0, 1);
    let h4 = H, l4 = L;
    for (; at + 32 <= d.length; at += 32) {
      round(h1, l1, word(d, at + 4), word(d, at)); h1 = H; l1 = L;
      round(h2, l2, word(d, at + 12), word(d, at + 8)); h2 = H; l2 = L;
      round(h3, l3, word(d, at + 20), word(d, at + 16)); h3 = H; l3 = L;
      round(h4, l4, word(d, at + 28), word(d, at + 24)); h4 = H; l4 = L;
    }
    rotate(h1, l1, 1);
    h = H; l = L;
    rotate(h2, l2, 7); add(h, l, H, L); h = H; l = L;
    rotate(h3, l3, 12); add(h, l, H, L); h = H; l = L;
    rotate(h4, l4, 18); add(h, l, H, L); h = H; l = L;
    merge(h, l, h1, l1); merge(H, L, h2, l2); merge(H, L, h3, l3); merge(H, L, h4, l4);
    h = H; l = L;
  } else {
    h = P5H; l = P5L;
  }
  add(h, l, Math.floor(d.length / 2 ** 32) | 0, d.length | 0);
  h = H; l = L;
  for (; at + 8 <= d.length; at += 8) {
    round(0, 0, word(d, at + 4), word(d, at));
    rotate(h ^ H, l ^ L, 27);
    multiply(H, L, P1H, P1L);
    add(H, L, P4H, P4L);
    h = H; l = L;
  }
  if (at + 4 <= d.length) {
    multiply(0, word(d, at), P1H, P1L);
    rotate(h ^ H, l ^ L, 23);
    multiply(H, L, P2H, P2L);
    add(H, L, P3H, P3L);
    h = H; l = L;
    at += 4;
  }
  for (; at < d.length; at++) {
    multiply(0, d[at], P5H, P5L);
    rotate(h ^ H, l ^ L, 11);
    multiply(H, L, P1H, P1L);
    h = H; l = L;
  }
  multiply(h, l ^ (h >>> 1), P2H, P2L); // h ^= h >> 33
  h = H; l = L;
  multiply(h ^ (h >>> 29), l ^ ((l >>> 29) | (h << 3)), P3H, P3L);
  return (L ^ H) >>> 0; // h ^= h >> 32
}
