/** What a person wants to see of a chain at a glance. Nothing but chain.json, manifests and shortcuts is read. */
import { Budget } from "./budget.js";
import { Objects } from "./objects.js";
import { DEFAULT_MEMORY } from "./reader.js";

/**
 * @param {import("./store.js").Store} store
 * @returns {Promise<{chain: string, created: string, annotations: object, edges: {object: string, version: number,
 *   shortcut: boolean, manifest?: import("./manifest.js").Manifest, error?: import("./errors.js").Rejection}[]}>}
 */
export async function overview(store, options = {}) {
  const objects = new Objects(store, new Budget(options.memory ?? DEFAULT_MEMORY), options);
  const { chain, created, annotations } = await objects.chain();
  const edges = [];
  for (const version of await objects.versions()) {
    const { value, error } = await objects.tryManifest(version);
    edges.push({ object: (value ?? error).object, version, shortcut: false, manifest: value, error });
  }
  for (const shortcut of await objects.shortcuts()) {
    const { value, error } = await objects.tryShortcut(shortcut);
    edges.push({ object: shortcut.object, version: shortcut.version, shortcut: true, manifest: value, error });
  }
  edges.sort((a, b) => a.version - b.version || a.shortcut - b.shortcut);
  return { chain, created, annotations, edges };
}
