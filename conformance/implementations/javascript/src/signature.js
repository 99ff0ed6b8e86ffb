/** Signatures (section 14): which objects at least so many of the user's keys have signed. */
import { checkFormat, matching, required } from "./fields.js";
import { parseJson } from "./json.js";
import { toHex, toUtf8 } from "./bytes.js";
import { webDigest } from "./digest.js";
import { sha256 } from "./sha256.js";

/** The algorithm's name in the Web Crypto API. */
const ALGORITHM = "Ed25519";
const KEY = /^[0-9a-f]{64}$/;
// The last digit has four unused bits, which are zero.
const BASE64_OF_64_BYTES = /^[A-Za-z0-9+/]{85}[AQgw]==$/;

/**
 * Whether a signature over a message is that of a key, by the platform. Rejects where it has no Ed25519: then nothing is
 * known about the signature.
 * @param {Uint8Array} key 32 bytes @param {Uint8Array} signature 64 bytes @param {Uint8Array} message
 * @returns {Promise<boolean>}
 */
export async function webVerify(key, signature, message) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) throw new Error("this place has no crypto.subtle (pages: over https or from this machine), so signatures cannot be verified");
  const imported = await subtle.importKey("raw", key, ALGORITHM, false, ["verify"]);
  return subtle.verify(ALGORITHM, imported, signature, message);
}

/** The bytes that are signed. @param {string} name of the object @param {Uint8Array} bytes as stored */
export function message(name, bytes) {
  const head = toUtf8(`tensordelta:${name}\n`);
  const out = new Uint8Array(head.length + bytes.length);
  out.set(head);
  out.set(bytes, head.length);
  return out;
}

/** @param {Uint8Array} key 32 bytes */
export const keyId = (key) => toHex(sha256(key)).slice(0, 16);

/** @param {string} digest of the message, in hex @param {string} id of the key */
export const signatureName = (digest, id) => `signatures/${digest}-${id}.json`;

/** @param {Uint8Array} bytes of a signature object @returns {Uint8Array} the 64 bytes of the signature */
export function parseSignature(bytes, name, budget) {
  const map = parseJson(bytes, name, budget);
  checkFormat(map, name);
  const text = required(map, "sig", matching(BASE64_OF_64_BYTES, "base64 of 64 bytes"), name);
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** The keys that a user trusts, and how many of them must have signed. */
export class Keys {
  /**
   * @param {string[]} keys public keys, 64 hex digits each; one that is given twice counts once
   * @param {{threshold?: number, verify?: typeof webVerify, digest?: (bytes: Uint8Array) => Promise<string>}} [options]
   */
  constructor(keys, { threshold = 1, verify = webVerify, digest = webDigest } = {}) {
    const wrong = keys.find((key) => !KEY.test(key));
    if (wrong !== undefined) throw new TypeError(`${wrong} is no public key: 64 hex digits in lower case`);
    if (!Number.isSafeInteger(threshold) || threshold < 1) throw new RangeError(`${threshold} is no number of keys`);
    this.keys = [...new Set(keys)].map((hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16)));
    this.threshold = threshold;
    this.verify = verify;
    this.digest = digest;
  }

  /**
   * [TD-SIG-011] Asks for one signature object a key, until enough verify or too few are left.
   * @param {string} name of the object, also where the bytes are those of a copy under `retired/`
   * @param {Uint8Array} bytes
   * @param {(name: string) => Promise<Uint8Array|null>} signature gives the signature in an object; null for one that is
   *   absent or breaks a rule
   * @returns {Promise<boolean>}
   */
  async signed(name, bytes, signature) {
    const signedBytes = message(name, bytes);
    const digest = await this.digest(signedBytes);
    let missing = this.threshold;
    for (const [i, key] of this.keys.entries()) {
      if (this.keys.length - i < missing) return false;
      const found = await signature(signatureName(digest, keyId(key)));
      if (found && await this.verify(key, found, signedBytes)) missing--;
      if (missing === 0) return true;
    }
    return false;
  }
}
