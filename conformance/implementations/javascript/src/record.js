/**
 * What a Reader remembers of the newest version that it has held, so that no store leads it back (section 14). It belongs
 * to the state, also in the hands of the next Reader.
 * @typedef {{chain: string|null, version: number, layout: import("./layout.js").Layout|null, fingerprint: bigint|null}}
 *   Record  chain null: whatever chain is read; layout and fingerprint null: not known
 */
import { isHeldLayout } from "./edge.js";
import { manifestName } from "./names.js";
import { reject } from "./errors.js";

/** The record of a state that says which version it is. @param {import("./state.js").State|null} held @returns {Record|null} */
export function recordOf(held) {
  if (!held || held.version === null) return null;
  const { version, layout, fingerprint, part } = held;
  return { chain: null, version, layout: part ? null : layout, fingerprint: part ? null : fingerprint };
}

/**
 * [TD-SIG-005] and [TD-SIG-006] for the target of a read.
 * @param {import("./objects.js").Objects} objects
 * @param {Record|null} record
 * @param {number} target
 * @param {boolean} back whether the user allows going back
 */
export async function checkRecord(objects, record, target, back) {
  if (record === null || (record.chain !== null && record.chain !== objects.id)) return;
  const object = manifestName(target);
  if (target < record.version && !back) {
    reject("untrusted", "TD-SIG-005", object, `version ${record.version} was held before, and it is newer`);
  }
  if (target !== record.version || record.fingerprint === null) return;
  const { value: manifest } = await objects.tryManifest(target);
  if (!manifest) return;
  if (manifest.fingerprint !== record.fingerprint || !await isHeldLayout(objects, manifest.layout, record)) {
    reject("untrusted", "TD-SIG-006", object, `version ${target} had another layout or fingerprint when it was held`);
  }
}

/**
 * [TD-SIG-008] for the newest version.
 * @param {import("./manifest.js").Manifest} manifest
 * @param {number} seconds the age that the user allows
 * @param {number} now in milliseconds, as Date.now gives it
 */
export function checkAge({ object, created }, seconds, now) {
  const time = Date.parse(created.replace(":60", ":59")); // a leap second
  if (now - time > 1000 * seconds) reject("untrusted", "TD-SIG-008", object, `created ${created}, more than ${seconds} seconds ago`);
}
