/** The Reader (section 9): prepare, apply, undo, for whole states and for parts. */
import { Budget } from "./budget.js";
import { Objects } from "./objects.js";
import { Planner } from "./route.js";
import { Trail } from "./trail.js";
import { EMPTY, applyEdge, isHeldLayout } from "./edge.js";
import { residentBytes } from "./state.js";
import { checkFeatures, FEATURES } from "./manifest.js";
import { LIMIT } from "./limits.js";
import { Rejection, reject } from "./errors.js";
import { CHAIN, manifestName, manifestVersion } from "./names.js";
import { checkAge, checkRecord, recordOf } from "./record.js";

export const DEFAULT_MEMORY = 2 ** 30;

/**
 * An update that is checked and not applied.
 * @typedef {{from: import("./state.js").State|null, to: import("./state.js").State, route: string[],
 *   record: import("./record.js").Record, before: import("./record.js").Record|null}} Prepared
 */
export class Reader {
  /**
   * @param {import("./store.js").Store} store
   * @param {object} [options]
   * @param {import("./state.js").State|null} [options.held] what is held when the Reader begins
   * @param {string[]|null} [options.tensors] hold these tensors only
   * @param {number} [options.memory] the budget in bytes
   * @param {string|null} [options.pin] the chain id to insist on; else the first one read is remembered
   * @param {Function} [options.digest] see objects.js, as for `places` and `sources`
   * @param {string[]} [options.keys] public keys that the user trusts, 64 hex digits each (section 14); none unless given
   * @param {number} [options.threshold] how many of them must have signed; 1 unless given
   * @param {Function} [options.verifySignature] see signature.js; by the platform unless given
   * @param {import("./record.js").Record|null} [options.record] of what was held before
   * @param {boolean} [options.back] whether, with keys, it may go back to a version before that
   * @param {number} [options.maxAge] how many seconds old the newest version may be
   * @param {string[]} [options.features] the features to know; all that this program knows unless given
   * @param {number} [options.attempts] after so many failed edges no other route is looked for
   */
  constructor(store, options = {}) {
    this.store = store;
    this.options = options;
    this.only = options.tensors ? new Set(options.tensors) : null;
    this.held = options.held ? options.held.restricted(this.only) : null;
    this.record = options.record ?? recordOf(this.held);
    this.pinned = options.pin ?? null;
    this.budget = new Budget(options.memory ?? DEFAULT_MEMORY);
    this.features = options.features ?? FEATURES;
    this.attempts = options.attempts ?? 1000;
  }

  async open() {
    this.budget.reset(residentBytes([this.held]));
    const objects = new Objects(this.store, this.budget, this.options);
    const { chain } = await objects.chain(this.pinned);
    this.pinned = chain;
    return objects;
  }

  /** Brings what is held to a version. @param {number|null} to null: the newest */
  async read(to = null) {
    const prepared = await this.prepare(to);
    this.apply(prepared);
    return prepared;
  }

  /**
   * Steps 1 to 11. What is held stays as it is.
   * @param {number|null} to
   * @param {Set<string>} [failed] names of edges to leave out; those that fail are added
   * @returns {Promise<Prepared>}
   */
  async prepare(to = null, failed = new Set()) {
    const objects = await this.open();
    const planner = await this.planner(objects);
    planner.failed = failed;
    const newest = to === null;
    to ??= await planner.newest();
    await this.checkTarget(objects, planner, to, newest);
    const { held } = this;
    if (await this.isThere(objects, to)) return this.prepared(objects, to, held.version === to ? held : held.named(to), []);
    let first = null;
    /** How far the last attempt came: the edges and the state after them. */
    let progress = { names: [], state: null };
    for (;;) {
      const route = planner.failed.size < this.attempts ? await planner.route(to) : null;
      if (!route) throw first ?? this.noRoute(planner, await objects.tryManifest(to), to);
      const names = route.map((edge) => edge.object);
      let edge = null;
      try {
        for (edge of route) {
          checkFeatures(edge, this.features);
          await planner.checkAgainstBase(edge);
        }
        const keep = progress.names.length <= names.length && progress.names.every((name, i) => name === names[i]);
        if (!keep) progress = { names: [], state: null };
        this.budget.reset(objects.resident + residentBytes([held, progress.state]));
        for (edge of route.slice(progress.names.length)) {
          const state = await this.follow(objects, edge, progress.state ?? held);
          progress = { names: [...progress.names, edge.object], state };
          this.budget.reset(objects.resident + residentBytes([held, state]));
        }
        return await this.prepared(objects, to, progress.state, route);
      } catch (e) {
        if (!(e instanceof Rejection)) throw e;
        first ??= e;
        planner.failed.add(edge.object);
      }
    }
  }

