/** Where nothing is listed: the names that a listing would have, from the version that the hint names downwards. */
import { Budget } from "./budget.js";
import { Objects } from "./objects.js";
import { DEFAULT_MEMORY } from "./reader.js";
import { StoreFailure } from "./store.js";
import { LATEST, manifestName } from "./names.js";
import { reject } from "./errors.js";

/**
 * Asks for one version after the other, by get alone. Below a version that is absent it goes on with the base of the last
 * one found. What no version names is not found: other shortcuts than the hint's, and versions below a gap before a full
 * version.
 * @param {import("./store.js").Store} store
 * @param {{most?: number, memory?: number, progress?: (found: number, version: number) => void}} [options]
 *   most: after so many versions it stops
 * @returns {Promise<{names: string[], newest: number, more: boolean}>} names of manifests and shortcuts; more: it stopped early
 */
export async function namesFromHint(store, { most = 1000, progress = () => {}, ...options } = {}) {
  const objects = new Objects(store, new Budget(options.memory ?? DEFAULT_MEMORY), options);
  await objects.chain();
  const hint = await objects.hint();
  if (hint === null) reject("missing", "TD-OBJ-018", LATEST, "there is no hint that says which version is the newest");
  const names = [];
  let base = null;
  let version = hint.version;
  while (version !== null && version >= 0 && names.length < most) {
    const { value, error } = await manifestOrNone(objects, version, version === hint.version);
    if (!value && (!error || error.error === "missing")) {
      version = base !== null && base < version ? base : null;
      continue;
    }
    names.push(manifestName(version));
    progress(names.length, version);
    if (value) base = value.base ? value.base.version : null;
    version -= 1;
  }
  const more = version !== null && version >= 0;
  for (const stem of hint.shortcuts) {
    const name = `shortcuts/${stem}.json`;
    if (await isThere(store, name)) names.push(name);
  }
  return { names, newest: hint.version, more };
}

/** Any version but the newest may be absent, and some servers refuse what is absent. */
async function manifestOrNone(objects, version, newest) {
  try {
    return await objects.tryManifest(version);
  } catch (e) {
    if (newest || !(e instanceof StoreFailure) || e.status !== 403) throw e;
    return {};
  }
}

/** [TD-FOL-006]: a name of the hint is one to try, whatever the store answers. */
async function isThere(store, name) {
  try {
    return await store.get(name) !== null;
  } catch (e) {
    if (!(e instanceof StoreFailure)) throw e;
    return false;
  }
}
