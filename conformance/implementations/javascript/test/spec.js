/** What SPEC.md itself offers as tests: the bytes of appendix A and the marked examples. */
import { readFileSync } from "node:fs";

const TEXT = readFileSync(new URL("../../../../SPEC.md", import.meta.url), "utf8");

/** @returns {Map<string, Uint8Array>} the chain of appendix A */
export function appendix() {
  const out = new Map();
  for (const [, name, hex] of TEXT.matchAll(/<!-- bytes: (\S+) -->\s*```hex\n([^`]*)```/g)) {
    out.set(name, new Uint8Array(Buffer.from(hex.replace(/\s+/g, ""), "hex")));
  }
  return out;
}

/** @returns {string[]} the names of the packs of a manifest or shortcut of appendix A */
export const packsOf = (name) => JSON.parse(Buffer.from(appendix().get(name))).packs.map((pack) => pack.path);

/** @returns {{kind: string, valid: boolean, error: string|undefined, text: string}[]} */
export function examples() {
  return [...TEXT.matchAll(/<!-- example: (\S+) (valid|invalid)(?: (\S+))? -->\s*```json\n([^`]*)```/g)]
    .map(([, kind, valid, error, text]) => ({ kind, valid: valid === "valid", error, text }));
}
