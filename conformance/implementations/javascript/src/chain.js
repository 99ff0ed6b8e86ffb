/** The chain object (section 4.5) and the hint (section 4.11). */
import { parseJson } from "./json.js";
import { annotations, array, checkFormat, integer, optional, required, string, time, uuid, version } from "./fields.js";
import { LIMIT } from "./limits.js";
import { reject } from "./errors.js";
import { CHAIN, LATEST } from "./names.js";

function grace(value, where, object) {
  const seconds = integer(value, where, object);
  if (seconds < 60 || seconds > 2 ** 32) reject("malformed", "TD-OBJ-015", object, `${where} is ${seconds}`);
  return seconds;
}

/** @param {Uint8Array} bytes */
export function parseChain(bytes, budget) {
  const map = parseJson(bytes, CHAIN, budget);
  checkFormat(map, CHAIN);
  return {
    chain: required(map, "chain", uuid, CHAIN),
    created: required(map, "created", time, CHAIN),
    grace: optional(map, "grace", grace, CHAIN, 86400),
    annotations: optional(map, "annotations", annotations, CHAIN, {}),
  };
}

const STEM = /^[0-9]{12}-([0-9]{12}|full)(\.[a-z0-9]{1,16})?$/;

/** @param {Uint8Array} bytes @param {string} [chain] the chain id that it has to name */
export function parseLatest(bytes, chain, budget) {
  const map = parseJson(bytes, LATEST, budget);
  checkFormat(map, LATEST);
  const id = required(map, "chain", uuid, LATEST);
  const number = required(map, "version", version, LATEST);
  const shortcuts = optional(map, "shortcuts", array, LATEST, []);
  shortcuts.forEach((stem, i) => {
    if (!STEM.test(string(stem, `shortcuts[${i}]`, LATEST))) {
      reject("malformed", "TD-OBJ-018", LATEST, `shortcuts[${i}] is no name of a shortcut`);
    }
  });
  if (shortcuts.length > LIMIT.hinted) reject("limit", "TD-LIM-004", LATEST, `more than ${LIMIT.hinted} shortcuts`);
  if (chain !== undefined && id !== chain) reject("conflict", "TD-OBJ-018", LATEST, `chain is ${id}, and chain.json's ${chain}`);
  return { chain: id, version: number, shortcuts };
}
