/** Bytes, text and hex: what the other modules need and the language lacks. */

// Typed arrays have the byte order of the machine, and words are read through them in place.
if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error("tensordelta-js needs a little-endian machine");
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** Strict UTF-8; a byte order mark stays a character. Throws TypeError on bytes that are no UTF-8. */
export const fromUtf8 = (bytes) => decoder.decode(bytes);
export const toUtf8 = (text) => encoder.encode(text);

/** Number of UTF-8 bytes of a string without lone surrogates. */
export function utf8Length(text) {
  let n = text.length;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c >= 0x80) n += c < 0x800 || (c >= 0xd800 && c < 0xe000) ? 1 : 2; // a surrogate is half of four bytes
  }
  return n;
}

/** The order of the UTF-8 bytes, which is not that of UTF-16 units: surrogates come after U+E000 to U+FFFF. */
export function compareUtf8(a, b) {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x === y) continue;
    if (x >= 0xd800 && y >= 0xd800) {
      x = x >= 0xe000 ? x - 0x800 : x + 0x2000;
      y = y >= 0xe000 ? y - 0x800 : y + 0x2000;
    }
    return x - y;
  }
  return a.length - b.length;
}

const HEX = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));
export function toHex(bytes) {
  let out = "";
  for (const b of bytes) out += HEX[b];
  return out;
}

/** A u64 as 16 hex digits, most significant first. @param {bigint} x */
export const hex64 = (x) => x.toString(16).padStart(16, "0");

/** u64 little-endian at offset, as a number; exact below 2^53, and Infinity above. */
export function readU64(bytes, at) {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  const high = view.getUint32(4, true);
  return high >= 0x200000 ? Infinity : high * 2 ** 32 + view.getUint32(0, true);
}

export function equalBytes(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
