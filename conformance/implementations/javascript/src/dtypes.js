/**
 * The dtypes of section 3.2.
 * @typedef {{name: string, bits: number, w: number, lanes: number, shift: number,
 *   exponentBits: number}} DType  `lanes` is the number of lanes of a word; `shift` and `exponentBits` place the
 *   exponent field (no bits: none).
 */
const make = (name, bits, w, shift = 0, exponentBits = 0) =>
  Object.freeze({ name, bits, w, lanes: w === 8 ? 1 : w / 16, shift, exponentBits });

/** @type {Map<string, DType>} */
export const DTYPES = new Map([
  make("F64", 64, 64, 52, 11), make("C64", 64, 64), make("I64", 64, 64), make("U64", 64, 64),
  make("F32", 32, 32, 23, 8), make("I32", 32, 32), make("U32", 32, 32),
  make("BF16", 16, 16, 7, 8), make("F16", 16, 16, 10, 5), make("I16", 16, 16), make("U16", 16, 16),
  make("F8_E4M3", 8, 8, 3, 4), make("F8_E4M3FNUZ", 8, 8, 3, 4), make("F8_E5M2", 8, 8, 2, 5),
  make("F8_E5M2FNUZ", 8, 8, 2, 5), make("F8_E8M0", 8, 8), make("I8", 8, 8), make("U8", 8, 8), make("BOOL", 8, 8),
  make("F4", 4, 8), make("F6_E2M3", 6, 8), make("F6_E3M2", 6, 8),
].map((d) => [d.name, d]));

/** The words of a tensor's bytes. The bytes must start where an element may start. */
export function wordView(bytes, w) {
  const { buffer, byteOffset, byteLength } = bytes;
  if (w === 8) return bytes;
  if (w === 16) return new Uint16Array(buffer, byteOffset, byteLength / 2);
  if (w === 32) return new Uint32Array(buffer, byteOffset, byteLength / 4);
  return new BigUint64Array(buffer, byteOffset, byteLength / 8);
}

/** The lanes of a tensor's bytes, in the order of their numbers: little-endian words need no taking apart. */
export const laneView = (bytes, w) => (w === 8 ? bytes : wordView(bytes, 16));

/** Room for m words of w bits. */
export function wordArray(m, w) {
  return new (w === 8 ? Uint8Array : w === 16 ? Uint16Array : w === 32 ? Uint32Array : BigUint64Array)(m);
}
