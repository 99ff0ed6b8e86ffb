/** The digest of an object in hex, by the platform where it has one (browsers: in secure contexts only). */
import { toHex } from "./bytes.js";
import { sha256 } from "./sha256.js";

/** @param {Uint8Array} bytes @returns {Promise<string>} 64 hex digits */
export async function webDigest(bytes) {
  const subtle = globalThis.crypto?.subtle;
  return toHex(subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : sha256(bytes));
}