  /** One edge. @param {import("./state.js").State|null} state that it starts from, unless it starts from nothing */
  async follow(objects, edge, state) {
    return applyEdge(objects, edge, state ?? EMPTY, { features: this.features, only: this.only });
  }

  /**
   * @param {import("./state.js").State} state the version, or the part of it
   * @param {import("./manifest.js").Manifest[]} edges of the route
   * @returns {Promise<Prepared>}
   */
  async prepared(objects, version, state, edges) {
    const manifest = await objects.manifest(version);
    const layout = state.part ? await objects.layout(manifest.layout) : state.layout;
    const record = { chain: objects.id, version, layout, fingerprint: manifest.fingerprint };
    return { from: this.held, to: state, route: edges.map(({ object }) => object), record, before: this.record };
  }

  /** What is checked of the version to read, whatever route leads there. */
  async checkTarget(objects, planner, to, newest) {
    const number = Number.isSafeInteger(to) && to >= 0 && to <= LIMIT.version;
    if (!number || !await planner.exists(to)) {
      // It was asked for, so that a missing signature is no absence [TD-SIG-012].
      if (objects.unsigned.has(manifestName(to))) await objects.manifest(to);
      reject("missing", "TD-OBJ-008", CHAIN, `there is no version ${to}`);
    }
    if (objects.keys) await checkRecord(objects, this.record, to, this.options.back ?? false);
    if (!newest || this.options.maxAge === undefined) return;
    const { value: manifest } = await objects.tryManifest(to);
    if (manifest) checkAge(manifest, this.options.maxAge, Date.now());
  }

  /** What finds routes: over a listing, or by the hint where there is none. */
  async planner(objects) {
    if (this.store.lists === false) return Trail.of(objects, this.held, this.features);
    return new Planner(objects, await objects.versions(), await this.shortcuts(objects), this.held);
  }

  /** A folder of shortcuts that leads out of the root is taken for empty (section 12.2): shortcuts only save work. */
  async shortcuts(objects) {
    try {
      return await objects.shortcuts();
    } catch (e) {
      if (e instanceof Rejection && e.error === "untrusted") return [];
      throw e;
    }
  }

  /** [TD-RTE-008] @returns {Promise<boolean>} whether what is held is the target already */
  async isThere(objects, to) {
    const { held } = this;
    if (!held) return false;
    const { value: manifest } = await objects.tryManifest(to);
    if (!manifest) return false;
    try {
      if (!this.only) {
        return held.fingerprint === manifest.fingerprint && await isHeldLayout(objects, manifest.layout, held);
      }
      if (manifest.tensorFingerprints === null) return false;
      const layout = await objects.layout(manifest.layout);
      const sums = await objects.fingerprints(manifest, layout);
      let count = 0;
      for (const [i, entry] of layout.tensors.entries()) {
        if (!this.only.has(entry.name)) continue;
        const tensor = held.tensors.get(entry.name);
        if (!tensor || !tensor.entry.sameType(entry) || tensor.fingerprint !== sums[i]) return false;
        count++;
      }
      return count === held.tensors.size;
    } catch (e) {
      if (e instanceof Rejection) return false;
      throw e;
    }
  }

  /** No edge has failed: the error of a manifest on the way that cannot be read, or missing [TD-RTE-006]. */
  noRoute(planner, { error }, to) {
    if (error) return error;
    // A manifest that is gone is no manifest that cannot be read.
    const broken = [...planner.unreadable.values()]
      .find((e) => manifestVersion(e.object) !== null && e.error !== "missing");
    return broken ?? new Rejection("missing", "TD-RTE-006", manifestName(to), `no route leads to version ${to}`);
  }

  /** Step 12: all of a prepared update, or none. */
  apply(prepared) {
    const same = prepared.from === null || this.held === null
      ? prepared.from === this.held : this.held.equals(prepared.from);
    if (!same) reject("wrong-base", "TD-APP-001", CHAIN, "the update was prepared for another state");
    this.held = prepared.to;
    this.record = prepared.record;
  }

  /** Takes an applied update back. */
  undo(prepared) {
    if (!this.held || !this.held.equals(prepared.to)) {
      reject("wrong-base", "TD-APP-001", CHAIN, "the state held is not the one that the update made");
    }
    this.held = prepared.from;
    this.record = prepared.before;
  }

  /** The files of a version, from its own manifest [TD-MAN-023]. */
  async files(version) {
    const objects = await this.open();
    const manifest = await objects.manifest(version);
    return { files: manifest.files, get: (file) => objects.file(file) };
  }
}
