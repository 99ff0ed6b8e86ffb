/**
 * The seven numbers of section 9.5, which the holders of a group add up before anyone applies. A BigUint64Array: it can
 * be posted to another thread as it is.
 */
import { hex64 } from "./bytes.js";
import { reject } from "./errors.js";

/** The rows of the table, from 0. */
export const ROW = Object.freeze({ holders: 0, sound: 1, update: 2, listed: 3, results: 4, change: 5, replicas: 6 });

/** The group did not do the same thing: no error of the format, and its holders may prepare again. */
export class GroupFailure extends Error {
  constructor(message) {
    super(message);
    this.name = "GroupFailure";
  }
}

/** The totals, modulo 2^64. @param {BigUint64Array[]} parts one of each holder, all of the same length */
export function total(parts) {
  const out = new BigUint64Array(parts[0].length);
  for (const part of parts) part.forEach((x, i) => (out[i] += x));
  return out;
}

/** Whether all holders are there, sound, and at the same update. @param {BigUint64Array} totals @param {bigint} update */
export function together(totals, holders, update) {
  const n = BigInt(holders);
  return totals[ROW.holders] === n && totals[ROW.sound] === n && totals[ROW.update] === BigInt.asUintN(64, n * update);
}

/**
 * [TD-SLC-001] Throws unless the totals are right.
 * @param {BigUint64Array} totals
 * @param {{holders: number, update: bigint, change: bigint, object: string, full: boolean}} want  update: what each holder
 *   has in row 3; change: what row 6 must be; object: the manifest to name; full: the route is one full version
 */
export function judge(totals, { holders, update, change, object, full }) {
  if (!together(totals, holders, update)) {
    throw new GroupFailure(`of ${holders} holders ${totals[ROW.holders]} answered and ${totals[ROW.sound]} are sound, or their routes differ`);
  }
  if (totals[ROW.listed] !== 0n) reject("wrong-base", "TD-SLC-001", object, "listed words have several owners, or none");
  if (totals[ROW.change] !== change) {
    reject("integrity", "TD-RDR-007", object, `the words change by ${hex64(totals[ROW.change])}, and the fingerprint by ${hex64(change)}`);
  }
  if (totals[ROW.results] !== 0n) {
    reject(full ? "integrity" : "wrong-base", "TD-CHK-024", object, "the new words are not those that were written");
  }
  if (totals[ROW.replicas] !== 0n) reject("wrong-base", "TD-SLC-001", object, "a replica differs from its owner's word");
}
