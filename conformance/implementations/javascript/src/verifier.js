/**
 * The Verifier: every manifest and shortcut of a chain, with all that they name, the contents of packs included
 * [TD-ERR-002], [TD-ERR-003]. It changes nothing.
 */
import { Budget } from "./budget.js";
import { Objects } from "./objects.js";
import { EMPTY, applyEdge, checkEdgeForm } from "./edge.js";
import { FEATURES } from "./manifest.js";
import { fingerprintsName, manifestName } from "./names.js";
import { hex64 } from "./bytes.js";
import { residentBytes } from "./state.js";
import { Rejection, reject } from "./errors.js";
import { DEFAULT_MEMORY } from "./reader.js";

class Verifier {
  constructor(store, options) {
    this.budget = new Budget(options.memory ?? DEFAULT_MEMORY);
    this.objects = new Objects(store, this.budget, options);
    this.features = options.features ?? FEATURES;
    this.progress = options.progress ?? (() => {});
    this.proven = options.proven ?? (() => {});
    /** @type {Map<string, Rejection>} by error and object: one fault is one fault, however often it is met */
    this.faults = new Map();
    /** States of versions from which edges start that are still to be checked. */
    this.states = new Map();
  }

  /**
   * Runs a check.
   * @param {Rejection[]} [gone] takes packs that do not exist, which are a fault only if nothing else leads there
   * @returns the value, or undefined after a rejection, which becomes a fault
   */
  async check(work, gone) {
    this.budget.reset(this.objects.resident + residentBytes(this.states.values()));
    try {
      return await work();
    } catch (e) {
      if (!(e instanceof Rejection)) throw e;
      if (gone && e.error === "missing" && e.object.startsWith("packs/")) gone.push(e);
      else this.fault(e);
      return undefined;
    }
  }

  fault(rejection) {
    const key = `${rejection.error} ${rejection.object}`;
    if (!this.faults.has(key)) this.faults.set(key, rejection);
  }

  async run(pin) {
    const { objects } = this;
    const chain = await this.check(() => objects.chain(pin));
    if (!chain) return;
    const versions = (await this.check(() => objects.versions())) ?? [];
    const shortcuts = (await this.check(() => objects.shortcuts())) ?? [];
    const edges = new Map(versions.map((v) => [v, []]));
    for (const version of versions) {
      const own = await this.check(() => objects.manifest(version));
      if (own) edges.get(version).push(own);
    }
    for (const shortcut of shortcuts) {
      const edge = await this.check(() => objects.shortcut(shortcut));
      // A shortcut to a version that does not exist is not used; nothing can be said about it but its form.
      if (edge && edges.has(shortcut.version)) edges.get(shortcut.version).push(edge);
    }
    /** How many edges still need the state of a version. */
    const uses = new Map();
    for (const list of edges.values()) {
      for (const { base } of list) if (base) uses.set(base.version, (uses.get(base.version) ?? 0) + 1);
    }
    for (const version of versions) {
      this.progress(version);
      await this.version(version, edges.get(version), edges);
      for (const { base } of edges.get(version)) {
        if (!base) continue;
        uses.set(base.version, uses.get(base.version) - 1);
        if (uses.get(base.version) === 0) this.states.delete(base.version);
      }
      if (!uses.get(version)) this.states.delete(version);
    }
  }

  /** @param {Map<number, object[]>} versions those that exist */
  async version(version, edges, versions) {
    const { objects, features } = this;
    const { value: own } = await objects.tryManifest(version);
    let sound = null;
    const gone = [];
    for (const edge of edges) {
      const counts = own && edge.layout === own.layout && edge.fingerprint === own.fingerprint;
      const fits = await this.check(async () => {
        if (own) agree(edge, own);
        await this.agreesWithBase(edge, versions);
        return true;
      });
      const from = edge.base ? this.states.get(edge.base.version) : EMPTY;
      // Of an edge that is rejected for what it says of other versions, the packs are checked all the same.
      const state = await this.check(async () => {
        if (fits && from) return applyEdge(objects, edge, from, { features });
        await checkEdgeForm(objects, edge, features);
        return null;
      }, gone);
      if (state && counts) {
        sound ??= state;
        this.states.set(version, sound);
      }
      // Of a shortcut that does not count, the sum says nothing.
      if (edge.tensorFingerprints !== null && (counts || edge === own)) {
        await this.check(() => this.fingerprints(edge, counts ? sound : null));
      }
      // A shortcut's files mean nothing (section 4.10).
      if (edge === own) for (const file of edge.files) await this.check(() => objects.file(file));
    }
    // Retention may take the packs of an edge while another leads to its version (section 13).
    if (sound) this.proven(version);
    else gone.forEach((rejection) => this.fault(rejection));
    if (own && !sound && own.base && !versions.has(own.base.version)) {
      await this.check(() => reject("missing", "TD-RTE-006", manifestName(version),
        `no route leads to version ${version}: version ${own.base.version} does not exist`));
    }
  }

  /** [TD-RTE-002] */
  async agreesWithBase({ object, base }, versions) {
    if (!base || !versions.has(base.version)) return;
    const { value } = await this.objects.tryManifest(base.version);
    if (value && (value.layout !== base.layout || value.fingerprint !== base.fingerprint)) {
      reject("wrong-base", "TD-RTE-002", object, `base disagrees with ${value.object}`);
    }
  }

  async fingerprints(edge, state) {
    const layout = await this.objects.layout(edge.layout);
    const sums = await this.objects.fingerprints(edge, layout);
    if (!state) return;
    layout.tensors.forEach(({ name }, i) => {
      const { fingerprint } = state.tensors.get(name);
      if (fingerprint !== sums[i]) {
        reject("integrity", "TD-RDR-012", fingerprintsName(edge.tensorFingerprints),
          `${name} has fingerprint ${hex64(fingerprint)}, and the object ${hex64(sums[i])}`);
      }
    });
  }
}

/** [TD-MAN-025] */
function agree(shortcut, own) {
  if (shortcut.layout !== own.layout) reject("conflict", "TD-MAN-025", shortcut.object, `layout differs from ${own.object}`);
  if (shortcut.fingerprint !== own.fingerprint) {
    reject("conflict", "TD-MAN-025", shortcut.object, `fingerprint differs from ${own.object}`);
  }
}

/**
 * Checks all objects of a chain.
 * @param {import("./store.js").Store} store
 * @param {{memory?: number, pin?: string, digest?: Function, places?: object[], sources?: object,
 *   progress?: (version: number) => void, proven?: (version: number) => void}} [options]
 *   progress: called before a version is checked; proven: called after it, where its packs lead to its fingerprint
 * @returns {Promise<Rejection[]>} the faults; none for a sound chain
 */
export async function verify(store, options = {}) {
  const verifier = new Verifier(store, options);
  await verifier.run(options.pin ?? null);
  return [...verifier.faults.values()];
}
