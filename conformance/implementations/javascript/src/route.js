/**
 * Planning (section 10): a least-cost path from what is held, or from nothing, to the target.
 *
 * Dijkstra's algorithm backwards from the target, so that only manifests are read that can be part of the route. The
 * state held is a node of its own next to the version that it may be a copy of.
 */
import { isHeldLayout } from "./edge.js";
import { Rejection, reject } from "./errors.js";
import { CHAIN, manifestName } from "./names.js";

const NOTHING = "nothing";
const HELD = "held";
/** So many of the highest manifests may be without signature before the reader gives up. */
const MOST_UNSIGNED = 64;

/** @typedef {import("./manifest.js").Manifest} Edge */

const before = (a, b) => a.cost < b.cost || (a.cost === b.cost && a.edges < b.edges);

/** A binary heap. */
class Queue {
  constructor() {
    this.items = [];
  }

  push(item) {
    const { items } = this;
    let i = items.push(item) - 1;
    while (i > 0 && before(items[i], items[(i - 1) >> 1])) {
      const parent = (i - 1) >> 1;
      [items[i], items[parent]] = [items[parent], items[i]];
      i = parent;
    }
  }

  pop() {
    const { items } = this;
    const top = items[0];
    const last = items.pop();
    if (items.length > 0) {
      items[0] = last;
      for (let i = 0; ; ) {
        let least = i;
        for (const child of [2 * i + 1, 2 * i + 2]) {
          if (child < items.length && before(items[child], items[least])) least = child;
        }
        if (least === i) break;
        [items[i], items[least]] = [items[least], items[i]];
        i = least;
      }
    }
    return top;
  }
}

export class Planner {
  /**
   * @param {import("./objects.js").Objects} objects
   * @param {number[]} versions whose manifests exist
   * @param {import("./state.js").State|null} held
   */
  constructor(objects, versions, shortcuts, held) {
    this.objects = objects;
    this.versions = new Set(versions);
    this.held = held;
    /** Names of edges that have failed. */
    this.failed = new Set();
    /** Edges and nodes that could not be read while planning, in the order in which they were met. */
    this.unreadable = new Map();
    this.shortcuts = new Map();
    for (const shortcut of shortcuts) {
      const list = this.shortcuts.get(shortcut.version);
      if (list) list.push(shortcut);
      else this.shortcuts.set(shortcut.version, [shortcut]);
    }
  }

  /** The highest version; with keys the highest signed one [TD-SIG-015]. */
  async newest() {
    if (this.versions.size === 0) reject("missing", "TD-OBJ-008", CHAIN, "the chain has no version");
    const { objects } = this;
    const descending = [...this.versions].sort((a, b) => b - a);
    if (objects.keys === null) return descending[0];
    for (const version of descending.slice(0, MOST_UNSIGNED)) {
      await objects.tryManifest(version);
      if (!objects.unsigned.has(manifestName(version))) return version;
    }
    return reject("untrusted", "TD-SIG-015", manifestName(descending[0]), "neither it nor a version before it is signed");
  }

  async exists(version) {
    return this.versions.has(version);
  }

  noteUnreadable(object, error) {
    if (!this.unreadable.has(object) && !this.objects.unsigned.has(object)) this.unreadable.set(object, error);
  }

  /** The edges that lead to a version: its manifest, and the shortcuts that count. @returns {Promise<Edge[]>} */
  async edgesTo(version) {
    const { value: own, error } = await this.objects.tryManifest(version);
    if (error) {
      this.noteUnreadable(error.object, error);
      return [];
    }
    const edges = [own];
    for (const shortcut of this.shortcuts.get(version) ?? []) {
      const { value, error: broken } = await this.objects.tryShortcut(shortcut);
      if (broken) this.noteUnreadable(shortcut.object, broken);
      else if (value.layout === own.layout && value.fingerprint === own.fingerprint) edges.push(value);
    }
    return edges.filter((edge) => !this.failed.has(edge.object));
  }

  async startsAtHeld({ base }) {
    const { held } = this;
    if (!held || !base) return false;
    if (held.version === base.version) return true;
    // Of a part the fingerprint of the whole is not known.
    if (held.part || held.fingerprint !== base.fingerprint) return false;
    try {
      return await isHeldLayout(this.objects, base.layout, held);
    } catch (e) {
      if (e instanceof Rejection) return false; // a layout that cannot be read counts as different here
      throw e;
    }
  }

  /** @returns {Promise<Edge[]|null>} the edges in the order in which they are followed */
  async route(target) {
    const queue = new Queue();
    const done = new Set();
    queue.push({ node: target, cost: 0n, edges: 0, first: null });
    while (queue.items.length > 0) {
      const step = queue.pop();
      if (done.has(step.node)) continue;
      done.add(step.node);
      if (step.node === NOTHING || step.node === HELD) {
        const route = [];
        for (let link = step.first; link; link = link.next) route.push(link.edge);
        return route;
      }
      for (const edge of await this.edgesTo(step.node)) {
        const next = { cost: step.cost + edge.cost, edges: step.edges + 1, first: { edge, next: step.first } };
        const reach = (node) => {
          if (!done.has(node)) queue.push({ ...next, node });
        };
        if (!edge.base) {
          reach(NOTHING);
          continue;
        }
        if (this.versions.has(edge.base.version)) reach(edge.base.version);
        if (await this.startsAtHeld(edge)) reach(HELD);
      }
    }
    return null;
  }

  /**
   * [TD-RTE-002]: an edge and its base version's own manifest say the same about the base. A manifest that does not exist
   * or cannot be read says nothing.
   */
  async checkAgainstBase(edge) {
    if (!edge.base || !this.versions.has(edge.base.version)) return;
    const { value } = await this.objects.tryManifest(edge.base.version);
    if (value && (value.layout !== edge.base.layout || value.fingerprint !== edge.base.fingerprint)) {
      reject("wrong-base", "TD-RTE-002", edge.object, `base disagrees with ${value.object}`);
    }
  }
}
