/** What a person wants to see of a chain at a glance. */
import { Budget } from "./budget.js";
import { Objects } from "./objects.js";
import { DEFAULT_MEMORY } from "./reader.js";
import { Rejection } from "./errors.js";
import { changedWords } from "./pack.js";
import { checkFeatures, FEATURES } from "./manifest.js";

/**
 * The edges of a chain: its versions' own manifests and its shortcuts. No pack is read.
 * @param {import("./store.js").Store} store
 * @param {{memory?: number, keys?: string[], progress?: (done: number, all: number) => void}} [options]
 * @returns {Promise<{chain: string, created: string, annotations: object, edges: {object: string, version: number,
 *   shortcut: boolean, manifest?: import("./manifest.js").Manifest, layout?: import("./layout.js").Layout,
 *   error?: import("./errors.js").Rejection}[]}>} layout: of the manifest, where it can be read
 */
export async function overview(store, options = {}) {
  const progress = options.progress ?? (() => {});
  const objects = new Objects(store, new Budget(options.memory ?? DEFAULT_MEMORY), options);
  const { chain, created, annotations } = await objects.chain();
  const edges = [];
  const versions = await objects.versions();
  const shortcuts = await objects.shortcuts();
  const all = versions.length + shortcuts.length;
  const add = async (object, version, shortcut, { value: manifest, error }) => {
    edges.push({ object, version, shortcut, manifest, layout: manifest && await layoutOf(objects, manifest), error });
    progress(edges.length, all);
  };
  for (const version of versions) {
    const known = await objects.tryManifest(version);
    await add((known.value ?? known.error).object, version, false, known);
  }
  for (const shortcut of shortcuts) await add(shortcut.object, shortcut.version, true, await objects.tryShortcut(shortcut));
  edges.sort((a, b) => a.version - b.version || a.shortcut - b.shortcut);
  return { chain, created, annotations, edges };
}

async function layoutOf(objects, manifest) {
  try {
    return await objects.layout(manifest.layout);
  } catch (e) {
    if (!(e instanceof Rejection)) throw e;
    return undefined;
  }
}

/**
 * How many words of each tensor edges change, one edge after the other: from the positions in their packs, without any
 * state. Sizes and digests of the packs are checked, values are not decoded.
 * @param {import("./store.js").Store} store
 * @param {Iterable<{manifest: import("./manifest.js").Manifest, layout: import("./layout.js").Layout}>} edges
 * @param {{memory?: number}} [options]
 * @yields {{manifest: import("./manifest.js").Manifest, changed?: Map<number, number>, exact?: boolean, error?: Rejection}}
 *   changed: by tensor index, a tensor without changed words is absent; exact: false where only a Reader with the base
 *   state could say which of several tensors a word belongs to (order exponent), and they are spread by size
 */
export async function* changes(store, edges, options = {}) {
  const budget = new Budget(options.memory ?? DEFAULT_MEMORY);
  const objects = new Objects(store, budget, options);
  for (const { manifest, layout } of edges) {
    const changed = new Map();
    let exact = true;
    budget.reset(0);
    try {
      checkFeatures(manifest, FEATURES);
      for (const pack of manifest.packs) {
        const mark = budget.mark();
        const found = await changedWords(await objects.pack(pack, manifest), pack, manifest, layout, budget, objects.breathe);
        for (const [tensor, count] of found.changed) changed.set(tensor, (changed.get(tensor) ?? 0) + count);
        exact &&= found.exact;
        budget.back(mark);
      }
    } catch (e) {
      if (!(e instanceof Rejection)) throw e;
      yield { manifest, error: e };
      continue;
    }
    yield { manifest, changed, exact };
  }
}
